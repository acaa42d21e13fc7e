/* Where a linear's scales and zero points start: the rows of the option init. */
#ifndef EQI_QUANT_START_H
#define EQI_QUANT_START_H

#include "ops/ops.h"

/* Second moments of a linear's inputs over the calibration tokens. */
typedef enum eqi_moments {
    EQI_MOMENTS_NONE,
    EQI_MOMENTS_DIAGONAL, /* F32 [K]: sums of x_k^2 */
    EQI_MOMENTS_FULL      /* F32 [K, K]: sums of x_j x_k */
} eqi_moments;

typedef struct eqi_start {
    const char *name;    /* a word of the option init */
    bool search;         /* for the least squared error, not the range */
    eqi_moments moments; /* that errors are weighted by */
    bool feedback;       /* masters start from error feedback */
    bool descent;        /* and with their scales from coordinate descent behind it */
} eqi_start;

/* By enum eqat_init. */
extern const eqi_start eqi_starts[];

/* The squares F32 [K] among moments F32 [K, K]. */
eqat_status eqi_moments_diagonal(const eqi_tensor *moments, eqi_tensor **out);

/* Scales and zero points F32 [N, G] of w as `start` says; moments F32 [K], or [K, K] of which the
 * diagonal counts, or NULL: 1 everywhere; unread where the row asks for none. */
eqat_status eqi_start_scales(const eqi_start *start, eqi_tensor *w, eqi_tensor *moments,
                             const eqi_quant_desc *desc, eqi_tensor **s, eqi_tensor **z);

#endif
