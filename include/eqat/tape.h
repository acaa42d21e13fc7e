/* libeqat: reverse-mode differentiation for training drivers of one's own. SPDX-License-Identifier:
 * Apache-2.0 */
#ifndef EQAT_TAPE_H
#define EQAT_TAPE_H

#include "eqat/quantizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Records operations on trainable tensors and computes gradients.  Threads: as the context.
 *
 * Every eqat_op_... call stores a new tensor in *out that the caller frees; the tape holds its own
 * references to what backward needs. Float tensors of one call have one dtype (F32 or BF16;
 * weights, gains and biases are F32 masters and may also be BF16 or F16 when they do not train).
 * Shapes are checked; a mismatch is EQAT_INVALID_ARGUMENT naming the op and both shapes. */
typedef struct eqat_tape eqat_tape;

EQAT_API eqat_status eqat_tape_create(eqat_context *context, eqat_tape **out);
EQAT_API void eqat_tape_free(eqat_tape *tape); /**< NULL is fine */
/** Forgets what was recorded. */
EQAT_API void eqat_tape_clear(eqat_tape *tape);
/** While off, ops compute and record nothing (inference).  On after creation. */
EQAT_API void eqat_tape_set_recording(eqat_tape *tape, bool on);
/** Adds scale * d loss / d tensor to the gradient of every trainable tensor.  loss has one element
 * and was computed on this tape.  Clears the tape. */
EQAT_API eqat_status eqat_tape_backward(eqat_tape *tape, eqat_tensor *loss, double scale);
/** The same from a gradient of `out` (its shape and dtype). */
EQAT_API eqat_status eqat_tape_backward_from(eqat_tape *tape, eqat_tensor *out,
                                             const eqat_tensor *grad);

/** y[.., N] = x[.., K] w[N, K]^T + bias[N]; bias may be NULL. */
EQAT_API eqat_status eqat_op_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                    eqat_tensor *bias, eqat_tensor **out);
/** The same through w^ = fakequant(w, s, z) with straight-through gradients for w, s and z (paper
 * section 3.2, Eq. 1-5): w F32 [N, K], scales s and zero points z F32 [N, K / group size].  The
 * quantizer's own options count (no rules), and this is what Block-AP computes with them: s is
 * clamped to [1e-4, 1e4] up to 4 bits. */
EQAT_API eqat_status eqat_op_fakequant_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                              eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                              const eqat_quantizer *quantizer, eqat_tensor **out);
/** The same from packed codes U32 [N, K / 32 * bits] (eqat_quantizer_freeze, _pack or _quantize;
 * "....codes" of a model): gradients for x, scales s and, when they are F32 and trainable, zero
 * points z (paper section 3.3). Bits and group size follow from the shapes of codes and s, F32 [N,
 * K / group size], for rows of x's last size; s is not clamped. */
EQAT_API eqat_status eqat_op_packed_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *codes,
                                           eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                           eqat_tensor **out);
/** w^ itself, in dtype (F32 or BF16); else as eqat_op_fakequant_linear. */
EQAT_API eqat_status eqat_op_fakequant(eqat_tape *tape, eqat_tensor *w, eqat_tensor *s,
                                       eqat_tensor *z, const eqat_quantizer *quantizer,
                                       eqat_dtype dtype, eqat_tensor **out);
/** Rows of table [V, H] at ids I32 [..] -> [.., H] in dtype.  Ids outside [0, V) are
 * EQAT_INVALID_ARGUMENT (checked on the CPU). */
EQAT_API eqat_status eqat_op_embedding(eqat_tape *tape, eqat_tensor *ids, eqat_tensor *table,
                                       eqat_dtype dtype, eqat_tensor **out);
/** x / sqrt(mean(x^2) + eps) * (offset + gain) over the last dimension; gain F32 [H]. offset is 0
 * for most models and 1 for Gemma, whose gains are stored less 1. Computed in f32 and rounded once.
 */
