#include "setting.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

eqat_block_ap_options fast_options(void)
{
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.quant_lr = 1e-3;
    o.weight_lr = 1e-3;
    return o;
}

eqat_e2e_qp_options fast_e2e_options(void)
{
    eqat_e2e_qp_options e;
    eqat_e2e_qp_options_init(&e, sizeof e);
    e.batch_size = 4;
    e.micro_batch_size = 2;
    e.lr = 1e-3;
    return e;
}

const setting usual = {.threads = 2, .seed = 3, .shuffle = true, .compute = EQAT_F32, .bits = 2};

bench set_up(const setting *s)
{
    bench b = {.ctx = make_context(s->threads, s->seed)};
    b.model = open_model(b.ctx, "model", s->compute);
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = s->bits;
    o.group_size = 32;
    o.init = s->init;
    o.zero_point = (int32_t)s->zero_point;
    OK(b.ctx, eqat_quantizer_create(b.ctx, &b.quantizer, &o));
    b.data = make_data(b.ctx, 7, 3, s->shuffle);
    return b;
}

void tear_down(bench *b)
{
    eqat_data_free(b->data);
    eqat_quantizer_free(b->quantizer);
    eqat_model_free(b->model);
    eqat_context_free(b->ctx);
}

const char *one_call(const setting *s, const char *name)
{
    bench b = set_up(s);
    eqat_block_ap_options o = fast_options();
    o.offload_dir = s->offload_dir;
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    eqat_e2e_qp_options e = fast_e2e_options();
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &e));
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

const char *reference(void)
{
    static char path[512];
    if (!path[0]) snprintf(path, sizeof path, "%s", one_call(&usual, "reference"));
    return path;
}

float *parameter(eqat_context *ctx, eqat_model *model, const char *name, int64_t *n)
{
    eqat_tensor *t;
    OK(ctx, eqat_model_parameter(model, name, &t));
    return read_floats(t, n);
}

bool equal(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

double perplexity(eqat_context *ctx, eqat_model *model, eqat_data *data)
{
    eqat_perplexity p = {.struct_size = sizeof p};
    OK(ctx, eqat_eval_perplexity(model, data, NULL, &p));
    return p.perplexity;
}

int32_t watch(void *user, const eqat_progress *p)
{
    seen *s = user;
    ck_assert_str_eq(p->phase, "block-ap");
    ck_assert_int_eq(p->step, s->calls + 1);
    ck_assert(isnan(p->grad_norm));
    ck_assert(isfinite(p->loss));
    if (s->calls++ == 0) {
        s->first_loss = p->loss;
        s->first_lr = p->lr;
    }
    if (isfinite(p->val_loss)) s->validated++;
    s->last_loss = p->loss;
    s->last_lr = p->lr;
    s->block = p->block;
    s->step = p->step;
    s->steps = p->steps;
    return s->calls == s->cancel_at;
}
