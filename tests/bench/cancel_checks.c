/* What it costs to ask before every task whether to stop: the same tasks, each a sum over `floats`
 * values in the cache, with and without, in turn; the best of `steps` rounds of each, in
 * processor's time. Tasks of the library, tiles of products and heads of attention, take ten times
 * as long and more. bench_cancel_checks tasks=16384 floats=65536 steps=50 threads=0 */
#include <stdlib.h>

#include "base/threads.h"
#include "measure.h"

typedef struct sums {
    const float *values;
    int64_t floats;
    float *out; /* of each task */
} sums;

static void add_up(void *arg, size_t index, int worker)
{
    const sums *s = arg;
    float sum[16] = {0};
    (void)worker;
    for (int64_t i = 0; i + 16 <= s->floats; i += 16)
        for (int k = 0; k < 16; k++) sum[k] += s->values[i + k];
    for (int k = 1; k < 16; k++) sum[0] += sum[k];
    s->out[index] = sum[0];
}

static double round_of(eqat_context *ctx, size_t tasks, sums *s, bool asks)
{
    eqi_stop stop;
    double began = bench_cpu();
    eqi_stop_init(&stop, ctx);
    if (asks)
        bench_ok(eqi_parallel_or_stop(ctx, &stop, tasks, add_up, s));
    else
        eqi_parallel(ctx, tasks, add_up, s);
    return bench_cpu() - began;
}

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    eqat_context *ctx = bench_context();
    size_t tasks = (size_t)bench_int("tasks", 1 << 14);
    sums s = {.floats = bench_int("floats", 1 << 16)};
    float *values = calloc((size_t)s.floats, sizeof *values);
    s.values = values;
    s.out = calloc(tasks, sizeof *s.out);
    if (!values || !s.out) return 1;
    double best[2] = {1e300, 1e300};
    for (int64_t i = 2 * bench_int("steps", 50); i > 0; i--) {
        double t = round_of(ctx, tasks, &s, i % 2);
        if (t < best[i % 2]) best[i % 2] = t;
    }
    bench_print_real("without", best[0]);
    bench_print_real("with", best[1]);
    bench_print_real("ratio", best[1] / best[0]);
    bench_print_real("task", best[0] / (double)tasks);
    bench_end();
    free(values);
    free(s.out);
    eqat_context_free(ctx);
    return 0;
}
