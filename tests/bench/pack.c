/* Quantize-and-pack of one linear: s, z and codes of F32 weights.
 *   bench_pack rows=4096 cols=11008 bits=2 group=64 warmup=1 steps=10 seconds=20 threads=0 */
#include "measure.h"

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    const int64_t shape[2] = {bench_int("rows", 4096), bench_int("cols", 11008)};
    int64_t base = bench_resident();
    eqat_context *context = bench_context();
    eqat_quantizer_options q;
    eqat_quantizer_options_init(&q, sizeof q);
    q.bits = (int32_t)bench_int("bits", 2);
    q.group_size = (int32_t)bench_int("group", 64);
    eqat_quantizer *quantizer;
    eqat_tensor *w;
    bench_ok(eqat_quantizer_create(context, &quantizer, &q));
    bench_ok(eqat_tensor_create(context, &w, EQAT_F32, 2, shape, NULL));
    float *x = eqat_tensor_data(w);
    uint64_t state = 1;
    for (int64_t i = 0; i < shape[0] * shape[1]; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)((double)(int32_t)(state >> 32) * 0x1p-36);
    }
    bench_times times = {0};
    while (bench_more(&times)) {
        eqat_tensor *scales, *zeros, *codes;
        bench_start(&times);
        bench_ok(eqat_quantizer_quantize(quantizer, w, &scales, &zeros, &codes));
        bench_stop(&times);
        eqat_tensor_free(scales);
        eqat_tensor_free(zeros);
        eqat_tensor_free(codes);
    }
    bench_print_times("times", &times);
    bench_print_int("base", base);
    bench_print_int("peak", bench_resident_peak());
    bench_end();
    eqat_tensor_free(w);
    eqat_quantizer_free(quantizer);
    eqat_context_free(context);
    return 0;
}
