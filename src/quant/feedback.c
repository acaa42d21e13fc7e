#include "quant/feedback.h"

#include <math.h>
#include <stdlib.h>

#include "base/threads.h"
#include "quant/descent.h"
#include "quant/factor.h"
#include "quant/nearest.h"
#include "quant/start.h"

#define BLOCK EQI_FACTOR_BLOCK
#define ROWS 16 /* of a task */
/* Of the squares of inputs, added to the diagonal of moments. What descent still gains where it
 * trusts correlations as much as feedback does is learned by heart. */
#define SHRINKAGE 0.4
#define SHRINKAGE_OF_DESCENT 2.0
#define DAMPING 0.01
#define PIECE 48 /* rows of moments or errors on the host at a time */

/* ---- the factor ---- */

/* An input and its moment. */
typedef struct input {
    double moment;
    int64_t index;
} input;

static int falling(const void *a, const void *b)
{
    const input *x = a, *y = b;
    if (x->moment != y->moment) return x->moment > y->moment ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* order, and the mean moment. */
static eqat_status sort(const eqi_tensor *moments, int64_t k, int64_t *order, double *mean)
{
    eqi_ctx *ctx = eqi_tensor_ctx(moments);
    eqi_tensor *diagonal;
    EQI_RETURN_IF(eqi_moments_diagonal(moments, &diagonal));
    float *host = eqi_alloc(ctx, (size_t)k * sizeof *host, "error feedback");
    input *inputs = host ? eqi_alloc(ctx, (size_t)k * sizeof *inputs, "error feedback") : NULL;
    eqat_status st =
        inputs ? eqi_tensor_download(diagonal, host, (size_t)k * sizeof *host) : EQAT_OUT_OF_MEMORY;
    *mean = 0.0;
    for (int64_t i = 0; i < k && st == EQAT_OK; i++) {
        inputs[i] = (input){.moment = (double)host[i], .index = i};
        *mean += inputs[i].moment / (double)k;
    }
    if (st == EQAT_OK && !isfinite(*mean))
        st = eqi_fail(ctx, EQAT_NUMERIC,
                      "found second moments of inputs that are not finite, expected numbers");
    if (st == EQAT_OK) qsort(inputs, (size_t)k, sizeof *inputs, falling);
    for (int64_t i = 0; i < k && st == EQAT_OK; i++) order[i] = inputs[i].index;
    eqi_tensor_unref(diagonal);
    eqi_free(ctx, host);
    eqi_free(ctx, inputs);
    return st;
}

/* Pieces of rows: at many inputs the host has no room for all moments twice, and a device that is
 * asked row by row waits for the host most of the time. */
static eqat_status damp(eqi_tensor *moments, const int64_t *order, double mean, eqi_tensor *to)
{
    eqi_ctx *ctx = eqi_tensor_ctx(to);
    const int64_t k = to->v.shape[1];
    const size_t row = (size_t)k * sizeof(float);
    const int64_t piece = k < PIECE ? k : PIECE;
    float *from = eqi_alloc(ctx, (size_t)(piece + 1) * row, "error feedback");
    int64_t *place = from ? eqi_alloc(ctx, (size_t)k * sizeof *place, "error feedback") : NULL;
    eqat_status st = place ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < k && st == EQAT_OK; i++) place[order[i]] = i;
    for (int64_t first = 0; first < k && st == EQAT_OK; first += piece) {
        const int64_t n = k - first < piece ? k - first : piece;
        float *put = from + piece * k;
        st = eqi_tensor_download_part(moments, (size_t)first * row, from, (size_t)n * row);
        for (int64_t r = 0; r < n && st == EQAT_OK; r++) {
            const int64_t i = place[first + r];
            for (int64_t j = 0; j < k; j++) put[j] = from[r * k + order[j]];
            const double added = DAMPING * mean, square = (double)put[i];
            const float diagonal = (float)(square * (1.0 + SHRINKAGE_OF_DESCENT) + added);
            put[i] = (float)(square * (1.0 + SHRINKAGE) + added);
            st = eqi_tensor_upload_part(to, (size_t)i * row, put, row);
            if (st == EQAT_OK)
                st = eqi_tensor_upload_part(moments, (size_t)(first + r) * (row + sizeof(float)),
                                            &diagonal, sizeof diagonal);
        }
    }
    eqi_free(ctx, place);
    eqi_free(ctx, from);
    return st;
}

