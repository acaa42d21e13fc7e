/* Block-quantized GGUF types: fixed numbers of weights with their scales, packed in bytes. */
#ifndef EQI_FORMAT_GGUF_BLOCKS_H
#define EQI_FORMAT_GGUF_BLOCKS_H

#include "format/source.h"

/* The largest block of any type, in bytes. */
#define EQI_GGUF_BLOCK_MAX 210

/* One block of `stored`, eqi_stored_bytes(stored, block) bytes at src, any alignment, to
 * eqi_stored_block(stored) values at dst. Products and sums are rounded to f32 one after the other:
 * scale * code, then the offset. */
void eqi_gguf_decode_block(eqi_stored stored, const unsigned char *src, float *dst);

#endif
