/* The table that every backend fills. lib/ops checks shapes and types once, in front of it; a
 * kernel may assume what its comment says. Dimensions: B batch, T time, H hidden, R rows (product
 * of leading dimensions), N out features, K in features, G groups per row, V vocabulary. Float
 * tensors are F32, BF16 or, in the reference backend alone, F64 (then every float tensor of the
 * call is F64).
 *
 * Rules for all kernels: results do not depend on the number of threads; accumulation in f32 or
 * better; `acc` true adds to the destination, false overwrites it (and must not read it: it may
 * hold NaN); views marked "rows" come with two dimensions (vectors: one), a contiguous last one and
 * any row stride; all others are contiguous. The activations of one call (x, y, dx, dy, gate, ...)
 * have one dtype, tape gradients included.
 *
 * This header is also C++, and all that a backend in a library of its own includes of the engine.
 */
#ifndef EQI_BACKEND_TABLE_H
#define EQI_BACKEND_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "eqat/status.h"

#define EQI_BACKEND_VERSION 5u

typedef struct eqat_context eqi_ctx;
typedef struct eqi_backend eqi_backend;

/* What a backend in a library of its own may ask of the engine: the functions of base/context.h. */
typedef struct eqi_services {
    eqat_status (*fail)(eqi_ctx *ctx, eqat_status status, const char *format, ...);
    void (*log)(eqi_ctx *ctx, int level, const char *format, ...);
    void *(*alloc)(eqi_ctx *ctx, size_t size, const char *what);
    void (*free)(eqi_ctx *ctx, void *p);
    void (*count)(eqi_ctx *ctx, ptrdiff_t bytes); /* memory of the host from elsewhere: so many
                                                     more, or less, for eqat_context_bytes() */
    bool (*reclaim)(eqi_ctx *ctx); /* gives unused tensor memory back to the backend; true when
                                      there was any */
} eqi_services;

/* How every context begins, and all that such a backend knows of it. */
typedef struct eqi_seat {
    const eqi_services *services;
    void *state;            /* the backend's own */
    void *stream;           /* the caller's, to be used and not ended; NULL: one of its own */
    uint64_t device_memory; /* the most bytes of the device to hold at a time; 0: no limit */
} eqi_seat;

/* ---- what kernels see of a tensor; strides in elements ---- */
#define EQI_MAX_DIMS 4

typedef struct eqi_view {
    void *data;
    eqi_dtype dtype;
    int ndim;
    int64_t shape[EQI_MAX_DIMS];
    int64_t stride[EQI_MAX_DIMS];
} eqi_view;

/* Uniform quantization of a weight [N, K] in groups of `group` inputs (group divides K; G = K /
 * group). */
typedef struct eqi_quant_desc {
    int bits;      /* 2..8 */
    int64_t group; /* >= 1 */
    bool clamp;    /* fake quantization: s to what is stored (Block-AP); false: s as it is */
    bool middle;   /* init_mse: z is 2^(bits-1) - 1 or 2^(bits-1) */
} eqi_quant_desc;

/* The positive scales that fp16 stores. */
#define EQI_SCALE_MIN 0x1p-24f
#define EQI_SCALE_MAX 65504.0f
/* Of a group of zeros, which any scale represents. */
#define EQI_SCALE_OF_ZEROS 1e-4f

typedef struct eqi_attention_desc {
    float scale;      /* of the scores */
    int64_t window;   /* > 0: a query at position p sees keys in (p - window, p]; 0: no window */
    int64_t q_offset; /* position of query 0 relative to key 0 (KV cache); >= 0 */
    float softcap;    /* > 0: softcap * tanh(score / softcap); 0: none */
    bool causal;
} eqi_attention_desc;

typedef struct eqi_adamw_desc {
    float lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* 1-based */
} eqi_adamw_desc;

/* An AdamW step of a parameter in place of its stored gradient: factor 1, m and v like the
 * parameter, squares F64 [1] += the sum of squares of the gradient. */