static eqat_status make(eqi_tensor *moments, eqi_feedback *out)
{
    eqi_ctx *ctx = eqi_tensor_ctx(moments);
    const int64_t k = moments->v.shape[1];
    double mean;
    out->order = eqi_alloc(ctx, (size_t)k * sizeof *out->order, "error feedback");
    if (!out->order) return EQAT_OUT_OF_MEMORY;
    EQI_RETURN_IF(sort(moments, k, out->order, &mean));
    if (!(mean > 0.0)) return EQAT_OK;
    EQI_RETURN_IF(eqi_tensor_create(ctx, &out->factor, EQI_F32, 2, moments->v.shape));
    EQI_RETURN_IF(damp(moments, out->order, mean, out->factor));
    return eqi_factor(out->factor);
}

eqat_status eqi_feedback_make(eqi_tensor *moments, eqi_feedback *out)
{
    *out = (eqi_feedback){.moments = eqi_tensor_ref(moments)};
    eqat_status st = make(moments, out);
    if (st != EQAT_OK) eqi_feedback_release(eqi_tensor_ctx(moments), out);
    return st;
}

void eqi_feedback_release(eqi_ctx *ctx, eqi_feedback *f)
{
    eqi_tensor_unref(f->moments);
    eqi_tensor_unref(f->factor);
    eqi_free(ctx, f->order);
    *f = (eqi_feedback){0};
}

/* ---- the masters ---- */

typedef struct work {
    const eqi_feedback *f;
    eqi_ctx *ctx;
    float *w; /* [n][k]: weights, then masters */
    float *s;
    const float *z;
    int64_t n, k;
    eqi_quant_desc q;
    eqi_tensor *errors;         /* [n, k]: weights less what they were rounded to, in order */
    eqi_tensor *block, *square; /* [n, BLOCK], [BLOCK, BLOCK] */
    float *host;                /* [n][columns]: what errors ask of a block, then its own */
    int64_t first, columns;     /* of the block in work */
    float v[BLOCK * BLOCK];     /* its square of the factor */
} work;

/* The value that input j of row r is rounded to. */
static float rounded(const work *f, int64_t r, int64_t j, float w)
{
    const int64_t g = r * (f->k / f->q.group) + j / f->q.group;
    return eqi_nearest(&f->q, f->s[g], f->z[g], w) * f->s[g];
}

static void round_row(const work *f, int64_t r)
{
    const int64_t n = f->columns, *order = f->f->order + f->first;
    float *asked = f->host + r * n, *w = f->w + r * f->k;
    for (int64_t j = 0; j < n; j++) {
        const float *v = f->v + j * n, was = w[order[j]], master = was + asked[j] / v[j],
                    error = was - rounded(f, r, order[j], master);
        w[order[j]] = master;
        asked[j] = error;
        for (int64_t i = j + 1; i < n; i++) asked[i] += error * v[i];
    }
}

static void rows(void *arg, size_t index, int worker)
{
    const work *f = arg;
    const int64_t first = (int64_t)index * ROWS;
    (void)worker;
    for (int64_t r = first; r < f->n && r < first + ROWS; r++) round_row(f, r);
}

static eqat_status block(work *f, int64_t first, int64_t columns)
{
    const eqi_backend *b = f->ctx->backend;
    const size_t bytes = (size_t)(f->n * columns) * sizeof(float);
    eqi_view block = eqi_matrix_in(f->block, f->n, columns),
             before = eqi_part_of(f->errors, 0, f->n, 0, first),
             above = eqi_part_of(f->f->factor, 0, first, first, columns),
             to = eqi_part_of(f->errors, 0, f->n, first, columns);
    f->first = first;
    f->columns = columns;
    EQI_RETURN_IF(eqi_check_cancel(f->ctx));
    EQI_RETURN_IF(eqi_factor_square(f->f->factor, first, columns, f->square, f->v));
    if (first)
        EQI_RETURN_IF(b->linear_bwd_x(f->ctx, &block, &before, &above, false));
    else
        EQI_RETURN_IF(b->fill(f->ctx, &block, 0));
    EQI_RETURN_IF(eqi_tensor_download_part(f->block, 0, f->host, bytes));
    eqi_parallel(f->ctx, (size_t)((f->n + ROWS - 1) / ROWS), rows, f);
    EQI_RETURN_IF(eqi_tensor_upload_part(f->block, 0, f->host, bytes));
    return b->copy(f->ctx, &to, &block);
}

