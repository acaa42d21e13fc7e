#include "cpu/vec/rows.h"

#define EQI_STRING_(a) #a
#define EQI_STRING(a) EQI_STRING_(a)

const eqi_simd EQI_PASTE(eqi_simd, EQI_SIMD_NAME) = {
    .name = EQI_STRING(EQI_SIMD_NAME),
    .bf16 = EQI_SIMD_BF16,
    .chunk_k = EQI_SIMD_AMX ? 1152 : 0, /* AMX products of long rows lose half their rate */
    .rows = VEC(rows),
    .pack_a = VEC(pack_a),
    .pack_b = VEC(pack_b),
    .product = VEC(product),
    .finish = VEC(finish),
    .fake_quant_grad = VEC(fake_quant_grad),
    .packed_grad = VEC(packed_grad),
    .axpby = VEC(axpby),
    .mul = VEC(mul),
    .convert = VEC(convert),
    .sum_rows = VEC(sum_rows),
    .dot = VEC(dot),
    .sum_squares = VEC(sum_squares),
    .squared_error = VEC(squared_error),
    .squared_error_bwd = VEC(squared_error_bwd),
    .adamw = VEC(adamw),
    .rmsnorm = VEC(rmsnorm),
    .rmsnorm_bwd = VEC(rmsnorm_bwd),
    .rope = VEC(rope),
    .gated = VEC(gated),
    .gated_bwd = VEC(gated_bwd),
    .log_sum_exp = VEC(log_sum_exp),
    .softmax = VEC(softmax),
    .divergence = VEC(divergence),
    .divergence_bwd = VEC(divergence_bwd),
    .attention_keys = VEC(attention_keys),
    .attention_scratch = VEC(attention_scratch),
    .attention = VEC(attention),
    .attention_bwd_scratch = VEC(attention_bwd_scratch),
    .attention_bwd = VEC(attention_bwd),
    .quantize = VEC(quantize),
    .minmax = VEC(minmax),
    .minmax_stored = VEC(minmax_stored),
    .mse = VEC(mse),
};