typedef struct eqi_update {
    eqi_view m, v, squares;
    eqi_adamw_desc d;
} eqi_update;

/* Creates the state of the context's seat. `device` is the whole string, "cuda:1". A backend whose
 * memory is the host's (eqi_backend.host) finds neither stream nor limit in the seat. */
typedef eqat_status eqi_open_fn(eqi_ctx *ctx, const char *device);
typedef void eqi_close_fn(eqi_ctx *ctx);

/* ---- memory ---- */
/* 64-byte aligned; NULL after eqi_fail; size 0 gives a valid pointer */
typedef void *eqi_alloc_fn(eqi_ctx *ctx, size_t size);
typedef void eqi_free_fn(eqi_ctx *ctx, void *data, size_t size);
/* src may be reused on return */
typedef eqat_status eqi_upload_fn(eqi_ctx *ctx, void *dst, const void *src, size_t n);
/* waits for all that was asked for before, and tells what failed of it; dst is filled on return */
typedef eqat_status eqi_download_fn(eqi_ctx *ctx, void *dst, const void *src, size_t n);
/* the same without a download: an entry that returned EQAT_OK may only have been asked for */
typedef eqat_status eqi_synchronize_fn(eqi_ctx *ctx);

/* Bytes of the device. */
typedef struct eqi_memory {
    size_t used, peak;  /* given out to this context; the most since it began or reset_peak */
    size_t free, total; /* of the machine's device, or of the limit; 0: not known */
} eqi_memory;
/* fills used and peak whatever it returns; takes no turn of the context */
typedef eqat_status eqi_memory_fn(eqi_ctx *ctx, eqi_memory *out);
/* what is used now becomes the peak */
typedef void eqi_reset_peak_fn(eqi_ctx *ctx);
/* Can kernels read and write memory that starts at p? */
typedef bool eqi_reaches_fn(eqi_ctx *ctx, const void *p);

/* Memory of the host that late copies read and fill, which unpin waits for; as alloc and free else.
 */
typedef void *eqi_pin_fn(eqi_ctx *ctx, size_t size);
typedef void eqi_unpin_fn(eqi_ctx *ctx, void *data, size_t size);
/* A download that waits for nothing: of what src is behind all that was asked for before. dst is
 * filled when arrive has returned for the ticket; it waits for no more than that, and tells what
 * failed up to there. A ticket arrives with EQAT_OK at most once. Where dst is not pinned, n is at
 * most EQI_LATE_BYTES, and the ticket arrives before EQI_LATE_COUNT more are asked for. Where it
 * is, ticket may be NULL: nobody asks, and dst is filled when the next call that waits returns. */
#define EQI_LATE_COUNT 16
#define EQI_LATE_BYTES 4096
typedef eqat_status eqi_download_late_fn(eqi_ctx *ctx, void *dst, const void *src, size_t n,
                                         uint64_t *ticket);
typedef eqat_status eqi_arrive_fn(eqi_ctx *ctx, uint64_t ticket);
/* An upload out of pinned memory that waits for nothing: of what src is, or a late download makes
 * of it, behind all that was asked for before. */
typedef eqat_status eqi_upload_late_fn(eqi_ctx *ctx, void *dst, const void *src, size_t n);

/* ---- element-wise; any strides ---- */
typedef eqat_status eqi_fill_fn(eqi_ctx *ctx, const eqi_view *y, double value); /* any dtype */
/* Converts: floats among each other (rne), any dtype to itself, F32 to and from U8 and I32 (rne,
 * saturating). */
typedef eqat_status eqi_copy_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x);
/* y = alpha*a + beta*b; b may be NULL. y may alias a or b. y, a, b each F32 or BF16 (or all F64) */
typedef eqat_status eqi_axpby_fn(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a,
                                 double beta, const eqi_view *b);
typedef eqat_status eqi_mul_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a,
                               const eqi_view *b, bool acc);
/* y (+)= factor * x; factor F32 (F64) [1] on the device. y may alias x. contiguous; y, x each F32
 * or BF16 (or both F64) */
