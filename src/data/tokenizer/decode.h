/* Decoders: from token texts back to text. */
#ifndef EQI_TOKENIZER_DECODE_H
#define EQI_TOKENIZER_DECODE_H

#include "data/tokenizer/buffer.h"

#define EQI_DECODE_STEPS_MAX 16

typedef enum eqi_decode_kind {
    EQI_DECODE_BYTE_LEVEL,
    EQI_DECODE_BYTE_FALLBACK,
    EQI_DECODE_REPLACE,
    EQI_DECODE_METASPACE,
    EQI_DECODE_STRIP,
    EQI_DECODE_FUSE /* from here on the text is one piece */
} eqi_decode_kind;

typedef struct eqi_decode_step {
    eqi_decode_kind kind;
    eqi_bytes from, to; /* REPLACE; METASPACE: from; STRIP: from is the character */
    size_t start, stop; /* STRIP: at most so many characters at either end */
    bool drop_first;    /* METASPACE: spaces of the first token were not in the text */
} eqi_decode_step;

typedef struct eqi_decoder {
    eqi_decode_step steps[EQI_DECODE_STEPS_MAX];
    size_t count;
    bool join_with_space; /* no decoder at all */
    eqi_bytes a, b;       /* scratch */
} eqi_decoder;

void eqi_decoder_free(eqi_ctx *ctx, eqi_decoder *d);
void eqi_decoder_release(eqi_ctx *ctx, eqi_decoder *d); /* scratch memory */

/* Appends a token. first: it is the first of its text. added: an added token, whose text never
 * stands for bytes. */
eqat_status eqi_decoder_token(eqi_ctx *ctx, eqi_decoder *d, const char *s, size_t n, bool first,
                              bool added, eqi_bytes *out);
/* When all tokens are in. */
eqat_status eqi_decoder_finish(eqi_ctx *ctx, eqi_decoder *d, eqi_bytes *out);

#endif
