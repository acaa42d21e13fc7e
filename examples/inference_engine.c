/* An inference engine that computes with packed codes itself: y = W^ x from the bits of each linear
 * as eqat_quantizer_pack lays them out, checked against libeqat's own product.
 *
 *     inference_engine QUANTIZED        a folder that `eqat quantize` has written */
#include <eqat/eqat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static eqat_context *ctx;

static void ok(eqat_status status)
{
    if (status == EQAT_OK) return;
    fprintf(stderr, "inference_engine: %s\n", eqat_context_error(ctx));
    exit(1);
}

/* W^ [rows, columns], row after row: w^ = (code - zero) * scale of its group. */
typedef struct matrix {
    int64_t rows, columns, group; /* inputs that share a scale and a zero point */
    int bits;
    const uint32_t *codes; /* [rows, columns / 32 * bits] */
    const float *scales;   /* [rows, columns / group] */
    const uint8_t *zeros;  /* the same shape */
} matrix;

/* 32 codes fill `bits` words, little-endian; one of 3 bits may lie across two of them. */
static unsigned code_at(const uint32_t *words, int bits, int i)
{
    int word = i * bits / 32, shift = i * bits % 32;
    uint64_t two = words[word];
    if (shift + bits > 32) two |= (uint64_t)words[word + 1] << 32;
    return (unsigned)(two >> shift) & ((1u << bits) - 1);
}

static float row_product(const matrix *w, int64_t row, const float *x)
{
    const uint32_t *words = w->codes + row * (w->columns / 32 * w->bits);
    int64_t groups = w->columns / w->group;
    double sum = 0;
    for (int64_t g = 0; g < groups; g++) {
        double of_codes = 0, of_inputs = 0;
        for (int64_t k = g * w->group; k < (g + 1) * w->group; k++) {
            of_codes += code_at(words + k / 32 * w->bits, w->bits, (int)(k % 32)) * (double)x[k];
            of_inputs += (double)x[k];
        }
        sum += w->scales[row * groups + g] * (of_codes - w->zeros[row * groups + g] * of_inputs);
    }
    return (float)sum;
}

static eqat_tensor *part(eqat_model *model, const char *linear, const char *what)
{
    char name[256];
    eqat_tensor *t;
    snprintf(name, sizeof name, "%s.%s", linear, what);
    ok(eqat_model_parameter(model, name, &t)); /* the model's: valid as long as it */
    return t;
}

/* Largest difference from libeqat's product, as a share of its largest value. */
static double difference(eqat_tape *tape, const matrix *w, eqat_tensor *codes, eqat_tensor *s,
                         eqat_tensor *z)
{
    int64_t shape[2] = {1, w->columns};
    eqat_tensor *x, *y;
    ok(eqat_tensor_create(ctx, &x, EQAT_F32, 2, shape, NULL));
    float *in = eqat_tensor_data(x);
    for (int64_t k = 0; k < w->columns; k++) in[k] = sinf((float)(k + 1));
    ok(eqat_op_packed_linear(tape, x, codes, s, z, NULL, &y));
    const float *theirs = eqat_tensor_data(y);
    double largest = 0, error = 0;
    for (int64_t n = 0; n < w->rows; n++) {
        largest = fmax(largest, fabs((double)theirs[n]));
        error = fmax(error, fabs((double)theirs[n] - row_product(w, n, in)));
    }
    eqat_tensor_free(x);
    eqat_tensor_free(y);
    return largest > 0 ? error / largest : error;
}

static double check_linear(eqat_model *model, eqat_tape *tape, const eqat_linear_info *l)
{
    eqat_tensor *codes = part(model, l->name, "codes"), *s = part(model, l->name, "scales"),
                *z = part(model, l->name, "zeros");
    matrix w = {.rows = l->out_features,
                .columns = l->in_features,
                .group = l->in_features / eqat_tensor_size(s, 1),
                .bits = l->bits,
                .codes = eqat_tensor_data(codes),
                .scales = eqat_tensor_data(s),
                .zeros = eqat_tensor_data(z)};
    double error = difference(tape, &w, codes, s, z);
    printf("%-40s %5lld x %-5lld %d bits  %.1e\n", l->name, (long long)w.rows, (long long)w.columns,
           w.bits, error);
    return error;
}

int main(int argc, char **argv)
{
    if (argc != 2) return fprintf(stderr, "usage: inference_engine QUANTIZED\n"), 2;
    eqat_model *model;
    eqat_tape *tape;
    eqat_linear_info l = {.struct_size = sizeof l};
    int64_t checked = 0;
    double worst = 0;
    if (eqat_context_create(&ctx, NULL, NULL, 0) != EQAT_OK) return 1;
    ok(eqat_model_open(ctx, &model, argv[1], NULL));
    ok(eqat_tape_create(ctx, &tape));
    for (int64_t b = 0, n; (n = eqat_model_linear_count(model, b)) > 0; b++)
        for (int64_t i = 0; i < n; i++) {
            ok(eqat_model_linear(model, b, i, &l));
            if (l.bits == 0) continue; /* left as it was */
            worst = fmax(worst, check_linear(model, tape, &l));
            checked++;
        }
    printf("%lld linears, largest difference %.1e\n", (long long)checked, worst);
    eqat_tape_free(tape);
    eqat_model_free(model);
    eqat_context_free(ctx);
    return checked && worst < 1e-4 ? 0 : 1;
}
