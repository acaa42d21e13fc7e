#include "quant/feedback.h"

#include "base/threads.h"

#ifdef EQI_LAPACK

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8    /* rows side by side */
#define COLUMNS 64 /* whose errors reach the rest together */
#define DAMPING 0.01

void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t length);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info,
             size_t uplo_length, size_t diag_length);

bool eqi_feedback_available(void) { return true; }

/* An input and its moment. */
typedef struct input {
    double moment;
    int64_t index;
} input;

typedef struct feedback {
    float *w; /* [n][k] */
    const float *s, *z;
    int64_t n, k;
    eqi_quant_desc q;
    const input *order;  /* [k] */
    const float *factor; /* [k][k]: element (j, i) of the upper factor at [i * k + j], j <= i */
    char *workers;
    size_t worker_size;
} feedback;

static int falling(const void *a, const void *b)
{
    const input *x = a, *y = b;
    if (x->moment != y->moment) return x->moment > y->moment ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* The value that input j of row r is rounded to. */
static float rounded(const feedback *f, int64_t r, int64_t j, float w)
{
    const int64_t g = r * (f->k / f->q.group) + f->order[j].index / f->q.group;
    const float top = (float)((1 << f->q.bits) - 1), s = f->s[g],
                z = fminf(fmaxf(rintf(f->z[g]), 0.0f), top);
    return (fminf(fmaxf(rintf(w / s) + z, 0.0f), top) - z) * s;
}

/* Columns first..end of `lanes` rows from r, t [k][LANES]; their errors go to error [..][LANES]. */
static void round_columns(const feedback *f, int64_t r, int lanes, int64_t first, int64_t end,
                          float *t, float *error)
{
    for (int64_t j = first; j < end; j++) {
        float *e = error + (j - first) * LANES;
        const float pivot = f->factor[j * f->k + j];
        for (int l = 0; l < lanes; l++)
            e[l] = (t[j * LANES + l] - rounded(f, r + l, j, t[j * LANES + l])) / pivot;
        for (int64_t i = j + 1; i < end; i++)
            for (int l = 0; l < LANES; l++) t[i * LANES + l] -= e[l] * f->factor[i * f->k + j];
    }
}

static void spread(const feedback *f, int64_t first, int64_t end, float *t, const float *error)
{
    for (int64_t i = end; i < f->k; i++) {
        const float *factor = f->factor + i * f->k + first;
        float sum[LANES] = {0};
        for (int64_t j = 0; j < end - first; j++)
            for (int l = 0; l < LANES; l++) sum[l] += error[j * LANES + l] * factor[j];
        for (int l = 0; l < LANES; l++) t[i * LANES + l] -= sum[l];
    }
}

static void rows(void *arg, size_t index, int worker)
{
    const feedback *f = arg;
    const int64_t r = (int64_t)index * LANES;
    const int lanes = f->n - r < LANES ? (int)(f->n - r) : LANES;
    float *t = (float *)(void *)(f->workers + (size_t)worker * f->worker_size),
          *error = t + f->k * LANES;
    memset(t, 0, f->worker_size);
    for (int64_t j = 0; j < f->k; j++)
        for (int l = 0; l < lanes; l++) t[j * LANES + l] = f->w[(r + l) * f->k + f->order[j].index];
    for (int64_t first = 0; first < f->k; first += COLUMNS) {
        const int64_t end = first + COLUMNS < f->k ? first + COLUMNS : f->k;
        round_columns(f, r, lanes, first, end, t, error);
        spread(f, first, end, t, error);
    }
    for (int64_t j = 0; j < f->k; j++)
        for (int l = 0; l < lanes; l++) f->w[(r + l) * f->k + f->order[j].index] = t[j * LANES + l];
}

/* The moments, damped, the last input of the order first; false: there are none, or *finite is
 * not. */
static bool sort(const float *moments, int64_t k, input *order, double *h, bool *finite)
{
    double mean = 0.0;
    for (int64_t i = 0; i < k; i++) {
        order[i] = (input){.moment = (double)moments[i * k + i], .index = i};
        mean += order[i].moment / (double)k;
    }
    *finite = isfinite(mean);
    if (!*finite || !(mean > 0.0)) return false;
    qsort(order, (size_t)k, sizeof *order, falling);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++)
            h[i * k + j] = (double)moments[order[k - 1 - i].index * k + order[k - 1 - j].index];
    for (int64_t i = 0; i < k; i++) h[i * k + i] += DAMPING * mean;
    return true;
}

