/* Differentiable operations: each checks shapes and types once, allocates its output, calls the
 * backend and records itself. Every *out is a new tensor owned by the caller, also when the tape
 * holds it too. Rows: any leading dimensions. A tape is always given; eqi_tape_set_recording(tape,
 * false) makes calls inference. s is a scale, z a zero point (tensor/quantized.h). */
#ifndef EQI_OPS_OPS_H
#define EQI_OPS_OPS_H

#include "autograd/tape.h"
#include "backend/backend.h"

/* A weight in one of three forms; the linear op does the right thing for each. */
typedef struct eqi_weight {
    eqi_tensor *w;     /* [N, K] dense; NULL when packed */
    eqi_tensor *codes; /* U32 [N, K/32*bits] packed; NULL when dense */
    eqi_tensor *s, *z; /* [N, G]: with w: fake-quantized; with codes: packed; NULL: plain dense */
    eqi_tensor *bias;  /* F32 [N] or NULL */
    eqi_quant_desc q;  /* when s is there */
} eqi_weight;

int64_t eqi_weight_out(const eqi_weight *w);
int64_t eqi_weight_in(const eqi_weight *w);
/* Gives up the references of *w and clears it. */
void eqi_weight_release(eqi_weight *w);

eqat_status eqi_op_linear(eqi_tape *tape, eqi_tensor *x, const eqi_weight *w,
                          eqi_tensor **out); /* [.., K] -> [.., N] */
/* [..] -> [.., H] */
eqat_status eqi_op_embedding(eqi_tape *tape, eqi_tensor *ids, eqi_tensor *table, eqi_dtype dtype,
                             eqi_tensor **out);
/* x / sqrt(mean(x^2) + eps) * (offset + gain) */
eqat_status eqi_op_rmsnorm(eqi_tape *tape, eqi_tensor *x, eqi_tensor *gain, double eps,
                           double offset, eqi_tensor **out);
eqat_status eqi_op_rope(eqi_tape *tape, eqi_tensor *x, eqi_tensor *cos, eqi_tensor *sin,
                        eqi_tensor *pos, eqi_tensor **out);
eqat_status eqi_op_attention(eqi_tape *tape, eqi_tensor *q, eqi_tensor *k, eqi_tensor *v,
                             eqi_tensor *segments, const eqi_attention_desc *d, eqi_tensor **out);
/* activation(gate) * up */
eqat_status eqi_op_gated(eqi_tape *tape, eqi_tensor *gate, eqi_tensor *up,
                         eqi_activation activation, eqi_tensor **out);
/* Mixture of experts: logits [.., E] -> weights F32 [.., k], the softmax of the k largest over all
 * E or (normalised) among themselves, largest first, and their numbers, index I32 [.., k], of equal
 * logits the lower first. Gradients go through the weights. Both outputs are the caller's. */
eqat_status eqi_op_route(eqi_tape *tape, eqi_tensor *logits, int64_t k, bool normalised,
                         eqi_tensor **weights, eqi_tensor **index);
/* Rows of x [R, H] by number, rows I32 [n] -> [n, H] */
eqat_status eqi_op_gather_rows(eqi_tape *tape, eqi_tensor *x, eqi_tensor *rows, eqi_tensor **out);
/* sum [R, H] with weights[row_i, slot_i] y_i added to its row_i, one i after the other; y [n, H],
 * weights F32 [R, k], rows and slots I32 [n]. Takes over the caller's reference on *sum and puts
 * the result there; where nobody else reads the memory of *sum, the result has it. On failure *sum
 * stays the caller's, its values unspecified. */
eqat_status eqi_op_scatter_rows(eqi_tape *tape, eqi_tensor **sum, eqi_tensor *y,
                                eqi_tensor *weights, eqi_tensor *rows, eqi_tensor *slots);
eqat_status eqi_op_add(eqi_tape *tape, eqi_tensor *a, eqi_tensor *b, eqi_tensor **out);
eqat_status eqi_op_mul(eqi_tape *tape, eqi_tensor *a, eqi_tensor *b, eqi_tensor **out);
eqat_status eqi_op_scale(eqi_tape *tape, eqi_tensor *a, double alpha, eqi_tensor **out);
eqat_status eqi_op_reshape(eqi_tape *tape, eqi_tensor *a, int ndim, const int64_t *shape,
                           eqi_tensor **out); /* shares storage */
/* Elements [start, start + length) of dimension dim; shares storage. */
eqat_status eqi_op_slice(eqi_tape *tape, eqi_tensor *a, int dim, int64_t start, int64_t length,
                         eqi_tensor **out);
