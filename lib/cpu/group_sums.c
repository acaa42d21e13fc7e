#include "cpu/group_sums.h"

#include "cpu/adamw.h"

/* Groups up to this width are whole within a tile; wider ones leave one sum per tile, added up in
 * order afterwards. */
#define WHOLE 256

typedef struct sums {
    const eqi_simd *simd;
    const eqi_rows *w;
    const eqi_view *dw, *ds, *dz;
    bool acc;
    const eqi_view *param, *m, *v; /* of an update, or NULL */
    eqi_adamw_terms terms;
    double *squares; /* [N, tiles] */
    int64_t tile, tiles,
        per_group;          /* columns per tile, tiles per row; wide groups: tiles per group */
    float *part_s, *part_z; /* [N, tiles] or NULL */
} sums;

static float *at(const eqi_view *v, int64_t row, int64_t col)
{
    return (float *)v->data + row * v->stride[0] + col;
}

static void put(const eqi_view *v, int64_t row, int64_t g, const float *sum, int64_t n, bool acc)
{
    float *to = at(v, row, g);
    for (int64_t i = 0; i < n; i++) to[i] = acc ? to[i] + sum[i] : sum[i];
}

/* Number of the tile that begins at a column. */
static int64_t tile_at(const sums *u, int64_t col)
{
    int64_t group = u->w->q.group;
    return u->part_s ? col / group * u->per_group + col % group / u->tile : col / u->tile;
}

/* What a row of a tile reads and writes. */
static void fetch(const sums *u, int64_t row, int64_t col, int64_t n)
{
    const eqi_view *const all[] = {u->param, u->m, u->v, u->dw};
    for (size_t i = 0; i < EQI_COUNT(all); i++)
        if (all[i]) eqi_fetch(at(all[i], row, col), (size_t)n * sizeof(float));
}

/* A row of a tile of dw, into the parameter. */
static void update(const sums *u, int64_t row, int64_t col, const float *dw, int64_t n)
{
    u->squares[row * u->tiles + tile_at(u, col)] = u->simd->sum_squares(dw, n);
    u->simd->adamw(at(u->param, row, col), dw, at(u->m, row, col), at(u->v, row, col), &u->terms,
                   n);
}

static void store(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const sums *u = arg;
    int64_t group = u->w->q.group, first = t->n0 / group, count = u->part_s ? 1 : t->n / group;
    float sum_s[WHOLE], sum_z[WHOLE], dw[WHOLE];
    for (int64_t i = 0; i < t->m; i++) {
        int64_t row = t->m0 + i;
        const float *g = t->c + i * t->ld;
        if (i + EQI_ROWS_AHEAD < t->m) fetch(u, row + EQI_ROWS_AHEAD, t->n0, t->n);
        if (u->w->kind == EQI_ROWS_PACKED)
            u->simd->packed_grad(u->w, row, t->n0, t->n, g, sum_s, sum_z);
        else if (u->param)
            u->simd->fake_quant_grad(u->w, row, t->n0, t->n, g, dw, sum_s, sum_z, false);
        else
            u->simd->fake_quant_grad(u->w, row, t->n0, t->n, g,
                                     u->dw ? at(u->dw, row, t->n0) : NULL, sum_s, sum_z, u->acc);
        if (u->param) update(u, row, t->n0, dw, t->n);
        if (u->part_s) {
            int64_t to = row * u->tiles + tile_at(u, t->n0);
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
            put(to, row, g, &(float){(float)sum}, 1, u->acc);
        }
}

/* Sums of dy^T x over groups, and what `u` asks for with the gradient itself. */
static eqat_status run(eqi_ctx *ctx, sums *u, const eqi_view *dy, const eqi_view *x)
{
    eqi_rows a, b;
    eqi_gemm g = eqi_cpu_product_bwd_w(dy, x, &a, &b);
    bool wide = u->w->q.group > WHOLE;
    if (wide)
        g.period = u->w->q.group;
    else
        g.unit = u->w->q.group;
    g.store = store;
    g.arg = u;
    u->tile = eqi_gemm_tile_n(&g);
    u->per_group = eqi_ceil_div(u->w->q.group, u->tile);
    u->tiles = wide ? u->w->cols / u->w->q.group * u->per_group : eqi_ceil_div(u->w->cols, u->tile);
    size_t all = (size_t)(u->w->rows * u->tiles), squares = u->param ? all : 0,
           parts = wide ? all : 0;
    size_t size = squares * sizeof(double) + 2 * parts * sizeof(float);
    char *scratch = size ? eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, size) : NULL;
    if (size && !scratch) return EQAT_OUT_OF_MEMORY;
    u->squares = (double *)(void *)scratch;
    if (wide) {
        u->part_s = (float *)(void *)(scratch + squares * sizeof(double));
        u->part_z = u->part_s + parts;
    }
    EQI_RETURN_IF(eqi_gemm_run(ctx, &g));
    if (wide) {
        gather(u, u->ds, u->part_s);
        gather(u, u->dz, u->part_z);
    }
    return EQAT_OK;
}

eqat_status eqi_cpu_weight_grad(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                const eqi_rows *w, bool acc)
{
    eqi_rows whole = *w;
    whole.rows = dy->shape[1];
    sums u = {.simd = eqi_cpu_of(ctx)->simd, .w = &whole, .dw = dw, .ds = ds, .dz = dz, .acc = acc};
    return run(ctx, &u, dy, x);
}

eqat_status eqi_cpu_weight_update(eqi_ctx *ctx, const eqi_update *update, const eqi_view *ds,
                                  const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                  const eqi_view *param, const eqi_rows *w)
{
    sums u = {.simd = eqi_cpu_of(ctx)->simd,
              .w = w,
              .ds = ds,
              .dz = dz,
              .param = param,
              .m = &update->m,
              .v = &update->v,
              .terms = eqi_cpu_adamw_terms(&update->d, 1.0f)};
    EQI_RETURN_IF(run(ctx, &u, dy, x));
    double sum = 0;
    for (int64_t i = 0; i < w->rows * u.tiles; i++) sum += u.squares[i];
    *(double *)update->squares.data += sum;
    return EQAT_OK;
}
