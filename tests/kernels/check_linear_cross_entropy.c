#include <stdlib.h>

#include "plain.h"

enum { STATS, DX, DW, X, W, LABELS, TEACHER_X, TEACHER_W };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    const double *share = p; /* of the teacher; NULL: none */
    eqi_teacher teacher;
    if (share) teacher = (eqi_teacher){.x = *v[TEACHER_X], .w = *v[TEACHER_W], .share = *share};
    return b->linear_cross_entropy(ctx, v[STATS], v[DX], v[DW], v[X], v[W], v[LABELS],
                                   share ? &teacher : NULL);
}

/* A fast kernel may round the gradient of the logits to the dtype of x for its products, and the
 * teacher's softmax to F16. */
static double product_eps(eqi_dtype dtype)
{
    return dtype == EQI_F64 ? 0x1p-40 : dtype == EQI_BF16 ? 0x1p-8 : 0x1p-21;
}

/* ln softmax of row r of x w^T [V], and the largest sum of absolute terms of a logit. */
static double log_softmax(const suite *s, int x, int w, int64_t r, double *out)
{
    eqi_dtype dtype = s->arg[x].v.dtype;
    int64_t width = s->arg[x].v.shape[1], vocab = s->arg[w].v.shape[0];
    double top = -INFINITY, sum = 0.0, spread = 0.0;
    for (int64_t v = 0; v < vocab; v++) {
        double terms = 0.0;
        out[v] = 0.0;
        for (int64_t j = 0; j < width; j++) {
            double term =
                s->arg[x].in[r * width + j] * round_to(dtype, s->arg[w].in[v * width + j]);
            out[v] += term;
            terms += fabs(term);
        }
        spread = fmax(spread, terms);
        top = fmax(top, out[v]);
    }
    for (int64_t v = 0; v < vocab; v++) sum += exp(out[v] - top);
    for (int64_t v = 0; v < vocab; v++) out[v] -= top + log(sum);
    return spread;
}

/* dlogit d, of parts that add up to `parts`, to the gradients of row r of x and row v of w. */
static void spread_out(suite *s, int64_t r, int64_t v, double d, double parts)
{
    eqi_dtype dtype = s->arg[X].v.dtype;
    int64_t width = s->arg[X].v.shape[1];
    arg *dx = &s->arg[DX], *dw = &s->arg[DW];
    for (int64_t j = 0; j < width; j++) {
        double w = round_to(dtype, s->arg[W].in[v * width + j]), x = s->arg[X].in[r * width + j];
        if (!dx->absent) {
            dx->again[r * width + j] += d * w;
            dx->mag[r * width + j] += fabs(parts * w);
        }
        if (!dw->absent) {
            dw->again[v * width + j] += d * x;
            dw->mag[v * width + j] += fabs(parts * x);
        }
    }
}

static void again_row(suite *s, int64_t r, int64_t label, const double *share, double *ln_q,
                      double *ln_p)
{
    eqi_dtype dtype = s->arg[X].v.dtype;
    int64_t vocab = s->arg[W].v.shape[0];
    double own = 1.0 - (share ? *share : 0.0), eps = product_eps(dtype), base = s->arg[STATS].eps,
           of_p = 0.0, spread = log_softmax(s, X, W, r, ln_q), divergence = 0.0, terms = 0.0;
    if (share) of_p = log_softmax(s, TEACHER_X, TEACHER_W, r, ln_p);
    double soft = share && dtype == EQI_BF16 ? 0x1p-11 : 0.0; /* p in F16 */
    for (int64_t v = 0; v < vocab; v++) {
        double q = exp(ln_q[v]), p = share ? exp(ln_p[v]) : 0.0,
               d = q - (v == label ? own : 0.0) - (share ? *share * p : 0.0),
               parts = q + (v == label ? own : 0.0) + p;
        if (share) divergence += p * (ln_p[v] - ln_q[v]);
        if (share) terms += p * fabs(ln_p[v] - ln_q[v]);
        spread_out(s, r, v, d, parts * (1.0 + (1.0 + 2.0 * (spread + of_p)) * base / eps));
    }
    s->arg[STATS].again[0] += -own * ln_q[label] + (share ? *share * divergence : 0.0);
    s->arg[STATS].again[1] += 1.0;
    s->arg[STATS].mag[0] +=
        1.0 + log((double)vocab) + 2.0 * (spread + of_p) + terms * (1.0 + soft / base);
}