typedef eqat_status eqi_scale_by_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                    const eqi_view *factor, bool acc);
/* y = a / max(b, 1); F32 (F64) [1] each */
typedef eqat_status eqi_ratio_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a,
                                 const eqi_view *b);

/* ---- embedding: ids I32 [R], table [V, H] F32/BF16/F16, y rows [R, H] ---- */
typedef eqat_status eqi_embedding_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids,
                                     const eqi_view *table);
/* dtable F32 [V, H] += dy rows by id (always accumulates; duplicates in order) */
typedef eqat_status eqi_embedding_bwd_fn(eqi_ctx *ctx, const eqi_view *dtable, const eqi_view *ids,
                                         const eqi_view *dy);

/* --- linear: y[R, N] = x[R, K] w[N, K]^T + bias[N]; x, y, dy, dx rows; w F32/BF16/F16, rows; bias
 * F32 or NULL; dw, dbias F32 */
typedef eqat_status eqi_linear_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                  const eqi_view *w, const eqi_view *bias);
typedef eqat_status eqi_linear_bwd_x_fn(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                        const eqi_view *w, bool acc);
typedef eqat_status eqi_linear_bwd_w_fn(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *dy,
                                        const eqi_view *x, bool acc);
typedef eqat_status eqi_bias_bwd_fn(eqi_ctx *ctx, const eqi_view *dbias, const eqi_view *dy,
                                    bool acc);

/* ---- fake quantization (docs/numerics.md): w F32 [N, K]; s, z F32 [N, G]; what [N, K] F32/BF16
 * ---- */
typedef eqat_status eqi_fakequant_fn(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w,
                                     const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q);
/* dwhat F32 [N, K]; dw, ds, dz may each be NULL; dw may alias dwhat when !acc */
typedef eqat_status eqi_fakequant_bwd_fn(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                         const eqi_view *dz, const eqi_view *dwhat,
                                         const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                         const eqi_quant_desc *q, bool acc);
/* linear through fakequant(w, s, z) rounded to x's dtype, without a lasting copy of it */
typedef eqat_status eqi_fq_linear_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                     const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_view *bias, const eqi_quant_desc *q);
typedef eqat_status eqi_fq_linear_bwd_x_fn(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                           const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                           const eqi_quant_desc *q, bool acc);
/* dw F32 [N, K], ds, dz F32 [N, G]; each may be NULL */
typedef eqat_status eqi_fq_linear_bwd_w_fn(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                           const eqi_view *dz, const eqi_view *dy,
                                           const eqi_view *x, const eqi_view *w, const eqi_view *s,
                                           const eqi_view *z, const eqi_quant_desc *q, bool acc);

/* fq_linear_bwd_w and adamw in one, to the numbers of both: dw goes into a step of w as it arises.
 * When dy, x or squares are not finite, w and its moments stay, and squares, ds and dz become NaN.
 */
typedef eqat_status eqi_fq_linear_update_fn(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds,
                                            const eqi_view *dz, const eqi_view *dy,
                                            const eqi_view *x, const eqi_view *w, const eqi_view *s,
                                            const eqi_view *z, const eqi_quant_desc *q);

/* --- packed weights: codes U32 [N, K/32*bits], per row blocks of 32 inputs in `bits` little-endian
 * 32-bit words, code i of a block at bits [i*bits, (i+1)*bits) of that stream, K a multiple of 32;
 * s F32 [N, G]; z U8 or F32 [N, G] (F32: z' = clamp(rne(z), 0, Q)) --- */
typedef eqat_status eqi_dequantize_fn(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes,
                                      const eqi_view *s, const eqi_view *z,
                                      const eqi_quant_desc *q);
typedef eqat_status eqi_packed_linear_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                         const eqi_view *codes, const eqi_view *s,
                                         const eqi_view *z, const eqi_view *bias,
                                         const eqi_quant_desc *q);
