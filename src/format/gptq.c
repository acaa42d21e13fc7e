#include "format/gptq.h"

#include <string.h>

#include "base/half.h"

/* In 32-bit words: qweight is [weight_rows, out], qzeros [groups, zero_columns]. */
static int64_t weight_rows(const eqi_layout_linear *l) { return eqi_packed_words(l); }
static int64_t zero_columns(const eqi_layout_linear *l) { return (l->out * l->q.bits + 31) / 32; }

static bool has_two_dims(const eqi_source_entry *e) { return e && e->ndim == 2; }

/* The expressions of `dynamic` are not evaluated: bits and group follow from the shapes. */
void eqi_gptq_describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
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
eqat_status eqi_gptq_check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    const eqi_quant_desc *q = &l->q;
    if (!eqi_gptq_bits(q->bits))
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

int eqi_gptq_tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int64_t groups = eqi_packed_groups(l);
    list[0] =
        eqi_layout_matrix("qweight", EQI_STORED_I32, EQI_ACCEPT_WORDS, weight_rows(l), l->out);
    list[1] =
        eqi_layout_matrix("qzeros", EQI_STORED_I32, EQI_ACCEPT_WORDS, groups, zero_columns(l));
    list[2] = eqi_layout_matrix("scales", EQI_STORED_F16, EQI_ACCEPT_STEPS, groups, l->out);
    list[3] = (eqi_layout_tensor){.suffix = "g_idx",
                                  .stored = EQI_STORED_I32,
                                  .types = EQI_ACCEPT_INTEGERS,
                                  .optional = true,
                                  .ndim = 1,
                                  .shape = {l->in}};
    return 4;
}

/* qweight [in*bits/32, out] <-> codes [out, in/32*bits]: the same words. */
void eqi_transpose_words(const uint32_t *src, int64_t rows, int64_t columns, uint32_t *dst)
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

/* ---- reading ---- */

static eqat_status read_codes(eqi_source *source, const eqi_layout_linear *l, eqi_packed *out)
{
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, "qweight", &raw));
    eqi_transpose_words(raw, weight_rows(l), l->out, out->codes);
    eqi_free(source->ctx, raw);
    return EQAT_OK;
}

/* What GPTQModel took from each word. At 3 bits these are not ones of its fields, but versions
 * before 7 took and added them all the same. */
static void add_to_words(uint32_t *words, int64_t n, int bits)
{
    static const uint32_t of_3_bits[] = {0x24924924, 0x92492492, 0x49249249};
    for (int64_t i = 0; i < n; i++)
        words[i] += bits == 3 ? of_3_bits[i % 3] : UINT32_MAX / ((1u << bits) - 1);
}

eqat_status eqi_gptq_read_zeros(const eqi_packing *packing, eqi_source *source,
                                const eqi_layout_linear *l, eqi_packed *out)
{
    int64_t groups = eqi_packed_groups(l), columns = zero_columns(l);
    uint8_t top = (uint8_t)((1u << l->q.bits) - 1);
    bool borrows = packing->borrows >> l->q.bits & 1, less_one = packing->less_one && !borrows;
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, "qzeros", &raw));
    if (borrows) add_to_words(raw, groups * columns, l->q.bits);
    uint8_t *row = eqi_alloc(source->ctx, (size_t)l->out, "zero points");
    for (int64_t g = 0; row && g < groups; g++) {
        eqi_bits_unpack(raw + g * columns, l->q.bits, l->out, row);
        for (int64_t n = 0; n < l->out; n++)
            out->z[n * groups + g] = (uint8_t)(row[n] + less_one) & top;
    }
    eqi_free(source->ctx, row);
    eqi_free(source->ctx, raw);
    return row ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

/* scales [groups, out] */
eqat_status eqi_gptq_read_scales(eqi_source *source, const eqi_layout_linear *l, eqi_packed *out)
{
    int64_t groups = eqi_packed_groups(l), n = l->out * groups;
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, "scales");
    float *raw = eqi_alloc(source->ctx, (size_t)n * sizeof *raw, "scales");
    eqat_status st = raw ? eqi_source_read_f32(source, e, 0, n, raw) : EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < n && st == EQAT_OK; i++)
        out->s[i % l->out * groups + i / l->out] = raw[i];
    eqi_free(source->ctx, raw);
    return st;
}

/* Act-order files permute the inputs; ours and those without desc_act do not. */
eqat_status eqi_layout_check_g_idx(eqi_source *source, const eqi_layout_linear *l,
                                   const char *suffix)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, suffix);
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

eqat_status eqi_gptq_read(const eqi_packing *packing, eqi_source *source,
                          const eqi_layout_linear *l, eqi_packed *out)
{
    EQI_RETURN_IF(eqi_layout_check_g_idx(source, l, "g_idx"));
    EQI_RETURN_IF(read_codes(source, l, out));
    EQI_RETURN_IF(eqi_gptq_read_zeros(packing, source, l, out));
    return eqi_gptq_read_scales(source, l, out);
}

