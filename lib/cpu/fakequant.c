#include "cpu/backend.h"
#include "cpu/gemm.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    eqi_rows m;
    const eqi_view *what, *dw, *ds, *dz;
    bool acc;
} job;

static void form(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    eqi_elem elem = j->what->dtype == EQI_F32 ? EQI_ELEM_F32 : EQI_ELEM_BF16;
    for (int64_t r = first; r < first + count; r++)
        j->simd->rows(eqi_row(j->what, r), elem, &j->m, r, 0, j->m.cols);
}

eqat_status eqi_cpu_fakequant(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w,
                              const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd, .m = eqi_rows_fake_quant(w, s, z, q), .what = what};
    eqi_pieces(ctx, w->shape[0], eqi_piece_rows(w->shape[1]), form, &j);
    return EQAT_OK;
}

eqat_status eqi_cpu_dequantize(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes,
                               const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .m = eqi_rows_packed(codes, s, z, q, what->shape[1]),
             .what = what};
    eqi_pieces(ctx, what->shape[0], eqi_piece_rows(what->shape[1]), form, &j);
    return EQAT_OK;
}

static void put(const eqi_view *to, int64_t row, int64_t g, const float *sum, int64_t n, bool acc)
{
    float *at = (float *)eqi_row(to, row) + g;
    for (int64_t i = 0; i < n; i++) at[i] = acc ? at[i] + sum[i] : sum[i];
}

static void backward(void *arg, int64_t first, int64_t count)
{
    enum { GROUPS = 64 };
    const job *j = arg;
    float sum_s[GROUPS], sum_z[GROUPS];
    int64_t groups = j->m.cols / j->m.q.group;
    for (int64_t r = first; r < first + count; r++)
        for (int64_t g = 0; g < groups; g += GROUPS) {
            int64_t n = eqi_min64(GROUPS, groups - g), col = g * j->m.q.group;
            j->simd->fake_quant_grad(
                &j->m, r, col, n * j->m.q.group, (const float *)eqi_row(j->what, r) + col,
                j->dw ? (float *)eqi_row(j->dw, r) + col : NULL, sum_s, sum_z, j->acc);
            if (j->ds) put(j->ds, r, g, sum_s, n, j->acc);
            if (j->dz) put(j->dz, r, g, sum_z, n, j->acc);
        }
}

eqat_status eqi_cpu_fakequant_bwd(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                  const eqi_view *dz, const eqi_view *dwhat, const eqi_view *w,
                                  const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q,
                                  bool acc)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .m = eqi_rows_fake_quant(w, s, z, q),
             .what = dwhat,
             .dw = dw,
             .ds = ds,
             .dz = dz,
             .acc = acc};
    eqi_pieces(ctx, w->shape[0], eqi_piece_rows(w->shape[1]), backward, &j);
    return EQAT_OK;
}
