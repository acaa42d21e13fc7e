/* Scenes of limits, refusals and matrix products. */
#include "check.h"
#include "cublasLt.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "faults.h"

#include <thread>

/* ---- limits ---- */
static void limits(bool)
{
    cudaStream_t s = new_stream();
    OK(configured(s, 1, 1024, 48 << 10));
    MUST(configured(s, 1, 1025, 0) == cudaErrorInvalidConfiguration);
    MUST(cudaGetLastError() == cudaErrorInvalidConfiguration);
    OK(cudaGetLastError());
    MUST(configured(s, 1, dim3(1, 1, 65), 0) == cudaErrorInvalidConfiguration);
    MUST(configured(s, 0, 32, 0) == cudaErrorInvalidConfiguration);
    MUST(configured(s, dim3(1, 65536), 32, 0) == cudaErrorInvalidConfiguration);
    MUST(configured(s, 0x80000000u, 32, 0) == cudaErrorInvalidConfiguration);
    MUST(configured(s, 1, 32, (48 << 10) + 1) == cudaErrorInvalidValue);
    MUST(raise_shared((227 << 10) + 1) == cudaErrorInvalidValue);
    OK(raise_shared(227 << 10));
    OK(configured(s, 3, 32, 227 << 10));
    OK(with_parameters(s, false));
    MUST(with_parameters(s, true) == cudaErrorInvalidValue);
    OK(cudaStreamSynchronize(s));
    OK(cudaStreamDestroy(s));
    MUST(cudaStreamSynchronize(s) == cudaErrorInvalidResourceHandle);
}

static void small_memory(bool)
{
    void *p, *q;
    size_t free, total;
    cudaStream_t s = new_stream();
    OK(cudaMallocAsync(&p, 600000, s));
    MUST(cudaMallocAsync(&q, 600000, s) == cudaErrorMemoryAllocation);
    OK(cudaMemGetInfo(&free, &total));
    MUST(total == 1000000 && free <= 400000);
    OK(cudaFreeAsync(p, s));
    OK(cudaMallocAsync(&q, 600000, s));
    OK(cudaFree(q));
    MUST(cudaFree(q) == cudaErrorInvalidValue);
}

static void failing_allocation(bool)
{
    void *p;
    OK(cudaMalloc(&p, 100));
    MUST(cudaMalloc(&p, 100) == cudaErrorMemoryAllocation && !p);
    OK(cudaMalloc(&p, 100));
    cudaPointerAttributes a;
    OK(cudaPointerGetAttributes(&a, p));
    MUST(a.type == cudaMemoryTypeDevice && a.devicePointer == p);
    OK(cudaPointerGetAttributes(&a, &p));
    MUST(a.type == cudaMemoryTypeUnregistered);
}

static void no_device(bool)
{
    int n;
    MUST(cudaGetDeviceCount(&n) == cudaErrorNoDevice && n == 0);
    void *p;
    MUST(cudaMalloc(&p, 1) == cudaErrorNoDevice);
}

static void old_driver(bool)
{
    int n;
    OK(cudaDriverGetVersion(&n));
    MUST(n == 11000);
    MUST(cudaGetDeviceCount(&n) == cudaErrorInsufficientDriver);
    MUST(strcmp(cudaGetErrorName(cudaErrorInsufficientDriver), "cudaErrorInsufficientDriver") == 0);
}

static void broken_device(bool)
{
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(100), s);
    OK(fill(s, x, 1, 100));
    OK(fill(s, x, 2, 100)); /* the second launch breaks, seen when waited for */
    MUST(cudaStreamSynchronize(s) == cudaErrorIllegalAddress);
    MUST(cudaGetLastError() == cudaErrorIllegalAddress);
    MUST(cudaGetLastError() == cudaErrorIllegalAddress);
    MUST(fill(s, x, 2, 100) == cudaErrorIllegalAddress);
    MUST(cudaFreeAsync(x, s) == cudaErrorIllegalAddress);
    MUST(cudaStreamDestroy(s) == cudaErrorIllegalAddress);
}

static void other_device(bool planted)
{
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(100), s);
    OK(cudaStreamSynchronize(s));
    OK(cudaSetDevice(1));
    OK(cudaStreamSynchronize(s));
    MUST(fill(s, x, 1, 100) == cudaErrorInvalidResourceHandle);
    cudaStream_t t = new_stream();
    float *y = sent(numbers<float>(100), t);
    OK(fill(t, planted ? x : y, 1, 100));
    OK(cudaStreamSynchronize(t));
}