/* ---- writing ---- */

static eqat_status write_codes(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                               const eqi_packed *p)
{
    size_t bytes = (size_t)(l->out * weight_rows(l)) * sizeof(uint32_t);
    uint32_t *columns = eqi_alloc(ctx, bytes, "packed weights");
    if (!columns) return EQAT_OUT_OF_MEMORY;
    eqi_transpose_words(p->codes, l->out, weight_rows(l), columns);
    eqat_status st = eqi_shards_write(out, columns, bytes);
    eqi_free(ctx, columns);
    return st;
}

static eqat_status write_zeros(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                               const eqi_packed *p, bool less_one)
{
    int64_t groups = eqi_packed_groups(l), columns = zero_columns(l);
    uint8_t top = (uint8_t)((1u << l->q.bits) - 1);
    uint8_t *row = eqi_alloc(ctx, (size_t)l->out, "zero points");
    uint32_t *words = row ? eqi_alloc(ctx, (size_t)columns * sizeof *words, "zero points") : NULL;
    eqat_status st = words ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t g = 0; g < groups && st == EQAT_OK; g++) {
        for (int64_t n = 0; n < l->out; n++)
            row[n] = (uint8_t)(p->z[n * groups + g] - less_one) & top;
        eqi_bits_pack(row, l->q.bits, l->out, words);
        st = eqi_shards_write(out, words, (size_t)columns * sizeof *words);
    }
    eqi_free(ctx, row);
    eqi_free(ctx, words);
    return st;
}

eqat_status eqi_gptq_write_scales(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                  const eqi_packed *p)
{
    int64_t groups = eqi_packed_groups(l), n = l->out * groups;
    uint16_t *columns = eqi_alloc(ctx, (size_t)n * sizeof *columns, "scales");
    if (!columns) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < n; i++)
        columns[i % groups * l->out + i / groups] = eqi_f32_to_f16(p->s[i]);
    eqat_status st = eqi_shards_write(out, columns, (size_t)n * sizeof *columns);
    eqi_free(ctx, columns);
    return st;
}

static eqat_status write_g_idx(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l)
{
    int32_t *index = eqi_alloc(ctx, (size_t)l->in * sizeof *index, "g_idx");
    if (!index) return EQAT_OUT_OF_MEMORY;
    for (int64_t k = 0; k < l->in; k++) index[k] = (int32_t)(k / l->q.group);
    eqat_status st = eqi_shards_write(out, index, (size_t)l->in * sizeof *index);
    eqi_free(ctx, index);
    return st;
}

eqat_status eqi_gptq_write_matrices(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                    const eqi_packed *p, bool less_one)
{
    EQI_RETURN_IF(write_codes(ctx, out, l, p));
    EQI_RETURN_IF(write_zeros(ctx, out, l, p, less_one));
    return eqi_gptq_write_scales(ctx, out, l, p);
}

static eqat_status write_classic(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                 const eqi_packed *p)
{
    EQI_RETURN_IF(eqi_gptq_write_matrices(ctx, out, l, p, true));
    return write_g_idx(ctx, out, l);
}

static eqat_status write_v2(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                            const eqi_packed *p)
{
    EQI_RETURN_IF(eqi_gptq_write_matrices(ctx, out, l, p, false));
    return write_g_idx(ctx, out, l);
}

/* The classic layout stores zero points less one: 0 becomes 2^bits - 1, and an engine that adds the
 * one to whole words carries it into the next value. */
const eqi_layout eqi_layout_gptq = {
    .name = "gptq",
    .method = "gptq",
    .key = "checkpoint_format",
    .value = "gptq",
    .implied = true,
    .mark = "qweight",
    .parse = eqi_gptq_parse,
    .describe = eqi_gptq_describe,
    .check = eqi_gptq_check,
    .tensors = eqi_gptq_tensors,
    .read = eqi_gptq_read,
    .symmetry = EQI_SYMMETRY_ALL,
    .symmetric_alone = true,
    .least_zero = 1,
    .write = write_classic,
    .config = eqi_gptq_config,
    .warn = eqi_gptq_warn,
};

const eqi_layout eqi_layout_gptq_v2 = {
    .name = "gptq_v2",
    .method = "gptq",
    .key = "checkpoint_format",
    .value = "gptq_v2",
    .mark = "qweight",
    .parse = eqi_gptq_parse_v2,
    .describe = eqi_gptq_describe,
    .check = eqi_gptq_check,
    .tensors = eqi_gptq_tensors,
    .read = eqi_gptq_read,
    .symmetry = EQI_SYMMETRY_ALL,
    .write = write_v2,
    .config = eqi_gptq_config_v2,
    .warn = eqi_gptq_warn,
};
