/* tokenizer.ggml.pre: how byte-level BPE cuts text before it merges, by name. */
#ifndef EQI_TOKENIZER_GGUF_PRE_H
#define EQI_TOKENIZER_GGUF_PRE_H

#include <jansson.h>
#include <stdbool.h>

typedef struct eqi_gguf_pre {
    const char *name;
    const char *patterns[4]; /* one Split each; none: ByteLevel's own */
    bool digits, nfc, ignore_merges, add_bos;
} eqi_gguf_pre;

const eqi_gguf_pre *eqi_gguf_pre_find(const char *name); /* NULL: not known */
/* The one that a tokenizer.json amounts to; NULL: none. */
const eqi_gguf_pre *eqi_gguf_pre_recognise(const json_t *tokenizer);

#endif
