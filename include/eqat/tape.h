/** @file
 * libeqat: reverse-mode differentiation for training drivers of one's own.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TAPE_H
#define EQAT_TAPE_H

#include "eqat/quantizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Records operations on trainable tensors and computes gradients.  Threads: as the context.
 *
 * Every eqat_op_... call stores a new tensor in *out that the caller frees, at once if nothing else
 * needs it; the tape holds its own references to what backward needs.  An op is recorded when one
 * of its inputs requires a gradient (eqat_tensor_requires_grad); its output then requires one, too.
 * Inputs may be strided views, and are not changed.
 *
 * In shapes, [..] stands for one or more leading dimensions, of which the op makes rows.  Float
 * tensors of one call have one dtype, that of the activations (F32 or BF16), which is the output's;
 * weights, gains and biases are F32 masters and may also be BF16 or F16 when they do not train.
 * Products and sums are made in f32 and rounded once.  The errors of ops, which they share, are
 * EQAT_INVALID_ARGUMENT naming the op, what was found and what was expected: a shape, a dtype, an
 * empty tensor, a number out of range. */
typedef struct eqat_tape eqat_tape;

/** An empty tape, which records.  A driver needs one; it serves step after step.  Errors: none of
 * its own. */
EQAT_API eqat_status eqat_tape_create(eqat_context *context, eqat_tape **out);
EQAT_API void eqat_tape_free(eqat_tape *tape); /**< clears it; NULL is fine */
/** Forgets what was recorded and gives up what was held for backward.  Outputs that the caller
 * still holds keep their values and require no gradient any more. */
EQAT_API void eqat_tape_clear(eqat_tape *tape);
/** While off, ops compute and record nothing (inference), and activations go as soon as the caller
 * frees them.  What was recorded before stays.  On after creation. */
EQAT_API void eqat_tape_set_recording(eqat_tape *tape, bool on);
/** Adds scale * d loss / d tensor to the gradient of every trainable tensor that loss depends on
 * (eqat_tensor_grad).  loss has one element and was computed on this tape.  Clears the tape, also
 * on failure, when some gradients have been added to and others not.  Errors: EQAT_INVALID_ARGUMENT
 * (more than one element; a loss that was not recorded, because nothing it depends on is
 * trainable), what backward rules and recomputed segments return. */
EQAT_API eqat_status eqat_tape_backward(eqat_tape *tape, eqat_tensor *loss, double scale);
/** The same from a gradient of `out`, the output of any op on this tape: grad has its shape and
 * dtype, and stays as it is.  Errors: those of eqat_tape_backward, EQAT_INVALID_ARGUMENT (another
 * shape). */
EQAT_API eqat_status eqat_tape_backward_from(eqat_tape *tape, eqat_tensor *out,
                                             const eqat_tensor *grad);

/** y[.., N] = x[.., K] w[N, K]^T + bias[N]; bias may be NULL.  Gradients reach x, w and bias.
 * Errors: those of ops. */
EQAT_API eqat_status eqat_op_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                    eqat_tensor *bias, eqat_tensor **out);
/** The same through w^ = fakequant(w, s, z) with straight-through gradients for w, s and z (paper
 * section 3.2, Eq. 1-5): w F32 [N, K], scales s and zero points z F32 [N, K / group size].  The
 * quantizer's own options count (no rules), and this is what Block-AP computes with them: s is
 * clamped to what fp16 stores, 2^-24 to 65504.  w^ is made tile by tile on the way and not kept.
 * Errors: those of ops, EQAT_INVALID_ARGUMENT (a group size that does not divide K). */
EQAT_API eqat_status eqat_op_fakequant_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                              eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                              const eqat_quantizer *quantizer, eqat_tensor **out);
/** The same from packed codes U32 [N, K / 32 * bits] (eqat_quantizer_freeze, _pack or _quantize;
 * "....codes" of a model): gradients for x, scales s and, when they are F32 and trainable, zero
 * points z (paper section 3.3). Bits and group size follow from the shapes of codes and s, F32 [N,
 * K / group size], for rows of x's last size; s is not clamped.  z is U8 or F32, [N, K / group
 * size].  Errors: those of ops. */
