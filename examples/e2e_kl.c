/* E2E-QP with a loss of one's own: scales learn to give the next-token distributions of the
 * full-precision model, by the mean Kullback-Leibler divergence over all positions.
 *
 *     e2e_kl FULL QUANTIZED TOKENS OUT        of one family; e.g. DIR/model and what block_ap_loss
 *                                             made of it */
#include <eqat/eqat.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 128, BATCH = 4, TIME = 64 };
static eqat_context *ctx;

static void ok(eqat_status status)
{
    if (status == EQAT_OK) return;
    fprintf(stderr, "e2e_kl: %s\n", eqat_context_error(ctx));
    exit(1);
}

/* ln of the sum of exp(x) */
static double log_sum(const float *x, int64_t n)
{
    double top = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) top = fmax(top, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

/* Mean divergence of rows of logits; p [rows, n] becomes its gradient by q. */
static double divergence(float *p, const float *q, int64_t rows, int64_t n)
{
    double sum = 0;
    for (int64_t r = 0; r < rows; r++, p += n, q += n) {
        double of_p = log_sum(p, n), of_q = log_sum(q, n);
        for (int64_t i = 0; i < n; i++) {
            double lp = p[i] - of_p, lq = q[i] - of_q;
            sum += exp(lp) * (lp - lq);
            p[i] = (float)((exp(lq) - exp(lp)) / (double)rows);
        }
    }
    return sum / (double)rows;
}

/* Recorded on the tape, block by block. */
static eqat_tensor *logits_of(eqat_model *model, eqat_tape *tape, const eqat_batch *batch)
{
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_tensor *x, *y;
    ok(eqat_model_inspect(model, &info));
    ok(eqat_model_embed(model, tape, batch, &x));
    for (int64_t b = 0; b < info.blocks; b++, x = y) {
        ok(eqat_model_block(model, tape, b, x, batch, &y));
        eqat_tensor_free(x);
    }
    ok(eqat_model_logits(model, tape, x, 0, &y));
    eqat_tensor_free(x);
    return y;
}

static void train_scales(eqat_model *model, eqat_optimizer *adamw)
{
    eqat_tensor *s;
    const char *name;
    ok(eqat_optimizer_add_group(adamw, 1e-3, NULL));
    for (size_t i = 0; (name = eqat_model_parameter_name(model, i)); i++) {
        if (!strstr(name, ".scales")) continue;
        ok(eqat_model_parameter(model, name, &s));
        ok(eqat_tensor_set_requires_grad(s, true));
        ok(eqat_optimizer_add(adamw, 0, s));
    }
}

static double step(eqat_model *full, eqat_model *quantized, eqat_tape *tape, eqat_optimizer *adamw,
                   const eqat_batch *batch)
{
    eqat_tensor *p, *q = logits_of(quantized, tape, batch);
    int64_t n = eqat_tensor_size(q, 2);
    ok(eqat_model_forward(full, NULL, batch, &p));
    double loss = divergence(eqat_tensor_data(p), eqat_tensor_data(q), BATCH * TIME, n);
    ok(eqat_tape_backward_from(tape, q, p));
    ok(eqat_optimizer_step(adamw, 1));
    eqat_tensor_free(p);
    eqat_tensor_free(q);
    return loss;
}

int main(int argc, char **argv)
{
    if (argc != 5) return fprintf(stderr, "usage: e2e_kl FULL QUANTIZED TOKENS OUT\n"), 2;
    static int32_t ids[BATCH * TIME];
    eqat_model *full, *quantized;
    eqat_data *data;
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = STEPS * BATCH;
    d.val_size = 0;
    d.seq_len = TIME;
    eqat_batch batch;
    eqat_batch_init(&batch, sizeof batch);
    batch.batch = BATCH;
    batch.time = TIME;
    batch.ids = ids;
    eqat_tape *tape;
    eqat_optimizer *adamw;
    if (eqat_context_create(&ctx, NULL, NULL, 0) != EQAT_OK) return 1;
    ok(eqat_model_open(ctx, &full, argv[1], NULL));
    ok(eqat_model_open(ctx, &quantized, argv[2], NULL));
    ok(eqat_data_open(ctx, &data, argv[3], eqat_model_tokenizer(full), 0, &d));
    ok(eqat_tape_create(ctx, &tape));
    ok(eqat_optimizer_create(ctx, &adamw, NULL));
    train_scales(quantized, adamw);
    for (int k = 0; k < STEPS; k++) {
        for (int i = 0; i < BATCH; i++) {
            eqat_sample sample = {.struct_size = sizeof sample, .ids = ids + i * TIME};
            ok(eqat_data_sample(data, false, k * BATCH + i, &sample));
        }
        printf("step %d: loss %.6f\n", k, step(full, quantized, tape, adamw, &batch));
    }
    ok(eqat_model_save(quantized, argv[4])); /* scales rounded to fp16 */
    eqat_optimizer_free(adamw);
    eqat_tape_free(tape);
    eqat_data_free(data);
    eqat_model_free(quantized);
    eqat_model_free(full);
    eqat_context_free(ctx);
    return 0;
}
