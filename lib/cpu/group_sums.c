#include "cpu/group_sums.h"

#include <string.h>

/* Groups up to this width are whole within a tile; wider ones leave one sum per tile, added up in order afterwards. */
#define WHOLE 256

typedef struct sums {
    const eqi_leaf *leaf;
    const eqi_rows *w;
    const eqi_view *dw, *ds, *dz;
    bool acc;
    int64_t tile, per_group; /* wide groups: columns per tile, tiles per group */
    float *part_s, *part_z;  /* [N, groups * per_group] or NULL */
} sums;

static float *at(const eqi_view *v, int64_t row, int64_t col) { return (float *)v->data + row * v->stride[0] + col; }

static void put(const eqi_view *v, int64_t row, int64_t g, const float *sum, int64_t n, bool acc)
{
    float *to = at(v, row, g);
    for (int64_t i = 0; i < n; i++) to[i] = acc ? to[i] + sum[i] : sum[i];
}

static void store(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const sums *u = arg;
    int64_t group = u->w->q.group, first = t->n0 / group, count = u->part_s ? 1 : t->n / group;
    float sum_s[WHOLE], sum_z[WHOLE];
    for (int64_t i = 0; i < t->m; i++) {
        int64_t row = t->m0 + i;
        const float *g = t->c + i * t->ld;
        if (u->w->kind == EQI_ROWS_PACKED) u->leaf->packed_grad(u->w, row, t->n0, t->n, g, sum_s, sum_z);
        else u->leaf->fake_quant_grad(u->w, row, t->n0, t->n, g, u->dw ? at(u->dw, row, t->n0) : NULL, sum_s, sum_z, u->acc);
        if (u->part_s) {
            int64_t to = row * (u->w->cols / group * u->per_group) + first * u->per_group + t->n0 % group / u->tile;
            u->part_s[to] = sum_s[0];
            u->part_z[to] = sum_z[0];
            continue;
        }
        if (u->ds) put(u->ds, row, first, sum_s, count, u->acc);
        if (u->dz) put(u->dz, row, first, sum_z, count, u->acc);
    }
}

static void gather(const sums *u, const eqi_view *to, const float *part)
{
    int64_t groups = u->w->cols / u->w->q.group;
    for (int64_t row = 0; to && row < u->w->rows; row++)
        for (int64_t g = 0; g < groups; g++) {
            double sum = 0.0;
            for (int64_t i = 0; i < u->per_group; i++) sum += (double)*part++;
            put(to, row, g, &(float){ (float)sum }, 1, u->acc);
        }
}

eqat_status eqi_cpu_weight_grad(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                const eqi_view *x, const eqi_rows *w, bool acc)
{
    sums u = { .leaf = eqi_cpu_of(ctx)->leaf, .w = w, .dw = dw, .ds = ds, .dz = dz, .acc = acc };
    eqi_rows a, b, whole = *w;
    whole.rows = dy->shape[1];
    u.w = &whole;
    eqi_gemm g = eqi_cpu_product_bwd_w(dy, x, &a, &b);
    g.store = store;
    g.arg = &u;
    if (w->q.group <= WHOLE) {
        g.unit = w->q.group;
        return eqi_gemm_run(ctx, &g);
    }
    g.period = w->q.group;
    u.tile = eqi_gemm_tile_n(&g);
    u.per_group = eqi_ceil_div(w->q.group, u.tile);
    size_t count = (size_t)(whole.rows * (w->cols / w->q.group) * u.per_group);
    u.part_s = eqi_cpu_scratch(ctx, EQI_SLOT_OP, 2 * count * sizeof(float));
    if (!u.part_s) return EQAT_OUT_OF_MEMORY;
    u.part_z = u.part_s + count;
    EQI_TRY(eqi_gemm_run(ctx, &g));
    gather(&u, ds, u.part_s);
    gather(&u, dz, u.part_z);
    return EQAT_OK;
}
