/* A tokenizer as the metadata of a GGUF file. */
#ifndef EQI_TOKENIZER_GGUF_KEYS_H
#define EQI_TOKENIZER_GGUF_KEYS_H

#include "eqat/tokenizer.h"
#include "format/gguf_write.h"

/* tokenizer: NULL puts one without tokens. rows: of the embedding, at least as many as tokens.
 * EQAT_UNSUPPORTED, naming the tokenizer's file: what the two kinds of GGUF, byte-level BPE of a
 * known tokenizer.ggml.pre and scores of SentencePiece, cannot say. */
eqat_status eqi_gguf_put_tokenizer(eqi_ctx *ctx, const eqat_tokenizer *tokenizer, int64_t rows,
                                   eqi_gguf_writer *w);

#endif
