/* Which GGUF block type holds quantized weights exactly, and their rows in it. A weight is a whole
 * number of steps, q - z, times the scale of its group; a block is whole numbers of a range times
 * one f16, and holds a group as it is or with both signs turned. */
#ifndef EQI_FORMAT_GGUF_CARRIERS_H
#define EQI_FORMAT_GGUF_CARRIERS_H

#include "format/source.h"

typedef struct eqi_gguf_carrier {
    const char *name; /* "q2_0" */
    eqi_stored stored;
    int low, high;   /* of the whole numbers */
    bool on_request; /* never the choice of eqi_gguf_carrier_choose */
    void (*pack)(const int8_t *numbers, uint16_t d, unsigned char *block);
} eqi_gguf_carrier;

/* One row of a quantized weight. */
typedef struct eqi_gguf_row {
    const int16_t *steps; /* [n]: q - z, -255 to 255 */
    const float *scales;  /* [n / group], finite, values of f16 */
    int64_t n, group;
} eqi_gguf_row;

const eqi_gguf_carrier *eqi_gguf_carrier_find(const char *name); /* NULL: none */
/* The smallest one, from which eqi_gguf_carrier_next climbs; NULL: there is none larger. What one
 * holds, the next does too. */
const eqi_gguf_carrier *eqi_gguf_carrier_first(void);
const eqi_gguf_carrier *eqi_gguf_carrier_next(const eqi_gguf_carrier *carrier);
/* Whether whatever codes of so many bits are held, in groups of this size and with any zero point
 * or, with `middle`, one of the two in the middle. */
bool eqi_gguf_carrier_suits(const eqi_gguf_carrier *carrier, int bits, int64_t group, bool middle);

/* Whether the row is held exactly; n is a multiple of the type's block, or it is not. */
bool eqi_gguf_carrier_holds(const eqi_gguf_carrier *carrier, const eqi_gguf_row *row);
/* The row's bytes, eqi_stored_bytes(carrier->stored, row->n) of them; n is a multiple of the type's
 * block. What a block does not hold is rounded to the least squared error of some steps; the
 * largest absolute difference of a weight is returned, 0 when the row is held. */
float eqi_gguf_carrier_encode(const eqi_gguf_carrier *carrier, const eqi_gguf_row *row,
                              unsigned char *dst);

#endif
