#include <stdlib.h>

#include "plain.h"

enum { STATS, DX, DW, X, W, LABELS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    (void)p;
    return b->linear_cross_entropy(ctx, v[STATS], v[DX], v[DW], v[X], v[W], v[LABELS]);
}

/* A fast kernel may round the gradient of the logits to the dtype of x for its products. */
static double product_eps(eqi_dtype dtype)
{
    return dtype == EQI_F64 ? 0x1p-40 : dtype == EQI_BF16 ? 0x1p-8 : 0x1p-21;
}

static void again(suite *s, const void *p)
{
    (void)p;
    eqi_dtype dtype = s->arg[X].v.dtype;
    int64_t rows = s->arg[X].v.shape[0], width = s->arg[X].v.shape[1], vocab = s->arg[W].v.shape[0];
    double *logit = malloc((size_t)vocab * sizeof *logit), base = s->arg[STATS].eps,
           eps = product_eps(dtype);
    arg *dx = &s->arg[DX], *dw = &s->arg[DW];
    plain_start(&s->arg[STATS]);
    if (!dx->absent) plain_start(dx), dx->eps = eps;
    if (!dw->absent) plain_start(dw), dw->eps = eps;
    for (int64_t r = 0; r < rows; r++) {
        int64_t label = (int64_t)s->arg[LABELS].in[r];
        if (label < 0) continue;
        double top = -INFINITY, sum = 0.0, spread = 0.0;
        for (int64_t v = 0; v < vocab; v++) {
            double terms = 0.0;
            logit[v] = 0.0;
            for (int64_t j = 0; j < width; j++) {
                double term =
                    s->arg[X].in[r * width + j] * round_to(dtype, s->arg[W].in[v * width + j]);
                logit[v] += term;
                terms += fabs(term);
            }
            spread = fmax(spread, terms);
            top = fmax(top, logit[v]);
        }
        for (int64_t v = 0; v < vocab; v++) sum += exp(logit[v] - top);
        s->arg[STATS].again[0] += top + log(sum) - logit[label];
        s->arg[STATS].again[1] += 1.0;
        s->arg[STATS].mag[0] += 1.0 + log((double)vocab) + 2.0 * spread;
        double grow = 1.0 + (1.0 + 2.0 * spread) * base / eps;
        for (int64_t v = 0; v < vocab; v++) {
            double prob = exp(logit[v] - top) / sum, d = v == label ? prob - 1.0 : prob,
                   d_mag = prob + (v == label ? 1.0 : 0.0);
            for (int64_t j = 0; j < width; j++) {
                double w = round_to(dtype, s->arg[W].in[v * width + j]),
                       x = s->arg[X].in[r * width + j];
                if (!dx->absent) {
                    dx->again[r * width + j] += d * w;
                    dx->mag[r * width + j] += fabs(d_mag * w) * grow;
                }
                if (!dw->absent) {
                    dw->again[v * width + j] += d * x;
                    dw->mag[v * width + j] += fabs(d_mag * x) * grow;
                }
            }
        }
    }
    free(logit);
}

static void arguments(suite *s, eqi_dtype dtype, eqi_dtype weight, int64_t rows, int64_t width,
                      int64_t vocab, int which, double spread)
{
    eqi_dtype master = suite_master_dtype(dtype);
    suite_arg(s, "stats", OUT, CONTIGUOUS, master, DIMS(2));
    if (which & 1)
        suite_arg(s, "dx", OUT, ROWS, dtype, DIMS(rows, width));
    else
        suite_absent(s, "dx");
    if (which & 2)
        arg_normal(s, suite_arg(s, "dw", ACC, CONTIGUOUS, master, DIMS(vocab, width)), 1.0);
    else
        suite_absent(s, "dw");
    arg_normal(s, suite_arg(s, "x", IN, CONTIGUOUS, dtype, DIMS(rows, width)), spread);
    arg_normal(s, suite_arg(s, "w", IN, CONTIGUOUS, weight, DIMS(vocab, width)),
               1.0 / sqrt((double)width));
    arg *labels = suite_arg(s, "labels", IN, CONTIGUOUS, EQI_I32, DIMS(rows));
    arg_whole(s, labels, 0, vocab - 1);
    int masked = s->bench ? 0 : (int)suite_pick(s, 0, 3);
    if (masked) arg_sprinkle(s, labels, masked == 1 ? -1 : -100, masked == 3 ? 1 : 3);
}

static void linear_cross_entropy(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 130),
                vocab = i % 5 ? odd_size(s, 257) : 2500; /* more than a panel */
        if (i % 9 == 8)
            rows = 2100, width = odd_size(s, 5),
            vocab = odd_size(s, 9); /* more than are in work at once */
        eqi_dtype dtype = suite_compute_dtype(s), weight = suite_weight_dtype(s, dtype);
        int which = (int)suite_pick(s, 0, 3);
        double spread = i % 4 ? 2.0 : i % 8 ? 100.0 : 1e4;
        suite_begin(s, "R=%lld H=%lld V=%lld %s w %s which %d logits %g", (long long)rows,
                    (long long)width, (long long)vocab, eqi_dtype_name(dtype),
                    eqi_dtype_name(weight), which, spread);
        arguments(s, dtype, weight, rows, width, vocab, which, spread);
        suite_run(s, call, again, NULL);
    }
}

/* Logits 0 and ln 3: p = 1/4, 3/4. Labels 0 and masked: loss ln 4, dlogits -3/4, 3/4 and 0. */
static void linear_cross_entropy_known(suite *s)
{
    suite_begin(s, "by hand");
    suite_arg(s, "stats", OUT, CONTIGUOUS, EQI_F32, DIMS(2));
    suite_arg(s, "dx", OUT, CONTIGUOUS, EQI_F32, DIMS(2, 2));
    arg_values(suite_arg(s, "dw", ACC, CONTIGUOUS, EQI_F32, DIMS(2, 2)),
               (double[]){10, 20, 30, 40});
    double ln3 = (double)(float)1.0986122886681098, e = exp(ln3), p = e / (1 + e);
    arg_values(suite_arg(s, "x", IN, CONTIGUOUS, EQI_F32, DIMS(2, 2)), (double[]){ln3, 2, 7, 7});
    arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(2, 2)), (double[]){0, 1, 1, 1});
    arg_values(suite_arg(s, "labels", IN, CONTIGUOUS, EQI_I32, DIMS(2)), (double[]){0, -100});
    known_run(
        s, call, NULL,
        (double[]){log(1 + e), 1, p, 0, 0, 0, 10 - p * ln3, 20 - p * 2, 30 + p * ln3, 40 + p * 2});
}

static void bench(suite *s)
{
    for (int i = 0; i < 6; i++) {
        int64_t rows = i < 4 ? 128 : 1024, width = 576, vocab = i < 4 ? 2048 : 49152;
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        int which = i < 2 ? 0 : 1;
        suite_begin(s, "%s R=%lld H=%lld V=%lld%s", eqi_dtype_name(dtype), (long long)rows,
                    (long long)width, (long long)vocab, which ? " dx" : "");
        arguments(s, dtype, dtype, rows, width, vocab, which, 1.0);
        s->flops = (which ? 4.0 : 2.0) * (double)(rows * width * vocab);
        suite_run(s, call, NULL, NULL);
    }
}

const kernel_check check_linear_cross_entropy[] = {
    {"linear_cross_entropy", linear_cross_entropy, linear_cross_entropy_known, bench},
    {0},
};
