/* What forward and backward of attention share. */
#ifndef EQI_CPU_REF_ATTENTION_H
#define EQI_CPU_REF_ATTENTION_H

#include "cpu/ref/ref.h"

/* Softmax over the keys that query i of head h in batch b sees, in p[Tk] (0 for the others);
 * slope[Tk], when given, receives d score / d (q.k). Returns ln sum exp of the scores: -inf, and p
 * all 0, when the query sees no key. */
double eqi_ref_softmax_row(double *p, double *slope, const eqi_view *q, const eqi_view *k,
                           const eqi_view *segments, const eqi_attention_desc *d, int64_t b,
                           int64_t h, int64_t i);

#endif