static void again(suite *s, const void *p)
{
    int64_t rows = s->arg[X].v.shape[0], vocab = s->arg[W].v.shape[0];
    double *ln = malloc((size_t)(2 * vocab) * sizeof *ln), eps = product_eps(s->arg[X].v.dtype);
    plain_start(&s->arg[STATS]);
    for (int i = DX; i <= DW; i++)
        if (!s->arg[i].absent) plain_start(&s->arg[i]), s->arg[i].eps = eps;
    for (int64_t r = 0; r < rows; r++) {
        int64_t label = (int64_t)s->arg[LABELS].in[r];
        if (label >= 0) again_row(s, r, label, p, ln, ln + vocab);
    }
    free(ln);
}

static void teacher(suite *s, eqi_dtype dtype, eqi_dtype weight, int64_t rows, int64_t width,
                    int64_t vocab, double spread)
{
    arg_normal(s, suite_arg(s, "teacher's x", IN, CONTIGUOUS, dtype, DIMS(rows, width)), spread);
    arg_normal(s, suite_arg(s, "teacher's w", IN, CONTIGUOUS, weight, DIMS(vocab, width)),
               1.0 / sqrt((double)width));
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
        static const double shares[] = {0.0, 0.25, 1.0};
        const double *share = i % 2 ? NULL : &shares[i / 2 % 3];
        suite_begin(s, "R=%lld H=%lld V=%lld %s w %s which %d logits %g teacher %g",
                    (long long)rows, (long long)width, (long long)vocab, eqi_dtype_name(dtype),
                    eqi_dtype_name(weight), which, spread, share ? *share : 0.0);
        arguments(s, dtype, weight, rows, width, vocab, which, spread);
        if (share)
            teacher(s, dtype, suite_weight_dtype(s, dtype), rows, odd_size(s, 70), vocab,
                    i % 8 ? 2.0 : 50.0);
        suite_run(s, call, again, share);
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

/* A teacher of logits 0 and 0 beside the student's 0 and ln 3: p = 1/2, q = 1/4, 3/4. Half the loss
 * is ln 4 of label 0, half the divergence ln (4 / 3) / 2; dlogits: q - (1/2, 0) - p / 2. */
static void teacher_known(suite *s)
{
    static const double half = 0.5;
    suite_begin(s, "a teacher by hand");
    suite_arg(s, "stats", OUT, CONTIGUOUS, EQI_F32, DIMS(2));
    suite_arg(s, "dx", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 1));
    suite_absent(s, "dw");
    double ln3 = (double)(float)1.0986122886681098, e = exp(ln3), q = e / (1 + e);
    arg_values(suite_arg(s, "x", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){ln3});
    arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(2, 1)), (double[]){0, 1});
    arg_values(suite_arg(s, "labels", IN, CONTIGUOUS, EQI_I32, DIMS(1)), (double[]){0});
    arg_values(suite_arg(s, "teacher's x", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){0});
    arg_values(suite_arg(s, "teacher's w", IN, CONTIGUOUS, EQI_F32, DIMS(2, 1)), (double[]){3, 4});
    double divergence = -log(2.0) - 0.5 * (log(1 - q) + log(q));
    known_run(s, call, &half, (double[]){0.5 * log(1 + e) + 0.5 * divergence, 1, q - 0.25});
}

static void known(suite *s)
{
    linear_cross_entropy_known(s);
    teacher_known(s);
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
    {"linear_cross_entropy", linear_cross_entropy, known, bench},
    {0},
};
