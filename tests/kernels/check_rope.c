#include "plain.h"

enum { Y, X, COS, SIN, POS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->rope(ctx, v[Y], v[X], v[COS], v[SIN], v[POS], *(const int *)p);
}

/* Seen as complex numbers: (x[c] + i x[c + C]) (cos + i sin), or its conjugate. */
static void again(suite *s, const void *p)
{
    const arg *x = &s->arg[X];
    int sign = *(const int *)p;
    int64_t time = x->v.shape[1], heads = x->v.shape[2], size = x->v.shape[3],
            half = s->arg[COS].v.shape[1];
    for (int64_t i = 0; i < x->count; i++) {
        int64_t d = i % size, bt = i / size / heads,
                at = s->arg[POS].absent ? bt % time : (int64_t)s->arg[POS].in[bt];
        double re, im, value;
        if (d >= 2 * half) {
            value = x->in[i];
        } else {
            int64_t c = d % half, first = i - d;
            double co = s->arg[COS].in[at * half + c], si = s->arg[SIN].in[at * half + c] * sign;
            re = x->in[first + c] * co - x->in[first + c + half] * si;
            im = x->in[first + c] * si + x->in[first + c + half] * co;
            value = d < half ? re : im;
            s->arg[Y].mag[i] = fabs(x->in[first + c]) + fabs(x->in[first + c + half]);
        }
        s->arg[Y].again[i] = value;
    }
}

static void arguments(suite *s, eqi_dtype dtype, const int64_t *shape, int64_t half,
                      int64_t positions, bool with_pos, bool in_place)
{
    eqi_dtype master = suite_master_dtype(dtype);
    suite_arg(s, "y", OUT, ROWS, dtype, 4, shape);
    arg_normal(s, suite_arg(s, "x", IN, ROWS, dtype, 4, shape), 1.0);
    arg *cosine = suite_arg(s, "cos", IN, CONTIGUOUS, master, DIMS(positions, half));
    arg *sine = suite_arg(s, "sin", IN, CONTIGUOUS, master, DIMS(positions, half));
    for (int64_t i = 0; i < cosine->count; i++) {
        double angle = 10.0 * suite_normal(s);
        arg_set(cosine, i, cos(angle));
        arg_set(sine, i, sin(angle));
    }
    if (with_pos)
        arg_whole(s, suite_arg(s, "pos", IN, CONTIGUOUS, EQI_I32, DIMS(shape[0], shape[1])), 0,
                  positions - 1);
    else
        suite_absent(s, "pos");
    if (in_place) s->arg[Y].alias = X;
}

static void rope(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t shape[] = {suite_pick(s, 0, 3), suite_pick(s, 1, 9), suite_pick(s, 1, 5),
                           odd_size(s, 130)};
        int64_t half = suite_coin(s) ? shape[3] / 2 : suite_pick(s, 0, shape[3] / 2);
        if (i % 2) { /* for kernels that move 16 bytes at a time */
            shape[3] = 16 * suite_pick(s, 1, 8);
            half = 8 * suite_pick(s, 1, shape[3] / 16);
        }
        if (half == 0) half = shape[3] / 2;
        if (half == 0) continue;
        eqi_dtype dtype = suite_compute_dtype(s);
        bool with_pos = suite_coin(s), in_place = suite_coin(s);
        int sign = suite_coin(s) ? 1 : -1;
        suite_begin(s, "B=%lld T=%lld heads %lld D=%lld C=%lld %s%s%s sign %d", (long long)shape[0],
                    (long long)shape[1], (long long)shape[2], (long long)shape[3], (long long)half,
                    eqi_dtype_name(dtype), with_pos ? " pos" : "", in_place ? " in place" : "",
                    sign);
        s->aligned |= i % 4 == 1;
        arguments(s, dtype, shape, half, shape[1] + suite_pick(s, 0, 5), with_pos, in_place);
        suite_run(s, call, again, &sign);
    }
}

/* A quarter turn takes (x0, x1) to (-x1, x0). */
static void rope_known(suite *s)
{
    suite_begin(s, "by hand");
    int64_t shape[] = {1, 2, 1, 5};
    int sign = 1;
    arguments(s, EQI_F32, shape, 2, 3, true, false);
    arg_values(&s->arg[X], (double[]){1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    arg_values(&s->arg[COS], (double[]){9, 9, 0, 1, -1, 0.5});
    arg_values(&s->arg[SIN], (double[]){9, 9, 1, 0, 0, 0.5});
    arg_values(&s->arg[POS], (double[]){1, 2});
    known_run(s, call, &sign, (double[]){-3, 2, 1, 4, 5, -6, 3.5 - 4.5, -8, 4.5 + 3.5, 10});
}

static void bench(suite *s)
{
    for (int i = 0; i < 2; i++) {
        int64_t shape[] = {2, 2048, 9, 64};
        int sign = 1;
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s B=2 T=2048 heads 9 D=64", eqi_dtype_name(dtype));
        arguments(s, dtype, shape, 32, 2048, false, false);
        s->bytes = 2.0 * 2048 * 9 * 64 * 2 * (double)eqi_dtype_size(dtype);
        suite_run(s, call, NULL, &sign);
    }
}

const kernel_check check_rope[] = {{"rope", rope, rope_known, bench}, {0}};
