#include <math.h>
#include <string.h>

#include "base/half.h"
#include "eqat/context.h"
#include "format/layout_impl.h"

static bool valid_bits(int64_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

static eqat_status parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    const json_t *bits = json_object_get(q, "bits"), *group = json_object_get(q, "group_size");
    const json_t *pack = json_object_get(q, "pack_dtype");
    if (!json_is_integer(bits) || !valid_bits(json_integer_value(bits)))
        return eqi_layout_refuse(ctx, path, "bits", bits, "2, 3, 4 or 8");
    if (!json_is_integer(group) ||
        (json_integer_value(group) < 1 && json_integer_value(group) != -1))
        return eqi_layout_refuse(ctx, path, "group_size", group, "a positive number or -1");
    if (json_is_true(json_object_get(q, "desc_act")))
        return eqi_layout_refuse(ctx, path, "desc_act", json_object_get(q, "desc_act"), "false");
    if (json_is_true(json_object_get(q, "lm_head")))
        return eqi_layout_refuse(ctx, path, "lm_head", json_object_get(q, "lm_head"), "false");
    if (json_is_string(pack) && strcmp(json_string_value(pack), "int32") != 0)
        return eqi_layout_refuse(ctx, path, "pack_dtype", pack, "int32");
    out->bits = (int)json_integer_value(bits);
    out->group = json_integer_value(group);
    out->varies = json_object_size(json_object_get(q, "dynamic")) > 0;
    return EQAT_OK;
}

/* In 32-bit words: qweight is [weight_rows, out], qzeros [groups, zero_columns]. */
static int64_t weight_rows(const eqi_layout_linear *l) { return l->in / 32 * l->q.bits; }
static int64_t zero_columns(const eqi_layout_linear *l) { return (l->out * l->q.bits + 31) / 32; }
static int64_t groups_of(const eqi_layout_linear *l) { return l->in / l->q.group; }

static bool has_two_dims(const eqi_source_entry *e) { return e && e->ndim == 2; }

/* The expressions of `dynamic` are not evaluated: bits and group follow from the shapes. */
static void describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
{
    const eqi_source_entry *qweight = eqi_layout_tensor_of(source, l, "qweight"),
                           *scales = eqi_layout_tensor_of(source, l, "scales");
    int64_t rows = has_two_dims(qweight) ? qweight->shape[0] : 0,
            groups = has_two_dims(scales) ? scales->shape[0] : 0;
    l->q.bits = packing->bits;
    if (packing->varies && l->in >= 32 && rows > 0 && rows <= 8 * (l->in / 32))
        l->q.bits = (int)(rows / (l->in / 32));
    l->q.group = packing->group == -1 ? l->in : packing->group;
    if (packing->varies && groups > 0 && l->in % groups == 0) l->q.group = l->in / groups;
}

/* Known bits, and whole words in both directions. */
static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    const eqi_quant_desc *q = &l->q;
    if (!valid_bits(q->bits))
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found %d bits, expected 2, 3, 4 or 8: no engine reads others", l->name,
                        q->bits);
    if (l->in % 32)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %lld inputs, expected a multiple of 32",
                        l->name, (long long)l->in);
    /* Zero points of one group fill whole words; 3 bits do so after 32 of them. */
    int64_t step = q->bits == 3 ? 32 : 32 / q->bits;
    if (l->out % step)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: found %lld outputs, expected a multiple of %lld at %d bits", l->name,
                        (long long)l->out, (long long)step, q->bits);
    return EQAT_OK;
}

