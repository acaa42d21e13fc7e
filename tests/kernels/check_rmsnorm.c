#include "plain.h"

typedef struct params {
    double eps, offset;
    bool acc_dx, acc_dgain;
} params;

/* Now and then a wide row, which takes more than one warp. */
static int64_t any_width(suite *s, int i)
{
    static const int64_t wide[] = {264, 520, 1040, 2048};
    return i % 4 == 3 ? wide[suite_pick(s, 0, 3)] : odd_size(s, 257);
}

/* ---- rmsnorm ---- */
enum { Y, RSTD, X, GAIN };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->rmsnorm(ctx, v[Y], v[RSTD], v[X], v[GAIN], ((const params *)p)->eps,
                      ((const params *)p)->offset);
}

static double plain_rstd(const double *x, int64_t n, double eps)
{
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) sum += x[j] * x[j];
    return pow(sum / (double)n + eps, -0.5);
}

static void again(suite *s, const void *p)
{
    int64_t width = s->arg[X].v.shape[1];
    for (int64_t i = 0; i < s->arg[X].count; i++) {
        double rs = plain_rstd(s->arg[X].in + i / width * width, width, ((const params *)p)->eps);
        s->arg[RSTD].again[i / width] = rs;
        double gain = s->arg[GAIN].in[i % width], offset = ((const params *)p)->offset;
        s->arg[Y].again[i] = s->arg[X].in[i] * rs * (offset + gain);
        s->arg[Y].mag[i] = fabs(s->arg[X].in[i] * rs) * (offset + fabs(gain));
    }
}

static void arguments(suite *s, eqi_dtype dtype, int64_t rows, int64_t width, flavour f)
{
    eqi_dtype master = suite_master_dtype(dtype);
    suite_arg(s, "y", OUT, ROWS, dtype, DIMS(rows, width));
    suite_arg(s, "rstd", OUT, CONTIGUOUS, master, DIMS(rows));
    arg_flavour(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(rows, width)), f);
    arg_normal(s, suite_arg(s, "gain", IN, CONTIGUOUS, master, DIMS(width)), 1.0);
}

static void rmsnorm(suite *s)
{
    static const double eps[] = {1e-5, 1e-6, 1e-2};
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t rows = odd_rows(s), width = any_width(s, i);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, WITH_NAN);
        params p = {.eps = eps[suite_pick(s, 0, 2)], .offset = suite_coin(s)};
        suite_begin(s, "R=%lld H=%lld %s eps %g offset %g, %s", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), p.eps, p.offset, flavour_name(f));
        s->aligned |= width > 257;
        arguments(s, dtype, rows, width, f);
        suite_run(s, call, again, &p);
    }
}

/* mean of squares 4: rstd = 1/2 */
static void rmsnorm_known(suite *s)
{
    double rstd = pow(4 + 0x1p-20, -0.5);
    suite_begin(s, "by hand");
    arguments(s, EQI_F32, 2, 2, ZERO);
    arg_values(&s->arg[X], (double[]){2, -2, 0, 0});
    arg_values(&s->arg[GAIN], (double[]){3, 5});
    known_run(s, call, &(params){.eps = 0x1p-20},
              (double[]){6 * rstd, -10 * rstd, 0, 0, rstd, 1024});
    suite_begin(s, "by hand, offset 1");
    arguments(s, EQI_F32, 1, 2, ZERO);
    arg_values(&s->arg[X], (double[]){2, -2});
    arg_values(&s->arg[GAIN], (double[]){3, -1});
    known_run(s, call, &(params){.eps = 0x1p-20, .offset = 1}, (double[]){8 * rstd, 0, rstd});
}

static void bench(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s R=4096 H=576", eqi_dtype_name(dtype));
        arguments(s, dtype, 4096, 576, NORMAL);
        s->bytes = 4096.0 * 576 * 2 * (double)eqi_dtype_size(dtype);
        suite_run(s, call, NULL, &(params){.eps = 1e-5});
    }
}

/* ---- rmsnorm_bwd ---- */
enum { DX, DGAIN, DY, BX, BGAIN, BRSTD };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    const params *q = p;
    return b->rmsnorm_bwd(ctx, v[DX], v[DGAIN], v[DY], v[BX], v[BGAIN], v[BRSTD], q->offset,
                          q->acc_dx, q->acc_dgain);
}

