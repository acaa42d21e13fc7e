#include <math.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"
#include "cpu/ref/ref.h"

typedef struct job {
    const eqi_leaf *leaf;
    const eqi_view *y, *a, *b;
    float alpha, beta;
    bool acc;
} job;

static void axpby(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    j->leaf->axpby(eqi_at(j->y, first), j->y->dtype, j->alpha, eqi_at(j->a, first), j->a->dtype,
                   j->beta, j->b ? eqi_at(j->b, first) : NULL, j->b ? j->b->dtype : EQI_F32, count);
}

eqat_status eqi_cpu_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a,
                          double beta, const eqi_view *b)
{
    job j = {.leaf = eqi_cpu_of(ctx)->leaf,
             .y = y,
             .a = a,
             .b = b,
             .alpha = (float)alpha,
             .beta = (float)beta};
    eqi_pieces(ctx, eqi_view_count(y), EQI_PIECE, axpby, &j);
    return EQAT_OK;
}

eqat_status eqi_cpu_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                             const eqi_view *factor, bool acc)
{
    double f = (double)*(const float *)factor->data;
    return acc ? eqi_cpu_axpby(ctx, y, 1.0, y, f, x) : eqi_cpu_axpby(ctx, y, f, x, 0.0, NULL);
}

static void mul(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    j->leaf->mul(eqi_at(j->y, first), j->y->dtype, eqi_at(j->a, first), j->a->dtype,
                 eqi_at(j->b, first), j->b->dtype, count, j->acc);
}

eqat_status eqi_cpu_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b,
                        bool acc)
{
    if (!eqi_view_is_contiguous(y) || !eqi_view_is_contiguous(a) || !eqi_view_is_contiguous(b))
        return eqi_ref_mul(ctx, y, a, b, acc);
    job j = {.leaf = eqi_cpu_of(ctx)->leaf, .y = y, .a = a, .b = b, .acc = acc};
    eqi_pieces(ctx, eqi_view_count(y), EQI_PIECE, mul, &j);
    return EQAT_OK;
}

static bool is_real(eqi_dtype dtype)
{
    return dtype == EQI_F32 || dtype == EQI_BF16 || dtype == EQI_F16;
}

static void convert(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    if (j->y->dtype == j->a->dtype)
        memcpy(eqi_at(j->y, first), eqi_at(j->a, first),
               (size_t)count * eqi_dtype_size(j->y->dtype));
    else
        j->leaf->convert(eqi_at(j->y, first), j->y->dtype, eqi_at(j->a, first), j->a->dtype, count);
}

/* Rows that are contiguous inside, at any distance from each other. */
static void convert_rows(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t width = ref_width(j->y);
    for (int64_t r = first; r < first + count; r++) {
        eqi_view y = *j->y, x = *j->a;
        y.data = eqi_at(j->y, ref_row(j->y, r));
        x.data = eqi_at(j->a, ref_row(j->a, r));
        job one = {.leaf = j->leaf, .y = &y, .a = &x};
        convert(&one, 0, width);
    }
}

eqat_status eqi_cpu_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x)
{
    bool known = y->dtype == x->dtype || (is_real(y->dtype) && is_real(x->dtype));
    bool inner = y->ndim > 0 && y->stride[y->ndim - 1] == 1 && x->stride[x->ndim - 1] == 1;
    if (!known || !inner) return eqi_ref_copy(ctx, y, x);
    job j = {.leaf = eqi_cpu_of(ctx)->leaf, .y = y, .a = x};
    if (eqi_view_is_contiguous(y) && eqi_view_is_contiguous(x))
        eqi_pieces(ctx, eqi_view_count(y), EQI_PIECE, convert, &j);
    else
        eqi_pieces(ctx, eqi_view_rows(y), eqi_piece_rows(ref_width(y)), convert_rows, &j);
    return EQAT_OK;
}

/* Bytes that are all alike: the only fill that a step makes often. */
eqat_status eqi_cpu_fill(eqi_ctx *ctx, const eqi_view *y, double value)
{
    if (value != 0.0 || signbit(value) || !eqi_view_is_contiguous(y))
        return eqi_ref_fill(ctx, y, value);
    memset(y->data, 0, (size_t)eqi_view_count(y) * eqi_dtype_size(y->dtype));
    return EQAT_OK;
}