static eqi_layout_tensor matrix(const char *suffix, eqi_stored stored, eqi_accepted types,
                                int64_t rows, int64_t columns)
{
    return (eqi_layout_tensor){
        .suffix = suffix, .stored = stored, .types = types, .ndim = 2, .shape = {rows, columns}};
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int64_t groups = groups_of(l);
    list[0] = matrix("qweight", EQI_STORED_I32, EQI_ACCEPT_WORDS, weight_rows(l), l->out);
    list[1] = matrix("qzeros", EQI_STORED_I32, EQI_ACCEPT_WORDS, groups, zero_columns(l));
    list[2] = matrix("scales", EQI_STORED_F16, EQI_ACCEPT_STEPS, groups, l->out);
    list[3] = (eqi_layout_tensor){.suffix = "g_idx",
                                  .stored = EQI_STORED_I32,
                                  .types = EQI_ACCEPT_INTEGERS,
                                  .optional = true,
                                  .ndim = 1,
                                  .shape = {l->in}};
    return 4;
}

/* qweight [in*bits/32, out] <-> codes [out, in/32*bits]: the same words. */
static void transpose(const uint32_t *src, int64_t rows, int64_t columns, uint32_t *dst)
{
    enum { TILE = 32 };
    for (int64_t r0 = 0; r0 < rows; r0 += TILE)
        for (int64_t c0 = 0; c0 < columns; c0 += TILE) {
            int64_t r1 = r0 + TILE < rows ? r0 + TILE : rows,
                    c1 = c0 + TILE < columns ? c0 + TILE : columns;
            for (int64_t r = r0; r < r1; r++)
                for (int64_t c = c0; c < c1; c++) dst[c * rows + r] = src[r * columns + c];
        }
}

/* zeros [out, groups] -> qzeros [groups, zero_columns] */
static void pack_zeros(const eqi_layout_linear *l, const uint8_t *zeros, uint32_t *qzeros)
{
    int64_t groups = groups_of(l), columns = zero_columns(l);
    memset(qzeros, 0, (size_t)(groups * columns) * sizeof *qzeros);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t n = 0; n < l->out; n++) {
            int64_t bit = n * l->q.bits;
            uint64_t value = (uint64_t)zeros[n * groups + g] << (bit % 32);
            uint32_t *word = qzeros + g * columns + bit / 32;
            word[0] |= (uint32_t)value;
            if (value >> 32) word[1] |= (uint32_t)(value >> 32);
        }
}

static void unpack_zeros(const eqi_layout_linear *l, const uint32_t *qzeros, bool less_one,
                         uint8_t *zeros)
{
    int64_t groups = groups_of(l), columns = zero_columns(l);
    uint32_t top = (1u << l->q.bits) - 1;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t n = 0; n < l->out; n++) {
            int64_t bit = n * l->q.bits;
            const uint32_t *word = qzeros + g * columns + bit / 32;
            uint64_t two = word[0];
            if (bit % 32 + l->q.bits > 32) two |= (uint64_t)word[1] << 32;
            uint32_t value = (uint32_t)(two >> (bit % 32)) & top;
            zeros[n * groups + g] = (uint8_t)((value + less_one) & top);
        }
}

/* Act-order files permute the inputs; ours and those without desc_act do not. */
static eqat_status check_g_idx(eqi_source *source, const eqi_layout_linear *l)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "g_idx");
    if (!e) return EQAT_OK;
    void *index = eqi_alloc(source->ctx, (size_t)e->bytes, "g_idx");
    if (!index) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_source_read_raw(source, e, 0, (size_t)e->bytes, index);
    for (int64_t k = 0; k < l->in && st == EQAT_OK; k++) {
        int64_t found =
            e->stored == EQI_STORED_I64 ? ((const int64_t *)index)[k] : ((const int32_t *)index)[k];
        if (found != k / l->q.group)
            st = eqi_fail(source->ctx, EQAT_UNSUPPORTED,
                          "%s: tensor %s: found group %lld for input %lld, expected %lld",
                          eqi_source_path(source, e->file), e->name, (long long)found, (long long)k,
                          (long long)(k / l->q.group));
    }
    eqi_free(source->ctx, index);
    return st;
}