EQAT_API eqat_status eqat_op_rmsnorm(eqat_tape *tape, eqat_tensor *x, eqat_tensor *gain, double eps,
                                     double offset, eqat_tensor **out);
/** Rotary position embedding, rotate-half: x [B, T, heads, D], cos and sin F32 [positions, C] with
 * 2C <= D, positions I32 [B, T] or NULL (0..T-1). */
EQAT_API eqat_status eqat_op_rope(eqat_tape *tape, eqat_tensor *x, eqat_tensor *cos,
                                  eqat_tensor *sin, eqat_tensor *positions, eqat_tensor **out);

typedef struct eqat_attention_options {
    size_t struct_size;
    double scale;     /**< of the scores; 0 (default): 1/sqrt(D) */
    int64_t window;   /**< > 0: a query sees only the last `window` positions including its own; 0
                         (default): all */
    int64_t q_offset; /**< position of the first query among the keys; default 0 */
    double softcap;   /**< > 0: softcap * tanh(score / softcap); default 0 */
    bool causal;      /**< default true */
    uint8_t reserved[7]; /**< 0 */
} eqat_attention_options;

EQAT_API void eqat_attention_options_init(eqat_attention_options *options, size_t struct_size);
/** Grouped-query attention: q [B, Tq, HQ, D], k and v [B, Tk, HK, D], HK divides HQ; segments I32
 * [B, Tk] or NULL keeps queries within their own segment.  No Tq x Tk matrix is stored.  options
 * may be NULL. */
EQAT_API eqat_status eqat_op_attention(eqat_tape *tape, eqat_tensor *q, eqat_tensor *k,
                                       eqat_tensor *v, eqat_tensor *segments,
                                       const eqat_attention_options *options, eqat_tensor **out);