EQAT_API eqat_status eqat_op_packed_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *codes,
                                           eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                           eqat_tensor **out);
/** w^ [N, K] itself, in dtype (F32 or BF16); else as eqat_op_fakequant_linear.  Errors: those of
 * ops, EQAT_INVALID_ARGUMENT (a group size that does not divide K). */
EQAT_API eqat_status eqat_op_fakequant(eqat_tape *tape, eqat_tensor *w, eqat_tensor *s,
                                       eqat_tensor *z, const eqat_quantizer *quantizer,
                                       eqat_dtype dtype, eqat_tensor **out);
/** Rows of table [V, H] at ids I32 [..], of 1 to 3 dimensions, -> [.., H] in dtype (F32 or BF16).
 * Gradients reach the table: those of equal ids add up.  Errors: those of ops,
 * EQAT_INVALID_ARGUMENT (an id outside [0, V); checked on the CPU). */
EQAT_API eqat_status eqat_op_embedding(eqat_tape *tape, eqat_tensor *ids, eqat_tensor *table,
                                       eqat_dtype dtype, eqat_tensor **out);
/** x / sqrt(mean(x^2) + eps) * (offset + gain) over the last dimension; gain F32 [H]. offset is 0
 * for most models and 1 for Gemma, whose gains are stored less 1.  Gradients reach x and gain.
 * Errors: those of ops. */
EQAT_API eqat_status eqat_op_rmsnorm(eqat_tape *tape, eqat_tensor *x, eqat_tensor *gain, double eps,
                                     double offset, eqat_tensor **out);
/** Rotary position embedding, rotate-half: x [B, T, heads, D], cos and sin F32 [positions, C] with
 * 2C <= D, positions I32 [B, T] or NULL (0..T-1).  Elements c and c + C of a head turn by the angle
 * at [position, c], those from 2C on stay.  Gradients reach x alone.  Errors: those of ops,
 * EQAT_INVALID_ARGUMENT (a position without a row in cos and sin; checked on the CPU). */
EQAT_API eqat_status eqat_op_rope(eqat_tape *tape, eqat_tensor *x, eqat_tensor *cos,
                                  eqat_tensor *sin, eqat_tensor *positions, eqat_tensor **out);

/** How queries see keys. */
typedef struct eqat_attention_options {
    size_t struct_size; /**< set by eqat_attention_options_init */
    double scale;       /**< of the scores; 0 (default): 1/sqrt(D) */
    int64_t window;     /**< > 0: a query sees only the last `window` positions including its own; 0
                           (default): all */
    int64_t q_offset;   /**< position of the first query among the keys; default 0 */
    double softcap;     /**< > 0: softcap * tanh(score / softcap); default 0 */
    bool causal;        /**< default true */
    uint8_t reserved[7]; /**< 0 */
} eqat_attention_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_attention_options_init(eqat_attention_options *options, size_t struct_size);
/** Grouped-query attention: q [B, Tq, HQ, D], k and v [B, Tk, HK, D], HK divides HQ; segments I32
 * [B, Tk] or NULL keeps queries within their own segment.  No Tq x Tk matrix is stored: backward
 * makes the scores again.  The output has q's shape.  Gradients reach q, k and v.  options may be
 * NULL.  Errors: those of ops, EQAT_INVALID_ARGUMENT (an option; more queries from q_offset on than
 * keys, where causal, window or segments say what a query sees). */
EQAT_API eqat_status eqat_op_attention(eqat_tape *tape, eqat_tensor *q, eqat_tensor *k,
                                       eqat_tensor *v, eqat_tensor *segments,
                                       const eqat_attention_options *options, eqat_tensor **out);
