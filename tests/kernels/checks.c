#include "checks.h"

const kernel_check *const kernel_checks[] = {
    check_memory,        check_elementwise,
    check_embedding,     check_linear,
    check_fakequant,     check_fq_linear,
    check_quantize,      check_quantize_minmax,
    check_packed_linear, check_init,
    check_rmsnorm,       check_rope,
    check_attention,     check_gated,
    check_route,         check_gather_scatter,
    check_mse,           check_linear_cross_entropy,
    check_kl_divergence, check_clip,
    check_adamw,         NULL,
};

typedef struct known {
    suite_call call;
    const void *params;
    const double *expected;
} known;

static eqat_status call_known(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                              const void *p)
{
    const known *k = p;
    return k->call(b, ctx, v, k->params);
}

static void again_known(suite *s, const void *p)
{
    const double *next = ((const known *)p)->expected;
    for (int i = 0; i < s->args; i++)
        for (int64_t e = 0; !s->arg[i].absent && s->arg[i].role != IN && e < s->arg[i].count; e++) {
            s->arg[i].again[e] = *next++;
            s->arg[i].mag[e] = 1.0;
        }
}

void known_run(suite *s, suite_call call, const void *params, const double *expected)
{
    suite_run(s, call_known, again_known,
              &(known){.call = call, .params = params, .expected = expected});
}
