/* cublasLt: what a product asks for, what is supported, and the queued work. */
#include "gemm.h"
#include "memory.h"
#include "result.h"
#include "settings.h"
#include "shadow.h"

#include "cublasLt.h"

#include <string.h>

struct hostcuda_blas {
    int device;
};

struct hostcuda_product {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int32_t transposed[2]; /* a, b */
};

struct hostcuda_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t leading;
    int32_t batch;
    int64_t stride;
};

struct hostcuda_preference {
    uint64_t workspace;
    uint32_t reductions;
    uint32_t alignment[4]; /* A, B, C, D */
};

using namespace hostcuda;

/* ---- handles ---- */
template <typename T> static cublasStatus_t create(T **out, const T &value)
{
    if (!out) return CUBLAS_STATUS_INVALID_VALUE;
    *out = new T(value);
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> static cublasStatus_t destroy(T *object)
{
    delete object;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    if (unusable()) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new hostcuda_blas{current_device()};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown status";
}

/* Copies an attribute of exactly this size. */
static cublasStatus_t set(void *to, size_t expected, const void *value, size_t size)
{
    if (!value || size != expected) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    return create(desc, {compute, scale, {CUBLAS_OP_N, CUBLAS_OP_N}});
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy(desc); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t size)
{
    if (!desc) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&desc->transposed[0], 4, value, size);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&desc->transposed[1], 4, value, size);
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t leading)
{
    return create(layout, {type, rows, cols, leading, 1, 0});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return destroy(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t size)
{
    if (!layout) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return set(&layout->batch, 4, value, size);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return set(&layout->stride, 8, value, size);
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return create(preference, {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return destroy(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t size)
{
    if (!preference) return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t *alignment = preference->alignment;
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(&preference->workspace, 8, value, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(&preference->reductions, 4, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(&alignment[0], 4, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(&alignment[1], 4, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(&alignment[2], 4, value, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(&alignment[3], 4, value, size);
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

/* ---- what is supported ---- */
struct operands {
    hostcuda_layout a, b, c, d;
    bool a_transposed, b_transposed;
};

static bool types_fit(const hostcuda_product &p, const operands &o)
{
    bool known = o.a.type == CUDA_R_32F || o.a.type == CUDA_R_16BF || o.a.type == CUDA_R_16F;
    return p.compute == CUBLAS_COMPUTE_32F && p.scale == CUDA_R_32F && known &&
        o.a.type == o.b.type && o.c.type == o.d.type &&
        (o.d.type == CUDA_R_32F || o.d.type == o.a.type);
}

static bool shapes_fit(const operands &o)
{
    uint64_t m = o.a_transposed ? o.a.cols : o.a.rows, k = o.a_transposed ? o.a.rows : o.a.cols;
    uint64_t n = o.b_transposed ? o.b.rows : o.b.cols, l = o.b_transposed ? o.b.cols : o.b.rows;
    if (!m || !n || !k || k != l || o.d.rows != m || o.d.cols != n) return false;
    if (o.c.rows != m || o.c.cols != n) return false;
    for (const hostcuda_layout *x : {&o.a, &o.b, &o.c, &o.d})
        if (x->leading < (int64_t)x->rows || x->batch != o.d.batch || x->batch < 1) return false;
    return true;
}

static cublasStatus_t take_operands(operands *o, cublasLtMatmulDesc_t desc,
                                    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d)
{
    if (!desc || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
    for (int32_t t : desc->transposed)
        if (t != CUBLAS_OP_N && t != CUBLAS_OP_T) return CUBLAS_STATUS_NOT_SUPPORTED;
    *o = {*a, *b, *c, *d, desc->transposed[0] == CUBLAS_OP_T, desc->transposed[1] == CUBLAS_OP_T};
    if (!types_fit(*desc, *o)) return CUBLAS_STATUS_NOT_SUPPORTED;
    return shapes_fit(*o) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/* A part of the workspace is asked for whenever there is one, so that its size and its order are
 * put to the test. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    if (!handle || !preference || wanted < 1 || !results || !found)
        return CUBLAS_STATUS_INVALID_VALUE;
    *found = 0;
    operands o;
    cublasStatus_t status = take_operands(&o, desc, a, b, c, d);
    if (status) return status;
    cublasLtMatmulHeuristicResult_t r = {};
    r.algo.workspace = preference->workspace < 4096 ? preference->workspace : 4096;
    memcpy(r.algo.alignment, preference->alignment, sizeof r.algo.alignment);
    r.workspaceSize = r.algo.workspace;
    r.state = CUBLAS_STATUS_SUCCESS;
    r.wavesCount = 1;
    results[0] = r;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ---- */
struct pointers {
    const void *a, *b, *c;
    void *d, *workspace;
    size_t workspace_size;
};

static bool aligned(const void *p, cudaDataType type, uint32_t alignment)
{
    return (uintptr_t)p % size_of(type) == 0 && (!alignment || (uintptr_t)p % alignment == 0);
}

static cublasStatus_t check_pointers(const operands &o, const pointers &p, bool reads_c,
                                     const cublasLtMatmulAlgo_t *algo)
{
    static const uint32_t any[4] = {0, 0, 0, 0};
    const uint32_t *want = algo ? algo->alignment : any;
    if (!p.a || !p.b || !p.d || (reads_c && !p.c)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!aligned(p.a, o.a.type, want[0]) || !aligned(p.b, o.b.type, want[1]) ||
        !aligned(p.d, o.d.type, want[3]) || (reads_c && !aligned(p.c, o.c.type, want[2])))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (algo && algo->workspace && (!p.workspace || p.workspace_size < algo->workspace))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.workspace && (uintptr_t)p.workspace % 16) return CUBLAS_STATUS_INVALID_VALUE;
    for (const void *at : {p.a, p.b, (const void *)p.d})
        if (!find(at) || find(at)->kind != DEVICE) return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

static matrix matrix_of(const hostcuda_layout &l, const void *data, bool transposed, int32_t batch)
{
    const char *at = (const char *)data + (int64_t)batch * l.stride * (int64_t)size_of(l.type);
    return {at, l.type, l.rows, l.cols, (size_t)l.leading, transposed};
}

/* Calls `check` for the columns, which is all that a product touches; in one go without gaps. */
template <class F> static void for_columns(const matrix &m, F check)
{
    size_t column = m.rows * size_of(m.type);
    if (m.leading == m.rows) return check((char *)m.data, column * m.cols);
    for (size_t j = 0; j < m.cols; j++)
        check((char *)m.data + j * m.leading * size_of(m.type), column);
}

static void run_product(const operands &o, const pointers &p, float alpha, float beta)
{
    auto read = [](const char *at, size_t n) { range_read(at, n); };
    auto write = [](char *at, size_t n) { range_write(at, n); };
    for (int32_t i = 0; i < o.d.batch; i++) {
        matrix a = matrix_of(o.a, p.a, o.a_transposed, i), d = matrix_of(o.d, p.d, false, i);
        matrix b = matrix_of(o.b, p.b, o.b_transposed, i), c = matrix_of(o.c, p.c, false, i);
        for_columns(a, read);
        for_columns(b, read);
        if (beta != 0) for_columns(c, read);
        for_columns(d, write);
        multiply(alpha, a, b, beta, c, d);
    }
    if (p.workspace && p.workspace_size) {
        size_t touched = p.workspace_size < 4096 ? p.workspace_size : 4096;
        range_write(p.workspace, touched);
        memset(p.workspace, 0xff, touched);
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_size, cudaStream_t in)
{
    std::lock_guard<std::recursive_mutex> held(turn());
    if (!handle || !alpha || !beta) return CUBLAS_STATUS_INVALID_VALUE;
    if (unusable()) return CUBLAS_STATUS_EXECUTION_FAILED;
    operands o;
    cublasStatus_t status = take_operands(&o, desc, a_layout, b_layout, c_layout, d_layout);
    if (status) return status;
    float scale = *(const float *)alpha, keep = *(const float *)beta;
    pointers p = {a, b, c, d, workspace, workspace_size};
    status = check_pointers(o, p, keep != 0, algo);
    if (status) return status;
    stream *s = stream_of(in);
    if (!s || device_of(s) != handle->device) return CUBLAS_STATUS_INVALID_VALUE;
    enqueue(s, "cublasLtMatmul", [=] { run_product(o, p, scale, keep); });
    return CUBLAS_STATUS_SUCCESS;
}
