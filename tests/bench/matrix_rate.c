/* The machine's matrix rate for given products, c[m, n] = a[m, k] b[k, n] with f32 sums: every
 * thread runs oneDNN primitives made for one thread over fixed tiles of operands that lie packed in
 * memory, in every tiling and layout below; the best counts. bench_matrix_rate dtype=bf16|f32
 * shapes=M,N,K:M,N,K:... seconds=0.05 rounds=2 threads=0 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/onednn.h"
#include "measure.h"
#include "rate.h"

typedef struct tiling {
    int64_t m, n, k; /* at most; 0: all */
    bool blocked;    /* b */
} tiling;

static const tiling tilings[] = {
    {256, 256, 1152, true},  {256, 256, 0, true},    {128, 256, 1152, true}, {128, 512, 576, true},
    {64, 512, 1152, true},   {512, 128, 1152, true}, {512, 256, 576, true},  {64, 1024, 576, true},
    {256, 512, 288, true},   {128, 0, 576, true},    {512, 512, 512, true},  {0, 64, 1152, true},
    {256, 256, 1152, false}, {256, 512, 576, false}, {128, 1024, 0, false},
};

#define MOST_THREADS 256
#define COL_UNIT 64
#define K_UNIT 32

typedef struct job {
    bool bf16, blocked;
    int64_t m, n, k;                   /* of a tile */
    int64_t m_tiles, n_tiles, k_tiles; /* whole ones */
    char *a, *b;
    double seconds;
    atomic_llong next;
    atomic_bool failed;
    double flops[MOST_THREADS], clock[MOST_THREADS], cpu[MOST_THREADS];
} job;

typedef struct product {
    dnnl_primitive_t primitive;
    dnnl_memory_t scratch;
} product;

static int64_t piece(int64_t total, int64_t most, int64_t unit)
{
    if (most == 0 || most > total) most = total;
    int64_t count = (total + most - 1) / most, size = (total + count - 1) / count;
    return (size + unit - 1) / unit * unit;
}

static dnnl_status_t make(product *p, dnnl_engine_t engine, bool acc, const dnnl_memory_desc_t d[3])
{
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = "";
    dnnl_status_t st = dn_attributes(&attr, acc);
    if (st == dnnl_success) st = dn_product(&pd, engine, attr, &d[0], &d[1], &d[2]);
    if (st == dnnl_success) st = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    /* The reference implementation takes every layout, far slower. */
    if (st == dnnl_success && !strncmp(name, "ref", 3)) st = dnnl_unimplemented;
    if (st == dnnl_success) st = dnnl_primitive_create(&p->primitive, pd);
    if (st == dnnl_success)
        st = dnnl_memory_create(&p->scratch, dn_query(pd, dnnl_query_scratchpad_md), engine,
                                DNNL_MEMORY_ALLOCATE);
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    return st;
}

static dnnl_status_t tile(const job *j, product p[2], dnnl_memory_t x[3], dnnl_stream_t stream,
                          int64_t index)
{
    size_t size = j->bf16 ? 2 : 4, a = (size_t)(j->m * j->k) * size,
           b = (size_t)(j->n * j->k) * size;
    int64_t im = index % j->m_tiles, in = index / j->m_tiles % j->n_tiles;
    dnnl_status_t st = dnnl_success;
    for (int64_t k = 0; k < j->k_tiles && st == dnnl_success; k++) {
        product *q = &p[k > 0];
        dnnl_memory_set_data_handle(x[0], j->a + (size_t)(im * j->k_tiles + k) * a);
        dnnl_memory_set_data_handle(x[1], j->b + (size_t)(in * j->k_tiles + k) * b);
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, x[0]},
                                        {DNNL_ARG_WEIGHTS, x[1]},
                                        {DNNL_ARG_DST, x[2]},
                                        {DNNL_ARG_SCRATCHPAD, q->scratch}};
        st = dnnl_primitive_execute(q->primitive, stream, 4, args);
    }
    return st;
}

static void share(void *arg, int thread, int threads)
{
    (void)threads;
    job *j = arg;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    const dn_matrix shape[3] = {{j->bf16 ? dnnl_bf16 : dnnl_f32, j->m, j->k, false},
                                {j->bf16 ? dnnl_bf16 : dnnl_f32, j->k, j->n, j->blocked},
                                {dnnl_f32, j->m, j->n, false}};
    dnnl_memory_desc_t d[3];
    dnnl_memory_t x[3] = {0};
    product p[2] = {0};
    dnnl_status_t st = dnnl_engine_create(&engine, dnnl_cpu, 0);
    if (st == dnnl_success) st = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    for (int i = 0; i < 3 && st == dnnl_success; i++) {
        st = dn_init(&d[i], &shape[i]);
        void *memory = i == 2 ? DNNL_MEMORY_ALLOCATE : DNNL_MEMORY_NONE;
        if (st == dnnl_success) st = dnnl_memory_create(&x[i], dn_ref(&d[i]), engine, memory);
    }
    for (int i = 0; i < 2 && st == dnnl_success; i++) st = make(&p[i], engine, i, d);
    if (st == dnnl_success) st = tile(j, p, x, stream, thread); /* warms up */
    double cpu = bench_thread_cpu(), begin = bench_seconds(), end = begin;
    int64_t done = 0;
    while (st == dnnl_success && end - begin < j->seconds) {
        st = tile(j, p, x, stream, atomic_fetch_add(&j->next, 1));
        done++;
        end = bench_seconds();
    }
    if (st != dnnl_success) atomic_store(&j->failed, true);
    j->flops[thread] = 2.0 * (double)(done * j->m * j->n * j->k * j->k_tiles);
    j->clock[thread] = end - begin;
    j->cpu[thread] = bench_thread_cpu() - cpu;
    for (int i = 0; i < 2; i++) {
        if (p[i].primitive) dnnl_primitive_destroy(p[i].primitive);
        if (p[i].scratch) dnnl_memory_destroy(p[i].scratch);
    }
    for (int i = 0; i < 3; i++)
        if (x[i]) dnnl_memory_destroy(x[i]);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
}

