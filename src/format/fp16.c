/* Weights as everything reads them: (q - z) s rounded. */
#include <math.h>

#include "base/half.h"
#include "format/layout_impl.h"

static eqat_status check(eqi_ctx *ctx, const eqi_layout_linear *l)
{
    (void)ctx;
    (void)l;
    return EQAT_OK;
}

static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    list[0] = eqi_layout_matrix("weight", EQI_STORED_F16, EQI_ACCEPT_FLOATS, l->out, l->in);
    return 1;
}

static eqat_status fill_row(eqi_ctx *ctx, const eqi_layout_linear *l, const eqi_packed *p,
                            int64_t n, const uint8_t *codes, uint16_t *row)
{
    for (int64_t k = 0; k < l->in; k++) {
        int64_t at = n * eqi_packed_groups(l) + k / l->q.group;
        float w = (float)(codes[k] - p->z[at]) * p->s[at];
        row[k] = eqi_f32_to_f16(w);
        if (!isfinite(eqi_f16_to_f32(row[k])))
            return eqi_fail(ctx, EQAT_NUMERIC,
                            "%s: found %g for input %lld of output %lld, expected at most 65504",
                            l->name, (double)w, (long long)k, (long long)n);
    }
    return EQAT_OK;
}

static eqat_status write_linear(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                const eqi_packed *p)
{
    uint8_t *codes = eqi_alloc(ctx, (size_t)l->in, "a row of codes");
    uint16_t *row = codes ? eqi_alloc(ctx, (size_t)l->in * sizeof *row, "a row of weights") : NULL;
    eqat_status st = row ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < l->out && st == EQAT_OK; n++) {
        eqi_bits_unpack(p->codes + n * eqi_packed_words(l), l->q.bits, l->in, codes);
        st = fill_row(ctx, l, p, n, codes, row);
        if (st == EQAT_OK) st = eqi_shards_write(out, row, (size_t)l->in * sizeof *row);
    }
    eqi_free(ctx, codes);
    eqi_free(ctx, row);
    return st;
}

const eqi_layout eqi_layout_fp16 = {
    .name = "fp16",
    .check = check,
    .tensors = tensors,
    .dtype = "float16",
    .write = write_linear,
};
