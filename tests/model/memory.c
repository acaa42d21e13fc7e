/* Every allocation of a model's life fails once: one clear error, nothing leaked, nothing left
 * behind. */
#include <sys/stat.h>

#include "cases.h"

static eqat_status whole_life(eqi_ctx *ctx, const char *in, const char *out)
{
    eqat_model *m = NULL;
    eqat_quantizer *q = NULL;
    eqat_tensor *t = NULL;
    eqat_tape *tape = NULL;
    eqat_model_options o;
    eqat_model_options_init(&o, sizeof o);
    o.compute_dtype = EQAT_F32;
    eqat_quantizer_options qo;
    eqat_quantizer_options_init(&qo, sizeof qo);
    qo.group_size = 32;
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = 1;
    b.time = 3;
    b.ids = b.positions = (int32_t[]){0, 1, 2};
    b.segments = (int32_t[]){0, 0, 0};
    eqat_status st;
    EQI_GOTO(done, eqat_model_open(ctx, &m, in, &o));
    EQI_GOTO(done, eqat_model_forward(m, NULL, &b, &t));
    EQI_GOTO(done, eqat_quantizer_create(ctx, &q, &qo));
    EQI_GOTO(done, eqat_model_quantize_rtn(m, q, NULL));
    eqi_tensor_unref(t);
    t = NULL;
    EQI_GOTO(done, eqat_model_parameter(m, "model.layers.0.mlp.up_proj.scales", &t));
    t->requires_grad = true;
    t = NULL;
    EQI_GOTO(done, eqat_tape_create(ctx, &tape));
    EQI_GOTO(done, eqat_model_loss(m, tape, &b, &t, NULL));
    EQI_GOTO(done, eqat_tape_backward(tape, t, 1));
    EQI_GOTO(done, eqat_model_save(m, out, NULL));
done:
    eqi_tensor_unref(t);
    eqat_tape_free(tape);
    eqat_quantizer_free(q);
    eqat_model_free(m);
    return st;
}

START_TEST(allocations_may_fail)
{
    eqi_ctx *plain = open_ctx("ref");
    const char *dir = scratch_dir(), *in = scratch("in"), *out = scratch("out");
    mkdir(in, 0777);
    write_model(plain, in, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
    eqi_ctx_unref(plain);
    size_t failures = 0;
    bool all = false;
    /* Steps grow, or every request of the forward passes would have a run of its own. */
    for (size_t at = 1; !all; at += 1 + at / 40) {
        counter c = {0};
        eqi_ctx *ctx = open_counted("ref", &c);
        c.requests = 0;
        c.fail_at = at;
        c.once = true;
        eqat_status st = whole_life(ctx, in, out);
        all = c.requests < at;
        /* A tensor's request is made again after giving recycled memory back, so that one failure
         * need not show. */
        ck_assert_msg(st == EQAT_OUT_OF_MEMORY || st == EQAT_OK, "request %zu: %s: %s", at,
                      eqat_status_name(st), ctx->error);
        ck_assert_int_eq(entries(dir), st == EQAT_OK ? 2 : 1);
        if (st == EQAT_OK) remove_dir(out);
        failures += st != EQAT_OK;
        eqi_ctx_unref(ctx);
        ck_assert_uint_eq(c.live, 0);
    }
    ck_assert_uint_gt(failures, 50);
    scratch_clean();
}
END_TEST

TCase *case_memory(void)
{
    TCase *tc = tcase_create("memory");
    tcase_add_test(tc, allocations_may_fail);
    return tc;
}
