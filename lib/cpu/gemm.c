#include "cpu/gemm.h"

#include <stdatomic.h>

#include "cpu/matmul.h"

/* Tiles of c fit the second-level cache of one core. */
#define TILE_M 256
#define TILE_N 256
/* Columns of a tile are halved until a product has so many tiles. Sums depend on them, so that
 * their number must not depend on that of the threads. */
#define TILES 12
/* Tiles of a panel for each thread, so that the last ones do not keep the others waiting. */
#define TILES_OF_A_THREAD 4
/* Packed operands beyond this are made and used panel by panel: b in panels that stay in the last
 * cache, unless a would have to be packed anew for each of them. */
#define PANEL_BYTES ((size_t)16 << 20)
#define CACHED_BYTES ((size_t)4 << 20)
#define ROW_UNIT 16
#define COL_UNIT 64
#define K_UNIT 32

/* An index range cut into pieces: `count` pieces of `size` (a multiple of the unit), the last one
 * shorter. */
typedef struct cut {
    int64_t size, count, last;
} cut;

typedef struct job {
    const eqi_gemm *g;
    const eqi_simd *simd;
    const eqi_mm_cache *products;
    eqi_elem elem;
    size_t size; /* of an operand's element */
    cut m, n, k; /* n: within one period */
    int64_t period, periods;
    int64_t pk;                   /* padded k, all chunks */
    bool a_direct;                /* full tiles of a are read where they are */
    const eqi_mm *mm[2][2][2][2]; /* last m, last n, last k, accumulate */
    char *a, *b, *workers;
    size_t worker_size, pack_offset, c_offset, product_scratch;
    /* the panel in progress */
    int64_t m_first, m_tiles, n_first, n_tiles;
    bool pack_a, pack_b;
    atomic_bool failed;
} job;

static cut cut_of(int64_t total, int64_t most, int64_t unit)
{
    int64_t count = eqi_max64(eqi_ceil_div(total, most), 1);
    cut c = {.size = eqi_min64(eqi_round_up(eqi_ceil_div(total, count), unit),
                               eqi_round_up(total, unit))};
    c.size = eqi_max64(c.size, unit);
    c.count = eqi_max64(eqi_ceil_div(total, c.size), 1);
    c.last = total - (c.count - 1) * c.size;
    return c;
}

static int64_t cut_size(const cut *c, int64_t i) { return i == c->count - 1 ? c->last : c->size; }

static cut cut_n(const eqi_gemm *g)
{
    int64_t period = g->period ? g->period : g->n, unit = g->unit ? g->unit : COL_UNIT,
            most = eqi_max64(TILE_N / unit * unit, unit);
    int64_t others = eqi_ceil_div(g->m, TILE_M) * (g->n / eqi_max64(period, 1));
    while (most / 2 >= eqi_max64(unit, COL_UNIT) && others * eqi_ceil_div(period, most) < TILES)
        most = eqi_round_up(most / 2, unit);
    return cut_of(period, most, unit);
}

int64_t eqi_gemm_tile_n(const eqi_gemm *g) { return cut_n(g).size; }

static int64_t padded_n(const job *j, bool last)
{
    return eqi_round_up(last ? j->n.last : j->n.size, COL_UNIT);
}
static int64_t padded_m(const job *j, bool last)
{
    return eqi_round_up(last ? j->m.last : j->m.size, ROW_UNIT);
}
static int64_t padded_k(const job *j, bool last)
{
    return last ? eqi_max64(eqi_round_up(j->k.last, K_UNIT), K_UNIT) : j->k.size;
}

static eqat_status products(eqi_ctx *ctx, job *j)
{
    for (int m = j->m.count > 1 ? 0 : 1; m < 2; m++)
        for (int n = j->n.count > 1 ? 0 : 1; n < 2; n++)
            for (int k = j->k.count > 1 ? 0 : 1; k < 2; k++)
                for (int acc = 0; acc < 2; acc++) {
                    /* The first chunk overwrites, and it is the last one when it is the only one.
                     */
                    bool first = j->k.count == 1 || k == 0,
                         later = j->k.count > 1 && (k == 1 || j->k.count > 2);
                    if (acc ? !later : !first) continue;
                    eqi_mm_shape s = {.m = padded_m(j, m),
                                      .n = padded_n(j, n),
                                      .k = padded_k(j, k),
                                      .bf16 = j->elem == EQI_ELEM_BF16,
                                      .acc = acc};
                    EQI_RETURN_IF(eqi_mm_get(ctx, &s, &j->mm[m][n][k][acc]));
                    size_t scratch = eqi_mm_scratch(j->mm[m][n][k][acc]);
                    if (scratch > j->product_scratch) j->product_scratch = scratch;
                }
    return EQAT_OK;
}

