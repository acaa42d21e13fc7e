/* A packed linear in ordinary memory, as layouts write and read it. */
#ifndef EQI_FORMAT_PACKED_H
#define EQI_FORMAT_PACKED_H

#include "base/context.h"
#include "ops/ops.h"

/* A linear as layouts see it. */
typedef struct eqi_layout_linear {
    const char *name; /* "model.layers.0.self_attn.q_proj" */
    int64_t out, in;
    eqi_quant_desc q; /* bits 0: not packed; clamp does not count */
    /* When it is written: every zero point is 2^(bits-1). */
    bool symmetric;
    /* When it is written: fp16 holds every product of a scale and its zero point. */
    bool exact_products;
    /* When it is read: values never cross a word. */
    bool padded;
} eqi_layout_linear;

typedef struct eqi_packed {
    uint32_t *codes; /* [out, in / 32 * bits], as in the engine */
    uint8_t *z;      /* [out, groups] */
    float *s;        /* [out, groups], values of fp16 */
} eqi_packed;

int64_t eqi_packed_groups(const eqi_layout_linear *linear); /* of a row */
int64_t eqi_packed_words(const eqi_layout_linear *linear);  /* of a row of codes */

/* Zeros, to be filled. Free what is there after a failure, too. */
eqat_status eqi_packed_create(eqi_ctx *ctx, eqi_packed *out, const eqi_layout_linear *linear);
void eqi_packed_free(eqi_ctx *ctx, eqi_packed *packed);
/* From codes U32, s F32 and z U8. s is rounded to fp16; one that is not finite is EQAT_NUMERIC. A
 * group whose s is 0 becomes one of codes z with another s: the same weights, which engines do not
 * divide by. */
eqat_status eqi_packed_take(eqi_ctx *ctx, eqi_packed *out, const eqi_layout_linear *linear,
                            const eqi_weight *weight);
/* New tensors in *out, which has them after a failure, too. */
eqat_status eqi_packed_give(eqi_ctx *ctx, const eqi_packed *packed, const eqi_layout_linear *linear,
                            eqi_weight *out);

/* n values of `bits` bits, a stream of little-endian words, and back; bits of the last word beyond
 * them are 0. */
void eqi_bits_unpack(const uint32_t *words, int bits, int64_t n, uint8_t *values);
void eqi_bits_pack(const uint8_t *values, int bits, int64_t n, uint32_t *words);

#endif
