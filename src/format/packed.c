#include "format/packed.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

int64_t eqi_packed_groups(const eqi_layout_linear *l) { return l->in / l->q.group; }
int64_t eqi_packed_words(const eqi_layout_linear *l) { return l->in / 32 * l->q.bits; }

void eqi_bits_unpack(const uint32_t *words, int bits, int64_t n, uint8_t *values)
{
    uint64_t window = 0;
    int have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (have < bits) {
            window |= (uint64_t)*words++ << have;
            have += 32;
        }
        values[i] = (uint8_t)(window & ((1u << bits) - 1));
        window >>= bits;
        have -= bits;
    }
}

void eqi_bits_pack(const uint8_t *values, int bits, int64_t n, uint32_t *words)
{
    uint64_t window = 0;
    int have = 0;
    for (int64_t i = 0; i < n; i++) {
        window |= (uint64_t)values[i] << have;
        have += bits;
        if (have < 32) continue;
        *words++ = (uint32_t)window;
        window >>= 32;
        have -= 32;
    }
    if (have) *words = (uint32_t)window;
}

eqat_status eqi_packed_create(eqi_ctx *ctx, eqi_packed *out, const eqi_layout_linear *l)
{
    size_t words = (size_t)(l->out * eqi_packed_words(l)),
           groups = (size_t)(l->out * eqi_packed_groups(l));
    *out = (eqi_packed){0};
    out->codes = eqi_calloc(ctx, words, sizeof *out->codes, "packed weights");
    if (out->codes) out->z = eqi_calloc(ctx, groups, sizeof *out->z, "zero points");
    if (out->z) out->s = eqi_calloc(ctx, groups, sizeof *out->s, "scales");
    return out->s ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

void eqi_packed_free(eqi_ctx *ctx, eqi_packed *p)
{
    eqi_free(ctx, p->codes);
    eqi_free(ctx, p->z);
    eqi_free(ctx, p->s);
    *p = (eqi_packed){0};
}

static void fill_group(uint32_t *row, const eqi_quant_desc *q, int64_t group, unsigned value)
{
    for (int64_t k = group * q->group; k < (group + 1) * q->group; k++)
        for (int b = 0; b < q->bits; b++) {
            int64_t bit = k % 32 * q->bits + b;
            uint32_t *word = row + k / 32 * q->bits + bit / 32, one = 1u << (bit % 32);
            *word = value >> b & 1 ? *word | one : *word & ~one;
        }
}

static eqat_status store_scales(eqi_ctx *ctx, eqi_packed *p, const eqi_layout_linear *l)
{
    int64_t groups = eqi_packed_groups(l);
    for (int64_t i = 0; i < l->out * groups; i++) {
        float s = p->s[i];
        if (!isfinite(s))
            return eqi_fail(ctx, EQAT_NUMERIC, "%s: found %s, expected finite numbers", l->name,
                            isnan(s) ? "NaN" : "infinity");
        if (s == 0)
            fill_group(p->codes + i / groups * eqi_packed_words(l), &l->q, i % groups, p->z[i]);
        p->s[i] = s == 0 ? EQI_SCALE_MIN : eqi_stored_scale(s);
    }
    return EQAT_OK;
}

eqat_status eqi_packed_take(eqi_ctx *ctx, eqi_packed *out, const eqi_layout_linear *l,
                            const eqi_weight *w)
{
    size_t words = (size_t)(l->out * eqi_packed_words(l)),
           groups = (size_t)(l->out * eqi_packed_groups(l));
    eqat_status st;
    EQI_GOTO(failed, eqi_packed_create(ctx, out, l));
    EQI_GOTO(failed, eqi_tensor_download(w->codes, out->codes, words * sizeof *out->codes));
    EQI_GOTO(failed, eqi_tensor_download(w->z, out->z, groups));
    EQI_GOTO(failed, eqi_tensor_download(w->s, out->s, groups * sizeof *out->s));
    EQI_GOTO(failed, store_scales(ctx, out, l));
    return EQAT_OK;
failed:
    eqi_packed_free(ctx, out);
    return st;
}

static eqat_status give(eqi_ctx *ctx, eqi_dtype dtype, int64_t rows, int64_t columns,
                        const void *data, eqi_tensor **out)
{
    int64_t shape[2] = {rows, columns};
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, dtype, 2, shape));
    return eqi_tensor_upload(*out, data, (size_t)(rows * columns) * eqi_dtype_size(dtype));
}

eqat_status eqi_packed_give(eqi_ctx *ctx, const eqi_packed *p, const eqi_layout_linear *l,
                            eqi_weight *out)
{
    out->q = l->q;
    int64_t groups = eqi_packed_groups(l);
    EQI_RETURN_IF(give(ctx, EQI_U32, l->out, eqi_packed_words(l), p->codes, &out->codes));
    EQI_RETURN_IF(give(ctx, EQI_U8, l->out, groups, p->z, &out->z));
    return give(ctx, EQI_F32, l->out, groups, p->s, &out->s);
}
