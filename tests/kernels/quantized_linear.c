#include "quantized_linear.h"

#include <stdlib.h>

enum { Y, X, WEIGHT, BIAS = WEIGHT + 3 };
enum { DX, DY };

linear_case draw_case(suite *s, const weight_form *form)
{
    linear_case p = form->draw(s);
    p.form = form;
    return p;
}

void begin_case(suite *s, const linear_case *p, const char *more)
{
    suite_begin(s, "R=%lld N=%lld K=%lld bits %d group %lld %s%s%s%s%s", (long long)p->rows,
                (long long)p->out, (long long)p->in, p->q.bits, (long long)p->q.group,
                eqi_dtype_name(p->dtype), p->q.clamp ? " clamp" : "",
                p->zeros == EQI_U8 ? " z u8" : "", *more ? " " : "", more);
    s->aligned |= p->aligned;
}

void gradient_argument(suite *s, const linear_case *p, const char *name, bool present,
                       int64_t columns)
{
    if (!present) {
        suite_absent(s, name);
        return;
    }
    arg *d = suite_arg(s, name, p->acc ? ACC : OUT, CONTIGUOUS, suite_master_dtype(p->dtype),
                       DIMS(p->out, columns));
    if (p->acc) arg_normal(s, d, 1.0);
}

static double *weights(const suite *s, const linear_case *p)
{
    double *w = malloc((size_t)(p->out * p->in) * sizeof *w);
    for (int64_t i = 0; w && i < p->out * p->in; i++) w[i] = p->form->value(s, WEIGHT, p, i);
    return w;
}

void forward_arguments(suite *s, const linear_case *p)
{
    suite_arg(s, "y", OUT, ROWS, p->dtype, DIMS(p->rows, p->out));
    arg_flavour(s, suite_arg(s, "x", IN, ROWS, p->dtype, DIMS(p->rows, p->in)), p->flavour);
    p->form->arguments(s, p);
    if (p->present)
        arg_normal(s,
                   suite_arg(s, "bias", IN, CONTIGUOUS, suite_master_dtype(p->dtype), DIMS(p->out)),
                   1.0);
    else
        suite_absent(s, "bias");
}

static void forward_again(suite *s, const void *params)
{
    const linear_case *p = params;
    arg *y = &s->arg[Y];
    double *w = weights(s, p);
    plain_start(y);
    for (int64_t i = 0; p->present && i < y->count; i++)
        plain_term(y, i, s->arg[BIAS].in[i % p->out]);
    plain_product(y, s->arg[X].in, w, p->rows, p->out, p->in);
    free(w);
}

void forward_case(suite *s, const linear_case *p, suite_call call)
{
    begin_case(s, p, flavour_name(p->flavour));
    forward_arguments(s, p);
    suite_run(s, call, forward_again, p);
}

void forward_cases(suite *s, const weight_form *form, suite_call call)
{
    for (int i = 0; i < s->cases * 2; i++) {
        linear_case p = draw_case(s, form);
        p.flavour = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        p.present = suite_coin(s);
        forward_case(s, &p, call);
    }
}

void bwd_x_arguments(suite *s, const linear_case *p)
{
    arg *dx = suite_arg(s, "dx", p->acc ? ACC : OUT, ROWS, p->dtype, DIMS(p->rows, p->in));
    if (p->acc) arg_normal(s, dx, 1.0);
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, p->dtype, DIMS(p->rows, p->out)), p->flavour);
    p->form->arguments(s, p);
}

static void bwd_x_again(suite *s, const void *params)
{
    const linear_case *p = params;
    double *w = weights(s, p);
    plain_start(&s->arg[DX]);
    plain_product_bwd_x(&s->arg[DX], s->arg[DY].in, w, p->rows, p->out, p->in);
    free(w);
}

void bwd_x_cases(suite *s, const weight_form *form, suite_call call)
{
    for (int i = 0; i < s->cases * 2; i++) {
        linear_case p = draw_case(s, form);
        p.flavour = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        begin_case(s, &p, p.acc ? "acc" : "");
        bwd_x_arguments(s, &p);
        suite_run(s, call, bwd_x_again, &p);
    }
}

void bench_cases(suite *s, const weight_form *form, unsigned present, case_arguments arguments,
                 suite_call call)
{
    for (const linear_case *size = form->benched; size->rows; size++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            linear_case p = *size;
            p.dtype = bf16 ? EQI_BF16 : EQI_F32;
            p.present = present;
            p.form = form;
            begin_case(s, &p, "");
            arguments(s, &p);
            s->flops = 2.0 * (double)(p.rows * p.out * p.in);
            suite_run(s, call, NULL, &p);
        }
}