static eqat_status read_codes(eqi_source *source, const eqi_layout_linear *l, eqi_tensor **out)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "qweight");
    int64_t shape[2] = {l->out, weight_rows(l)};
    eqi_ctx *ctx = source->ctx;
    uint32_t *raw = eqi_alloc(ctx, (size_t)e->bytes, "packed weights"),
             *codes = raw ? eqi_alloc(ctx, (size_t)e->bytes, "packed weights") : NULL;
    eqat_status st = EQAT_OUT_OF_MEMORY;
    if (!codes) goto done;
    EQI_GOTO(done, eqi_source_read_raw(source, e, 0, (size_t)e->bytes, raw));
    transpose(raw, weight_rows(l), l->out, codes);
    EQI_GOTO(done, eqi_tensor_create(ctx, out, EQI_U32, 2, shape));
    st = eqi_tensor_upload(*out, codes, (size_t)e->bytes);
done:
    eqi_free(ctx, raw);
    eqi_free(ctx, codes);
    return st;
}

static eqat_status read_zeros(eqi_source *source, const eqi_layout_linear *l, bool less_one,
                              eqi_tensor **out)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "qzeros");
    int64_t shape[2] = {l->out, groups_of(l)};
    size_t n = (size_t)(shape[0] * shape[1]);
    eqi_ctx *ctx = source->ctx;
    uint32_t *raw = eqi_alloc(ctx, (size_t)e->bytes, "zero points");
    uint8_t *zeros = raw ? eqi_alloc(ctx, n, "zero points") : NULL;
    eqat_status st = EQAT_OUT_OF_MEMORY;
    if (!zeros) goto done;
    EQI_GOTO(done, eqi_source_read_raw(source, e, 0, (size_t)e->bytes, raw));
    unpack_zeros(l, raw, less_one, zeros);
    EQI_GOTO(done, eqi_tensor_create(ctx, out, EQI_U8, 2, shape));
    st = eqi_tensor_upload(*out, zeros, n);
done:
    eqi_free(ctx, raw);
    eqi_free(ctx, zeros);
    return st;
}

static const char *not_finite(float value) { return isnan(value) ? "NaN" : "infinity"; }

/* raw [groups, out] -> scales [out, groups], as the file would hold them had we written it. */
static eqat_status take_scales(eqi_source *source, const eqi_source_entry *e,
                               const eqi_layout_linear *l, const float *raw, float *scales)
{
    int64_t groups = groups_of(l);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t n = 0; n < l->out; n++) {
            int64_t i = g * l->out + n;
            float scale = eqi_f16_to_f32(eqi_f32_to_f16(raw[i]));
            if (!isfinite(scale))
                return eqi_fail(source->ctx, EQAT_NUMERIC,
                                "%s: tensor %s: found %s at element %lld, expected finite numbers",
                                eqi_source_path(source, e->file), e->name, not_finite(scale),
                                (long long)i);
            scales[n * groups + g] = scale;
        }
    return EQAT_OK;
}

static eqat_status read_scales(eqi_source *source, const eqi_layout_linear *l, eqi_tensor **out)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "scales");
    int64_t shape[2] = {l->out, groups_of(l)}, n = shape[0] * shape[1];
    size_t bytes = (size_t)n * sizeof(float);
    eqi_ctx *ctx = source->ctx;
    float *raw = eqi_alloc(ctx, bytes, "scales"),
          *scales = raw ? eqi_alloc(ctx, bytes, "scales") : NULL;
    eqat_status st = EQAT_OUT_OF_MEMORY;
    if (!scales) goto done;
    EQI_GOTO(done, eqi_source_read_f32(source, e, 0, n, raw));
    EQI_GOTO(done, take_scales(source, e, l, raw, scales));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, EQI_F32, 2, shape));
    st = eqi_tensor_upload(*out, scales, bytes);
done:
    eqi_free(ctx, raw);
    eqi_free(ctx, scales);
    return st;
}

