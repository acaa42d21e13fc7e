#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "format/gptq.h"

/* ---- reading config.json ---- */

static eqat_status parse_weights(eqi_ctx *ctx, const json_t *w, const char *path, eqi_packing *out)
{
    const json_t *bits = json_object_get(w, "num_bits"), *group = json_object_get(w, "group_size"),
                 *strategy = json_object_get(w, "strategy"), *type = json_object_get(w, "type");
    const char *how = json_is_string(strategy) ? json_string_value(strategy) : "";
    int64_t found = json_integer_value(bits);
    if (found < 2 || found > 8) return eqi_layout_refuse(ctx, path, "num_bits", bits, "2 to 8");
    if (json_is_string(type) && strcmp(json_string_value(type), "int") != 0)
        return eqi_layout_refuse(ctx, path, "type", type, "int");
    if (strcmp(how, "group") != 0 && strcmp(how, "channel") != 0)
        return eqi_layout_refuse(ctx, path, "strategy", strategy, "group or channel");
    if (!strcmp(how, "group") && json_integer_value(group) < 1)
        return eqi_layout_refuse(ctx, path, "group_size", group, "a positive number");
    out->bits = (int)found;
    out->group = strcmp(how, "group") ? -1 : json_integer_value(group);
    return EQAT_OK;
}

static eqat_status parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    const json_t *groups = json_object_get(q, "config_groups");
    const char *key;
    json_t *scheme;
    if (json_object_size(groups) == 0)
        return eqi_layout_refuse(ctx, path, "config_groups", groups, "at least one");
    json_object_foreach((json_t *)groups, key, scheme)
    {
        const json_t *inputs = json_object_get(scheme, "input_activations");
        if (inputs && !json_is_null(inputs))
            return eqi_layout_refuse(ctx, path, "input_activations", inputs, "null");
        EQI_RETURN_IF(parse_weights(ctx, json_object_get(scheme, "weights"), path, out));
    }
    out->varies = json_object_size(groups) > 1;
    return EQAT_OK;
}

/* ---- the tensors ---- */

static int64_t dense(int64_t n, int bits) { return (n * bits + 31) / 32; }
static int64_t padded(int64_t n, int bits) { return (n + 32 / bits - 1) / (32 / bits); }
static int64_t words_of(const eqi_layout_linear *l, int64_t n)
{
    return l->padded ? padded(n, l->q.bits) : dense(n, l->q.bits);
}

/* With one kind of linear the configuration tells the bits; of several, the width of a row that
 * fits, dense ones first. */
static void describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
{
    const eqi_source_entry *packed = eqi_layout_tensor_of(source, l, "weight_packed"),
                           *scale = eqi_layout_tensor_of(source, l, "weight_scale");
    int64_t words = packed->ndim == 2 ? packed->shape[1] : 0,
            groups = scale && scale->ndim == 2 ? scale->shape[1] : 0;
    l->q.bits = packing->bits;
    l->q.group = packing->group == -1 ? l->in : packing->group;
    if (packing->varies && l->in >= 32 && words >= 2 * (l->in / 32) && words <= 8 * (l->in / 32))
        l->q.bits = (int)(words / (l->in / 32));
    if (packing->varies && groups > 0 && l->in % groups == 0) l->q.group = l->in / groups;
    l->padded = words != dense(l->in, l->q.bits) && words == padded(l->in, l->q.bits);
    l->symmetric = !eqi_layout_tensor_of(source, l, "weight_zero_point");
}

static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    if (l->in % 32 == 0) return EQAT_OK;
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %lld inputs, expected a multiple of 32",
                    l->name, (long long)l->in);
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int64_t groups = eqi_packed_groups(l);
    int n = 0;
    list[n++] = (eqi_layout_tensor){.suffix = "weight_shape",
                                    .stored = EQI_STORED_I64,
                                    .types = EQI_ACCEPT_INTEGERS,
                                    .optional = true,
                                    .ndim = 1,
                                    .shape = {2}};
    list[n++] = eqi_layout_matrix("weight_packed", EQI_STORED_I32, EQI_ACCEPT_WORDS, l->out,
                                  words_of(l, l->in));
    if (!l->symmetric)
        list[n++] = eqi_layout_matrix("weight_zero_point", EQI_STORED_I32, EQI_ACCEPT_WORDS,
                                      words_of(l, l->out), groups);
    list[n++] = eqi_layout_matrix("weight_scale", EQI_STORED_F16, EQI_ACCEPT_STEPS, l->out, groups);
    list[n++] = (eqi_layout_tensor){.suffix = "weight_g_idx",
                                    .types = EQI_ACCEPT_INTEGERS,
                                    .optional = true,
                                    .read_alone = true,
                                    .ndim = 1,
                                    .shape = {l->in}};
    return n;
}