static eqat_status make_room(work *f)
{
    static const int64_t side[2] = {BLOCK, BLOCK};
    const int64_t all[2] = {f->n, f->k}, some[2] = {f->n, BLOCK};
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->errors, EQI_F32, 2, all));
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->block, EQI_F32, 2, some));
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->square, EQI_F32, 2, side));
    f->host = eqi_alloc(f->ctx, (size_t)(f->n * BLOCK) * sizeof *f->host, "error feedback");
    return f->host ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status all_blocks(work *f)
{
    for (int64_t first = 0; first < f->k; first += BLOCK)
        EQI_RETURN_IF(block(f, first, f->k - first < BLOCK ? f->k - first : BLOCK));
    return EQAT_OK;
}

/* ---- descent ---- */

/* Back from the order of the inputs' moments. */
static eqat_status sort_errors(const work *f)
{
    const int64_t piece = f->n < PIECE ? f->n : PIECE;
    const size_t row = (size_t)f->k * sizeof(float);
    float *from = eqi_alloc(f->ctx, 2 * (size_t)piece * row, "error feedback");
    if (!from) return EQAT_OUT_OF_MEMORY;
    float *to = from + piece * f->k;
    eqat_status st = EQAT_OK;
    for (int64_t first = 0; first < f->n && st == EQAT_OK; first += piece) {
        const int64_t n = f->n - first < piece ? f->n - first : piece;
        st = eqi_tensor_download_part(f->errors, (size_t)first * row, from, (size_t)n * row);
        for (int64_t i = 0; i < n * f->k; i++)
            to[i / f->k * f->k + f->f->order[i % f->k]] = from[i];
        if (st == EQAT_OK)
            st = eqi_tensor_upload_part(f->errors, (size_t)first * row, to, (size_t)n * row);
    }
    eqi_free(f->ctx, from);
    return st;
}

static eqat_status descend(work *f)
{
    EQI_RETURN_IF(sort_errors(f));
    return eqi_descend(f->f->moments, f->errors, f->w, f->s, f->z, &f->q);
}

eqat_status eqi_feedback_start(const eqi_feedback *feedback, eqi_tensor *w, eqi_tensor *s,
                               const eqi_tensor *z, const eqi_quant_desc *desc, bool descent)
{
    enum { W, S, Z, COUNT };
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    const eqi_tensor *from[COUNT] = {w, s, z};
    float *host[COUNT] = {NULL};
    eqat_status st = EQAT_OK;
    work f = {.f = feedback, .ctx = ctx, .n = w->v.shape[0], .k = w->v.shape[1], .q = *desc};
    if (!feedback->factor) return EQAT_OK;
    for (int i = 0; i < COUNT; i++) EQI_GOTO(done, eqi_tensor_floats(from[i], &host[i]));
    f.w = host[W];
    f.s = host[S];
    f.z = host[Z];
    EQI_GOTO(done, make_room(&f));
    EQI_GOTO(done, all_blocks(&f));
    if (descent) EQI_GOTO(done, descend(&f));
    EQI_GOTO(done, eqi_tensor_upload(w, f.w, (size_t)(f.n * f.k) * sizeof(float)));
    st = eqi_tensor_upload(s, f.s, (size_t)(f.n * (f.k / f.q.group)) * sizeof(float));
done:
    for (int i = 0; i < COUNT; i++) eqi_free(ctx, host[i]);
    eqi_tensor_unref(f.errors);
    eqi_tensor_unref(f.block);
    eqi_tensor_unref(f.square);
    eqi_free(ctx, f.host);
    return st;
}
