/* Checkpoints of the method's reference implementation: values never cross a word, so that one of 3
 * bits holds 10 of them and two bits of nothing, and config.json says nothing of it. */
#include "format/gptq.h"

static int64_t a_word(int bits) { return 32 / bits; }
static int64_t words(int64_t n, int bits) { return (n + a_word(bits) - 1) / a_word(bits); }

/* The rows of qweight tell the bits, those of scales the groups. */
static void describe(const eqi_packing *packing, const eqi_source *source, eqi_layout_linear *l)
{
    static const int known[] = {2, 3, 4, 8};
    const eqi_source_entry *qweight = eqi_layout_tensor_of(source, l, "qweight"),
                           *scales = eqi_layout_tensor_of(source, l, "scales");
    int64_t groups = scales && scales->ndim == 2 ? scales->shape[0] : 0;
    (void)packing;
    l->q.bits = 4;
    for (size_t i = 0; i < EQI_COUNT(known) && qweight->ndim == 2; i++)
        if (qweight->shape[0] == words(l->in, known[i])) l->q.bits = known[i];
    l->q.group = groups > 0 && l->in % groups == 0 ? l->in / groups : l->in;
}

static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    if (l->in % 32 == 0) return EQAT_OK;
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found %lld inputs, expected a multiple of 32",
                    l->name, (long long)l->in);
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int n = eqi_gptq_tensors(l, list);
    list[0].shape[0] = words(l->in, l->q.bits);
    list[1].shape[1] = words(l->out, l->q.bits);
    return n;
}

static eqat_status refuse_padding(eqi_source *source, const eqi_layout_linear *l,
                                  const char *suffix, int64_t word)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, suffix);
    return eqi_fail(source->ctx, EQAT_FORMAT,
                    "%s: tensor %s: found padding bits set in word %lld, expected 0: a value was "
                    "packed without its bounds",
                    eqi_source_path(source, e->file), e->name, (long long)word);
}

/* n values from words `stride` apart; -1, or the first word with bits beyond its values. */
static int64_t unpack(const uint32_t *from, int64_t stride, int bits, int64_t n, uint8_t *values)
{
    uint32_t top = (1u << bits) - 1;
    for (int64_t i = 0; i < n; i += a_word(bits)) {
        int64_t at = i / a_word(bits) * stride, here = n - i < a_word(bits) ? n - i : a_word(bits);
        for (int64_t k = 0; k < here; k++) values[i + k] = (uint8_t)(from[at] >> k * bits & top);
        if (here * bits < 32 && from[at] >> here * bits) return at;
    }
    return -1;
}

static eqat_status read_codes(eqi_source *source, const eqi_layout_linear *l, const uint32_t *raw,
                              uint8_t *row, eqi_packed *out)
{
    for (int64_t n = 0; n < l->out; n++) {
        int64_t bad = unpack(raw + n, l->out, l->q.bits, l->in, row);
        if (bad >= 0) return refuse_padding(source, l, "qweight", bad + n);
        eqi_bits_pack(row, l->q.bits, l->in, out->codes + n * eqi_packed_words(l));
    }
    return EQAT_OK;
}

static eqat_status read_zeros(eqi_source *source, const eqi_layout_linear *l, const uint32_t *raw,
                              uint8_t *row, eqi_packed *out)
{
    int64_t groups = eqi_packed_groups(l), columns = words(l->out, l->q.bits);
    for (int64_t g = 0; g < groups; g++) {
        int64_t bad = unpack(raw + g * columns, 1, l->q.bits, l->out, row);
        if (bad >= 0) return refuse_padding(source, l, "qzeros", bad + g * columns);
        for (int64_t n = 0; n < l->out; n++) out->z[n * groups + g] = row[n];
    }
    return EQAT_OK;
}

typedef eqat_status (*reader)(eqi_source *, const eqi_layout_linear *, const uint32_t *, uint8_t *,
                              eqi_packed *);

static eqat_status read_words(eqi_source *source, const eqi_layout_linear *l, const char *suffix,
                              reader take, eqi_packed *out)
{
    uint32_t *raw;
    EQI_RETURN_IF(eqi_layout_words(source, l, suffix, &raw));
    uint8_t *row = eqi_alloc(source->ctx, (size_t)(l->in > l->out ? l->in : l->out), suffix);
    eqat_status st = row ? take(source, l, raw, row, out) : EQAT_OUT_OF_MEMORY;
    eqi_free(source->ctx, row);
    eqi_free(source->ctx, raw);
    return st;
}

static eqat_status read_linear(const eqi_packing *packing, eqi_source *source,
                               const eqi_layout_linear *l, eqi_packed *out)
{
    (void)packing;
    EQI_RETURN_IF(eqi_layout_check_g_idx(source, l, "g_idx"));
    EQI_RETURN_IF(read_words(source, l, "qweight", read_codes, out));
    EQI_RETURN_IF(read_words(source, l, "qzeros", read_zeros, out));
    return eqi_gptq_read_scales(source, l, out);
}

const eqi_layout eqi_layout_reference = {
    .name = "efficientqat",
    .mark = "qweight",
    .describe = describe,
    .check = check,
    .tensors = tensors,
    .read = read_linear,
};
