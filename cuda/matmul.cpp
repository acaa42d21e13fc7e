/* Matrix products through cuBLASLt. Descriptors and the algorithm of a shape are found once and
 * kept. Row-major c = a b is column-major c^T = b^T a^T, so the operands change places. */
#include <cstring>

#include "backend.h"

#define PLANS 64
#define WORKSPACE (static_cast<size_t>(32) << 20)

struct plan_key {
    int64_t m, n, k, a_stride, b_stride, c_stride;
    eqi_dtype ab, c;
    bool a_turned, b_turned;
    unsigned a_align, b_align, c_align;
};

struct plan {
    plan_key key;
    bool made;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
};

struct eqi_cuda_plans {
    plan at[PLANS];
    int next; /* the one to give way */
};

static eqat_status check(eqi_ctx *ctx, const char *what, cublasStatus_t status)
{
    if (status == CUBLAS_STATUS_SUCCESS) return EQAT_OK;
    return eqi_seat_of(ctx)->services->fail(ctx, EQAT_BACKEND, "%s: %s: %s", eqi_cuda_of(ctx)->name,
                                            what, cublasLtGetStatusString(status));
}

eqat_status eqi_cuda_blas_open(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    void *plans =
        eqi_seat_of(ctx)->services->alloc(ctx, sizeof(eqi_cuda_plans), "plans of matrix products");
    if (!plans) return EQAT_OUT_OF_MEMORY;
    cuda->plans = static_cast<eqi_cuda_plans *>(std::memset(plans, 0, sizeof(eqi_cuda_plans)));
    return check(ctx, "cublasLtCreate", cublasLtCreate(&cuda->blas));
}

static void forget(plan *p)
{
    if (p->product) cublasLtMatmulDescDestroy(p->product);
    if (p->a) cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) cublasLtMatrixLayoutDestroy(p->c);
    std::memset(p, 0, sizeof *p);
}

void eqi_cuda_blas_close(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (cuda->plans)
        for (int i = 0; i < PLANS; i++) forget(&cuda->plans->at[i]);
    eqi_seat_of(ctx)->services->free(ctx, cuda->plans);
    if (cuda->blas) cublasLtDestroy(cuda->blas);
}

static cudaDataType_t type_of(eqi_dtype dtype)
{
    return dtype == EQI_BF16 ? CUDA_R_16BF : dtype == EQI_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/* The largest power of two, up to 16, that divides where a matrix and each of its rows begin. */
static unsigned alignment(const void *data, int64_t stride, eqi_dtype dtype)
{
    size_t both =
        reinterpret_cast<size_t>(data) | static_cast<size_t>(stride) * eqi_cuda_size(dtype) | 16;
    return static_cast<unsigned>(both & (~both + 1));
}

/* From one stored row to the next. A single row may come with any stride; what is taken instead
 * keeps its alignment. */
static int64_t leading(int64_t rows, int64_t columns, int64_t stride)
{
    return rows > 1 ? stride : (columns + 15) / 16 * 16;
}

/* A matrix of `rows` x `columns` in row-major order is one of `columns` x `rows` in column-major
 * order. */
static eqat_status lay_out(eqi_ctx *ctx, cublasLtMatrixLayout_t *out, eqi_dtype dtype, bool turned,
                           int64_t rows, int64_t columns, int64_t stride)
{
    uint64_t inner = static_cast<uint64_t>(turned ? rows : columns),
             outer = static_cast<uint64_t>(turned ? columns : rows);
    return check(ctx, "cublasLtMatrixLayoutCreate",
                 cublasLtMatrixLayoutCreate(out, type_of(dtype), inner, outer, stride));
}

static eqat_status find_algo(eqi_ctx *ctx, plan *p)
{
    cublasLtMatmulPreference_t wish = nullptr;
    EQI_CUDA_TRY(
        check(ctx, "cublasLtMatmulPreferenceCreate", cublasLtMatmulPreferenceCreate(&wish)));
    /* Sums of parts of the inner dimension go through the workspace in a fixed order, or not at
     * all. */
    const size_t workspace = WORKSPACE;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } wishes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->key.b_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->key.a_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->key.c_align, sizeof(uint32_t)},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->key.c_align, sizeof(uint32_t)},
    };
    eqat_status st = EQAT_OK;
    for (const auto &w : wishes)
        if (st == EQAT_OK)
            st = check(ctx, "cublasLtMatmulPreferenceSetAttribute",
                       cublasLtMatmulPreferenceSetAttribute(wish, w.name, w.value, w.size));
    cublasLtMatmulHeuristicResult_t found = {};
    int n = 0;
    if (st == EQAT_OK)
        st = check(ctx, "cublasLtMatmulAlgoGetHeuristic",
                   cublasLtMatmulAlgoGetHeuristic(eqi_cuda_of(ctx)->blas, p->product, p->b, p->a,
                                                  p->c, p->c, wish, 1, &found, &n));
    if (st == EQAT_OK)
        st = check(ctx, "cublasLtMatmulAlgoGetHeuristic",
                   n < 1 ? CUBLAS_STATUS_NOT_SUPPORTED : found.state);
    p->algo = found.algo;
    cublasLtMatmulPreferenceDestroy(wish);
    return st;
}

