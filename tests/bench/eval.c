/* Perplexity of a model, over all samples at once, as `eqat eval` does: reading the blocks is part
 * of it. bench_eval model=DIR tokens=FILE dtype=bf16 time=2048 samples=4 warmup=1 steps=3
 * seconds=20 */
#include "measure.h"

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    bench_setting s;
    bench_open(&s);
    eqat_perplexity result = {.struct_size = sizeof result};
    bench_times passes = {0};
    while (bench_more(&passes)) {
        bench_start(&passes);
        bench_ok(eqat_eval_perplexity(s.model, s.data, NULL, &result));
        bench_stop(&passes);
    }
    bench_print_times("times", &passes);
    bench_print_real("loss", result.nll / (double)result.tokens);
    bench_print_int("base", s.base);
    bench_print_int("peak", bench_resident_peak());
    bench_end();
    bench_close(&s);
    return 0;
}