static eqat_status read_linear(const eqi_packing *packing, eqi_source *source,
                               const eqi_layout_linear *l, eqi_weight *out)
{
    out->q = l->q;
    EQI_RETURN_IF(check_g_idx(source, l));
    EQI_RETURN_IF(read_codes(source, l, &out->codes));
    EQI_RETURN_IF(read_zeros(source, l, packing->layout == &eqi_layout_gptq, &out->z));
    return read_scales(source, l, &out->s);
}

static eqat_status write_codes(eqi_ctx *ctx, eqi_safetensors_writer *writer,
                               const eqi_layout_linear *l, eqi_tensor *codes)
{
    size_t bytes = (size_t)(l->out * weight_rows(l)) * sizeof(uint32_t);
    uint32_t *rows = eqi_alloc(ctx, bytes, "packed weights");
    uint32_t *columns = rows ? eqi_alloc(ctx, bytes, "packed weights") : NULL;
    eqat_status st = columns ? eqi_tensor_download(codes, rows, bytes) : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) {
        transpose(rows, l->out, weight_rows(l), columns);
        st = eqi_safetensors_write(writer, columns, bytes);
    }
    eqi_free(ctx, rows);
    eqi_free(ctx, columns);
    return st;
}

static eqat_status write_zeros(eqi_ctx *ctx, eqi_safetensors_writer *writer,
                               const eqi_layout_linear *l, eqi_tensor *z)
{
    size_t n = (size_t)(l->out * groups_of(l)),
           bytes = (size_t)(groups_of(l) * zero_columns(l)) * sizeof(uint32_t);
    uint8_t *zeros = eqi_alloc(ctx, n, "zero points");
    uint32_t *words = zeros ? eqi_alloc(ctx, bytes, "zero points") : NULL;
    eqat_status st = words ? eqi_tensor_download(z, zeros, n) : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) {
        pack_zeros(l, zeros, words);
        st = eqi_safetensors_write(writer, words, bytes);
    }
    eqi_free(ctx, zeros);
    eqi_free(ctx, words);
    return st;
}

/* scales [out, groups] -> columns [groups, out] */
static eqat_status store_scales(eqi_ctx *ctx, const eqi_layout_linear *l, const float *scales,
                                uint16_t *columns)
{
    int64_t groups = groups_of(l);
    for (int64_t n = 0; n < l->out; n++)
        for (int64_t g = 0; g < groups; g++) {
            float scale = scales[n * groups + g];
            if (!isfinite(scale))
                return eqi_fail(ctx, EQAT_NUMERIC, "%s: found %s, expected finite numbers", l->name,
                                not_finite(scale));
            columns[g * l->out + n] = eqi_f32_to_f16(eqi_stored_scale(scale));
        }
    return EQAT_OK;
}

static eqat_status write_scales(eqi_ctx *ctx, eqi_safetensors_writer *writer,
                                const eqi_layout_linear *l, eqi_tensor *s)
{
    size_t n = (size_t)(l->out * groups_of(l));
    float *scales = eqi_alloc(ctx, n * sizeof *scales, "scales");
    uint16_t *columns = scales ? eqi_alloc(ctx, n * sizeof *columns, "scales") : NULL;
    eqat_status st =
        columns ? eqi_tensor_download(s, scales, n * sizeof *scales) : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = store_scales(ctx, l, scales, columns);
    if (st == EQAT_OK) st = eqi_safetensors_write(writer, columns, n * sizeof *columns);
    eqi_free(ctx, scales);
    eqi_free(ctx, columns);
    return st;
}

static eqat_status write_g_idx(eqi_ctx *ctx, eqi_safetensors_writer *writer,
                               const eqi_layout_linear *l)
{
    int32_t *index = eqi_alloc(ctx, (size_t)l->in * sizeof *index, "g_idx");
    if (!index) return EQAT_OUT_OF_MEMORY;
    for (int64_t k = 0; k < l->in; k++) index[k] = (int32_t)(k / l->q.group);
    eqat_status st = eqi_safetensors_write(writer, index, (size_t)l->in * sizeof *index);
    eqi_free(ctx, index);
    return st;
}

