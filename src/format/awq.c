#include <string.h>

#include "base/half.h"
#include "format/gptq.h"

/* Outputs 0 to 7 of a word lie in these of its nibbles. */
static const int nibble[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static eqat_status parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    const json_t *bits = json_object_get(q, "bits"), *group = json_object_get(q, "group_size"),
                 *zero = json_object_get(q, "zero_point");
    if (json_integer_value(bits) != 4) return eqi_layout_refuse(ctx, path, "bits", bits, "4");
    if (!json_is_integer(group) ||
        (json_integer_value(group) < 1 && json_integer_value(group) != -1))
        return eqi_layout_refuse(ctx, path, "group_size", group, "a positive number or -1");
    if (json_is_false(zero)) return eqi_layout_refuse(ctx, path, "zero_point", zero, "true");
    out->bits = 4;
    out->group = json_integer_value(group);
    return EQAT_OK;
}

static void describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
{
    (void)source;
    l->q.bits = packing->bits;
    l->q.group = packing->group == -1 ? l->in : packing->group;
}

static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    if (l->q.bits != 4)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %d bits, expected 4 for the format awq",
                        l->name, l->q.bits);
    if (l->in % 32)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %lld inputs, expected a multiple of 32",
                        l->name, (long long)l->in);
    if (l->out % 8)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found %lld outputs, expected a multiple of 8 for the format awq",
                        l->name, (long long)l->out);
    return EQAT_OK;
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int64_t groups = eqi_packed_groups(l), columns = l->out / 8;
    list[0] = eqi_layout_matrix("qweight", EQI_STORED_I32, EQI_ACCEPT_WORDS, l->in, columns);
    list[1] = eqi_layout_matrix("qzeros", EQI_STORED_I32, EQI_ACCEPT_WORDS, groups, columns);
    list[2] = eqi_layout_matrix("scales", EQI_STORED_F16, EQI_ACCEPT_STEPS, groups, l->out);
    return 3;
}

/* Output n of a row of words. */
static uint8_t take(const uint32_t *words, int64_t n)
{
    return words[n / 8] >> 4 * nibble[n % 8] & 15;
}

static void put(uint32_t *words, int64_t n, uint8_t value)
{
    words[n / 8] |= (uint32_t)value << 4 * nibble[n % 8];
}

static eqat_status read_codes(eqi_source *source, const eqi_layout_linear *l, eqi_packed *out)
{
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, "qweight", &raw));
    uint8_t *row = eqi_alloc(source->ctx, (size_t)l->in, "a row of codes");
    for (int64_t n = 0; row && n < l->out; n++) {
        for (int64_t k = 0; k < l->in; k++) row[k] = take(raw + k * (l->out / 8), n);
        eqi_bits_pack(row, 4, l->in, out->codes + n * eqi_packed_words(l));
    }
    eqi_free(source->ctx, row);
    eqi_free(source->ctx, raw);
    return row ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status read_zeros(eqi_source *source, const eqi_layout_linear *l, eqi_packed *out)
{
    int64_t groups = eqi_packed_groups(l);
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, "qzeros", &raw));
    for (int64_t i = 0; i < l->out * groups; i++)
        out->z[i] = take(raw + i % groups * (l->out / 8), i / groups);
    eqi_free(source->ctx, raw);
    return EQAT_OK;
}

static eqat_status read_linear(const eqi_packing *packing, eqi_source *source,
                               const eqi_layout_linear *l, eqi_packed *out)
{
    (void)packing;
    EQI_RETURN_IF(read_codes(source, l, out));
    EQI_RETURN_IF(read_zeros(source, l, out));
    return eqi_gptq_read_scales(source, l, out);
}

static eqat_status write_codes(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                               const eqi_packed *p)
{
    size_t bytes = (size_t)(l->in * (l->out / 8)) * sizeof(uint32_t);
    uint32_t *words = eqi_calloc(ctx, 1, bytes, "packed weights");
    uint8_t *row = words ? eqi_alloc(ctx, (size_t)l->in, "a row of codes") : NULL;
    for (int64_t n = 0; row && n < l->out; n++) {
        eqi_bits_unpack(p->codes + n * eqi_packed_words(l), 4, l->in, row);
        for (int64_t k = 0; k < l->in; k++) put(words + k * (l->out / 8), n, row[k]);
    }
    eqat_status st = row ? eqi_shards_write(out, words, bytes) : EQAT_OUT_OF_MEMORY;
    eqi_free(ctx, words);
    eqi_free(ctx, row);
    return st;
}

static eqat_status write_zeros(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                               const eqi_packed *p)
{
    int64_t groups = eqi_packed_groups(l);
    size_t bytes = (size_t)(groups * (l->out / 8)) * sizeof(uint32_t);
    uint32_t *words = eqi_calloc(ctx, 1, bytes, "zero points");
    if (!words) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < l->out * groups; i++)
        put(words + i % groups * (l->out / 8), i / groups, p->z[i]);
    eqat_status st = eqi_shards_write(out, words, bytes);
    eqi_free(ctx, words);
    return st;
}

static eqat_status write_linear(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                const eqi_packed *p)
{
    EQI_RETURN_IF(write_codes(ctx, out, l, p));
    EQI_RETURN_IF(write_zeros(ctx, out, l, p));
    return eqi_gptq_write_scales(ctx, out, l, p);
}

static json_t *make_config(const eqi_layout_linear *linears, size_t n)
{
    int bits = 0;
    int64_t group = 0;
    eqi_choose_common(linears, n, &bits, &group);
    /* Engines look at the first of these, GPTQModel at the second. */
    json_t *dense = eqi_dense_names(linears, n),
           *dynamic = eqi_gptq_dynamic(linears, n, bits, group);
    json_t *out = dense && dynamic
        ? json_pack("{s:s, s:i, s:I, s:b, s:s, s:O}", "quant_method", "awq", "bits", bits,
                    "group_size", (json_int_t)group, "zero_point", 1, "version", "gemm",
                    "modules_to_not_convert", dense)
        : NULL;
    bool failed = out && json_object_size(dynamic) && json_object_set(out, "dynamic", dynamic) != 0;
    json_decref(dense);
    json_decref(dynamic);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

const eqi_layout eqi_layout_awq = {
    .name = "awq",
    .method = "awq",
    .key = "version",
    .value = "gemm",
    .implied = true,
    .mark = "qweight",
    .parse = parse,
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
    .uniform = true,
    .write = write_linear,
    .config = make_config,
};
