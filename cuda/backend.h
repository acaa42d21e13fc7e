/* What the files of the CUDA backend share: its state in a context, its memory, its products. A
 * failure is recorded in the context and returned; nothing here exits or prints. */
#ifndef EQI_CUDA_BACKEND_H
#define EQI_CUDA_BACKEND_H

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <sys/types.h>

#include "backend/table.h"

/* What a kernel found wrong with an id, a label or a position. It lies on the device; the first to
 * claim it wins. The next waiting call reports it. */
struct eqi_trouble {
    int claimed;
    int where; /* an eqi_trouble_place */
    long long value, limit;
};

enum eqi_trouble_place {
    EQI_TROUBLE_ID,
    EQI_TROUBLE_POSITION,
    EQI_TROUBLE_LABEL,
    EQI_TROUBLE_ROW,
    EQI_TROUBLE_SLOT,
    EQI_TROUBLE_COUNT
};

/* Scratch of the context: each slot grows to the largest request and stays, so that a step repeated
 * allocates nothing. The contents of a slot do not survive a larger request. */
enum eqi_cuda_slot {
    EQI_CUDA_WORKSPACE, /* of cuBLASLt */
    EQI_CUDA_OPERAND,   /* a weight as a product sees it */
    EQI_CUDA_RESULT,    /* a product before its op is through with it */
    EQI_CUDA_SUMS,      /* partial sums of reductions over blocks */
    EQI_CUDA_OP,        /* the op's own, alive across its products */
    EQI_CUDA_SLOTS
};

struct eqi_cuda_plans; /* of matmul.cpp */

/* ---- pinned memory of the host (pinned.cpp) ---- */
#ifndef EQI_CUDA_STAGES
#define EQI_CUDA_STAGES 32
#define EQI_CUDA_STAGE_BYTES (size_t{8} << 20)
#endif

/* Bytes on their way to the device; full ones wait in a ring for `left`. */
struct eqi_cuda_stage {
    unsigned char *data;
    cudaEvent_t left; /* behind the last copy out of it */
};

/* A download that nobody waits for yet. */
struct eqi_cuda_late {
    uint64_t number; /* of the ticket; 0: none yet */
    void *dst;
    size_t n;
    cudaEvent_t arrived;
};

/* What it brings, in pinned memory. */
struct eqi_cuda_cargo {
    eqi_trouble trouble;
    unsigned char bytes[EQI_LATE_BYTES];
};

struct eqi_cuda {
    int device;
    char name[32]; /* "cuda:0" */
    int processors;
    int capability; /* 80: compute capability 8.0 */
    pid_t pid;      /* a forked child has no device */
    cudaStream_t stream;
    bool own_stream; /* false: the caller's */
    cudaMemPool_t pool;
    cublasLtHandle_t blas;
    eqi_cuda_plans *plans;
    eqi_trouble *trouble;  /* on the device */
    eqi_trouble *reported; /* in pinned memory */
    eqi_cuda_stage stages[EQI_CUDA_STAGES];
    int stage_count, stage; /* how many there are; the one that fills */
    size_t filled;
    eqi_cuda_late late[EQI_LATE_COUNT];
    eqi_cuda_cargo *cargo; /* [EQI_LATE_COUNT], NULL before the first */
    uint64_t ticket;       /* the last */
    uint64_t told;         /* numbers up to here may bring a report that was told already */
    size_t used, peak;
    uint64_t limit; /* of used; 0: none */
    struct {
        void *data;
        size_t size;
    } scratch[EQI_CUDA_SLOTS];
    char lost[256]; /* why nothing can be computed any more; "" while all is well */
};

inline eqi_seat *eqi_seat_of(eqi_ctx *ctx) { return reinterpret_cast<eqi_seat *>(ctx); }
inline eqi_cuda *eqi_cuda_of(eqi_ctx *ctx)
{
    return static_cast<eqi_cuda *>(eqi_seat_of(ctx)->state);
}

#define EQI_CUDA_TRY(expr)                              \
    do {                                                \
        eqat_status eqi_status_ = (expr);               \
        if (eqi_status_ != EQAT_OK) return eqi_status_; \
    } while (0)

/* EQAT_BACKEND where an earlier fault took the device away (with its message) or this is a forked
 * child; else makes the device the thread's. Every entry begins with it, kernels by launching. */
eqat_status eqi_cuda_ready(eqi_ctx *ctx);
/* The status of a CUDA call called `what`. A fault of the device is kept in `lost`. */
eqat_status eqi_cuda_check(eqi_ctx *ctx, const char *what, cudaError_t error);
/* Waits for the stream; then what kernels have reported, and faults. */
eqat_status eqi_cuda_wait(eqi_ctx *ctx);

/* What a copy of the report says, once. */
eqat_status eqi_cuda_told(eqi_ctx *ctx, const eqi_trouble *reported);
/* pinned.cpp: memory of the host for copies that nobody waits for, in the context's account. */
cudaError_t eqi_cuda_pinned_take(eqi_ctx *ctx, void **out, size_t size);
void eqi_cuda_pinned_give(eqi_ctx *ctx, void *data, size_t size);
/* pinned.cpp: gives all of it back, once the stream is done. */
void eqi_cuda_pinned_close(eqi_ctx *ctx);