typedef eqat_status eqi_packed_linear_bwd_x_fn(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                               const eqi_view *codes, const eqi_view *s,
                                               const eqi_view *z, const eqi_quant_desc *q,
                                               bool acc);
/* ds, dz F32 [N, G]; dz may be NULL; no [N, K] gradient is stored */
typedef eqat_status eqi_packed_linear_bwd_sz_fn(eqi_ctx *ctx, const eqi_view *ds,
                                                const eqi_view *dz, const eqi_view *dy,
                                                const eqi_view *x, const eqi_view *codes,
                                                const eqi_view *s, const eqi_view *z,
                                                const eqi_quant_desc *q, bool acc);
/* codes = clamp(rne(w / s) + z, 0, Q), packed; w F32/BF16/F16 [N, K] */
typedef eqat_status eqi_quantize_fn(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *w,
                                    const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q);
/* s, z F32 [N, G] from w F32 [N, K] */
typedef eqat_status eqi_init_minmax_fn(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z,
                                       const eqi_view *w, const eqi_quant_desc *q);
/* of least sum h (w - w^)^2 in each group; h F32 [K], finite, not negative, or NULL: 1 */
typedef eqat_status eqi_init_mse_fn(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z,
                                    const eqi_view *w, const eqi_view *h, const eqi_quant_desc *q);
/* init_minmax, then eqi_stored_scale of each s, then quantize: s F32, z U8 (NaN: 0) [N, G]; w F32
 * [N, K] */
typedef eqat_status eqi_quantize_minmax_fn(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *s,
                                           const eqi_view *z, const eqi_view *w,
                                           const eqi_quant_desc *q);

/* ---- RMSNorm over the last dimension: y = x rstd (offset + gain), rstd = 1 / sqrt(mean(x^2) +
 * eps); x, y rows [R, H]; gain F32 [H]; rstd F32 (F64) [R] ---- */
typedef eqat_status eqi_rmsnorm_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd,
                                   const eqi_view *x, const eqi_view *gain, double eps,
                                   double offset);
/* dgain F32 [H] or NULL; dx or NULL */
typedef eqat_status eqi_rmsnorm_bwd_fn(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain,
                                       const eqi_view *dy, const eqi_view *x, const eqi_view *gain,
                                       const eqi_view *rstd, double offset, bool acc_dx,
                                       bool acc_dgain);

/* --- RoPE, rotate-half over the first 2*C of D dimensions: x, y [B, T, heads, D] (last dimension
 * contiguous, y may be x); cos, sin F32 [positions, C]; pos I32 [B, T] or NULL for 0..T-1; sign +1
 * forward, -1 backward --- */
typedef eqat_status eqi_rope_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                const eqi_view *cos, const eqi_view *sin, const eqi_view *pos,
                                int sign);

/* --- attention: q, o [B, Tq, HQ, D]; k, v [B, Tk, HK, D], HK divides HQ, last dimension
 * contiguous; lse F32 [B, HQ, Tq] is ln sum exp of a row's scores; segments I32 [B, Tk] or NULL (a
 * query sees keys of its own segment). A query and a key that it does not see have nothing to do
 * with each other, whatever they hold: a NaN of one reaches no result of the other. A query that
 * has no score but -infinity has o 0, lse -infinity and dq 0, and adds nothing to dk and dv ---- */
typedef eqat_status eqi_attention_fn(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                                     const eqi_view *q, const eqi_view *k, const eqi_view *v,
                                     const eqi_view *segments, const eqi_attention_desc *d);
typedef eqat_status eqi_attention_bwd_fn(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk,
                                         const eqi_view *dv, const eqi_view *d_o, const eqi_view *o,
                                         const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                                         const eqi_view *v, const eqi_view *segments,
                                         const eqi_attention_desc *d); /* overwrites dq, dk, dv */

