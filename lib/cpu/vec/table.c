#include "cpu/vec/rows.h"

#define EQI_STRING_(a) #a
#define EQI_STRING(a) EQI_STRING_(a)

const eqi_leaf EQI_PASTE(eqi_leaf, EQI_SIMD_NAME) = {
    .name = EQI_STRING(EQI_SIMD_NAME),
    .bf16 = EQI_SIMD_BF16,
    .rows = VEC(rows),
    .pack_a = VEC(pack_a),
    .pack_b = VEC(pack_b),
    .finish = VEC(finish),
    .fake_quant_grad = VEC(fake_quant_grad),
    .packed_grad = VEC(packed_grad),
};