/* By the product rule on x_i rstd: d rstd / d x_j = -rstd^3 x_j / n. */
static void again_bwd(suite *s, const void *p)
{
    double offset = ((const params *)p)->offset;
    int64_t width = s->arg[BX].v.shape[1];
    if (!s->arg[DX].absent) plain_start(&s->arg[DX]);
    if (!s->arg[DGAIN].absent) plain_start(&s->arg[DGAIN]);
    for (int64_t r = 0; r < s->arg[BX].v.shape[0]; r++) {
        const double *x = s->arg[BX].in + r * width, *dy = s->arg[DY].in + r * width,
                     *gain = s->arg[BGAIN].in;
        double rs = s->arg[BRSTD].in[r];
        for (int64_t i = 0; i < width; i++) {
            if (!s->arg[DGAIN].absent) plain_term(&s->arg[DGAIN], i, dy[i] * x[i] * rs);
            if (s->arg[DX].absent) continue;
            plain_term(&s->arg[DX], r * width + i, dy[i] * gain[i] * rs);
            plain_term(&s->arg[DX], r * width + i, dy[i] * offset * rs);
            for (int64_t j = 0; j < width; j++) {
                double bend = -dy[j] * x[j] * rs * rs * rs * x[i] / (double)width;
                plain_term(&s->arg[DX], r * width + i, bend * gain[j]);
                plain_term(&s->arg[DX], r * width + i, bend * offset);
            }
        }
    }
}

static void arguments_bwd(suite *s, eqi_dtype dtype, int64_t rows, int64_t width, const params *p,
                          int which, flavour f)
{
    eqi_dtype master = suite_master_dtype(dtype);
    if (which & 1) {
        arg *dx = suite_arg(s, "dx", p->acc_dx ? ACC : OUT, ROWS, dtype, DIMS(rows, width));
        if (p->acc_dx) arg_normal(s, dx, 1.0);
    } else {
        suite_absent(s, "dx");
    }
    if (which & 2) {
        arg *dgain =
            suite_arg(s, "dgain", p->acc_dgain ? ACC : OUT, CONTIGUOUS, master, DIMS(width));
        if (p->acc_dgain) arg_normal(s, dgain, 1.0);
    } else {
        suite_absent(s, "dgain");
    }
    arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
    arg *x = suite_arg(s, "x", IN, ROWS, dtype, DIMS(rows, width));
    arg_flavour(s, x, f);
    arg_normal(s, suite_arg(s, "gain", IN, CONTIGUOUS, master, DIMS(width)), 1.0);
    arg *rstd = suite_arg(s, "rstd", IN, CONTIGUOUS, master, DIMS(rows));
    for (int64_t r = 0; r < rows; r++) {
        double row[2048];
        for (int64_t j = 0; j < width; j++) row[j] = arg_value(x, r * width + j);
        arg_set(rstd, r, plain_rstd(row, width, 1e-5));
    }
}

static void rmsnorm_bwd(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t width = any_width(s, i), rows = width <= 264 ? odd_rows(s) : suite_pick(s, 1, 3);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, ZERO);
        params p = {.offset = suite_coin(s), .acc_dx = suite_coin(s), .acc_dgain = suite_coin(s)};
        int which = (int)suite_pick(s, 1, 3);
        suite_begin(s, "R=%lld H=%lld %s offset %g acc %d %d which %d, %s", (long long)rows,
                    (long long)width, eqi_dtype_name(dtype), p.offset, p.acc_dx, p.acc_dgain, which,
                    flavour_name(f));
        s->aligned |= width > 257;
        arguments_bwd(s, dtype, rows, width, &p, which, f);
        suite_run(s, call_bwd, again_bwd, &p);
    }
}

static void bench_bwd(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        params p = {.eps = 0};
        suite_begin(s, "%s R=4096 H=576", eqi_dtype_name(dtype));
        arguments_bwd(s, dtype, 4096, 576, &p, 3, NORMAL);
        s->bytes = 4096.0 * 576 * 3 * (double)eqi_dtype_size(dtype);
        suite_run(s, call_bwd, NULL, &p);
    }
}

const kernel_check check_rmsnorm[] = {
    {"rmsnorm", rmsnorm, rmsnorm_known, bench},
    {"rmsnorm_bwd", rmsnorm_bwd, NULL, bench_bwd},
    {0},
};
