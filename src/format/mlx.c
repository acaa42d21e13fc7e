#include <math.h>
#include <string.h>

#include "base/half.h"
#include "format/gptq.h"

static bool valid_bits(int64_t bits) { return bits >= 2 && bits <= 8 && bits != 7; }
static bool valid_group(int64_t group) { return group == 32 || group == 64 || group == 128; }

static eqat_status parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    const json_t *bits = json_object_get(q, "bits"), *group = json_object_get(q, "group_size"),
                 *mode = json_object_get(q, "mode");
    if (!valid_bits(json_integer_value(bits)))
        return eqi_layout_refuse(ctx, path, "bits", bits, "2, 3, 4, 5, 6 or 8");
    if (!valid_group(json_integer_value(group)))
        return eqi_layout_refuse(ctx, path, "group_size", group, "32, 64 or 128");
    if (mode && (!json_is_string(mode) || strcmp(json_string_value(mode), "affine") != 0))
        return eqi_layout_refuse(ctx, path, "mode", mode, "affine");
    out->bits = (int)json_integer_value(bits);
    out->group = json_integer_value(group);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)q, key, value) out->varies |= json_is_object(value);
    return EQAT_OK;
}

static void describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
{
    const eqi_source_entry *weight = eqi_layout_tensor_of(source, l, "weight"),
                           *scales = eqi_layout_tensor_of(source, l, "scales");
    int64_t words = weight && weight->ndim == 2 ? weight->shape[1] : 0,
            groups = scales->ndim == 2 ? scales->shape[1] : 0;
    l->q.bits = packing->bits;
    l->q.group = packing->group;
    if (packing->varies && l->in >= 32 && words > 0 && words <= 8 * (l->in / 32))
        l->q.bits = (int)(words / (l->in / 32));
    if (packing->varies && groups > 0 && l->in % groups == 0) l->q.group = l->in / groups;
}

static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    if (!valid_bits(l->q.bits))
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found %d bits, expected 2, 3, 4, 5, 6 or 8 for the format mlx",
                        l->name, l->q.bits);
    if (!valid_group(l->q.group))
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found groups of %lld, expected 32, 64 or 128 for the format mlx",
                        l->name, (long long)l->q.group);
    if (l->in % 32)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %lld inputs, expected a multiple of 32",
                        l->name, (long long)l->in);
    return EQAT_OK;
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int64_t groups = eqi_packed_groups(l);
    eqi_stored stored = l->exact_products ? EQI_STORED_F16 : EQI_STORED_F32;
    list[0] = eqi_layout_matrix("weight", EQI_STORED_U32, EQI_ACCEPT_UNSIGNED, l->out,
                                eqi_packed_words(l));
    list[1] = eqi_layout_matrix("scales", stored, EQI_ACCEPT_STEPS, l->out, groups);
    list[2] = eqi_layout_matrix("biases", stored, EQI_ACCEPT_STEPS, l->out, groups);
    return 3;
}

/* A value as its file holds it. */
static float stored_as(eqi_stored stored, float value)
{
    if (stored == EQI_STORED_F16) return eqi_f16_to_f32(eqi_f32_to_f16(value));
    if (stored == EQI_STORED_BF16) return eqi_bf16_to_f32(eqi_f32_to_bf16(value));
    return value;
}

/* biases are -s z. */
static eqat_status take_zeros(eqi_source *source, const eqi_layout_linear *l, const float *biases,
                              eqi_packed *out)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "biases");
    int64_t groups = eqi_packed_groups(l);
    float top = (float)((1 << l->q.bits) - 1);
    for (int64_t i = 0; i < l->out * groups; i++) {
        float s = out->s[i], z = rintf(-biases[i] / s);
        if (s == 0 || !isfinite(s)) continue; /* refused with the scales */
        if (!(z >= 0 && z <= top) || stored_as(e->stored, -s * z) != biases[i])
            return eqi_fail(source->ctx, EQAT_UNSUPPORTED,
                            "%s: tensor %s: found %g for group %lld of output %lld, expected minus "
                            "its scale %g times a whole number from 0 to %g",
                            eqi_source_path(source, e->file), e->name, (double)biases[i],
                            (long long)(i % groups), (long long)(i / groups), (double)s,
                            (double)top);
        out->z[i] = (uint8_t)z;
    }
    return EQAT_OK;
}

