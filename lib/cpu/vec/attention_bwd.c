#include "cpu/vec/attention_vec.h"

/* With p = softmax(score), g = do v^T, delta = sum p g = sum do o: dv = p^T do, dscore = p (g -
 * delta), dq = dscore k, dk = dscore^T q. Blocks of keys outside, blocks of queries inside; dq
 * gathers over the outer loop. Operands of products: "along": b over the head size, "across": b
 * over queries. */
typedef struct backward {
    char *q_along, *do_along, *q_across, *do_across; /* per block of queries */
    float *dq;                                       /* per block of queries [outer][EQI_ATT_Q] */
    float *lse, *delta;      /* per query, whole blocks; -lse in units of log2 */
    char *k, *v, *k_turned;  /* a block of keys: rows, rows, [outer][EQI_ATT_K] */
    float *dk, *dv;          /* a block of keys, in strips of TILE_N columns */
    float *score, *dp;       /* [EQI_ATT_K][EQI_ATT_Q] */
    char *p, *ds, *ds_pairs; /* a, a, b of products */
    void *pack;
    att_block *block;
} backward;

static int64_t strips(const eqi_attention_head *h) { return (h->size + TILE_N - 1) / TILE_N; }

/* With base NULL only counts. */
static void *take(char *base, size_t *used, size_t size)
{
    char *p = base ? base + *used : NULL;
    *used += att_align(size);
    return p;
}

static size_t layout(const eqi_attention_head *h, backward *b, char *base)
{
    size_t size = eqi_elem_size(h->elem), q = (size_t)((h->queries + EQI_ATT_Q - 1) / EQI_ATT_Q),
           used = 0;
    size_t along = (size_t)eqi_att_inner(h->size) * TILE_N * size,
           across = (size_t)strips(h) * TILE_N * EQI_ATT_Q * size;
    size_t outer = (size_t)eqi_att_outer(h->size) * EQI_ATT_Q, tile = EQI_ATT_K * TILE_N;
    b->q_along = take(base, &used, q * along);
    b->do_along = take(base, &used, q * along);
    b->q_across = take(base, &used, q * across);
    b->do_across = take(base, &used, q * across);
    b->dq = take(base, &used, q * outer * sizeof(float));
    b->lse = take(base, &used, q * EQI_ATT_Q * sizeof(float));
    b->delta = take(base, &used, q * EQI_ATT_Q * sizeof(float));
    b->k = take(base, &used, along);
    b->v = take(base, &used, along);
    b->k_turned = take(base, &used, outer * size);
    b->dk = take(base, &used, (size_t)strips(h) * tile * sizeof(float));
    b->dv = take(base, &used, (size_t)strips(h) * tile * sizeof(float));
    b->score = take(base, &used, tile * sizeof(float));
    b->dp = take(base, &used, tile * sizeof(float));
    b->p = take(base, &used, tile * size);
    b->ds = take(base, &used, tile * size);
    b->ds_pairs = take(base, &used, tile * size);
    b->pack = take(base, &used, EQI_PACK_SCRATCH);
    b->block = take(base, &used, sizeof(att_block));
    return used;
}

size_t VEC(attention_bwd_scratch)(const eqi_attention_head *h)
{
    backward b;
    return layout(h, &b, NULL);
}

static void pack_queries(const eqi_attention_head *h, const backward *b, const eqi_rows *src,
                         char *along, char *across)
{
    size_t size = eqi_elem_size(h->elem);
    int64_t inner = eqi_att_inner(h->size), wide = strips(h) * TILE_N;
    for (int64_t q0 = 0; q0 < h->queries; q0 += EQI_ATT_Q) {
        int64_t n = eqi_min_i64(EQI_ATT_Q, h->queries - q0);
        eqi_pack one = att_rows(h, src, q0, n, TILE_N),
                 two = att_turned(h, src, q0, n, wide, EQI_ATT_Q);
        one.block = two.block = TILE_N;
        VEC(pack_b)(along + (size_t)(q0 * inner) * size, &one, b->pack);
        VEC(pack_b)(across + (size_t)(q0 * wide) * size, &two, b->pack);
    }
}

static void pack_keys(const eqi_attention_head *h, const backward *b, int64_t k0, int64_t n)
{
    eqi_pack rows = att_rows(h, &h->k, k0, n, EQI_ATT_K);
    VEC(pack_a)(b->k, &rows, b->pack);
    rows.src = &h->v;
    VEC(pack_a)(b->v, &rows, b->pack);
    eqi_pack turned = att_turned(h, &h->k, k0, n, eqi_att_outer(h->size), EQI_ATT_K);
    VEC(pack_a)(b->k_turned, &turned, b->pack);
}

