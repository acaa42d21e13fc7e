#include "plain.h"

enum { P, G, M, V, FACTOR };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->adamw(ctx, v[P], v[G], v[M], v[V], v[FACTOR], p);
}

/* torch.optim.AdamW written out, in f64: what the rounding of each operation may cost is in mag. */
static void again(suite *s, const void *params)
{
    const eqi_adamw_desc *d = params;
    double factor = s->arg[FACTOR].absent ? 1.0 : s->arg[FACTOR].in[0], b1 = (double)d->beta1,
           b2 = (double)d->beta2;
    if (isnan(factor)) return;
    for (int64_t i = 0; i < s->arg[P].count; i++) {
        double g = factor * s->arg[G].in[i], p = s->arg[P].in[i], m = s->arg[M].in[i],
               v = s->arg[V].in[i];
        p *= 1.0 - (double)d->lr * (double)d->weight_decay;
        m += (g - m) * (1.0 - b1);
        v += (g * g - v) * (1.0 - b2);
        double update = (double)d->lr * (m / (1.0 - pow(b1, (double)d->step))) /
            (sqrt(v / (1.0 - pow(b2, (double)d->step))) + (double)d->eps);
        s->arg[P].again[i] = p - update;
        s->arg[M].again[i] = m;
        s->arg[V].again[i] = v;
        double scale = fabs(b1 * s->arg[M].in[i]) + fabs((1.0 - b1) * g);
        s->arg[P].mag[i] =
            fabs(p) + (fabs(m) > 0.0 ? 8.0 * fabs(update) * (1.0 + scale / fabs(m)) : 0.0);
        s->arg[M].mag[i] = scale;
        s->arg[V].mag[i] = v;
    }
}

static void arguments(suite *s, eqi_dtype dtype, int64_t n, flavour f)
{
    arg *p = suite_arg(s, "p", ACC, CONTIGUOUS, dtype, DIMS(n));
    arg *g = suite_arg(s, "g", IN, CONTIGUOUS, dtype, DIMS(n));
    arg *m = suite_arg(s, "m", ACC, CONTIGUOUS, dtype, DIMS(n));
    arg *v = suite_arg(s, "v", ACC, CONTIGUOUS, dtype, DIMS(n));
    arg_normal(
        s, p, (double)suite_pick(s, 0, 2) * 1e-3); /* small, so that an error in the update shows */
    arg_flavour(s, g, f);
    for (int64_t i = 0; i < n; i++) {
        double x = 0.1 * suite_normal(s), y = 0.1 * suite_normal(s);
        arg_set(m, i, f == ZERO ? 0.0 : x);
        arg_set(v, i, f == ZERO ? 0.0 : x * x + y * y);
    }
    if (dtype == EQI_F32) p->eps = 0x1p-23;
    p->match = m->match = v->match = dtype == EQI_F64 ? CLOSE : SAME;
}

static void adamw(suite *s)
{
    static const float rates[] = {1e-4f, 2e-5f, 1e-2f};
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t n = odd_size(s, 257) * suite_pick(s, 1, 9);
        eqi_dtype dtype = s->b->f64 && i % 4 == 0 ? EQI_F64 : EQI_F32;
        flavour f = (flavour)suite_pick(s, 0, WITH_NAN);
        eqi_adamw_desc d = {.lr = rates[suite_pick(s, 0, 2)],
                            .beta1 = 0.9f,
                            .beta2 = suite_coin(s) ? 0.999f : 0.95f};
        d.eps = 1e-8f;
        d.weight_decay = suite_coin(s) ? 0.1f : 0.0f;
        d.step = suite_coin(s) ? 1 : suite_pick(s, 1, 20000);
        int factor = (int)suite_pick(s, 0, 3);
        const double factors[] = {0.0, 1.0, 0.01, (double)NAN};
        suite_begin(s, "%lld %s lr %g wd %g step %lld factor %d, %s", (long long)n,
                    eqi_dtype_name(dtype), (double)d.lr, (double)d.weight_decay, (long long)d.step,
                    factor, flavour_name(f));
        arguments(s, dtype, n, f);
        if (factor == 0)
            suite_absent(s, "factor");
        else
            arg_set(suite_arg(s, "factor", IN, CONTIGUOUS, dtype, DIMS(1)), 0, factors[factor]);
        if (factor == 3)
            s->arg[P].match = s->arg[M].match = s->arg[V].match =
                EXACT; /* nothing at all is written */
        suite_run(s, call, again, &d);
    }
}

/* At step 1 from m = v = 0 the update is lr g / (|g| + eps), whatever the betas. */
static void adamw_known(suite *s)
{
    eqi_adamw_desc d = {.lr = 0.5f,
                        .beta1 = 0.75f,
                        .beta2 = 0.9375f,
                        .eps = 0x1p-20f,
                        .weight_decay = 0.25f,
                        .step = 1};
    suite_begin(s, "by hand");
    arguments(s, EQI_F32, 3, ZERO);
    arg_values(&s->arg[P], (double[]){1, 2, 4});
    arg_values(&s->arg[G], (double[]){4, -8, 0});
    suite_absent(s, "factor");
    known_run(s, call, &d,
              (double[]){0.875 - 0.5 * 4 / (4 + 0x1p-20), 1.75 + 0.5 * 8 / (8 + 0x1p-20), 3.5, 1,
                         -2, 0, 1, 4, 0});
}

static void bench(suite *s)
{
    eqi_adamw_desc d = {.lr = 1e-4f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = 10};
    suite_begin(s, "[4194304]");
    arguments(s, EQI_F32, 4194304, NORMAL);
    suite_absent(s, "factor");
    s->bytes = 4194304 * 28.0;
    suite_run(s, call, NULL, &d);
}

const kernel_check check_adamw[] = {{"adamw", adamw, adamw_known, bench}, {0}};
