/* The machine's memory bandwidth on all threads: arrays of `mb` megabytes each, best of `steps`
 * rounds. bench_memory_rate mb=256 steps=5 threads=0 */
#include <stdio.h>
#include <stdlib.h>

#include "measure.h"
#include "rate.h"

typedef struct arrays {
    double *a, *b, *c;
    size_t count;
    double sum[1024];
} arrays;

static void range(const arrays *x, int thread, int threads, size_t *from, size_t *to)
{
    *from = x->count / (size_t)threads * (size_t)thread;
    *to = thread == threads - 1 ? x->count : *from + x->count / (size_t)threads;
}

static void fill(void *arg, int thread, int threads)
{
    arrays *x = arg;
    size_t from, to;
    range(x, thread, threads, &from, &to);
    for (size_t i = from; i < to; i++) {
        x->a[i] = 0;
        x->b[i] = (double)i;
        x->c[i] = 2;
    }
}

static void copy(void *arg, int thread, int threads)
{
    arrays *x = arg;
    size_t from, to;
    range(x, thread, threads, &from, &to);
    double *restrict a = x->a;
    const double *restrict b = x->b;
    for (size_t i = from; i < to; i++) a[i] = b[i];
}

static void triad(void *arg, int thread, int threads)
{
    arrays *x = arg;
    size_t from, to;
    range(x, thread, threads, &from, &to);
    double *restrict a = x->a;
    const double *restrict b = x->b, *restrict c = x->c;
    for (size_t i = from; i < to; i++) a[i] = b[i] + 3 * c[i];
}

/* Independent sums, so that the additions' latency does not bound the reading. */
static void sum(void *arg, int thread, int threads)
{
    arrays *x = arg;
    size_t from, to;
    range(x, thread, threads, &from, &to);
    double s[32] = {0};
    for (size_t i = from; i + 32 <= to; i += 32)
        for (size_t j = 0; j < 32; j++) s[j] += x->b[i + j];
    for (size_t j = 1; j < 32; j++) s[0] += s[j];
    x->sum[thread] = s[0];
}

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    int threads = bench_processors();
    size_t bytes = (size_t)bench_int("mb", 256) << 20;
    arrays x = {.count = bytes / sizeof(double)};
    x.a = aligned_alloc(64, bytes);
    x.b = aligned_alloc(64, bytes);
    x.c = aligned_alloc(64, bytes);
    if (!x.a || !x.b || !x.c || threads > 1024) {
        fprintf(stderr, "bench_memory_rate: no memory for the arrays\n");
        return 1;
    }
    bench_together(threads, fill, &x);
    const struct {
        const char *name, *name_cpu;
        bench_share_fn fn;
        int arrays;
    } kinds[] = {{"copy", "copy_cpu", copy, 2},
                 {"triad", "triad_cpu", triad, 3},
                 {"read", "read_cpu", sum, 1}};
    bench_print_int("threads", threads);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        double best = 1e300, best_cpu = 1e300, moved = (double)bytes * kinds[k].arrays;
        for (int64_t i = bench_int("steps", 5); i > 0; i--) {
            double cpu = -bench_cpu(), t = bench_together(threads, kinds[k].fn, &x);
            cpu += bench_cpu();
            if (t < best) best = t;
            if (cpu < best_cpu) best_cpu = cpu;
        }
        bench_print_real(kinds[k].name, moved / best);
        bench_print_real(kinds[k].name_cpu, moved * threads / best_cpu);
    }
    bench_end();
    free(x.a);
    free(x.b);
    free(x.c);
    return 0;
}