static void row_sums(const eqi_attention_head *h, const backward *b, const eqi_attention_grad *g)
{
    int64_t padded = (h->queries + EQI_ATT_Q - 1) / EQI_ATT_Q * EQI_ATT_Q;
    const size_t size = eqi_dtype_size(g->o.dtype);
    for (int64_t i = 0; i < padded; i++) {
        vf sum = v_zero();
        const char *o = (const char *)g->o.data + (size_t)(i * g->o.ld) * size;
        const char *d_o = (const char *)g->d_o.data + (size_t)(i * g->d_o.ld) * size;
        for (int64_t c = 0; i < h->queries && c < h->size; c += VL) {
            int step = vec_step(h->size - c);
            sum = v_fma(vec_load(o, g->o.dtype, c, step), vec_load(d_o, g->o.dtype, c, step), sum);
        }
        /* A query that is padding or sees nothing has p = exp2(score - infinity) = 0. */
        bool sees = i < h->queries && g->lse[i] != -INFINITY;
        b->lse[i] = sees ? -g->lse[i] * VEC_LOG2E : -INFINITY;
        b->delta[i] = v_sum(sum);
    }
}

/* p and dscore / scale of the keys k0..k0+n, from score = k q^T and dp = v do^T. */
static inline __attribute__((always_inline)) void scores_as(const eqi_attention_head *h,
                                                            const backward *b, int64_t k0,
                                                            int64_t n, bool hide, bool capped)
{
    const float scale = h->desc->scale, softcap = h->desc->softcap;
    const vf factor = v_set1((capped ? softcap : scale) * VEC_LOG2E),
             in = v_set1(capped ? scale / softcap : 0.0f), one = v_set1(1.0f);
    const eqi_dtype held = h->elem == EQI_ELEM_BF16 ? EQI_BF16 : EQI_F32;
    for (int i = 0; i < TILE_N; i += VL) {
        const vf lse = v_load(b->lse + b->block->q0 + i),
                 delta = v_load(b->delta + b->block->q0 + i);
        const vm alive = vm_not(v_eq(lse, v_set1(-INFINITY)));
        for (int64_t j = 0; j < n; j += 2) {
            vf ds[2] = {v_zero(), v_zero()};
#pragma GCC unroll 2
            for (int64_t e = 0; e < 2; e++) {
                if (j + e >= n) break;
                int64_t at = (j + e) * TILE_N + i;
                vf s = v_load(b->score + at);
                if (capped) s = v_tanh(v_mul(s, in));
                vf p = v_exp2(v_fma(s, factor, lse));
                vm sees = v_eq(one, one);
                if (hide) sees = vm_and(att_sees(h, b->block, i, k0 + j + e), alive);
                if (hide) p = v_only(sees, p);
                vf d = v_mul(p, v_sub(v_load(b->dp + at), delta));
                if (capped) d = v_mul(d, v_sub(one, v_mul(s, s)));
                if (hide) d = v_only(sees, d);
                vec_store(b->p, held, at, p, VL);
                vec_store(b->ds, held, at, d, VL);
                ds[e] = d;
            }
            att_store_pair(h->elem, b->ds_pairs, j, i, ds[0], ds[1]);
        }
        for (int64_t j = (n + 1) / 2 * 2; j < att_depth(h->elem, n); j += 2)
            att_store_pair(h->elem, b->ds_pairs, j, i, v_zero(), v_zero());
    }
}

static void scores(const eqi_attention_head *h, const backward *b, int64_t k0, int64_t n, bool hide)
{
    if (h->desc->softcap > 0.0f)
        scores_as(h, b, k0, n, hide, true);
    else if (hide)
        scores_as(h, b, k0, n, true, false);
    else
        scores_as(h, b, k0, n, false, false);
}

static void store_keys(const eqi_attention_head *h, const eqi_attention_rows *to, const float *from,
                       int64_t k0, int64_t n, float scale)
{
    const vf factor = v_set1(scale);
    for (int64_t j = 0; j < n; j++)
        for (int64_t c = 0; c < h->size; c += VL) {
            vf x = v_load(from + c / TILE_N * (EQI_ATT_K * TILE_N) + j * TILE_N + c % TILE_N);
            vec_store(to->data, to->dtype, (k0 + j) * to->ld + c, v_mul(x, factor),
                      vec_step(h->size - c));
        }
}