/* Host threads with a stream each share the device. */
static void sums_of_thread()
{
    cudaStream_t s = new_stream();
    std::vector<int> x = numbers<int>(1000), zero(1, 0);
    int sum = 0;
    for (int v : x) sum += v;
    for (int i = 0; i < 20; i++) {
        int *dx = sent(x, s), *out = sent(zero, s);
        OK(sum_all(s, out, dx, 1000, NONE));
        MUST(got(out, 1, s)[0] == sum);
        OK(cudaFreeAsync(dx, s));
        OK(cudaFreeAsync(out, s));
    }
    OK(cudaStreamDestroy(s));
}

static void host_threads(bool)
{
    std::thread a(sums_of_thread), b(sums_of_thread);
    sums_of_thread();
    a.join();
    b.join();
}

/* ---- matrix products ---- */
enum { M = 37, BATCH = 3 };
static const int N = 21, K = 53;

struct blas {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulHeuristicResult_t best;
};

#define FINE(call) MUST((call) == CUBLAS_STATUS_SUCCESS)

static cublasLtMatrixLayout_t layout(cudaDataType type, int rows, int cols, int leading)
{
    cublasLtMatrixLayout_t l;
    FINE(cublasLtMatrixLayoutCreate(&l, type, (uint64_t)rows, (uint64_t)cols, leading));
    int32_t batch = BATCH;
    int64_t stride = (int64_t)leading * cols;
    FINE(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, 4));
    FINE(cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                          8));
    return l;
}