/* Bytes of one packed tile over all of k. */
static size_t tile_a_bytes(const job *j)
{
    return (size_t)(eqi_round_up(j->m.size, ROW_UNIT) * j->pk) * j->size;
}
static size_t tile_b_bytes(const job *j)
{
    return (size_t)(eqi_round_up(j->n.size, COL_UNIT) * j->pk) * j->size;
}

/* A chunk of the inner dimension of a tile; those before it are whole. */
static void pack_a_task(job *j, int64_t tile, int64_t k, void *scratch)
{
    int64_t t = j->m_first + tile;
    bool last = t == j->m.count - 1;
    int64_t m = cut_size(&j->m, t), pm = padded_m(j, last);
    if (j->a_direct && m == pm) return;
    eqi_pack p = {.src = j->g->a,
                  .elem = j->elem,
                  .across = j->g->a_across,
                  .n0 = t * j->m.size,
                  .n = m,
                  .pn = pm,
                  .k0 = k * j->k.size,
                  .k = cut_size(&j->k, k),
                  .pk = padded_k(j, k == j->k.count - 1)};
    j->simd->pack_a(j->a + (size_t)tile * tile_a_bytes(j) + (size_t)(pm * p.k0) * j->size, &p,
                    scratch);
}

static void pack_b_task(job *j, int64_t tile, int64_t k, void *scratch)
{
    int64_t t = (j->n_first + tile) % j->n.count, period = (j->n_first + tile) / j->n.count;
    int64_t pn = padded_n(j, t == j->n.count - 1);
    eqi_pack p = {.src = j->g->b,
                  .elem = j->elem,
                  .across = j->g->b_across,
                  .n0 = period * j->period + t * j->n.size,
                  .n = cut_size(&j->n, t),
                  .pn = pn,
                  .k0 = k * j->k.size,
                  .k = cut_size(&j->k, k),
                  .pk = padded_k(j, k == j->k.count - 1),
                  .block = eqi_mm_block(j->products, j->elem == EQI_ELEM_BF16, pn)};
    j->simd->pack_b(j->b + (size_t)tile * tile_b_bytes(j) + (size_t)(pn * p.k0) * j->size, &p,
                    scratch);
}

static void pack_task(void *arg, size_t index, int worker)
{
    job *j = arg;
    void *scratch = j->workers + (size_t)worker * j->worker_size + j->pack_offset;
    int64_t i = (int64_t)index / j->k.count, k = (int64_t)index % j->k.count,
            b_tiles = j->pack_b ? j->n_tiles : 0;
    if (i < b_tiles)
        pack_b_task(j, i, k, scratch);
    else
        pack_a_task(j, i - b_tiles, k, scratch);
}

/* Along a row of tiles first: a thread's share is a range of rows, which the next product and what
 * is in between find in its cache. */
static void tile_task(void *arg, size_t index, int worker)
{
    job *j = arg;
    char *mine = j->workers + (size_t)worker * j->worker_size;
    float *c = (float *)(void *)(mine + j->c_offset);
    int64_t i = (int64_t)index / j->n_tiles, tn = (int64_t)index % j->n_tiles;
    int64_t tm = j->m_first + i, in = (j->n_first + tn) % j->n.count,
            period = (j->n_first + tn) / j->n.count;
    bool last_m = tm == j->m.count - 1, last_n = in == j->n.count - 1;
    int64_t pm = padded_m(j, last_m), pn = padded_n(j, last_n);
    bool direct = j->a_direct && cut_size(&j->m, tm) == pm;
    const char *a = direct
        ? (const char *)j->g->a->data + (size_t)(tm * j->m.size * j->pk) * j->size
        : j->a + (size_t)i * tile_a_bytes(j);
    const char *b = j->b + (size_t)tn * tile_b_bytes(j);
    for (int64_t k = 0; k < j->k.count; k++) {
        bool last_k = k == j->k.count - 1;
        int64_t pk = padded_k(j, last_k);
        if (!eqi_mm_run(j->mm[last_m][last_n][last_k][k > 0], worker, a, b, c, mine)) {
            atomic_store_explicit(&j->failed, true, memory_order_relaxed);
            return;
        }
        a += (size_t)(pm * pk) * j->size;
        b += (size_t)(pn * pk) * j->size;
    }
    eqi_tile tile = {.m0 = tm * j->m.size,
                     .m = cut_size(&j->m, tm),
                     .n0 = period * j->period + in * j->n.size,
                     .n = cut_size(&j->n, in),
                     .c = c,
                     .ld = pn};
    j->g->store(j->g->arg, &tile, worker);
}