/** What a gated MLP makes of its gate. */
typedef enum eqat_activation {
    EQAT_SILU = 0,     /**< x / (1 + exp(-x)) */
    EQAT_GELU_TANH = 1 /**< x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
} eqat_activation;

/** activation(gate) * up, of equal shapes; gradients reach both.  Errors: those of ops,
 * EQAT_INVALID_ARGUMENT (no such activation). */
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
 * scatter_rows(&sum, y, weights, rows, slots) on a sum that started as zeros.  Errors: those of
 * ops, EQAT_INVALID_ARGUMENT (k outside 1..E). */
EQAT_API eqat_status eqat_op_route(eqat_tape *tape, eqat_tensor *logits, int64_t k, bool normalised,
                                   eqat_tensor **weights, eqat_tensor **index);
/** Rows of x [R, H] by number: rows I32 [n] -> [n, H].  A row may come more than once; its
 * gradients then add up.  Errors: those of ops, EQAT_INVALID_ARGUMENT (a number outside [0, R);
 * checked on the CPU). */
EQAT_API eqat_status eqat_op_gather_rows(eqat_tape *tape, eqat_tensor *x, eqat_tensor *rows,
                                         eqat_tensor **out);
/** Adds weights[rows[i], slots[i]] * y[i] to row rows[i] of *sum [R, H], one i after the other,
 * each sum rounded to its dtype: y [n, H], weights F32 [R, k], rows and slots I32 [n].  *sum is
 * replaced: the caller's reference on it is taken over and one on the result stored.  The result
 * has the memory of *sum where nobody else holds that.  Gradients reach the sum, y and weights.  On
 * failure *sum stays the caller's, with unspecified values.  Errors: those of ops,
 * EQAT_INVALID_ARGUMENT (a row or slot out of range; checked on the CPU). */
EQAT_API eqat_status eqat_op_scatter_rows(eqat_tape *tape, eqat_tensor **sum, eqat_tensor *y,
                                          eqat_tensor *weights, eqat_tensor *rows,
                                          eqat_tensor *slots);

/** a + b, of one shape: nothing is broadcast.  Gradients reach both.  Errors: those of ops. */
EQAT_API eqat_status eqat_op_add(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b,
                                 eqat_tensor **out);
/** a * b by elements, of one shape: nothing is broadcast.  Gradients reach both.  Errors: those of
 * ops. */
EQAT_API eqat_status eqat_op_mul(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b,
                                 eqat_tensor **out);
/** a * factor; the factor is a constant.  Errors: those of ops. */
EQAT_API eqat_status eqat_op_scale(eqat_tape *tape, eqat_tensor *a, double factor,
                                   eqat_tensor **out);
/** a in another shape with as many elements: a view of its memory when it is contiguous, else of a
 * copy.  Errors: EQAT_INVALID_ARGUMENT (ndim; another number of elements). */
EQAT_API eqat_status eqat_op_reshape(eqat_tape *tape, eqat_tensor *a, int32_t ndim,
                                     const int64_t *shape, eqat_tensor **out);
/** Elements [start, start + length) of dimension dim (0-based); a view of a's memory. The rest of a
 * receives no gradient from it.  Errors: EQAT_INVALID_ARGUMENT (no such dimension, or elements). */
EQAT_API eqat_status eqat_op_slice(eqat_tape *tape, eqat_tensor *a, int32_t dim, int64_t start,
                                   int64_t length, eqat_tensor **out);
/** Dimensions dim0 and dim1 (0-based) swapped; a view of a's memory.  Errors: EQAT_INVALID_ARGUMENT
 * (no such dimension). */
EQAT_API eqat_status eqat_op_transpose(eqat_tape *tape, eqat_tensor *a, int32_t dim0, int32_t dim1,
                                       eqat_tensor **out);
/** A contiguous copy in dtype, F32 or BF16, rounded to nearest even; the gradient is rounded back.
 * Errors: those of ops. */
EQAT_API eqat_status eqat_op_cast(eqat_tape *tape, eqat_tensor *a, eqat_dtype dtype,
                                  eqat_tensor **out);
/** Mean of (x - target)^2 over all elements, of one shape and dtype; loss F32 [1].  Gradients reach
 * x and a target that requires one.  Errors: those of ops. */
EQAT_API eqat_status eqat_op_mse(eqat_tape *tape, eqat_tensor *x, eqat_tensor *target,
                                 eqat_tensor **loss);
/** Mean of -ln softmax(x w^T)[label] over labels >= 0 (negative labels are masked; none left: 0); x
 * [.., H], w [V, H], labels I32 [..].  The logits exist a few rows at a time; where gradients are
 * wanted they are made on the way and kept, as large as x and w.  count (may be NULL) receives the
 * number of labels used, F32 [1], the caller's to free.  Errors: those of ops,
 * EQAT_INVALID_ARGUMENT (a label from V on; checked on the CPU). */
EQAT_API eqat_status eqat_op_linear_cross_entropy(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                                  eqat_tensor *labels, eqat_tensor **loss,
                                                  eqat_tensor **count);

/** Mean over rows of the Kullback-Leibler divergence sum p (ln p - ln q) of q = softmax(logits)
 * from p = softmax(target), both F32 [.., V] and finite; no gradient for target.  labels I32 [..]
 * or NULL: rows with a negative label do not count.  loss F32 [1]; 0 when no row counts.  Errors:
 * EQAT_INVALID_ARGUMENT (a shape or dtype). */
EQAT_API eqat_status eqat_op_kl_divergence(eqat_tape *tape, eqat_tensor *logits,
                                           eqat_tensor *target, eqat_tensor *labels,
                                           eqat_tensor **loss);

/** The backward rule of an op of the caller's: adds to the gradients of in[0..n_in) with
 * eqat_tape_add_grad.  out_grad has the shape and dtype of the op's output and is borrowed.  What
 * is not EQAT_OK ends the backward pass with that status. */
typedef eqat_status (*eqat_backward_fn)(void *user, eqat_tape *tape, eqat_tensor *out_grad,
                                        eqat_tensor *const *in, int32_t n_in);
/** An op of the caller's: `out`, a new tensor of the caller's, was computed by the caller from
 * in[0..n_in), n_in <= 10, which may hold NULL; backward, with `user`, is its rule.  release(user),
 * if not NULL, runs once, when the tape forgets the op; also when nothing was recorded, and after a
 * failure.  name stands in messages, copied.  Errors: EQAT_INVALID_ARGUMENT (more inputs; an output
 * that is trainable or recorded already). */
EQAT_API eqat_status eqat_op_custom(eqat_tape *tape, const char *name, eqat_tensor *const *in,
                                    int32_t n_in, eqat_tensor *out, eqat_backward_fn backward,
                                    void (*release)(void *user), void *user);
/** Adds grad, of the tensor's shape and any float dtype, to the tensor's gradient; to be called by
 * backward rules.  grad stays the caller's.  Does nothing for a tensor that requires none.  Errors:
 * EQAT_INVALID_ARGUMENT (another shape, a dtype that does not convert). */
EQAT_API eqat_status eqat_tape_add_grad(eqat_tape *tape, eqat_tensor *tensor,
                                        const eqat_tensor *grad);

/** A stretch of a graph: makes *out, whose reference is handed over, of in[0..n_in) with ops on the
 * tape it is given.  A pure function of its inputs and of trainable tensors: it runs twice. */
typedef eqat_status (*eqat_segment_fn)(eqat_tape *tape, void *user, eqat_tensor *const *in,
                                       int32_t n_in, eqat_tensor **out);
/** Runs segment(tape, user, in, n_in, &out) without recording and again, recorded on a tape of its
 * own, during backward (Chen et al. 2016): the tape keeps the inputs alone, and backward needs
 * memory for one segment at a time.  Gradients are those of the same ops recorded, bit for bit.
 * n_in <= 10; `user` must live until release(user), which runs once, if not NULL, when the tape
 * forgets the segment, when nothing was recorded, or after a failure.  Errors:
 * EQAT_INVALID_ARGUMENT (more inputs), what segment returns. */
EQAT_API eqat_status eqat_tape_checkpoint(eqat_tape *tape, eqat_segment_fn segment, void *user,
                                          void (*release)(void *user), eqat_tensor *const *in,
                                          int32_t n_in, eqat_tensor **out);

#ifdef __cplusplus
}
#endif
#endif
