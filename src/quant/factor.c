#include "quant/factor.h"

#include <math.h>

#include "backend/backend.h"

#define BLOCK EQI_FACTOR_BLOCK

/* Left-looking, the last columns first: nearly all of the work is the products in front of each
 * block, which the backend does. */

typedef struct work {
    eqi_ctx *ctx;
    eqi_tensor *a, *panel, *square; /* [K, K], [K, BLOCK], [BLOCK, BLOCK] */
    int64_t k;
    float host[BLOCK * BLOCK];
    double v[BLOCK][BLOCK], inverse[BLOCK][BLOCK];
} work;

eqi_view eqi_part_of(const eqi_tensor *a, int64_t row, int64_t rows, int64_t column,
                     int64_t columns)
{
    const int64_t width = a->v.shape[1];
    return (eqi_view){
        .data = (char *)a->v.data + (size_t)(row * width + column) * eqi_dtype_size(a->v.dtype),
        .dtype = a->v.dtype,
        .ndim = 2,
        .shape = {rows, columns},
        .stride = {width, 1},
    };
}

eqi_view eqi_matrix_in(const eqi_tensor *t, int64_t rows, int64_t columns)
{
    return (eqi_view){.data = t->v.data,
                      .dtype = EQI_F32,
                      .ndim = 2,
                      .shape = {rows, columns},
                      .stride = {columns, 1}};
}

eqat_status eqi_factor_square(const eqi_tensor *a, int64_t first, int64_t n, eqi_tensor *square,
                              float *host)
{
    eqi_ctx *ctx = eqi_tensor_ctx(a);
    const eqi_view to = eqi_matrix_in(square, n, n), from = eqi_part_of(a, first, n, first, n);
    EQI_RETURN_IF(ctx->backend->copy(ctx, &to, &from));
    return eqi_tensor_download_part(square, 0, host, (size_t)(n * n) * sizeof *host);
}

/* What the columns behind the block have taken of it. */
static eqat_status take_away(work *w, int64_t first, int64_t n)
{
    const eqi_backend *b = w->ctx->backend;
    const int64_t end = first + n, behind = w->k - end;
    if (!behind) return EQAT_OK;
    const eqi_view product = eqi_matrix_in(w->panel, end, n),
                   x = eqi_part_of(w->a, 0, end, end, behind),
                   y = eqi_part_of(w->a, first, n, end, behind),
                   to = eqi_part_of(w->a, 0, end, first, n);
    EQI_RETURN_IF(b->linear(w->ctx, &product, &x, &y, NULL));
    return b->axpby(w->ctx, &to, 1, &to, -1, &product);
}

/* host = v v^T; false: it is not positive. */
static bool factor_square(work *w, int64_t n)
{
    for (int64_t j = n - 1; j >= 0; j--)
        for (int64_t i = j; i >= 0; i--) {
            double sum = (double)w->host[i * n + j];
            for (int64_t l = j + 1; l < n; l++) sum -= w->v[i][l] * w->v[j][l];
            if (i == j && !(sum > 0.0 && isfinite(sum))) return false;
            w->v[i][j] = i == j ? sqrt(sum) : sum / w->v[j][j];
        }
    return true;
}

static void invert(work *w, int64_t n)
{
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = n - 1; i >= 0; i--) {
            double sum = i == j;
            for (int64_t l = i + 1; l <= j; l++) sum -= w->v[i][l] * w->inverse[l][j];
            w->inverse[i][j] = i > j ? 0.0 : sum / w->v[i][i];
        }
}

static eqat_status put_square(work *w, double (*from)[BLOCK], int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) w->host[i * n + j] = i > j ? 0.0f : (float)from[i][j];
    return eqi_tensor_upload_part(w->square, 0, w->host, (size_t)(n * n) * sizeof *w->host);
}

static eqat_status block(work *w, int64_t first, int64_t n)
{
    const eqi_backend *b = w->ctx->backend;
    const eqi_view square = eqi_matrix_in(w->square, n, n),
                   panel = eqi_matrix_in(w->panel, first, n),
                   on = eqi_part_of(w->a, first, n, first, n),
                   above = eqi_part_of(w->a, 0, first, first, n);
    EQI_RETURN_IF(eqi_check_cancel(w->ctx));
    EQI_RETURN_IF(take_away(w, first, n));
    EQI_RETURN_IF(eqi_factor_square(w->a, first, n, w->square, w->host));
    if (!factor_square(w, n))
        return eqi_fail(w->ctx, EQAT_NUMERIC,
                        "found second moments of inputs that are not finite and positive definite");
    EQI_RETURN_IF(put_square(w, w->v, n));
    EQI_RETURN_IF(b->copy(w->ctx, &on, &square));
    if (!first) return EQAT_OK;
    invert(w, n);
    EQI_RETURN_IF(put_square(w, w->inverse, n));
    EQI_RETURN_IF(b->linear(w->ctx, &panel, &above, &square, NULL));
    return b->copy(w->ctx, &above, &panel);
}

static eqat_status all_blocks(work *w)
{
    static const int64_t side[2] = {BLOCK, BLOCK};
    const int64_t tall[2] = {w->k, BLOCK};
    EQI_RETURN_IF(eqi_tensor_create(w->ctx, &w->square, EQI_F32, 2, side));
    EQI_RETURN_IF(eqi_tensor_create(w->ctx, &w->panel, EQI_F32, 2, tall));
    for (int64_t end = w->k, first; end > 0; end = first) {
        first = (end - 1) / BLOCK * BLOCK;
        EQI_RETURN_IF(block(w, first, end - first));
    }
    return EQAT_OK;
}

eqat_status eqi_factor(eqi_tensor *a)
{
    eqi_ctx *ctx = eqi_tensor_ctx(a);
    work *w = eqi_calloc(ctx, 1, sizeof *w, "a factor");
    if (!w) return EQAT_OUT_OF_MEMORY;
    w->ctx = ctx;
    w->a = a;
    w->k = a->v.shape[1];
    eqat_status st = all_blocks(w);
    eqi_tensor_unref(w->panel);
    eqi_tensor_unref(w->square);
    eqi_free(ctx, w);
    return st;
}
