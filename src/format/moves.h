/* Two moves change the codes of a group and no weight of it, bit for bit: flip (q -> Q - q,
 * z -> Q - z, s -> -s) and shift (q + k, z + k while the codes stay in 0..Q). With them a zero
 * point goes where a format can hold it; whether it can is judged by the values q - z alone. */
#ifndef EQI_FORMAT_MOVES_H
#define EQI_FORMAT_MOVES_H

#include "format/packed.h"

/* Zero points that a format can hold, both inclusive. */
typedef struct eqi_zeros {
    int least, most;
} eqi_zeros;

/* Moves one group of n codes, one a byte, so that z is in `zeros`: left where it is, shifted the
 * least, or flipped. false: no move does, and nothing has changed. */
bool eqi_move_group(uint8_t *codes, int64_t n, uint8_t *z, float *s, int bits, eqi_zeros zeros);

/* Every group of a linear that can be moved there; the others stay.  Gives their number in *left
 * (may be NULL). */
eqat_status eqi_move_linear(eqi_ctx *ctx, eqi_packed *packed, const eqi_layout_linear *linear,
                            eqi_zeros zeros, int64_t *left);

#endif
