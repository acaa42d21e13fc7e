/* E2E-QP with a loss of one's own: scales learn to give the next-token distributions of the
 * full-precision model, by the mean Kullback-Leibler divergence over all positions.
 *
 *     e2e_kl FULL QUANTIZED TOKENS OUT        of one family; e.g. DIR/model and what block_ap_loss
 *                                             made of it */
#include <eqat/eqat.h>
#include <stdio.h>

static eqat_status divergence(void *full, eqat_tape *tape, eqat_tensor *logits,
                              const eqat_batch *batch, eqat_tensor **loss)
{
    eqat_tensor *target;
    eqat_status status = eqat_model_forward(full, NULL, batch, &target);
    if (status == EQAT_OK) status = eqat_op_kl_divergence(tape, logits, target, NULL, loss);
    eqat_tensor_free(target);
    return status;
}

static int32_t tell(void *user, const eqat_progress *p)
{
    return printf("step %d: loss %.6f\n", (int)p->step, p->loss) < 0 || user;
}

int main(int argc, char **argv)
{
    if (argc != 5) return fprintf(stderr, "usage: e2e_kl FULL QUANTIZED TOKENS OUT\n"), 2;
    eqat_context *ctx = NULL;
    eqat_model *full = NULL, *quantized = NULL;
    eqat_data *data = NULL;
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = 512, d.val_size = 0, d.seq_len = 64;
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = o.micro_batch_size = 4, o.lr = 1e-3, o.progress = tell, o.loss = divergence;
    bool failed = eqat_context_create(&ctx, NULL, NULL, 0) ||
        eqat_model_open(ctx, &full, argv[1], NULL) ||
        eqat_model_open(ctx, &quantized, argv[2], NULL) ||
        eqat_data_open(ctx, &data, argv[3], eqat_model_tokenizer(full), 0, &d) ||
        (o.loss_user = full, eqat_e2e_qp_train(quantized, data, &o)) ||
        eqat_model_save(quantized, argv[4], NULL);
    if (failed) fprintf(stderr, "e2e_kl: %s\n", eqat_context_error(ctx));
    eqat_data_free(data);
    eqat_model_free(quantized);
    eqat_model_free(full);
    eqat_context_free(ctx);
    return failed;
}
