/* Optimizer steps of E2E-QP on a quantized model, sequence by sequence.
 *   bench_e2e_qp model=DIR tokens=FILE dtype=bf16 time=512 batch=2 samples=8 keep=0 warmup=1
 * steps=5 seconds=20 */
#include "measure.h"

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    bench_setting s;
    bench_open(&s);
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = bench_int("batch", 2);
    o.keep_activations = bench_int("keep", 0);
    eqat_e2e_qp *job;
    bench_ok(eqat_e2e_qp_create(s.model, &job, s.data, &o));

    bench_times steps = {0};
    double first_loss = 0;
    while (bench_more(&steps)) {
        int64_t step = steps.count % eqat_e2e_qp_steps(job),
                micros = eqat_e2e_qp_micro_steps(job, step);
        double mean = 0, loss;
        bench_start(&steps);
        for (int64_t i = 0; i < micros; i++) {
            bench_ok(eqat_e2e_qp_accumulate(job, step, i, &loss));
            mean += loss / (double)micros;
        }
        bench_ok(eqat_e2e_qp_step(job));
        bench_stop(&steps);
        if (steps.count == 1) first_loss = mean;
    }

    bench_print_times("times", &steps);
    bench_print_real("loss", first_loss);
    bench_print_int("base", s.base);
    bench_print_int("peak", bench_resident_peak());
    bench_end();
    eqat_e2e_qp_free(job);
    bench_close(&s);
    return 0;
}
