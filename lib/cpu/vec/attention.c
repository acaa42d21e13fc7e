#include "cpu/vec/attention_vec.h"

/* A whole block of queries in f32, transposed: [outer][EQI_ATT_Q]. */
typedef struct forward {
    att_block block;
    float max[EQI_ATT_Q], sum[EQI_ATT_Q], alpha[EQI_ATT_Q]; /* of exp2(score), relative to max */
    float *score, *out;
    void *p, *q, *pack;
} forward;

void VEC(attention_keys)(const eqi_attention_head *h, void *k, void *v, int64_t block,
                         void *scratch)
{
    size_t size = eqi_elem_size(h->elem);
    int64_t inner = eqi_att_inner(h->size), outer = eqi_att_outer(h->size), k0 = block * EQI_ATT_K;
    int64_t n = eqi_min_i64(EQI_ATT_K, h->keys - k0);
    eqi_pack rows = att_rows(h, &h->k, k0, n, EQI_ATT_K);
    VEC(pack_a)((char *)k + (size_t)(k0 * inner) * size, &rows, scratch);
    eqi_pack turned = att_turned(h, &h->v, k0, n, outer, EQI_ATT_K);
    VEC(pack_a)((char *)v + (size_t)(k0 * outer) * size, &turned, scratch);
}

size_t VEC(attention_scratch)(const eqi_attention_head *h)
{
    size_t size = eqi_elem_size(h->elem);
    return att_align(sizeof(forward)) + att_align(EQI_ATT_K * TILE_N * sizeof(float)) +
        att_align((size_t)eqi_att_outer(h->size) * TILE_N * sizeof(float)) +
        att_align(EQI_ATT_K * TILE_N * size) +
        att_align((size_t)eqi_att_inner(h->size) * TILE_N * size) + EQI_PACK_SCRATCH;
}

static forward *layout(const eqi_attention_head *h, char *at)
{
    size_t size = eqi_elem_size(h->elem);
    forward *f = att_take(&at, sizeof *f);
    f->score = att_take(&at, EQI_ATT_K * TILE_N * sizeof(float));
    f->out = att_take(&at, (size_t)eqi_att_outer(h->size) * TILE_N * sizeof(float));
    f->p = att_take(&at, EQI_ATT_K * TILE_N * size);
    f->q = att_take(&at, (size_t)eqi_att_inner(h->size) * TILE_N * size);
    f->pack = at;
    return f;
}

/* Scores of n keys from k0 become those that exp2 takes: hidden ones -infinity. */
static void prepare(const eqi_attention_head *h, forward *f, int64_t k0, int64_t n, bool hide,
                    float factor)
{
    const vf cap = v_set1(h->desc->softcap), in = v_set1(h->desc->scale / h->desc->softcap),
             out = v_set1(VEC_LOG2E);
    for (int64_t j = 0; j < n; j++)
        for (int i = 0; i < TILE_N; i += VL) {
            float *at = f->score + j * TILE_N + i;
            vf s = v_load(at);
            s = h->desc->softcap > 0.0f ? v_mul(v_mul(cap, v_tanh(v_mul(s, in))), out)
                                        : v_mul(s, v_set1(factor));
            if (hide) s = v_sel(att_sees(h, &f->block, i, k0 + j), s, v_set1(-INFINITY));
            v_store(at, s);
        }
}

/* p = exp2(factor * score - max) of an even number of keys (the last may be padding, n - 1);
 * returns whether max moved. */
