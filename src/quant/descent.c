#include "quant/descent.h"

#include "base/threads.h"
#include "quant/factor.h"
#include "quant/nearest.h"

#define BLOCK EQI_FACTOR_BLOCK
#define ROWS 16  /* of a task */
#define SWEEPS 2 /* over all codes and scales */

typedef struct work work;
struct work {
    eqi_ctx *ctx;
    const eqi_tensor *moments;
    eqi_tensor *slope;             /* [N, K]: errors times moments */
    eqi_tensor *columns, *product; /* [N, width] */
    eqi_tensor *square;            /* [BLOCK, BLOCK] */
    /* [N][width], of the columns in work: their slope; codes, then what is added to their errors;
     * codes times their moments. */
    float *pull, *change, *weighed;
    float h[BLOCK * BLOCK]; /* their moments, of a block */
    float *w, *s;
    const float *z;
    int64_t n, k, first, width;
    eqi_quant_desc q;
    void (*row)(const work *f, int64_t r);
};

static size_t bytes(const work *f) { return (size_t)(f->n * f->width) * sizeof(float); }

static int64_t group_of(const work *f, int64_t row, int64_t column)
{
    return row * (f->k / f->q.group) + column / f->q.group;
}

static eqat_status take_columns(work *f, int64_t first, int64_t width)
{
    const eqi_view from = eqi_part_of(f->slope, 0, f->n, first, width),
                   to = eqi_matrix_in(f->columns, f->n, width);
    f->first = first;
    f->width = width;
    EQI_RETURN_IF(eqi_check_cancel(f->ctx));
    EQI_RETURN_IF(f->ctx->backend->copy(f->ctx, &to, &from));
    return eqi_tensor_download_part(f->columns, 0, f->pull, bytes(f));
}

static eqat_status apply_change(work *f)
{
    const eqi_view change = eqi_matrix_in(f->columns, f->n, f->width),
                   rows = eqi_part_of(f->moments, f->first, f->width, 0, f->k);
    EQI_RETURN_IF(eqi_tensor_upload_part(f->columns, 0, f->change, bytes(f)));
    return f->ctx->backend->linear_bwd_x(f->ctx, &f->slope->v, &change, &rows, true);
}

static void some_rows(void *arg, size_t index, int worker)
{
    const work *f = arg;
    const int64_t first = (int64_t)index * ROWS;
    (void)worker;
    for (int64_t r = first; r < f->n && r < first + ROWS; r++) f->row(f, r);
}

static void all_rows(work *f, void (*row)(const work *f, int64_t r))
{
    f->row = row;
    eqi_parallel(f->ctx, (size_t)((f->n + ROWS - 1) / ROWS), some_rows, f);
}

/* ---- codes ---- */

static void recode_row(const work *f, int64_t r)
{
    const int64_t n = f->width;
    float *w = f->w + r * f->k + f->first, *pull = f->pull + r * n, *change = f->change + r * n;
    for (int64_t j = 0; j < n; j++) {
        const int64_t g = group_of(f, r, f->first + j);
        const float s = f->s[g], z = f->z[g], *h = f->h + j * n;
        const float was = eqi_nearest(&f->q, s, z, w[j]) * s;
        if (h[j] > 0) w[j] = was + pull[j] / h[j];
        change[j] = was - eqi_nearest(&f->q, s, z, w[j]) * s;
        if (change[j] != 0)
            for (int64_t i = j + 1; i < n; i++) pull[i] += change[j] * h[i];
    }
}

static eqat_status recode(work *f, int64_t first, int64_t width)
{
    EQI_RETURN_IF(take_columns(f, first, width));
    EQI_RETURN_IF(eqi_factor_square(f->moments, first, width, f->square, f->h));
    all_rows(f, recode_row);
    return apply_change(f);
}

/* ---- scales ---- */

static void take_codes(const work *f, int64_t r)
{
    const int64_t n = f->width, g = group_of(f, r, f->first);
    for (int64_t j = 0; j < n; j++)
        f->change[r * n + j] = eqi_nearest(&f->q, f->s[g], f->z[g], f->w[r * f->k + f->first + j]);
}