/* Is a query of the block padding, or has it seen nothing? */
static bool has_dead(const backward *b)
{
    unsigned dead = 0;
    for (int i = 0; i < TILE_N; i += VL)
        dead |= vm_bits(v_eq(v_load(b->lse + b->block->q0 + i), v_set1(-INFINITY)));
    return dead != 0;
}

static void block_of_queries(const eqi_attention_head *h, const backward *b, int64_t k0, int64_t n,
                             bool first)
{
    const size_t size = eqi_elem_size(h->elem);
    const int64_t q0 = b->block->q0, inner = eqi_att_inner(h->size), outer = eqi_att_outer(h->size),
                  wide = strips(h) * TILE_N;
    const int64_t depth = att_depth(h->elem, h->size);
    VEC(tile)
    (b->score, h->elem, b->k, inner, b->q_along + (size_t)(q0 * inner) * size, n, depth, false);
    VEC(tile)
    (b->dp, h->elem, b->v, inner, b->do_along + (size_t)(q0 * inner) * size, n, depth, false);
    const bool hide = !att_all(h, q0, b->block->count, k0, n) || has_dead(b);
    scores(h, b, k0, n, hide);
    for (int64_t s = 0; s < strips(h); s++) {
        size_t at = (size_t)(q0 * wide + s * TILE_N * EQI_ATT_Q) * size,
               to = (size_t)(s * EQI_ATT_K * TILE_N);
        att_gather(b->dv + to, h->elem, b->p, TILE_N, b->do_across + at, n, EQI_ATT_Q, !first,
                   EQI_WEIGHTS_A, hide);
        att_gather(b->dk + to, h->elem, b->ds, TILE_N, b->q_across + at, n, EQI_ATT_Q, !first,
                   EQI_WEIGHTS_A, hide);
    }
    att_gather(b->dq + q0 * outer, h->elem, b->k_turned, EQI_ATT_K, b->ds_pairs, h->size,
               att_depth(h->elem, n), true, EQI_WEIGHTS_B, hide);
}

void VEC(attention_bwd)(const eqi_attention_head *h, const eqi_attention_grad *g, void *scratch)
{
    backward all, *b = &all;
    layout(h, b, scratch);
    int64_t outer = eqi_att_outer(h->size), blocks = (h->queries + EQI_ATT_Q - 1) / EQI_ATT_Q;
    pack_queries(h, b, &h->q, b->q_along, b->q_across);
    pack_queries(h, b, &g->d_o, b->do_along, b->do_across);
    row_sums(h, b, g);
    memset(b->dq, 0, (size_t)(blocks * outer * EQI_ATT_Q) * sizeof(float));
    VEC(tile_begin)(h->elem);
    for (int64_t k0 = 0; k0 < h->keys && !eqi_stop_here(h->stop); k0 += EQI_ATT_K) {
        int64_t n = eqi_min_i64(EQI_ATT_K, h->keys - k0);
        bool first = true;
        pack_keys(h, b, k0, n);
        for (int64_t q0 = 0; q0 < h->queries; q0 += EQI_ATT_Q) {
            int64_t low, high, count = eqi_min_i64(EQI_ATT_Q, h->queries - q0);
            att_keys(h, q0, count, &low, &high);
            if (high <= k0 || low >= k0 + n) continue;
            att_block_init(b->block, h, q0);
            block_of_queries(h, b, k0, n, first);
            first = false;
        }
        if (first) {
            memset(b->dk, 0, (size_t)(strips(h) * EQI_ATT_K * TILE_N) * sizeof(float));
            memset(b->dv, 0, (size_t)(strips(h) * EQI_ATT_K * TILE_N) * sizeof(float));
        }
        store_keys(h, &g->dk, b->dk, k0, n, h->desc->scale);
        store_keys(h, &g->dv, b->dv, k0, n, 1.0f);
    }
    VEC(tile_end)(h->elem);
    float factor[EQI_ATT_Q];
    for (int i = 0; i < EQI_ATT_Q; i++) factor[i] = h->desc->scale;
    for (int64_t q0 = 0; q0 < h->queries; q0 += EQI_ATT_Q)
        att_store_turned(&g->dq, q0, eqi_min_i64(EQI_ATT_Q, h->queries - q0), h->size,
                         b->dq + q0 * outer, factor);
}