static eqat_status panels(eqi_ctx *ctx, job *j)
{
    int64_t n_all = j->n.count * j->periods;
    eqi_stop stop;
    eqi_stop_init(&stop, ctx);
    bool a_needed = !j->a_direct || j->m.last % ROW_UNIT != 0;
    int64_t m_step = a_needed
        ? eqi_min64(eqi_max64((int64_t)(PANEL_BYTES / tile_a_bytes(j)), 1), j->m.count)
        : j->m.count;
    bool again = m_step < j->m.count;
    int64_t busy = TILES_OF_A_THREAD * eqi_pool_size(ctx->pool);
    int64_t n_step = eqi_max64((int64_t)(PANEL_BYTES / tile_b_bytes(j)), 1);
    if (!again)
        n_step = eqi_min64(
            n_step,
            eqi_max64((int64_t)(CACHED_BYTES / tile_b_bytes(j)), eqi_ceil_div(busy, m_step)));
    n_step = eqi_min64(n_step, n_all);
    if (a_needed && !(j->a = eqi_cpu_scratch(ctx, EQI_SCRATCH_A, (size_t)m_step * tile_a_bytes(j))))
        return EQAT_OUT_OF_MEMORY;
    if (!(j->b = eqi_cpu_scratch(ctx, EQI_SCRATCH_B, (size_t)n_step * tile_b_bytes(j))))
        return EQAT_OUT_OF_MEMORY;
    for (j->n_first = 0; j->n_first < n_all; j->n_first += n_step) {
        j->n_tiles = eqi_min64(n_step, n_all - j->n_first);
        for (j->m_first = 0; j->m_first < j->m.count; j->m_first += m_step) {
            j->m_tiles = eqi_min64(m_step, j->m.count - j->m_first);
            j->pack_b = j->m_first == 0;
            j->pack_a = a_needed && (j->n_first == 0 || again);
            size_t tasks = (size_t)(((j->pack_a ? j->m_tiles : 0) + (j->pack_b ? j->n_tiles : 0)) *
                                    j->k.count);
            EQI_RETURN_IF(eqi_parallel_or_stop(ctx, &stop, tasks, pack_task, j));
            EQI_RETURN_IF(
                eqi_parallel_or_stop(ctx, &stop, (size_t)(j->m_tiles * j->n_tiles), tile_task, j));
            if (atomic_load_explicit(&j->failed, memory_order_relaxed))
                return eqi_fail(ctx, EQAT_BACKEND, "a matrix product failed");
        }
    }
    return EQAT_OK;
}

static size_t align_up(size_t n) { return (n + 63) / 64 * 64; }

eqi_elem eqi_gemm_elem(const eqi_cpu *cpu, eqi_dtype dtype)
{
    return dtype == EQI_F32 ? EQI_ELEM_F32 : cpu->bf16 ? EQI_ELEM_BF16 : EQI_ELEM_F32_OF_BF16;
}

eqat_status eqi_gemm_run(eqi_ctx *ctx, const eqi_gemm *g)
{
    if (g->m == 0 || g->n == 0) return EQAT_OK;
    const eqi_cpu *cpu = eqi_cpu_of(ctx);
    job j = {.g = g, .simd = cpu->simd, .products = cpu->products};
    j.elem = eqi_gemm_elem(cpu, g->dtype);
    j.size = eqi_elem_size(j.elem);
    j.period = g->period ? g->period : g->n;
    j.periods = g->n / j.period;
    j.m = cut_of(g->m, TILE_M, ROW_UNIT);
    j.n = cut_n(g);
    j.k = cut_of(g->k, cpu->simd->chunk_k ? cpu->simd->chunk_k : eqi_max64(g->k, 1), K_UNIT);
    j.pk = (j.k.count - 1) * j.k.size + padded_k(&j, true);
    j.a_direct = g->a->kind == EQI_ROWS_DENSE && !g->a_across && j.k.count == 1 && g->k == j.pk &&
        g->a->ld == g->k && g->a->dtype == (j.elem == EQI_ELEM_BF16 ? EQI_BF16 : EQI_F32);
    atomic_init(&j.failed, false);
    EQI_RETURN_IF(products(ctx, &j));
    j.pack_offset = align_up(j.product_scratch);
    j.c_offset = j.pack_offset + EQI_PACK_SCRATCH;
    j.worker_size =
        j.c_offset + align_up((size_t)(TILE_M * eqi_round_up(j.n.size, COL_UNIT)) * sizeof(float));
    j.workers =
        eqi_cpu_scratch(ctx, EQI_SCRATCH_WORKER, j.worker_size * (size_t)eqi_pool_size(ctx->pool));
    if (!j.workers) return EQAT_OUT_OF_MEMORY;
    return panels(ctx, &j);
}