static eqat_status write_linear(eqi_ctx *ctx, eqi_safetensors_writer *writer,
                                const eqi_layout_linear *l, const eqi_weight *packed)
{
    EQI_RETURN_IF(write_codes(ctx, writer, l, packed->codes));
    EQI_RETURN_IF(write_zeros(ctx, writer, l, packed->z));
    EQI_RETURN_IF(write_scales(ctx, writer, l, packed->s));
    return write_g_idx(ctx, writer, l);
}

/* group_size as config.json says it: -1 can stand for any row. */
static bool covers(int bits, int64_t group, const eqi_layout_linear *l)
{
    return l->q.bits == bits && (group == -1 ? l->q.group == l->in : l->q.group == group);
}

/* bits and group_size of most of them; `dynamic` lists the others. */
static void choose(const eqi_layout_linear *linears, size_t n, int *bits, int64_t *group)
{
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        if (!linears[i].q.bits) continue;
        const eqi_quant_desc *q = &linears[i].q;
        int64_t candidates[2] = {q->group, q->group == linears[i].in ? -1 : q->group};
        for (int c = 0; c < 2; c++) {
            size_t count = 0;
            for (size_t j = 0; j < n; j++) count += covers(q->bits, candidates[c], &linears[j]);
            if (count <= best) continue;
            best = count;
            *bits = q->bits;
            *group = candidates[c];
        }
        if (best == n) break;
    }
}

/* "+:^model\.layers\.0\.self_attn\.q_proj$", the regular expression of exactly this linear. */
static void pattern(char sign, const char *name, char *buffer, size_t size)
{
    size_t at = (size_t)snprintf(buffer, size, "%c:^", sign);
    for (; *name && at + 4 < size; name++) {
        if (*name == '.') buffer[at++] = '\\';
        buffer[at++] = *name;
    }
    snprintf(buffer + at, size - at, "$");
}

static json_t *make_config(const eqi_layout_linear *linears, size_t n)
{
    int bits = 0;
    int64_t group = 0;
    choose(linears, n, &bits, &group);
    json_t *dynamic = json_object();
    bool failed = !dynamic;
    for (size_t i = 0; i < n && !failed; i++) {
        const eqi_layout_linear *l = &linears[i];
        if (covers(bits, group, l)) continue;
        char key[256];
        pattern(l->q.bits ? '+' : '-', l->name, key, sizeof key);
        json_t *value = l->q.bits
            ? json_pack("{s:i, s:I}", "bits", l->q.bits, "group_size", (json_int_t)l->q.group)
            : json_object();
        failed = json_object_set_new(dynamic, key, value) != 0;
    }
    json_t *out = NULL;
    if (!failed)
        out = json_pack("{s:i, s:I, s:s, s:s, s:b, s:b, s:b, s:s, s:{s:[s+]}}", "bits", bits,
                        "group_size", (json_int_t)group, "quant_method", "gptq",
                        "checkpoint_format", "gptq_v2", "desc_act", 0, "sym", 0, "lm_head", 0,
                        "pack_dtype", "int32", "meta", "quantizer", "libeqat:", eqat_version());
    if (out && json_object_size(dynamic) && json_object_set(out, "dynamic", dynamic) != 0) {
        json_decref(out);
        out = NULL;
    }
    json_decref(dynamic);
    return out;
}

/* The classic layout stores zero points less one. */
const eqi_layout eqi_layout_gptq = {
    .name = "gptq",
    .method = "gptq",
    .key = "checkpoint_format",
    .value = "gptq",
    .implied = true,
    .mark = "qweight",
    .parse = parse,
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
};

const eqi_layout eqi_layout_gptq_v2 = {
    .name = "gptq_v2",
    .method = "gptq",
    .key = "checkpoint_format",
    .value = "gptq_v2",
    .mark = "qweight",
    .parse = parse,
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
    .write = write_linear,
    .config = make_config,
};
