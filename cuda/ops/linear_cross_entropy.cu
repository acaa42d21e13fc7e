/* linear_cross_entropy: the logits of a chunk of rows in F32 scratch, their softmax row by row, and
 * of the gradient of the logits, in x's dtype, the products to dx and dw. Bytes moved, with L the
 * size of all logits in F32: L written by a product and read three times, L (BF16: L/2) of gradient
 * written and read once for each of dx and dw; a teacher's logits as well; a weight once for every
 * chunk, and rounded to x's dtype once. */
#include "../launch.cuh"
#include "../loss.cuh"
#include "../operand.h"

/* ---- rows ---- */

/* What is not counted has no gradient. */
__device__ __forceinline__ void clear_row(const eqi_view &grad, int64_t r)
{
    for (int64_t v = threadIdx.x; grad.data && v < width(grad); v += blockDim.x)
        put(grad, at4(grad, 0, 0, r, v), 0.0f);
}

/* Softmax minus what it should be: `own` at the label and, by its share, the teacher's. */
__device__ __forceinline__ void put_gradient(const eqi_view &grad, int64_t r, const float *q,
                                             const float *p, const softmax &of_q,
                                             const softmax &of_p, int label, float own, float share)
{
    float scale_q = static_cast<float>(1.0 / of_q.sum),
          scale_p = p ? static_cast<float>(1.0 / of_p.sum) : 0.0f;
    for (int64_t v = threadIdx.x; v < width(grad); v += blockDim.x) {
        float d = expf(q[v] - of_q.most) * scale_q;
        if (v == label) d -= own;
        if (p) d -= share * (expf(p[v] - of_p.most) * scale_p);
        put(grad, at4(grad, 0, 0, r, v), d);
    }
}

/* A block for each of the rows of q [C, V], the logits; p [C, V] a teacher's, or none; grad [C, V],
 * which may be the memory of q, or none; labels [C], losses [C]. */
__global__ void __launch_bounds__(EQI_BLOCK)
    cross_entropy_kernel(double *losses, eqi_view grad, eqi_view q, eqi_view p, const int *labels,
                         double share, eqi_trouble *trouble)
{
    row_memory *m = block_memory<row_memory>();
    for (int64_t r = blockIdx.x; r < rows(q); r += gridDim.x) {
        const int label = labels[r];
        if (label < 0 || label >= width(q)) { /* the same for the whole block */
            if (threadIdx.x == 0) losses[r] = 0.0;
            if (threadIdx.x == 0 && label >= 0)
                in_range(trouble, EQI_TROUBLE_LABEL, label, width(q));
            clear_row(grad, r);
            continue;
        }
        const float *at_q = static_cast<const float *>(q.data) + r * width(q),
                    *at_p = p.data ? static_cast<const float *>(p.data) + r * width(q) : nullptr;
        softmax of_q = block_softmax(at_q, width(q), m), of_p = {1.0, 0.0f};
        double loss = (1.0 - share) * (log_sum_exp(of_q) - static_cast<double>(at_q[label]));
        if (at_p) {
            of_p = block_softmax(at_p, width(q), m);
            loss += share * block_divergence(at_q, at_p, width(q), of_q, of_p, m);
        }
        if (threadIdx.x == 0) losses[r] = loss;
        __syncthreads(); /* the gradient may be written over the label's logit */
        if (grad.data)
            put_gradient(grad, r, at_q, at_p, of_q, of_p, label, static_cast<float>(1.0 - share),
                         static_cast<float>(share));
    }
}

/* ---- the call ---- */

/* Weights in the dtype of the activations, in one piece of scratch: w, and the teacher's. */
static eqat_status see_weights(eqi_ctx *ctx, eqi_view *w, eqi_view *teacher, eqi_dtype dtype)
{
    eqi_view *const all[] = {w, teacher};
    size_t at[2] = {0, 0}, size = 0;
    for (int i = 0; i < 2; i++) {
        at[i] = size;
        if (all[i]->data && all[i]->dtype != dtype)
            size += (static_cast<size_t>(eqi_cuda_count(all[i])) * eqi_cuda_size(dtype) + 255) &
                ~static_cast<size_t>(255);
    }
    if (!size) return EQAT_OK;
    void *data = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_OPERAND, size, &data));
    for (int i = 0; i < 2; i++) {
        if (!all[i]->data || all[i]->dtype == dtype) continue;
        eqi_view rounded = eqi_cuda_dense(static_cast<char *>(data) + at[i], dtype,
                                          eqi_cuda_rows(all[i]), eqi_cuda_width(all[i]));
        EQI_CUDA_TRY(eqi_cuda_copy(ctx, &rounded, all[i]));
        *all[i] = rounded;
    }
    return EQAT_OK;
}

/* What all chunks of a call share. */
struct call {
    eqi_view w, teacher; /* in x's dtype; teacher: no data when there is none */
    double share;
    const eqi_view *dx, *dw; /* or NULL */
    void *q, *p, *grad;      /* scratch of a chunk; grad is q for F32 */
    double *losses;          /* [R] */
    const int *labels;       /* [R] */
};