/* memory.cpp: *out of at least `size` bytes, aligned to 256. */
eqat_status eqi_cuda_scratch(eqi_ctx *ctx, eqi_cuda_slot slot, size_t size, void **out);
/* Bytes of device memory, within the limit; tries again after unused memory went back to the
 * device. */
eqat_status eqi_cuda_take(eqi_ctx *ctx, void **out, size_t size, const char *what);
void eqi_cuda_give(eqi_ctx *ctx, void *data, size_t size);

/* A matrix with rows: element (i, j) at i * stride + j; `turned` means its transpose in the
 * product. */
struct eqi_cuda_matrix {
    const void *data;
    eqi_dtype dtype;
    int64_t stride;
    bool turned;
};

/* matmul.cpp: c[m, n] (+)= a[m, k] b[k, n], sums in f32, rounded once to c's dtype. a and b have
 * one dtype, F32 or BF16 or F16; c has it too, or F32. Same arguments, same bits. */
eqat_status eqi_cuda_product(eqi_ctx *ctx, void *c, eqi_dtype c_dtype, int64_t c_stride, int64_t m,
                             int64_t n, int64_t k, eqi_cuda_matrix a, eqi_cuda_matrix b, bool acc);
eqat_status eqi_cuda_blas_open(eqi_ctx *ctx);
void eqi_cuda_blas_close(eqi_ctx *ctx);

/* The entries of the table, one file of ops/ for each op. */
#define EQI_ENTRY(entry) eqi_##entry##_fn eqi_cuda_##entry;
EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY

/* What one file of ops/ lends to others. */
/* fakequant_bwd of rows `first` to `first + rows` of w, whose gradient of w^ is `grad` F32
 * [rows, K], contiguous; dw, ds and dz are the whole tensors, each may be NULL. */
eqat_status eqi_cuda_fakequant_bwd_rows(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                        const eqi_view *dz, const float *grad, int64_t first,
                                        int64_t rows, const eqi_view *w, const eqi_view *s,
                                        const eqi_view *z, const eqi_quant_desc *q, bool acc);
/* gather_scatter.cu: scatter_rows for any float dtypes of x and y; `where` is an eqi_trouble_place
 * of the numbers in `row`. */
eqat_status eqi_cuda_add_rows(eqi_ctx *ctx, const char *name, int where, const eqi_view *x,
                              const eqi_view *y, const eqi_view *row, const eqi_view *slot,
                              const eqi_view *weights);

/* attention_mma.cu: attention on tensor cores, where eqi_cuda_attention_fits says that it can: the
 * device has bf16 products, all views are BF16 and their rows begin at multiples of 16 bytes, and
 * it is compiled for the head size. */
bool eqi_cuda_attention_fits(eqi_ctx *ctx, const eqi_view *const *views, int count);
eqat_status eqi_cuda_attention_mma(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                                   const eqi_view *q, const eqi_view *k, const eqi_view *v,
                                   const eqi_view *segments, const eqi_attention_desc *d);
eqat_status eqi_cuda_attention_mma_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk,
                                       const eqi_view *dv, const eqi_view *d_o, const eqi_view *o,
                                       const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                                       const eqi_view *v, const eqi_view *segments,
                                       const eqi_attention_desc *d);

/* Of host code: views without their library. */
inline int64_t eqi_cuda_count(const eqi_view *v)
{
    int64_t n = 1;
    for (int i = 0; i < v->ndim; i++) n *= v->shape[i];
    return n;
}
inline int64_t eqi_cuda_width(const eqi_view *v) { return v->ndim ? v->shape[v->ndim - 1] : 1; }
inline int64_t eqi_cuda_rows(const eqi_view *v)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < v->ndim; i++) n *= v->shape[i];
    return n;
}
/* From one row to the next of a view with rows (two dimensions, or one: a vector is one row). */
inline int64_t eqi_cuda_stride(const eqi_view *v)
{
    return v->ndim > 1 ? v->stride[v->ndim - 2] : eqi_cuda_width(v);
}
/* Contiguous, and at an address that `alignment` divides? Kernels that read or write several
 * elements at once need it of their arguments. */
inline bool eqi_cuda_packs(const eqi_view *v, size_t alignment)
{
    int64_t stride = 1;
    for (int d = v->ndim - 1; d >= 0; d--) {
        if (v->shape[d] > 1 && v->stride[d] != stride) return false;
        stride *= v->shape[d];
    }
    return reinterpret_cast<uintptr_t>(v->data) % alignment == 0;
}
inline size_t eqi_cuda_size(eqi_dtype dtype)
{
    switch (dtype) {
    case EQI_BF16:
    case EQI_F16: return 2;
    case EQI_F64: return 8;
    case EQI_U8: return 1;
    default: return 4;
    }
}

#endif
