/* Block-AP with a loss of one's own: the squared error of a block's output as a share of the
 * squared size of what it should be, so that blocks with large outputs count like others.
 *
 *     block_ap_loss MODEL TOKENS OUT        e.g. DIR/model DIR/train.u16 of train_tiny */
#include <eqat/eqat.h>
#include <stdio.h>

/* Made of ops on the tape: the library takes the gradient. */
static eqat_status relative_error(void *user, eqat_tape *tape, eqat_tensor *y, eqat_tensor *target,
                                  eqat_tensor **loss)
{
    float size = 0;
    eqat_tensor *zeros = NULL, *square = NULL, *error = NULL;
    eqat_status status = eqat_op_scale(tape, target, 0, &zeros);
    if (status == EQAT_OK) status = eqat_op_mse(tape, target, zeros, &square);
    if (status == EQAT_OK) status = eqat_tensor_read(square, &size, sizeof size);
    if (status == EQAT_OK) status = eqat_op_mse(tape, y, target, &error);
    if (status == EQAT_OK) status = eqat_op_scale(tape, error, 1 / (size + 1e-12), loss);
    eqat_tensor_free(zeros);
    eqat_tensor_free(square);
    eqat_tensor_free(error);
    return (void)user, status;
}

static int32_t tell(void *user, const eqat_progress *p)
{
    return printf("block %d: loss %.6f\n", (int)p->block, p->loss) < 0 || user;
}

int main(int argc, char **argv)
{
    if (argc != 4) return fprintf(stderr, "usage: block_ap_loss MODEL TOKENS OUT\n"), 2;
    eqat_context *ctx = NULL;
    eqat_model *model = NULL;
    eqat_quantizer *quantizer = NULL; /* 2 bits in groups of 64 */
    eqat_data *data = NULL;
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = 128, d.val_size = 0, d.seq_len = 64;
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.batch_size = 8, o.quant_lr = o.weight_lr = 1e-3, o.progress = tell;
    o.loss = relative_error;
    bool failed = eqat_context_create(&ctx, NULL, NULL, 0) ||
        eqat_model_open(ctx, &model, argv[1], NULL) ||
        eqat_quantizer_create(ctx, &quantizer, NULL) ||
        eqat_data_open(ctx, &data, argv[2], eqat_model_tokenizer(model), 0, &d) ||
        eqat_block_ap_quantize(model, quantizer, data, &o) || eqat_model_save(model, argv[3], NULL);
    if (failed) fprintf(stderr, "block_ap_loss: %s\n", eqat_context_error(ctx));
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    return failed;
}