typedef enum eqat_activation {
    EQAT_SILU = 0,     /**< x / (1 + exp(-x)) */
    EQAT_GELU_TANH = 1 /**< x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
} eqat_activation;

/** activation(gate) * up. */
EQAT_API eqat_status eqat_op_gated(eqat_tape *tape, eqat_tensor *gate, eqat_tensor *up,
                                   eqat_activation activation, eqat_tensor **out);

/** Mixture of experts.  route chooses, for every row of logits [.., E], the k largest: index I32
 * [.., k] holds their numbers, largest first, of equal ones the lower first; weights F32 [.., k]
 * their softmax over all E or, when normalised, among the k.  Gradients reach logits through
 * weights.  Both are the caller's to free.
 *
 * Which rows an expert works on is decided on the host: read index (eqat_tensor_read waits for the
 * device), list for every expert that has any the rows r and slots j with index[r, j] equal to its
 * number, upload both lists, and then x' = gather_rows(x, rows), y = the expert on x',
 * scatter_rows(&sum, y, weights, rows, slots) on a sum that started as zeros. */
EQAT_API eqat_status eqat_op_route(eqat_tape *tape, eqat_tensor *logits, int64_t k, bool normalised,
                                   eqat_tensor **weights, eqat_tensor **index);
/** Rows of x [R, H] by number: rows I32 [n] -> [n, H].  A row may come more than once.  Numbers
 * outside [0, R) are EQAT_INVALID_ARGUMENT (checked on the CPU). */
EQAT_API eqat_status eqat_op_gather_rows(eqat_tape *tape, eqat_tensor *x, eqat_tensor *rows,
                                         eqat_tensor **out);
/** Adds weights[rows[i], slots[i]] * y[i] to row rows[i] of *sum [R, H], one i after the other,
 * each sum rounded to its dtype: y [n, H], weights F32 [R, k], rows and slots I32 [n].  *sum is
 * replaced: the caller's reference on it is taken over and one on the result stored.  The result
 * has the memory of *sum where nobody else holds that.  On failure *sum stays the caller's, with
 * unspecified values. */
EQAT_API eqat_status eqat_op_scatter_rows(eqat_tape *tape, eqat_tensor **sum, eqat_tensor *y,
                                          eqat_tensor *weights, eqat_tensor *rows,
                                          eqat_tensor *slots);

EQAT_API eqat_status eqat_op_add(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b,
                                 eqat_tensor **out);
EQAT_API eqat_status eqat_op_mul(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b,
                                 eqat_tensor **out);
EQAT_API eqat_status eqat_op_scale(eqat_tape *tape, eqat_tensor *a, double factor,
                                   eqat_tensor **out);
EQAT_API eqat_status eqat_op_reshape(eqat_tape *tape, eqat_tensor *a, int32_t ndim,
                                     const int64_t *shape, eqat_tensor **out);
/** Elements [start, start + length) of dimension dim; a view of a's memory. The rest of a receives
 * no gradient from it. */
EQAT_API eqat_status eqat_op_slice(eqat_tape *tape, eqat_tensor *a, int32_t dim, int64_t start,
                                   int64_t length, eqat_tensor **out);
/** Dimensions dim0 and dim1 (0-based) swapped; a view of a's memory. */
EQAT_API eqat_status eqat_op_transpose(eqat_tape *tape, eqat_tensor *a, int32_t dim0, int32_t dim1,
                                       eqat_tensor **out);
/** A contiguous copy in dtype, F32 or BF16, rounded to nearest even; the gradient is rounded back.
 */
EQAT_API eqat_status eqat_op_cast(eqat_tape *tape, eqat_tensor *a, eqat_dtype dtype,
                                  eqat_tensor **out);
/** Mean of (x - target)^2 over all elements; loss F32 [1]; no gradient for target. */
EQAT_API eqat_status eqat_op_mse(eqat_tape *tape, eqat_tensor *x, eqat_tensor *target,
                                 eqat_tensor **loss);
/** Mean of -ln softmax(x w^T)[label] over labels >= 0 (negative labels are masked; none left: 0); x
 * [.., H], w [V, H], labels I32
 * [..].  The logits exist a few rows at a time.  count (may be NULL) receives the number of labels
 * used, F32 [1]. */
EQAT_API eqat_status eqat_op_linear_cross_entropy(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                                  eqat_tensor *labels, eqat_tensor **loss,
                                                  eqat_tensor **count);

/** An op of the caller's: `out` was computed by the caller from in[0..n_in); backward(user, tape,
 * grad of out, in, n_in) adds to the inputs' gradients with eqat_tape_add_grad.  release(user), if
 * not NULL, runs once, also when nothing was recorded. n_in <= 10. */
typedef eqat_status (*eqat_backward_fn)(void *user, eqat_tape *tape, eqat_tensor *out_grad,
                                        eqat_tensor *const *in, int32_t n_in);
EQAT_API eqat_status eqat_op_custom(eqat_tape *tape, const char *name, eqat_tensor *const *in,
                                    int32_t n_in, eqat_tensor *out, eqat_backward_fn backward,
                                    void (*release)(void *user), void *user);
EQAT_API eqat_status eqat_tape_add_grad(eqat_tape *tape, eqat_tensor *tensor,
                                        const eqat_tensor *grad);

/** Runs segment(tape, user, in, n_in, &out) without recording and again, recorded, during backward
 * (Chen et al. 2016): memory for one segment at a time.  segment must be a pure function of its
 * inputs and of trainable tensors. */
typedef eqat_status (*eqat_segment_fn)(eqat_tape *tape, void *user, eqat_tensor *const *in,
                                       int32_t n_in, eqat_tensor **out);
EQAT_API eqat_status eqat_tape_checkpoint(eqat_tape *tape, eqat_segment_fn segment, void *user,
                                          void (*release)(void *user), eqat_tensor *const *in,
                                          int32_t n_in, eqat_tensor **out);

#ifdef __cplusplus
}
#endif
#endif
