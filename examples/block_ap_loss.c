/* Block-AP with a loss of one's own: the squared error of a block's output as a share of the
 * squared size of what it should be, so that blocks with large outputs count like others.
 *
 *     block_ap_loss MODEL TOKENS OUT        e.g. DIR/model DIR/train.u16 of train_tiny */
#include <eqat/eqat.h>
#include <stdio.h>
#include <stdlib.h>

static eqat_context *ctx;

static void ok(eqat_status status)
{
    if (status == EQAT_OK) return;
    fprintf(stderr, "block_ap_loss: %s\n", eqat_context_error(ctx));
    exit(1);
}

/* Made of ops on the tape: the library takes the gradient. */
static eqat_status relative_error(void *user, eqat_tape *tape, eqat_tensor *y, eqat_tensor *target,
                                  eqat_tensor **loss)
{
    float size;
    eqat_tensor *zeros, *square, *error;
    ok(eqat_op_scale(tape, target, 0, &zeros));
    ok(eqat_op_mse(tape, target, zeros, &square));
    ok(eqat_tensor_read(square, &size, sizeof size));
    ok(eqat_op_mse(tape, y, target, &error));
    ok(eqat_op_scale(tape, error, 1 / (size + 1e-12), loss));
    eqat_tensor_free(zeros);
    eqat_tensor_free(square);
    eqat_tensor_free(error);
    ++*(long *)user;
    return EQAT_OK;
}

static int32_t tell(void *user, const eqat_progress *p)
{
    (void)user;
    if (p->step % 16 == 0) printf("block %d: loss %.6f\n", (int)p->block, p->loss);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4) return fprintf(stderr, "usage: block_ap_loss MODEL TOKENS OUT\n"), 2;
    long calls = 0;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data;
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = 128;
    d.val_size = 0;
    d.seq_len = 64;
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.batch_size = 8;
    o.quant_lr = o.weight_lr = 1e-3;
    o.loss = relative_error;
    o.loss_user = &calls;
    o.progress = tell;
    if (eqat_context_create(&ctx, NULL, NULL, 0) != EQAT_OK) return 1;
    ok(eqat_model_open(ctx, &model, argv[1], NULL));
    ok(eqat_quantizer_create(ctx, &quantizer, NULL)); /* 2 bits in groups of 64 */
    ok(eqat_data_open(ctx, &data, argv[2], eqat_model_tokenizer(model), 0, &d));
    ok(eqat_block_ap_quantize(model, quantizer, data, &o));
    ok(eqat_model_save(model, argv[3]));
    printf("%ld losses\n", calls);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    return 0;
}
