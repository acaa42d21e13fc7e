#include <math.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"
#include "cpu/ref/ref.h"

typedef struct job job;
struct job {
    void (*run)(const job *j, int64_t first, int64_t count); /* over contiguous elements */
    const eqi_simd *simd;
    const eqi_view *y, *a, *b; /* b may be NULL */
    float alpha, beta;
    bool acc;
};

static void run_flat(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    j->run(j, first, count);
}

static eqi_view row_of(const eqi_view *v, int64_t r)
{
    eqi_view row = *v;
    row.data = eqi_at(v, ref_row(v, r));
    return row;
}

static void run_rows(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++) {
        eqi_view y = row_of(j->y, r), a = row_of(j->a, r), b;
        job one = *j;
        one.y = &y;
        one.a = &a;
        if (j->b) {
            b = row_of(j->b, r);
            one.b = &b;
        }
        one.run(&one, 0, ref_width(&y));
    }
}

static bool inner(const eqi_view *v) { return v->ndim > 0 && v->stride[v->ndim - 1] == 1; }

/* Whole, or as rows that are contiguous inside, at any distance from each other; false when the
 * strides are others. */
static bool run(eqi_ctx *ctx, const job *given)
{
    job j = *given;
    j.simd = eqi_cpu_of(ctx)->simd;
    if (eqi_view_is_contiguous(j.y) && eqi_view_is_contiguous(j.a) &&
        (!j.b || eqi_view_is_contiguous(j.b)))
        eqi_pieces(ctx, eqi_view_count(j.y), EQI_PIECE, run_flat, &j);
    else if (inner(j.y) && inner(j.a) && (!j.b || inner(j.b)))
        eqi_pieces(ctx, eqi_view_rows(j.y), eqi_piece_rows(ref_width(j.y)), run_rows, &j);
    else
        return false;
    return true;
}

static void axpby(const job *j, int64_t first, int64_t count)
{
    j->simd->axpby(eqi_at(j->y, first), j->y->dtype, j->alpha, eqi_at(j->a, first), j->a->dtype,
                   j->beta, j->b ? eqi_at(j->b, first) : NULL, j->b ? j->b->dtype : EQI_F32, count);
}

eqat_status eqi_cpu_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a,
                          double beta, const eqi_view *b)
{
    job j = {.run = axpby, .y = y, .a = a, .b = b, .alpha = (float)alpha, .beta = (float)beta};
    return run(ctx, &j) ? EQAT_OK : eqi_ref_axpby(ctx, y, alpha, a, beta, b);
}

eqat_status eqi_cpu_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                             const eqi_view *factor, bool acc)
{
    double f = (double)*(const float *)factor->data;
    return acc ? eqi_cpu_axpby(ctx, y, 1.0, y, f, x) : eqi_cpu_axpby(ctx, y, f, x, 0.0, NULL);
}

static void mul(const job *j, int64_t first, int64_t count)
{
    j->simd->mul(eqi_at(j->y, first), j->y->dtype, eqi_at(j->a, first), j->a->dtype,
                 eqi_at(j->b, first), j->b->dtype, count, j->acc);
}

eqat_status eqi_cpu_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b,
                        bool acc)
{
    job j = {.run = mul, .y = y, .a = a, .b = b, .acc = acc};
    return run(ctx, &j) ? EQAT_OK : eqi_ref_mul(ctx, y, a, b, acc);
}

static bool is_real(eqi_dtype dtype)
{
    return dtype == EQI_F32 || dtype == EQI_BF16 || dtype == EQI_F16;
}

static void convert(const job *j, int64_t first, int64_t count)
{
    if (j->y->dtype == j->a->dtype)
        memcpy(eqi_at(j->y, first), eqi_at(j->a, first),
               (size_t)count * eqi_dtype_size(j->y->dtype));
    else
        j->simd->convert(eqi_at(j->y, first), j->y->dtype, eqi_at(j->a, first), j->a->dtype, count);
}

eqat_status eqi_cpu_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x)
{
    bool known = y->dtype == x->dtype || (is_real(y->dtype) && is_real(x->dtype));
    job j = {.run = convert, .y = y, .a = x};
    return known && run(ctx, &j) ? EQAT_OK : eqi_ref_copy(ctx, y, x);
}

/* Bytes that are all alike: the only fill that a step makes often. */
eqat_status eqi_cpu_fill(eqi_ctx *ctx, const eqi_view *y, double value)
{
    if (value != 0.0 || signbit(value) || !eqi_view_is_contiguous(y))
        return eqi_ref_fill(ctx, y, value);
    memset(y->data, 0, (size_t)eqi_view_count(y) * eqi_dtype_size(y->dtype));
    return EQAT_OK;
}