static eqat_status read_linear(const eqi_packing *packing, eqi_source *source,
                               const eqi_layout_linear *l, eqi_packed *out)
{
    int64_t n = l->out * eqi_packed_groups(l);
    const eqi_source_entry *weight = eqi_layout_tensor_of(source, l, "weight"),
                           *scales = eqi_layout_tensor_of(source, l, "scales"),
                           *biases = eqi_layout_tensor_of(source, l, "biases");
    (void)packing;
    EQI_RETURN_IF(eqi_source_read_raw(source, weight, 0, (size_t)weight->bytes, out->codes));
    EQI_RETURN_IF(eqi_source_read_f32(source, scales, 0, n, out->s));
    float *raw = eqi_alloc(source->ctx, (size_t)n * sizeof *raw, "biases");
    eqat_status st = raw ? eqi_source_read_f32(source, biases, 0, n, raw) : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = take_zeros(source, l, raw, out);
    eqi_free(source->ctx, raw);
    return st;
}

static void judge(eqi_layout_linear *l, const eqi_packed *p)
{
    l->exact_products = true;
    for (int64_t i = 0; i < l->out * eqi_packed_groups(l); i++) {
        float product = p->s[i] * (float)p->z[i];
        l->exact_products &= stored_as(EQI_STORED_F16, product) == product;
    }
}

static eqat_status write_values(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                const float *values)
{
    size_t n = (size_t)(l->out * eqi_packed_groups(l));
    if (!l->exact_products) return eqi_shards_write(out, values, n * sizeof *values);
    uint16_t *narrow = eqi_alloc(ctx, n * sizeof *narrow, "scales");
    if (!narrow) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++) narrow[i] = eqi_f32_to_f16(values[i]);
    eqat_status st = eqi_shards_write(out, narrow, n * sizeof *narrow);
    eqi_free(ctx, narrow);
    return st;
}

static eqat_status write_linear(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                const eqi_packed *p)
{
    size_t n = (size_t)(l->out * eqi_packed_groups(l)),
           words = (size_t)(l->out * eqi_packed_words(l));
    EQI_RETURN_IF(eqi_shards_write(out, p->codes, words * sizeof *p->codes));
    EQI_RETURN_IF(write_values(ctx, out, l, p->s));
    float *biases = eqi_alloc(ctx, n * sizeof *biases, "biases");
    if (!biases) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++) biases[i] = -p->s[i] * (float)p->z[i];
    eqat_status st = write_values(ctx, out, l, biases);
    eqi_free(ctx, biases);
    return st;
}

static json_t *make_config(const eqi_layout_linear *linears, size_t n)
{
    int bits = 0;
    int64_t group = 0;
    eqi_choose_common(linears, n, &bits, &group);
    for (size_t i = 0; i < n && group == -1; i++)
        if (linears[i].q.bits == bits) group = linears[i].q.group;
    json_t *out = json_pack("{s:I, s:i, s:s}", "group_size", (json_int_t)group, "bits", bits,
                            "mode", "affine");
    bool failed = !out;
    for (size_t i = 0; i < n && !failed; i++) {
        const eqi_layout_linear *l = &linears[i];
        if (!l->q.bits || (l->q.bits == bits && l->q.group == group)) continue;
        failed = json_object_set_new(out, l->name,
                                     json_pack("{s:I, s:i}", "group_size", (json_int_t)l->q.group,
                                               "bits", l->q.bits)) != 0;
    }
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

const eqi_layout eqi_layout_mlx = {
    .name = "mlx",
    .mark = "scales",
    .parse = parse,
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
    .symmetry = EQI_SYMMETRY_GROUPS,
    .kind = "mlx",
    .also = "quantization",
    .judge = judge,
    .write = write_linear,
    .config = make_config,
};
