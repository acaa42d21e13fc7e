#include "ops/op.h"

const eqi_op *const eqi_op_table[] = {
    &eqi_add_op,          &eqi_attention_op,   &eqi_cast_op,          &eqi_checkpoint_op,
    &eqi_contiguous_op,   &eqi_custom_op,      &eqi_embedding_op,     &eqi_fakequant_op,
    &eqi_gated_op,        &eqi_gather_rows_op, &eqi_kl_divergence_op, &eqi_linear_cross_entropy_op,
    &eqi_linear_op,       &eqi_mse_op,         &eqi_mul_op,           &eqi_reshape_op,
    &eqi_rmsnorm_op,      &eqi_rope_op,        &eqi_route_op,         &eqi_scale_op,
    &eqi_scatter_rows_op, &eqi_slice_op,       &eqi_transpose_op,
};
const size_t eqi_op_count = EQI_COUNT(eqi_op_table);