/* ---- reading ---- */

/* n values of a line of words, dense or 32 / bits to a word. */
static void unpack(const eqi_layout_linear *l, const uint32_t *words, int64_t n, uint8_t *values)
{
    int a_word = 32 / l->q.bits;
    if (!l->padded) {
        eqi_bits_unpack(words, l->q.bits, n, values);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        values[i] =
            (uint8_t)(words[i / a_word] >> i % a_word * l->q.bits & ((1u << l->q.bits) - 1));
}

static eqat_status read_codes(eqi_source *source, const eqi_layout_linear *l, eqi_packed *out)
{
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, "weight_packed", &raw));
    uint8_t *row = eqi_alloc(source->ctx, (size_t)l->in, "a row of codes");
    for (int64_t n = 0; row && n < l->out; n++) {
        unpack(l, raw + n * words_of(l, l->in), l->in, row);
        eqi_bits_pack(row, l->q.bits, l->in, out->codes + n * eqi_packed_words(l));
    }
    eqi_free(source->ctx, row);
    eqi_free(source->ctx, raw);
    return row ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

/* [words, groups]: each group has a column of its own. */
static eqat_status read_zeros(eqi_source *source, const eqi_layout_linear *l, eqi_packed *out)
{
    int64_t groups = eqi_packed_groups(l), words = words_of(l, l->out);
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, "weight_zero_point", &raw));
    uint32_t *columns = eqi_alloc(source->ctx, (size_t)(groups * words) * sizeof *columns, "zeros");
    uint8_t *zeros = columns ? eqi_alloc(source->ctx, (size_t)l->out, "zero points") : NULL;
    if (zeros) eqi_transpose_words(raw, words, groups, columns);
    for (int64_t g = 0; zeros && g < groups; g++) {
        unpack(l, columns + g * words, l->out, zeros);
        for (int64_t n = 0; n < l->out; n++) out->z[n * groups + g] = zeros[n];
    }
    eqi_free(source->ctx, zeros);
    eqi_free(source->ctx, columns);
    eqi_free(source->ctx, raw);
    return zeros ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status check_shape(eqi_source *source, const eqi_layout_linear *l)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "weight_shape");
    int64_t shape[2] = {0};
    int32_t narrow[2] = {0};
    if (!e) return EQAT_OK;
    bool wide = e->stored == EQI_STORED_I64;
    EQI_RETURN_IF(
        eqi_source_read_raw(source, e, 0, (size_t)e->bytes, wide ? (void *)shape : narrow));
    for (int i = 0; i < 2 && !wide; i++) shape[i] = narrow[i];
    if (shape[0] == l->out && shape[1] == l->in) return EQAT_OK;
    return eqi_fail(source->ctx, EQAT_FORMAT,
                    "%s: tensor %s: found [%lld, %lld], expected [%lld, %lld]",
                    eqi_source_path(source, e->file), e->name, (long long)shape[0],
                    (long long)shape[1], (long long)l->out, (long long)l->in);
}

static eqat_status read_linear(const eqi_packing *packing, eqi_source *source,
                               const eqi_layout_linear *l, eqi_packed *out)
{
    (void)packing;
    eqi_layout_linear own = *l;
    describe(packing, source, &own);
    int64_t n = l->out * eqi_packed_groups(l);
    EQI_RETURN_IF(check_shape(source, l));
    EQI_RETURN_IF(eqi_layout_check_g_idx(source, l, "weight_g_idx"));
    EQI_RETURN_IF(read_codes(source, &own, out));
    if (own.symmetric)
        memset(out->z, 1 << (l->q.bits - 1), (size_t)n);
    else
        EQI_RETURN_IF(read_zeros(source, &own, out));
    return eqi_source_read_f32(source, eqi_layout_tensor_of(source, l, "weight_scale"), 0, n,
                               out->s);
}

/* ---- writing ---- */

static eqat_status write_zeros(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                               const eqi_packed *p)
{
    int64_t groups = eqi_packed_groups(l), words = dense(l->out, l->q.bits);
    size_t bytes = (size_t)(groups * words) * sizeof(uint32_t);
    uint32_t *columns = eqi_calloc(ctx, 1, bytes, "zero points"),
             *rows = columns ? eqi_alloc(ctx, bytes, "zero points") : NULL;
    uint8_t *zeros = rows ? eqi_alloc(ctx, (size_t)l->out, "zero points") : NULL;
    for (int64_t g = 0; zeros && g < groups; g++) {
        for (int64_t n = 0; n < l->out; n++) zeros[n] = p->z[n * groups + g];
        eqi_bits_pack(zeros, l->q.bits, l->out, columns + g * words);
    }
    if (zeros) eqi_transpose_words(columns, groups, words, rows);
    eqat_status st = zeros ? eqi_shards_write(out, rows, bytes) : EQAT_OUT_OF_MEMORY;
    eqi_free(ctx, zeros);
    eqi_free(ctx, rows);
    eqi_free(ctx, columns);
    return st;
}

