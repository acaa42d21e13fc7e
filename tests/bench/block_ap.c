/* Steps of Block-AP on the first block of a model, then the way of the quantized stream through the
 * packed block. bench_block_ap model=DIR tokens=FILE dtype=bf16 time=512 batch=2 samples=8 group=64
 * warmup=2 steps=10 seconds=20 */
#include "measure.h"

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    bench_setting s;
    bench_open(&s);
    eqat_quantizer *quantizer;
    eqat_block_ap *job = bench_block_ap(&s, &quantizer);

    bench_times steps = {0};
    double first_loss = 0, loss;
    while (bench_more(&steps)) {
        bench_start(&steps);
        bench_ok(eqat_block_ap_step(job, 0, steps.count % eqat_block_ap_steps(job), &loss));
        bench_stop(&steps);
        if (steps.count == 1) first_loss = loss;
    }
    int64_t peak = bench_resident_peak();

    /* Cancelled, finish stops between freezing the block and moving the stream; called again it
     * does the latter alone. */
    eqat_context_cancel(s.context);
    double t = bench_seconds();
    eqat_status st = eqat_block_ap_finish(job);
    double freeze = bench_seconds() - t;
    if (st != EQAT_CANCELLED) bench_ok(st);
    double cpu = bench_cpu();
    t = bench_seconds();
    bench_ok(eqat_block_ap_finish(job));
    double batches = (double)eqat_block_ap_steps(job), advance = (bench_seconds() - t) / batches;
    double advance_cpu = (bench_cpu() - cpu) / batches;

    bench_print_times("times", &steps);
    bench_print_real("loss", first_loss);
    bench_print_int("base", s.base);
    bench_print_int("peak", peak);
    bench_print_real("freeze", freeze);
    bench_print_real("advance", advance); /* of one batch */
    bench_print_real("advance_cpu", advance_cpu);
    bench_end();
    eqat_block_ap_free(job);
    eqat_quantizer_free(quantizer);
    bench_close(&s);
    return 0;
}