static bool softmax(const eqi_attention_head *h, forward *f, int64_t n, float factor_, bool first)
{
    const vf factor = v_set1(factor_);
    bool moved = false;
    for (int i = 0; i < TILE_N; i += VL) {
        const float *score = f->score + i;
        vf before = first ? v_set1(-INFINITY) : v_load(f->max + i), max = before;
        for (int64_t j = 0; j < n; j++) max = v_max(v_mul(v_load(score + j * TILE_N), factor), max);
        /* Nothing seen so far: any finite number does. */
        vf base = v_sel(v_eq(max, v_set1(-INFINITY)), v_zero(), max), minus = v_sub(v_zero(), base);
        vf alpha = v_exp2(v_sub(before, base)), sum = v_zero(), other = v_zero();
        for (int64_t j = 0; j < n; j += 2) {
            vf p0 = v_exp2(v_fma(v_load(score + j * TILE_N), factor, minus)), p1 = v_zero();
            if (j + 1 < n) p1 = v_exp2(v_fma(v_load(score + (j + 1) * TILE_N), factor, minus));
            sum = v_add(sum, p0);
            other = v_add(other, p1);
            att_store_pair(h->elem, f->p, j, i, p0, p1);
        }
        for (int64_t j = (n + 1) / 2 * 2; j < att_depth(h->elem, n); j += 2)
            att_store_pair(h->elem, f->p, j, i, v_zero(), v_zero());
        v_store(f->sum + i,
                first ? v_add(sum, other) : v_fma(v_load(f->sum + i), alpha, v_add(sum, other)));
        v_store(f->max + i, max);
        v_store(f->alpha + i, alpha);
        if (vm_bits(v_eq(before, max)) != vm_bits(v_eq(max, max))) moved = true;
    }
    return moved;
}

static void rescale(const eqi_attention_head *h, forward *f)
{
    for (int i = 0; i < TILE_N; i += VL) {
        vf alpha = v_load(f->alpha + i);
        for (int64_t c = 0; c < h->size; c++)
            v_store(f->out + c * TILE_N + i, v_mul(v_load(f->out + c * TILE_N + i), alpha));
    }
}

static void finish(const eqi_attention_head *h, forward *f, const eqi_attention_out *out,
                   bool empty)
{
    float factor[EQI_ATT_Q];
    for (int64_t i = 0; i < TILE_N; i++)
        factor[i] = empty || f->sum[i] == 0.0f ? 0.0f : 1.0f / f->sum[i];
    for (int64_t i = 0; out->lse && i < f->block.count; i++)
        out->lse[f->block.q0 + i] =
            factor[i] == 0.0f ? -INFINITY : f->max[i] * VEC_LN2 + logf(f->sum[i]);
    for (int i = 0; i < TILE_N; i += VL) {
        vm seen = vm_not(v_eq(v_load(factor + i), v_zero()));
        for (int64_t c = 0; c < h->size; c++)
            v_store(f->out + c * TILE_N + i, v_only(seen, v_load(f->out + c * TILE_N + i)));
    }
    att_store_turned(&out->o, f->block.q0, f->block.count, h->size, f->out, factor);
}

void VEC(attention)(const eqi_attention_head *h, const eqi_attention_keys *keys, int64_t q0,
                    const eqi_attention_out *out, void *scratch)
{
    forward *f = layout(h, scratch);
    size_t size = eqi_elem_size(h->elem);
    int64_t inner = eqi_att_inner(h->size), outer = eqi_att_outer(h->size), first, last;
    att_block_init(&f->block, h, q0);
    att_keys(h, q0, f->block.count, &first, &last);
    eqi_pack q = att_rows(h, &h->q, q0, f->block.count, TILE_N);
    q.block = TILE_N;
    VEC(pack_b)(f->q, &q, f->pack);
    bool fresh = true;
    VEC(tile_begin)(h->elem);
    for (int64_t k0 = first / EQI_ATT_K * EQI_ATT_K; k0 < last; k0 += EQI_ATT_K) {
        int64_t n = eqi_min_i64(EQI_ATT_K, last - k0);
        VEC(tile)
        (f->score, h->elem, (const char *)keys->k + (size_t)(k0 * inner) * size, inner, f->q, n,
         att_depth(h->elem, h->size), false);
        float factor = h->desc->scale * VEC_LOG2E;
        bool hide = !att_all(h, q0, f->block.count, k0, n);
        if (hide || h->desc->softcap > 0.0f) {
            prepare(h, f, k0, n, hide, factor);
            factor = 1.0f;
        }
        if (softmax(h, f, n, factor, fresh) && !fresh) rescale(h, f);
        att_gather(f->out, h->elem, (const char *)keys->v + (size_t)(k0 * outer) * size, EQI_ATT_K,
                   f->p, h->size, att_depth(h->elem, n), !fresh, EQI_WEIGHTS_B, hide);
        fresh = false;
    }
    VEC(tile_end)(h->elem);
    finish(h, f, out, fresh);
}