/* d[M,N] = a[K,M]^T b[K,N], three times; a with rows that are longer than needed. */
static blas make_blas(cudaDataType type, uint64_t workspace)
{
    blas x = {};
    FINE(cublasLtCreate(&x.handle));
    FINE(cublasLtMatmulDescCreate(&x.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    int32_t t = CUBLAS_OP_T;
    FINE(cublasLtMatmulDescSetAttribute(x.desc, CUBLASLT_MATMUL_DESC_TRANSA, &t, 4));
    x.a = layout(type, K, M, K + 3);
    x.b = layout(type, K, N, K);
    x.d = layout(CUDA_R_32F, M, N, M);
    cublasLtMatmulPreference_t p;
    FINE(cublasLtMatmulPreferenceCreate(&p));
    FINE(cublasLtMatmulPreferenceSetAttribute(p, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                              &workspace, 8));
    int found;
    FINE(cublasLtMatmulAlgoGetHeuristic(x.handle, x.desc, x.a, x.b, x.d, x.d, p, 1, &x.best,
                                        &found));
    MUST(found == 1 && x.best.workspaceSize <= workspace);
    return x;
}

static cublasStatus_t run(const blas &x, const void *a, const void *b, float beta, float *d,
                          void *workspace, size_t size, cudaStream_t s)
{
    float alpha = 2;
    return cublasLtMatmul(x.handle, x.desc, &alpha, a, x.a, b, x.b, &beta, d, x.d, d, x.d,
                          &x.best.algo, workspace, size, s);
}

static void products(bool planted)
{
    cudaStream_t s = new_stream();
    blas x = make_blas(CUDA_R_32F, 0);
    std::vector<float> a = numbers<float>(BATCH * M * (K + 3)), b = numbers<float>(BATCH * N * K);
    float *da = sent(a, s), *db = sent(b, s), *dd = fresh<float>(BATCH * M * N, s);
    FINE(run(x, da, db, planted ? 1.0f : 0.0f, dd, nullptr, 0, s));
    FINE(run(x, da, db, 1, dd, nullptr, 0, s));
    std::vector<float> d = got(dd, BATCH * M * N, s);
    for (int n = 0; n < BATCH; n++)
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0;
                for (int k = 0; k < K; k++)
                    sum += a[(n * M + i) * (K + 3) + k] * b[(n * N + j) * K + k];
                MUST(d[(n * N + j) * M + i] == 4 * sum);
            }
}

/* One product each of bf16 and of f16, with f32 out. */
static void halves(bool)
{
    for (cudaDataType type : {CUDA_R_16BF, CUDA_R_16F}) {
        cudaStream_t s = new_stream();
        blas x = make_blas(type, 0);
        auto bits_of = [type](float v) {
            return type == CUDA_R_16F ? __half_as_ushort(__float2half_rn(v))
                                      : __bfloat16_as_ushort(__float2bfloat16_rn(v));
        };
        std::vector<float> a = numbers<float>(BATCH * M * (K + 3)),
                           b = numbers<float>(BATCH * N * K);
        std::vector<unsigned short> ha, hb;
        for (float v : a) ha.push_back(bits_of(v));
        for (float v : b) hb.push_back(bits_of(v));
        float *dd = fresh<float>(BATCH * M * N, s), sum = 0;
        FINE(run(x, sent(ha, s), sent(hb, s), 0, dd, nullptr, 0, s));
        for (int k = 0; k < K; k++) sum += a[(M + 5) * (K + 3) + k] * b[(N + 7) * K + k];
        MUST(got(dd, BATCH * M * N, s)[(N + 7) * M + 5] == 2 * sum);
    }
}

static void product_order(bool planted)
{
    cudaStream_t s = new_stream(), t = new_stream();
    blas x = make_blas(CUDA_R_32F, 0);
    float *a = sent(numbers<float>(BATCH * M * (K + 3)), s), *d = fresh<float>(BATCH * M * N, s);
    std::vector<float> v = numbers<float>(BATCH * N * K);
    float *b = lasting<float>(v.size());
    OK(cudaMemsetAsync(b, 0, v.size() * sizeof(float), s));
    OK(cudaStreamSynchronize(s));
    OK(cudaMemcpyAsync(b, v.data(), v.size() * sizeof(float), cudaMemcpyHostToDevice, t));
    if (!planted) OK(cudaStreamSynchronize(t));
    FINE(run(x, a, b, 0, d, nullptr, 0, s));
    OK(cudaDeviceSynchronize());
}

static void product_end(bool planted)
{
    cudaStream_t s = new_stream();
    blas x = make_blas(CUDA_R_32F, 0);
    float *a = sent(numbers<float>(BATCH * M * (K + 3) - (planted ? 4 : 3)), s);
    float *b = sent(numbers<float>(BATCH * N * K), s), *d = fresh<float>(BATCH * M * N, s);
    FINE(run(x, a, b, 0, d, nullptr, 0, s));
    OK(cudaStreamSynchronize(s));
}

static void product_workspace(bool planted)
{
    cudaStream_t s[2] = {new_stream(), new_stream()};
    blas x = make_blas(CUDA_R_32F, 8192);
    float *a = sent(numbers<float>(BATCH * M * (K + 3)), s[0]);
    float *b = sent(numbers<float>(BATCH * N * K), s[0]);
    void *w[2];
    OK(cudaMalloc(&w[0], 8192));
    OK(cudaMalloc(&w[1], 8192));
    OK(cudaStreamSynchronize(s[0]));
    MUST(run(x, a, b, 0, a, nullptr, 0, s[0]) == CUBLAS_STATUS_INVALID_VALUE);
    for (int i = 0; i < 2; i++)
        FINE(run(x, a, b, 0, fresh<float>(BATCH * M * N, s[i]), w[planted ? 0 : i], 8192, s[i]));
    OK(cudaDeviceSynchronize());
}

static void product_refusals(bool)
{
    cudaStream_t s = new_stream();
    blas x = make_blas(CUDA_R_32F, 0);
    float *a = sent(numbers<float>(BATCH * M * (K + 3) + 1), s), *d = fresh<float>(9999, s);
    float *b = sent(numbers<float>(BATCH * N * K), s);
    MUST(run(x, a + 1, b, 0, d, nullptr, 0, s) == CUBLAS_STATUS_INVALID_VALUE); /* not aligned */
    blas y = x;
    y.a = layout(CUDA_R_16BF, K, M, K);
    MUST(run(y, a, b, 0, d, nullptr, 0, s) == CUBLAS_STATUS_NOT_SUPPORTED);
    y.a = layout(CUDA_R_32F, K, M, K - 1);
    MUST(run(y, a, b, 0, d, nullptr, 0, s) == CUBLAS_STATUS_INVALID_VALUE);
}

const scene host_scenes[] = {
    {"limits", limits, nullptr, nullptr},
    {"memory of a device", small_memory, nullptr, "HOSTCUDA_MEMORY=1000000"},
    {"failing allocation", failing_allocation, nullptr, "HOSTCUDA_FAIL_ALLOC=2"},
    {"no device", no_device, nullptr, "HOSTCUDA_DEVICES=0"},
    {"old driver", old_driver, nullptr, "HOSTCUDA_DRIVER=11000"},
    {"broken device", broken_device, nullptr, "HOSTCUDA_FAULT_AT=2"},
    {"memory of another device", other_device, "memory of device 0", "HOSTCUDA_DEVICES=2"},
    {"host threads", host_threads, nullptr, nullptr},
    {"product", products, "nobody wrote", nullptr},
    {"products of halves", halves, nullptr, nullptr},
    {"product without order", product_order, "without order", nullptr},
    {"product past the end", product_end, "past the end", nullptr},
    {"workspace in two streams", product_workspace, "without order", nullptr},
    {"product refused", product_refusals, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr},
};