/* h becomes the upper Cholesky factor R of its inverse, in LAPACK's order of columns and with the
 * first input first: of h = L L^T in the other order R is the inverse of L, read from its end. */
static bool factor(double *h, int64_t k)
{
    const int n = (int)k;
    int info;
    dpotrf_("L", &n, h, &n, &info, 1);
    if (!info) dtrtri_("L", "N", &n, h, &n, &info, 1, 1);
    for (int64_t i = 0, j = k * k - 1; i < j; i++, j--) {
        double t = h[i];
        h[i] = h[j];
        h[j] = t;
    }
    return !info;
}

/* Over the doubles: float i is written after double i was read. */
static const float *narrowed(double *h, int64_t count)
{
    float *out = (float *)(void *)h;
    for (int64_t i = 0; i < count; i++) {
        double x;
        memcpy(&x, h + i, sizeof x);
        float y = (float)x;
        memcpy(out + i, &y, sizeof y);
    }
    return out;
}

static eqat_status to_host(const eqi_tensor *t, float **out)
{
    size_t bytes = (size_t)eqi_view_count(&t->v) * sizeof **out;
    *out = eqi_alloc(eqi_tensor_ctx(t), bytes, "error feedback");
    if (!*out) return EQAT_OUT_OF_MEMORY;
    return eqi_tensor_download(t, *out, bytes);
}

static eqat_status all_rows(eqi_ctx *ctx, feedback *f)
{
    int workers = eqi_pool_size(ctx->pool);
    f->worker_size = (size_t)((f->k + COLUMNS) * LANES) * sizeof(float);
    f->workers = eqi_alloc(ctx, (size_t)workers * f->worker_size, "error feedback");
    if (!f->workers) return EQAT_OUT_OF_MEMORY;
    eqi_parallel(ctx, (size_t)((f->n + LANES - 1) / LANES), rows, f);
    eqi_free(ctx, f->workers);
    return EQAT_OK;
}

static eqat_status feed(eqi_ctx *ctx, feedback *f, const float *moments, input *order, double *h)
{
    bool finite;
    f->order = order;
    if (sort(moments, f->k, order, h, &finite)) {
        finite = factor(h, f->k);
        f->factor = narrowed(h, f->k * f->k);
    } else if (finite)
        return EQAT_OK;
    if (!finite)
        return eqi_fail(ctx, EQAT_NUMERIC,
                        "found second moments of inputs that are not finite, expected numbers");
    return all_rows(ctx, f);
}

eqat_status eqi_feedback(eqi_tensor *w, const eqi_tensor *moments, const eqi_tensor *s,
                         const eqi_tensor *z, const eqi_quant_desc *desc)
{
    enum { W, S, Z, M, COUNT };
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    const eqi_tensor *from[COUNT] = {w, s, z, moments};
    float *host[COUNT] = {NULL};
    const int64_t k = w->v.shape[1];
    double *h = NULL;
    input *order = NULL;
    eqat_status st = EQAT_OK;
    for (int i = 0; i < COUNT; i++) EQI_GOTO(done, to_host(from[i], &host[i]));
    h = eqi_alloc(ctx, (size_t)(k * k) * sizeof *h, "error feedback");
    order = h ? eqi_alloc(ctx, (size_t)k * sizeof *order, "error feedback") : NULL;
    if (!order) EQI_GOTO(done, EQAT_OUT_OF_MEMORY);
    feedback f = {.w = host[W], .s = host[S], .z = host[Z], .n = w->v.shape[0], .k = k, .q = *desc};
    EQI_GOTO(done, feed(ctx, &f, host[M], order, h));
    st = eqi_tensor_upload(w, host[W], (size_t)(f.n * k) * sizeof(float));
done:
    for (int i = 0; i < COUNT; i++) eqi_free(ctx, host[i]);
    eqi_free(ctx, h);
    eqi_free(ctx, order);
    return st;
}

#else

bool eqi_feedback_available(void) { return false; }

eqat_status eqi_feedback(eqi_tensor *w, const eqi_tensor *moments, const eqi_tensor *s,
                         const eqi_tensor *z, const eqi_quant_desc *desc)
{
    (void)moments;
    (void)s;
    (void)z;
    (void)desc;
    return eqi_fail(eqi_tensor_ctx(w), EQAT_UNSUPPORTED, "built without LAPACK");
}

#endif