/* logits[C, V] = x[C, H] w[V, H]^T */
static eqat_status multiply(eqi_ctx *ctx, const eqi_view *logits, const eqi_view *x,
                            const eqi_view *w)
{
    return eqi_cuda_product(ctx, logits->data, logits->dtype, eqi_cuda_stride(logits),
                            eqi_cuda_rows(x), eqi_cuda_rows(w), eqi_cuda_width(x),
                            eqi_cuda_matrix_of(x, false), eqi_cuda_matrix_of(w, true), false);
}

/* Rows `first` and on, as many as x has; teacher_x NULL: none. */
static eqat_status run_chunk(eqi_ctx *ctx, const call *c, int64_t first, const eqi_view *x,
                             const eqi_view *teacher_x)
{
    const int64_t n = eqi_cuda_rows(x), vocab = eqi_cuda_rows(&c->w);
    const eqi_view q = eqi_cuda_dense(c->q, EQI_F32, n, vocab);
    eqi_view p = {}, grad = {};
    EQI_CUDA_TRY(multiply(ctx, &q, x, &c->w));
    if (teacher_x) {
        p = eqi_cuda_dense(c->p, EQI_F32, n, vocab);
        EQI_CUDA_TRY(multiply(ctx, &p, teacher_x, &c->teacher));
    }
    if (c->grad) grad = eqi_cuda_dense(c->grad, x->dtype, n, vocab);
    EQI_CUDA_TRY(eqi_launch(ctx, "linear_cross_entropy", cross_entropy_kernel, eqi_grid(n, 1),
                            EQI_BLOCK, sizeof(row_memory), c->losses + first, grad, q, p,
                            c->labels + first, c->share, eqi_cuda_of(ctx)->trouble));
    if (c->dx) {
        eqi_view dx = eqi_cuda_some_rows(c->dx, first, n);
        EQI_CUDA_TRY(eqi_cuda_linear_bwd_x(ctx, &dx, &grad, &c->w, false));
    }
    return c->dw ? eqi_cuda_linear_bwd_w(ctx, c->dw, &grad, x, true) : EQAT_OK;
}

/* Scratch of the call; *chunk: rows at once. */
static eqat_status take_scratch(eqi_ctx *ctx, call *c, const eqi_view *x, int64_t *chunk)
{
    const int64_t n = eqi_cuda_rows(x), vocab = eqi_cuda_rows(&c->w);
    const bool backward = c->dx || c->dw, of_its_own = backward && x->dtype != EQI_F32;
    const int64_t of_logits = vocab * 4 * (c->teacher.data ? 2 : 1),
                  of_grad = of_its_own ? vocab * static_cast<int64_t>(eqi_cuda_size(x->dtype)) : 0;
    *chunk = eqi_cuda_chunk(n, of_logits + of_grad, EQI_CUDA_LOGITS_BYTES);
    EQI_CUDA_TRY(
        eqi_cuda_scratch(ctx, EQI_CUDA_RESULT, static_cast<size_t>(*chunk * of_logits), &c->q));
    if (c->teacher.data) c->p = static_cast<float *>(c->q) + *chunk * vocab;
    if (of_its_own)
        EQI_CUDA_TRY(
            eqi_cuda_scratch(ctx, EQI_CUDA_OP, static_cast<size_t>(*chunk * of_grad), &c->grad));
    else if (backward)
        c->grad = c->q;
    void *losses = nullptr;
    EQI_CUDA_TRY(
        eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, static_cast<size_t>(n) * sizeof(double), &losses));
    c->losses = static_cast<double *>(losses);
    return EQAT_OK;
}

eqat_status eqi_cuda_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx,
                                          const eqi_view *dw, const eqi_view *x, const eqi_view *w,
                                          const eqi_view *labels, const eqi_teacher *t)
{
    call c = {};
    c.w = *w;
    if (t) c.teacher = t->w;
    c.share = t ? t->share : 0.0;
    c.dx = dx;
    c.dw = dw;
    c.labels = static_cast<const int *>(labels->data);
    const int64_t n = eqi_cuda_rows(x);
    int64_t chunk = 0;
    EQI_CUDA_TRY(see_weights(ctx, &c.w, &c.teacher, x->dtype));
    EQI_CUDA_TRY(take_scratch(ctx, &c, x, &chunk));
    for (int64_t first = 0; first < n; first += chunk) {
        int64_t count = n - first < chunk ? n - first : chunk;
        eqi_view part = eqi_cuda_some_rows(x, first, count),
                 taught = t ? eqi_cuda_some_rows(&t->x, first, count) : part;
        EQI_CUDA_TRY(run_chunk(ctx, &c, first, &part, t ? &taught : nullptr));
    }
    return eqi_cuda_loss_stats(ctx, stats, c.losses, n, labels, eqi_cuda_rows(w));
}