/* Masters go with their scale, so that codes stay. */
static void fit_row(const work *f, int64_t r)
{
    const int64_t n = f->width;
    float *s = f->s + group_of(f, r, f->first), *w = f->w + r * f->k + f->first,
          *code = f->change + r * n;
    double pull = 0, square = 0;
    for (int64_t j = 0; j < n; j++) {
        pull += (double)code[j] * (double)f->pull[r * n + j];
        square += (double)code[j] * (double)f->weighed[r * n + j];
    }
    const double was = (double)*s, best = square > 0 ? was + pull / square : was;
    const float now = (float)fmin(fmax(best, 0.5 * was), 2 * was), ratio = now / *s,
                less = *s - now;
    *s = now;
    for (int64_t j = 0; j < n; j++) {
        w[j] *= ratio;
        code[j] *= less;
    }
}

static eqat_status fit(work *f, int64_t first, int64_t width)
{
    EQI_RETURN_IF(take_columns(f, first, width));
    const eqi_view codes = eqi_matrix_in(f->columns, f->n, width),
                   to = eqi_matrix_in(f->product, f->n, width),
                   square = eqi_part_of(f->moments, first, width, first, width);
    all_rows(f, take_codes);
    EQI_RETURN_IF(eqi_tensor_upload_part(f->columns, 0, f->change, bytes(f)));
    EQI_RETURN_IF(f->ctx->backend->linear_bwd_x(f->ctx, &to, &codes, &square, false));
    EQI_RETURN_IF(eqi_tensor_download_part(f->product, 0, f->weighed, bytes(f)));
    all_rows(f, fit_row);
    return apply_change(f);
}

/* ---- both ---- */

static eqat_status sweep(work *f)
{
    for (int64_t i = 0; i < f->k; i += BLOCK)
        EQI_RETURN_IF(recode(f, i, f->k - i < BLOCK ? f->k - i : BLOCK));
    for (int64_t i = 0; i < f->k; i += f->q.group) EQI_RETURN_IF(fit(f, i, f->q.group));
    return EQAT_OK;
}

static eqat_status make_room(work *f)
{
    static const int64_t side[2] = {BLOCK, BLOCK};
    const int64_t width = f->q.group > BLOCK ? f->q.group : BLOCK;
    const int64_t all[2] = {f->n, f->k}, some[2] = {f->n, width};
    float **const hosts[] = {&f->pull, &f->change, &f->weighed};
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->slope, EQI_F32, 2, all));
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->columns, EQI_F32, 2, some));
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->product, EQI_F32, 2, some));
    EQI_RETURN_IF(eqi_tensor_create(f->ctx, &f->square, EQI_F32, 2, side));
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        *hosts[i] = eqi_alloc(f->ctx, (size_t)(f->n * width) * sizeof(float), "coordinate descent");
        if (!*hosts[i]) return EQAT_OUT_OF_MEMORY;
    }
    return EQAT_OK;
}

eqat_status eqi_descend(const eqi_tensor *moments, const eqi_tensor *errors, float *w, float *s,
                        const float *z, const eqi_quant_desc *desc)
{
    eqi_ctx *ctx = eqi_tensor_ctx(errors);
    work *f = eqi_calloc(ctx, 1, sizeof *f, "coordinate descent");
    if (!f) return EQAT_OUT_OF_MEMORY;
    *f = (work){.ctx = ctx,
                .moments = moments,
                .w = w,
                .s = s,
                .z = z,
                .n = errors->v.shape[0],
                .k = errors->v.shape[1],
                .q = *desc};
    eqat_status st = make_room(f);
    if (st == EQAT_OK)
        st = ctx->backend->linear_bwd_x(ctx, &f->slope->v, &errors->v, &moments->v, false);
    for (int i = 0; i < SWEEPS && st == EQAT_OK; i++) st = sweep(f);
    eqi_tensor_unref(f->slope);
    eqi_tensor_unref(f->columns);
    eqi_tensor_unref(f->product);
    eqi_tensor_unref(f->square);
    eqi_free(ctx, f->pull);
    eqi_free(ctx, f->change);
    eqi_free(ctx, f->weighed);
    eqi_free(ctx, f);
    return st;
}
