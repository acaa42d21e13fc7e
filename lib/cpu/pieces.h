/* Work on many elements or rows, cut into pieces of a fixed size for the pool. */
#ifndef EQI_CPU_PIECES_H
#define EQI_CPU_PIECES_H

#include "cpu/cpu.h"

#define EQI_PIECE 16384 /* elements: enough to pay for waking a worker */

typedef void (*eqi_piece_fn)(void *arg, int64_t first, int64_t count);

/* fn over [0, count) in pieces of `grain`; a single piece runs on the calling thread (fn must not
 * call oneDNN). */
void eqi_pieces(eqi_ctx *ctx, int64_t count, int64_t grain, eqi_piece_fn fn, void *arg);

/* Rows of `width` elements that make a piece. */
static inline int64_t eqi_piece_rows(int64_t width)
{
    return eqi_max64(1, EQI_PIECE / eqi_max64(1, width));
}

/* Sum of fn over pieces of EQI_PIECE elements, added in order. */
typedef double (*eqi_piece_sum_fn)(void *arg, int64_t first, int64_t count);
eqat_status eqi_pieces_sum(eqi_ctx *ctx, int64_t count, eqi_piece_sum_fn fn, void *arg,
                           double *sum);

static inline char *eqi_at(const eqi_view *v, int64_t element)
{
    return (char *)v->data + (size_t)element * eqi_dtype_size(v->dtype);
}
static inline char *eqi_row(const eqi_view *v, int64_t row)
{
    return eqi_at(v, row * v->stride[0]);
}

#endif