/* Two dimensions swapped; shares storage. */
eqat_status eqi_op_transpose(eqi_tape *tape, eqi_tensor *a, int dim0, int dim1, eqi_tensor **out);
/* A contiguous copy in dtype: F32 and BF16 to either, F64 to F64. */
eqat_status eqi_op_cast(eqi_tape *tape, eqi_tensor *a, eqi_dtype dtype, eqi_tensor **out);
eqat_status eqi_op_fakequant(eqi_tape *tape, eqi_tensor *w, eqi_tensor *s, eqi_tensor *z,
                             const eqi_quant_desc *q, eqi_dtype dtype, eqi_tensor **out);
eqat_status eqi_op_mse(eqi_tape *tape, eqi_tensor *x, eqi_tensor *target,
                       eqi_tensor **loss); /* F32 [1] */
/* Whose logits, x [.., H'] w [V, H']^T, are learned from besides the labels; constants. */
typedef struct eqi_distill {
    eqi_tensor *x, *w;
    double share; /* of the divergence in the loss, 0 to 1 */
} eqi_distill;

/* Mean of -ln q over the labels >= 0, of which `from` (or NULL) takes a share for the divergence
 * from its softmax; loss F32 [1], 0 when all are masked; count (may be NULL) F32 [1] is their
 * number. */
eqat_status eqi_op_linear_cross_entropy(eqi_tape *tape, eqi_tensor *x, eqi_tensor *w,
                                        eqi_tensor *labels, const eqi_distill *from,
                                        eqi_tensor **loss, eqi_tensor **count);
/* Mean over rows of the divergence of softmax(x) from softmax(target), both F32 [.., V]; labels I32
 * [..] may be NULL: rows with a negative one do not count. loss F32 [1], 0 without any row. */
eqat_status eqi_op_kl_divergence(eqi_tape *tape, eqi_tensor *x, eqi_tensor *target,
                                 eqi_tensor *labels, eqi_tensor **loss);

/* x itself when it is contiguous, else a copy: what the other ops call on inputs that their kernel
 * cannot walk. */
eqat_status eqi_op_contiguous(eqi_tape *tape, eqi_tensor *x, eqi_tensor **out);

/* An op of the caller's: forward has been done by the caller; backward adds to the inputs'
 * gradients. `release` (may be NULL) frees user once, also when nothing was recorded and on
 * failure. */
typedef eqat_status (*eqi_custom_backward)(void *user, eqi_tape *tape, eqi_tensor *out_grad,
                                           eqi_tensor *const *in, int n_in);
eqat_status eqi_op_custom(eqi_tape *tape, const char *name, eqi_tensor *const *in, int n_in,
                          eqi_tensor *out, eqi_custom_backward backward,
                          void (*release)(void *user), void *user);

/* Every op, for the test that looks for a missing backward rule. */
extern const eqi_op *const eqi_op_table[];
extern const size_t eqi_op_count;

/* Weights, not differentiable. */
eqat_status eqi_quantize(eqi_tensor *w, eqi_tensor *s, eqi_tensor *z, const eqi_quant_desc *q,
                         eqi_tensor **codes);
/* Initial s (rounded as stored), z and codes of w at once. */
eqat_status eqi_quantize_minmax(eqi_tensor *w, const eqi_quant_desc *q, eqi_tensor **s,
                                eqi_tensor **z, eqi_tensor **codes);
eqat_status eqi_dequantize(const eqi_weight *packed, eqi_dtype dtype, eqi_tensor **out);
/* sum F32 [K] += column sums of the squares of x [.., K], F32 or BF16; or [K, K] += x^T x. */
eqat_status eqi_second_moments(eqi_tensor *x, eqi_tensor *sum);
/* Scales and zero points, F32 [N, G]: of the range or, of least sum h (w - w^)^2, by a search. h
 * F32 [K], finite and not negative, or NULL: 1 everywhere. */
eqat_status eqi_quant_minmax(eqi_tensor *w, const eqi_quant_desc *q, eqi_tensor **s,
                             eqi_tensor **z);
eqat_status eqi_quant_search(eqi_tensor *w, eqi_tensor *h, const eqi_quant_desc *q, eqi_tensor **s,
                             eqi_tensor **z);
eqat_status eqi_quant_desc_check(eqi_ctx *ctx, const eqi_quant_desc *q, int64_t in_features);

/* The step of the optimizer; its scalars stay on the device. sum F64 [1], norm and factor F32 [1],
 * p, g, m, v F32 of one shape, contiguous. */
/* sum += the sum of squares of g */
eqat_status eqi_sum_squares(eqi_tensor *sum, const eqi_tensor *g);
/* norm = scale * sqrt(sum), and the factor that clips it: see eqi_clip_factor_fn. */
eqat_status eqi_clip_factor(eqi_tensor *norm, eqi_tensor *factor, const eqi_tensor *sum,
                            double max_norm, double scale);
/* One step of p with gradient factor * g; factor NULL: g. Nothing changes when factor is NaN. */
eqat_status eqi_adamw(eqi_tensor *p, const eqi_tensor *g, eqi_tensor *m, eqi_tensor *v,
                      const eqi_tensor *factor, const eqi_adamw_desc *d);

#endif
