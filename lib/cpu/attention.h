#ifndef EQI_CPU_ATTENTION_H
#define EQI_CPU_ATTENTION_H

#include "cpu/cpu.h"

/* The arguments that forward and backward share. */
typedef struct eqi_attention_call {
    const eqi_view *q, *k, *v, *segments;
    const eqi_attention_desc *desc;
    eqi_elem elem;
    eqi_stop *stop;
} eqi_attention_call;

eqi_elem eqi_attention_elem(const eqi_simd *simd, eqi_dtype dtype);
/* Query head h of sequence b. */
eqi_attention_head eqi_attention_head_of(const eqi_attention_call *c, int64_t b, int64_t h);
eqi_rows eqi_attention_rows_of(const eqi_view *v, int64_t b, int64_t h);
eqi_attention_rows eqi_attention_to(const eqi_view *v, int64_t b, int64_t h);

#endif