/* ---- gated activation: y = activation(gate) * up; rows ---- */
typedef enum eqi_activation {
    EQI_SILU,      /* x / (1 + exp(-x)) */
    EQI_GELU_TANH, /* x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
    EQI_ACTIVATION_COUNT
} eqi_activation;

typedef eqat_status eqi_gated_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate,
                                 const eqi_view *up, eqi_activation activation);
/* overwrites dgate, dup; each may alias dy, gate or up of the same shape */
typedef eqat_status eqi_gated_bwd_fn(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup,
                                     const eqi_view *dy, const eqi_view *gate, const eqi_view *up,
                                     eqi_activation activation);

/* ---- mixture of experts: E experts, k of them for each row ---- */
/* index I32 [R, k]: the k largest of logits rows [R, E], largest first, of equal ones the first;
 * weights F32 (F64) [R, k]: their softmax over all E or, when normalised, among the k. k <= E.
 * Where a row has a NaN, its weights are NaN and its k numbers differ. */
typedef eqat_status eqi_route_fn(eqi_ctx *ctx, const eqi_view *weights, const eqi_view *index,
                                 const eqi_view *logits, bool normalised);
/* dlogits rows [R, E] (+)= through the weights alone: index is a constant */
typedef eqat_status eqi_route_bwd_fn(eqi_ctx *ctx, const eqi_view *dlogits,
                                     const eqi_view *dweights, const eqi_view *logits,
                                     const eqi_view *index, bool normalised, bool acc);

/* Rows by their numbers: x rows [R, H], y rows [n, H], row I32 [n] below R, the same one any number
 * of times. w_i = weights[row_i, slot_i] with weights F32 (F64) [R, k], slot I32 [n] below k; both
 * NULL: 1. */
/* y_i = w_i x[row_i] */
typedef eqat_status eqi_gather_rows_fn(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                       const eqi_view *row, const eqi_view *slot,
                                       const eqi_view *weights);
/* x[row_i] += w_i y_i, one i after the other, each sum rounded to x's dtype */
typedef eqat_status eqi_scatter_rows_fn(eqi_ctx *ctx, const eqi_view *x, const eqi_view *y,
                                        const eqi_view *row, const eqi_view *slot,
                                        const eqi_view *weights);
/* dweights[row_i, slot_i] += <x[row_i], y_i>, one i after the other */
typedef eqat_status eqi_dot_rows_fn(eqi_ctx *ctx, const eqi_view *dweights, const eqi_view *x,
                                    const eqi_view *y, const eqi_view *row, const eqi_view *slot);

/* ---- losses: loss F32 (F64) scalar [1] ---- */
/* mean over all elements of (x - target)^2 */
typedef eqat_status eqi_mse_fn(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x,
                               const eqi_view *target);
/* dx (+)= dloss * 2 (x - target) / count; dloss F32 [1] */
typedef eqat_status eqi_mse_bwd_fn(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss,
                                   const eqi_view *x, const eqi_view *target, bool acc);
/* Cross-entropy of logits x[R, H] w[V, H]^T against labels I32 [R] (negative: masked), in chunks of
 * rows, so that no [R, V] matrix exists. stats F32 (F64) [2]: sum of the loss over unmasked rows,
 * number of unmasked rows. When given, dx [R, H] and dw F32 [V, H] receive the gradient of the SUM
 * (dw always accumulates). w F32/BF16/F16.
 * With q = softmax of these logits the loss of a row is -ln q[label] or, with a teacher, whose
 * logits are teacher->x[R, H'] teacher->w[V, H']^T with softmax p, (1 - share) of that and share of
 * sum_v p (ln p - ln q). */
typedef struct eqi_teacher {
    eqi_view x, w; /* x in the dtype of the student's, w F32/BF16/F16 */
    double share;
} eqi_teacher;
typedef eqat_status eqi_linear_cross_entropy_fn(eqi_ctx *ctx, const eqi_view *stats,
                                                const eqi_view *dx, const eqi_view *dw,
                                                const eqi_view *x, const eqi_view *w,
                                                const eqi_view *labels,
                                                const eqi_teacher *teacher); /* NULL: none */

/* Kullback-Leibler divergence of softmax(x) from softmax(target), rows [R, V] of finite F32 (F64),
 * over the rows whose label is >= 0 (labels I32 [R], or NULL: all). stats [2]: sum over these rows
 * of sum_v p (ln p - ln q), number of rows. lse [R, 2]: ln sum exp of target and of x, for the
 * backward pass. */
typedef eqat_status eqi_kl_divergence_fn(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *lse,
                                         const eqi_view *x, const eqi_view *target,
                                         const eqi_view *labels);
/* dx (+)= factor (softmax(x) - softmax(target)), 0 in the other rows; factor [1] */
typedef eqat_status eqi_kl_divergence_bwd_fn(eqi_ctx *ctx, const eqi_view *dx,
                                             const eqi_view *factor, const eqi_view *lse,
                                             const eqi_view *x, const eqi_view *target,
                                             const eqi_view *labels, bool acc);

/* ---- optimiser: all scalars stay on the device ---- */
/* sum F64 [1] += sum of squares of g F32 */
typedef eqat_status eqi_sum_squares_fn(eqi_ctx *ctx, const eqi_view *sum, const eqi_view *g);
/* From sum of squares: norm F32[1] = scale * sqrt(sum); factor F32[1] = scale * min(1, max_norm /
 * (norm + 1e-6)), or `scale` when max_norm <= 0; NaN factor when norm is not finite. */
typedef eqat_status eqi_clip_factor_fn(eqi_ctx *ctx, const eqi_view *norm, const eqi_view *factor,
                                       const eqi_view *sum, double max_norm, double scale);
/* Decoupled weight decay (Loshchilov and Hutter): g' = factor * g (factor NULL: 1); nothing at all
 * is written when factor is NaN. p, g, m, v F32, contiguous, same count. */
typedef eqat_status eqi_adamw_fn(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g,
                                 const eqi_view *m, const eqi_view *v, const eqi_view *factor,
                                 const eqi_adamw_desc *d);

/* Every entry, so that tables, declarations and checks need no list of their own. */
/* clang-format off */
#define EQI_BACKEND_ENTRIES(X) \
    X(open) X(close) X(alloc) X(free) X(upload) X(download) X(pin) X(unpin) X(download_late) \
    X(upload_late) X(arrive) X(synchronize) X(memory) X(reset_peak) X(reaches) X(fill) X(copy) \
    X(axpby) X(mul) X(scale_by) X(ratio) X(embedding) X(embedding_bwd) X(linear) X(linear_bwd_x) \
    X(linear_bwd_w) X(bias_bwd) X(fakequant) X(fakequant_bwd) X(fq_linear) X(fq_linear_bwd_x) \
    X(fq_linear_bwd_w) X(fq_linear_update) X(dequantize) X(packed_linear) X(packed_linear_bwd_x) \
    X(packed_linear_bwd_sz) X(quantize) X(init_minmax) X(init_mse) X(quantize_minmax) X(rmsnorm) \
    X(rmsnorm_bwd) X(rope) X(attention) X(attention_bwd) X(gated) X(gated_bwd) X(route) \
    X(route_bwd) X(gather_rows) X(scatter_rows) X(dot_rows) X(mse) X(mse_bwd) \
    X(linear_cross_entropy) X(kl_divergence) X(kl_divergence_bwd) X(sum_squares) X(clip_factor) \
    X(adamw)
/* clang-format on */

struct eqi_backend {
    uint32_t version; /* EQI_BACKEND_VERSION */
    const char *name;
    bool host; /* memory is the host's: lib/ops looks at ids and labels itself */
    bool f64;  /* float tensors may be F64 */
#define EQI_ENTRY(entry) eqi_##entry##_fn *entry;
    EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY
};

/* What a backend in a library of its own exports, and nothing else. */
#define EQI_BACKEND_SYMBOL "eqi_backend_of_library"
typedef const eqi_backend *eqi_backend_fn(void);

#endif