static eqat_status write_linear(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                const eqi_packed *p)
{
    int64_t shape[2] = {l->out, l->in};
    size_t n = (size_t)(l->out * eqi_packed_groups(l)),
           words = (size_t)(l->out * eqi_packed_words(l));
    EQI_RETURN_IF(eqi_shards_write(out, shape, sizeof shape));
    EQI_RETURN_IF(eqi_shards_write(out, p->codes, words * sizeof *p->codes));
    if (!l->symmetric) EQI_RETURN_IF(write_zeros(ctx, out, l, p));
    uint16_t *scales = eqi_alloc(ctx, n * sizeof *scales, "scales");
    if (!scales) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++) scales[i] = eqi_f32_to_f16(p->s[i]);
    eqat_status st = eqi_shards_write(out, scales, n * sizeof *scales);
    eqi_free(ctx, scales);
    return st;
}

/* ---- writing config.json ---- */

static json_t *make_scheme(const eqi_layout_linear *l, bool rows)
{
    json_t *weights =
        json_pack("{s:i, s:s, s:b, s:b, s:s}", "num_bits", l->q.bits, "type", "int", "symmetric",
                  (int)l->symmetric, "dynamic", 0, "strategy", rows ? "channel" : "group");
    if (!rows) json_object_set_new(weights, "group_size", json_integer((json_int_t)l->q.group));
    return json_pack("{s:[], s:o, s:n, s:n}", "targets", "weights", weights, "input_activations",
                     "output_activations");
}

static void key_of(const eqi_layout_linear *l, bool rows, char key[64])
{
    snprintf(key, 64, "%d %d %lld", l->q.bits, l->symmetric, rows ? -1LL : (long long)l->q.group);
}

static bool add(json_t *schemes, const eqi_layout_linear *l, bool rows)
{
    char key[64];
    key_of(l, rows, key);
    if (!json_object_get(schemes, key) &&
        json_object_set_new(schemes, key, make_scheme(l, rows)) != 0)
        return false;
    json_t *targets = json_object_get(json_object_get(schemes, key), "targets");
    return json_array_append_new(targets, json_string(l->name)) == 0;
}

/* A row that is one group ("channel") goes with groups of its length where others have them, so
 * that linears of one group_size stay alike. */
static bool add_all(json_t *schemes, const eqi_layout_linear *linears, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (linears[i].q.bits && linears[i].q.group < linears[i].in &&
            !add(schemes, &linears[i], false))
            return false;
    for (size_t i = 0; i < n; i++) {
        char key[64];
        if (!linears[i].q.bits || linears[i].q.group < linears[i].in) continue;
        key_of(&linears[i], false, key);
        if (!add(schemes, &linears[i], json_object_get(schemes, key) == NULL)) return false;
    }
    return true;
}

static json_t *make_groups(const eqi_layout_linear *linears, size_t n)
{
    json_t *schemes = json_object(), *groups = json_object(), *scheme;
    bool failed = !schemes || !groups || !add_all(schemes, linears, n);
    const char *key;
    json_object_foreach(schemes, key, scheme)
    {
        char name[32];
        snprintf(name, sizeof name, "group_%zu", json_object_size(groups));
        if (!failed && json_object_size(schemes) == 1)
            failed |= json_object_set_new(scheme, "targets", json_pack("[s]", "Linear")) != 0;
        failed |= json_object_set(groups, name, scheme) != 0;
    }
    json_decref(schemes);
    if (!failed) return groups;
    json_decref(groups);
    return NULL;
}

static json_t *make_config(const eqi_layout_linear *linears, size_t n)
{
    json_t *groups = make_groups(linears, n), *ignore = eqi_dense_names(linears, n);
    bool failed = !groups || !ignore || json_array_append_new(ignore, json_string("lm_head")) != 0;
    json_t *out = failed
        ? NULL
        : json_pack("{s:s, s:s, s:s, s:O, s:O}", "quant_method", "compressed-tensors", "format",
                    "pack-quantized", "quantization_status", "compressed", "config_groups", groups,
                    "ignore", ignore);
    json_decref(groups);
    json_decref(ignore);
    return out;
}

const eqi_layout eqi_layout_compressed_tensors = {
    .name = "compressed-tensors",
    .method = "compressed-tensors",
    .key = "format",
    .value = "pack-quantized",
    .mark = "weight_packed",
    .parse = parse,
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
    .symmetry = EQI_SYMMETRY_ALL,
    .write = write_linear,
    .config = make_config,
};