static eqat_status make(eqi_ctx *ctx, plan *p)
{
    const plan_key *key = &p->key;
    cublasOperation_t as_it_is = CUBLAS_OP_N, turned = CUBLAS_OP_T;
    EQI_CUDA_TRY(check(ctx, "cublasLtMatmulDescCreate",
                       cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F)));
    EQI_CUDA_TRY(
        check(ctx, "cublasLtMatmulDescSetAttribute",
              cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                             key->b_turned ? &turned : &as_it_is, sizeof turned)));
    EQI_CUDA_TRY(
        check(ctx, "cublasLtMatmulDescSetAttribute",
              cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSB,
                                             key->a_turned ? &turned : &as_it_is, sizeof turned)));
    EQI_CUDA_TRY(lay_out(ctx, &p->a, key->ab, key->a_turned, key->m, key->k, key->a_stride));
    EQI_CUDA_TRY(lay_out(ctx, &p->b, key->ab, key->b_turned, key->k, key->n, key->b_stride));
    EQI_CUDA_TRY(lay_out(ctx, &p->c, key->c, false, key->m, key->n, key->c_stride));
    return find_algo(ctx, p);
}

static eqat_status find(eqi_ctx *ctx, const plan_key *key, plan **out)
{
    eqi_cuda_plans *plans = eqi_cuda_of(ctx)->plans;
    for (plan &p : plans->at)
        if (p.made && !std::memcmp(&p.key, key, sizeof *key)) {
            *out = &p;
            return EQAT_OK;
        }
    plan *p = *out = &plans->at[plans->next];
    plans->next = (plans->next + 1) % PLANS;
    forget(p);
    std::memcpy(&p->key, key, sizeof *key);
    eqat_status st = make(ctx, p);
    if (st != EQAT_OK)
        forget(p);
    else
        p->made = true;
    return st;
}

/* A sum of no terms. */
static eqat_status clear(eqi_ctx *ctx, void *c, eqi_dtype dtype, int64_t stride, int64_t m,
                         int64_t n)
{
    const eqi_view all = {c, dtype, 2, {m, n, 0, 0}, {stride, 1, 0, 0}};
    return eqi_cuda_fill(ctx, &all, 0.0);
}

eqat_status eqi_cuda_product(eqi_ctx *ctx, void *c, eqi_dtype c_dtype, int64_t c_stride, int64_t m,
                             int64_t n, int64_t k, eqi_cuda_matrix a, eqi_cuda_matrix b, bool acc)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (!m || !n) return EQAT_OK;
    if (!k) return acc ? EQAT_OK : clear(ctx, c, c_dtype, c_stride, m, n);
    a.stride = a.turned ? leading(k, m, a.stride) : leading(m, k, a.stride);
    b.stride = b.turned ? leading(n, k, b.stride) : leading(k, n, b.stride);
    c_stride = leading(m, n, c_stride);
    plan_key key;
    std::memset(&key, 0, sizeof key); /* compared byte by byte */
    key.m = m;
    key.n = n;
    key.k = k;
    key.a_stride = a.stride;
    key.b_stride = b.stride;
    key.c_stride = c_stride;
    key.ab = a.dtype;
    key.c = c_dtype;
    key.a_turned = a.turned;
    key.b_turned = b.turned;
    key.a_align = alignment(a.data, a.stride, a.dtype);
    key.b_align = alignment(b.data, b.stride, b.dtype);
    key.c_align = alignment(c, c_stride, c_dtype);
    plan *p = nullptr;
    void *workspace = nullptr;
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_WORKSPACE, WORKSPACE, &workspace));
    EQI_CUDA_TRY(find(ctx, &key, &p));
    const float alpha = 1.0f, beta = acc ? 1.0f : 0.0f;
    return check(ctx, "cublasLtMatmul",
                 cublasLtMatmul(cuda->blas, p->product, &alpha, b.data, p->b, a.data, p->a, &beta,
                                c, p->c, c, p->c, &p->algo, workspace, WORKSPACE, cuda->stream));
}