/* Grows and is filled again only when a tiling needs more than those before it. */
typedef struct operand {
    char *data;
    size_t bytes;
} operand;

static char *reserve(operand *o, int64_t elements, bool bf16)
{
    size_t bytes = ((size_t)elements * (bf16 ? 2 : 4) + 63) / 64 * 64;
    if (bytes <= o->bytes) return o->data;
    free(o->data);
    uint16_t *x = aligned_alloc(64, bytes);
    uint32_t state = 1;
    if (!x) exit(1);
    /* Ordinary numbers of either sign; as f32 these halves are ordinary numbers as well. */
    for (size_t i = 0; i < bytes / 2; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (uint16_t)(0x3c00u | (state >> 16 & 0x80ffu));
    }
    o->data = (char *)x;
    o->bytes = bytes;
    return o->data;
}

/* Flops a second: by the clock, and by the time that the threads had a processor. */
typedef struct rate {
    double clock, cpu;
} rate;

static rate try_tiling(operand ab[2], const tiling *t, bool bf16, const int64_t shape[3],
                       int threads)
{
    job j = {.bf16 = bf16, .blocked = t->blocked, .seconds = bench_real("seconds", 0.05)};
    j.m = piece(shape[0], t->m, 1);
    j.n = piece(shape[1], t->n, COL_UNIT);
    j.k = piece(shape[2], t->k, K_UNIT);
    j.m_tiles = shape[0] / j.m;
    j.n_tiles = shape[1] / j.n > 0 ? shape[1] / j.n : 1;
    j.k_tiles = (shape[2] + j.k - 1) / j.k;
    j.a = reserve(&ab[0], j.m_tiles * j.m * j.k_tiles * j.k, bf16);
    j.b = reserve(&ab[1], j.n_tiles * j.n * j.k_tiles * j.k, bf16);
    rate best = {0};
    for (int64_t i = bench_int("rounds", 2); i > 0; i--) {
        rate r = {0};
        atomic_store(&j.next, threads);
        bench_together(threads, share, &j);
        for (int n = 0; n < threads && !atomic_load(&j.failed); n++) {
            r.clock += j.flops[n] / j.clock[n];
            r.cpu += j.flops[n] / j.cpu[n];
        }
        if (r.clock > best.clock) best.clock = r.clock;
        if (r.cpu > best.cpu) best.cpu = r.cpu;
    }
    return best;
}

static void measure(operand ab[2], bool bf16, const int64_t shape[3], int threads)
{
    rate best = {0};
    const tiling *winner = tilings;
    for (size_t i = 0; i < sizeof tilings / sizeof *tilings; i++) {
        rate r = try_tiling(ab, &tilings[i], bf16, shape, threads);
        if (r.clock > best.clock) best.clock = r.clock;
        if (r.cpu <= best.cpu) continue;
        best.cpu = r.cpu;
        winner = &tilings[i];
    }
    printf("{\"shape\": [%lld, %lld, %lld], \"rate\": %.4g, \"rate_cpu\": %.4g, ",
           (long long)shape[0], (long long)shape[1], (long long)shape[2], best.clock, best.cpu);
    printf("\"tiling\": [%lld, %lld, %lld], \"blocked\": %s}", (long long)winner->m,
           (long long)winner->n, (long long)winner->k, winner->blocked ? "true" : "false");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    bool bf16 = strcmp(bench_text("dtype"), "f32") != 0;
    int threads = bench_processors();
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    const char *text = bench_text("shapes"), *separator = "";
    long long m, n, k;
    operand ab[2] = {0};
    printf("{\"rates\": [");
    for (int used; sscanf(text, "%lld,%lld,%lld%n", &m, &n, &k, &used) == 3;
         text += used + (text[used] == ':')) {
        printf("%s", separator);
        measure(ab, bf16, (const int64_t[3]){m, n, k}, threads);
        separator = ", ";
    }
    printf("]}\n");
    free(ab[0].data);
    free(ab[1].data);
    return 0;
}
