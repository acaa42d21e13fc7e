/* What the files of this folder share: checks, views, places for gradients. */
#ifndef EQI_OPS_OP_H
#define EQI_OPS_OP_H

#include "ops/ops.h"

/* ---- checks; each leaves one line that begins with the op's name ---- */
eqat_status eqi_op_misfit(const char *op, const char *a_name, const eqi_tensor *a,
                          const char *b_name, const eqi_tensor *b);
/* F32, BF16, or F64 where the backend computes in it; at least one element. */
eqat_status eqi_op_check_x(const char *op, const char *name, const eqi_tensor *x);
eqat_status eqi_op_check_dtype(const char *op, const char *name, const eqi_tensor *t,
                               eqi_dtype dtype);
eqat_status eqi_op_check_ndim(const char *op, const char *name, const eqi_tensor *t, int ndim);
/* Same shape and dtype. */
eqat_status eqi_op_check_same(const char *op, const char *a_name, const eqi_tensor *a,
                              const char *b_name, const eqi_tensor *b);
/* w [.., K] of a dtype that goes with x, K as in x [.., K]. */
eqat_status eqi_op_check_weight(const char *op, const char *name, const eqi_tensor *w,
                                const eqi_tensor *x);
/* eqi_quant_desc_check in the name of an op. */
eqat_status eqi_op_check_desc(const char *op, eqi_ctx *ctx, const eqi_quant_desc *q,
                              int64_t in_features);
/* s, z [N, G] beside w [N, K], and beside packed codes. */
eqat_status eqi_op_check_groups(const char *op, const eqi_tensor *w, const eqi_tensor *s,
                                const eqi_tensor *z, const eqi_quant_desc *q);
eqat_status eqi_op_check_codes(const char *op, const eqi_weight *w);
/* I32 values below `limit`, and at least 0 unless `negative` is fine; looks only where memory is
 * the host's. */
eqat_status eqi_op_check_index(const char *op, const char *name, const eqi_tensor *t, int64_t limit,
                               bool negative);

/* What parameters and scalars beside activations of this dtype are: F32, or F64. */
static inline eqi_dtype eqi_param_dtype(eqi_dtype activations)
{
    return activations == EQI_F64 ? EQI_F64 : EQI_F32;
}

/* --- inputs as kernels want them; *out is counted ------------------------------------------------
 */
/* Contiguous and of `dtype`; what does not train is converted. t may be NULL. */
eqat_status eqi_op_param(eqi_tape *tape, const char *op, const char *name, eqi_tensor *t,
                         eqi_dtype dtype, eqi_tensor **out);
/* Leading dimensions collapsed to one: false when the strides forbid it. */
bool eqi_view_rows_2d(const eqi_view *x, eqi_view *rows);
eqat_status eqi_op_rows(eqi_tape *tape, eqi_tensor *x, eqi_tensor **out);
/* Of a contiguous tensor or one that came from eqi_op_rows: the view of two dimensions, and the one
 * of one. */
eqi_view eqi_as_rows(const eqi_tensor *x);
eqi_view eqi_as_flat(const eqi_tensor *x);

/* ---- places for gradients ---- */
/* Where a kernel writes d t in `dtype`: the gradient itself, or a temporary that is added to it. */
typedef struct eqi_slot {
    eqi_tensor *t;
    eqi_tensor *g; /* NULL when t requires no gradient */
    bool acc;      /* for the kernel */
    bool temporary;
} eqi_slot;

eqat_status eqi_slot_open(eqi_slot *slot, eqi_tensor *t, eqi_dtype dtype, bool kernel_can_acc);
/* For kernels that may write over dy: uses its memory when nobody else does. */
eqat_status eqi_slot_open_over(eqi_slot *slot, eqi_tensor *t, eqi_tensor *dy);
/* For kernels that insist on a place: scratch when t requires no gradient. */
eqat_status eqi_slot_open_always(eqi_slot *slot, eqi_tensor *t, eqi_dtype dtype);
/* Returns st, or what went wrong while adding. Closing a slot of zeros is fine. */
eqat_status eqi_slot_close(eqi_slot *slot, eqat_status st);
static inline const eqi_view *eqi_slot_view(const eqi_slot *slot)
{
    return slot->g ? &slot->g->v : NULL;
}
/* Makes slots that one kernel fills with one flag agree on it. */
eqat_status eqi_slots_agree(eqi_ctx *ctx, eqi_slot *slots, int n, bool *acc);

/* ---- results ---- */
/* Records *out; when st or recording fails, *out is freed and NULL. Returns the status. */
eqat_status eqi_op_finish(eqi_tape *tape, eqat_status st, const eqi_op *op, eqi_tensor *const *in,
                          int n_in, eqi_tensor **out, eqi_tensor *const *saved, int n_saved,
                          const void *attr, size_t attr_size);

/* Of table.c. */
extern const eqi_op eqi_add_op, eqi_attention_op, eqi_cast_op, eqi_contiguous_op, eqi_custom_op,
    eqi_embedding_op, eqi_fakequant_op, eqi_gated_op, eqi_gather_rows_op, eqi_kl_divergence_op,
    eqi_linear_cross_entropy_op, eqi_linear_op, eqi_mse_op, eqi_mul_op, eqi_reshape_op,
    eqi_rmsnorm_op, eqi_rope_op, eqi_route_op, eqi_scale_op, eqi_scatter_rows_op, eqi_slice_op,
    eqi_transpose_op;

#endif
