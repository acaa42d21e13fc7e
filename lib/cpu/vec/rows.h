#ifndef EQI_CPU_VEC_ROWS_H
#define EQI_CPU_VEC_ROWS_H

#include "cpu/vec/vec.h"

/* See eqi_leaf. */
void VEC(rows)(void *out, eqi_elem elem, const eqi_rows *src, int64_t row, int64_t col, int64_t n);
void VEC(pack_a)(void *dst, const eqi_pack *p, void *scratch);
void VEC(pack_b)(void *dst, const eqi_pack *p, void *scratch);
void VEC(finish)(void *out, eqi_dtype dtype, const float *sum, const float *bias, int64_t n, bool acc);

void VEC(fake_quant_grad)(const eqi_rows *w, int64_t row, int64_t col, int64_t n, const float *g, float *dw, float *sum_s,
                          float *sum_z, bool acc);
void VEC(packed_grad)(const eqi_rows *w, int64_t row, int64_t col, int64_t n, const float *g, float *sum_s, float *sum_z);

#endif
