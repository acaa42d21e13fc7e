/** @file
 * libeqat: text to token ids and back.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TOKENIZER_H
#define EQAT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eqat/context.h"
#include "eqat/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A byte-pair-encoding tokenizer as published with a model: byte-level (GPT-2, Llama 3, Qwen,
 * SmolLM2) or SentencePiece-style with byte fallback (Llama 1 and 2, Mistral).  Ids equal those of
 * Hugging Face `tokenizers` 0.23 for the same files, whatever version of Unicode the installed
 * PCRE2 and utf8proc know; the stages Lowercase and Punctuation alone may differ in characters
 * newer than those libraries.
 *
 * Threads: one thread at a time, also for calls that take a const handle: they share buffers and a
 * cache of words. Ownership: the handle holds a reference on its context.  What encode, decode and
 * token_text give is borrowed from the handle, as each of them says. */
typedef struct eqat_tokenizer eqat_tokenizer;

/** What to do about special tokens such as `<s>`; combined with |. */
typedef enum eqat_tokenize_flags {
    EQAT_TOKENIZE_PLAIN = 0,
    /** encode: add what the tokenizer's own rule says around a text (usually BOS in front, or
     * nothing). decode: no effect. */
    EQAT_TOKENIZE_ADD_SPECIAL = 1,
    /** encode: text that spells a special token becomes that token; without it such text is
     * ordinary text.  (Added tokens that are not special, like Qwen's `<tool_call>`, are always
     * recognised.) decode: no effect. */
    EQAT_TOKENIZE_PARSE_SPECIAL = 2,
    /** decode: leave special tokens out.  encode: no effect. */
    EQAT_TOKENIZE_SKIP_SPECIAL = 4
} eqat_tokenize_flags;

/** Opens the tokenizer at `path`:
 *   - a folder with tokenizer.json, or with vocab.json and merges.txt (GPT-2 and Qwen2 kinds, told
 * apart by tokenizer_class in tokenizer_config.json; GPT-2 when there is none);
 *   - a file whose name ends in .json, taken as a tokenizer.json;
 *   - any other file, taken as GGUF with its vocabulary inside (tokenizer.ggml.model "gpt2" or
 * "llama"). BOS, EOS and UNK come from tokenizer_config.json or special_tokens_map.json beside the
 * file, or from the GGUF metadata. Truncation and padding settings in tokenizer.json are ignored.
 * Errors: EQAT_NOT_FOUND (no such path, or no tokenizer there), EQAT_FORMAT (damaged or
 * contradictory files), EQAT_UNSUPPORTED (a kind of model, normalizer, pre-tokenizer, pattern,
 * post-processor or decoder that is not implemented; named in the message), EQAT_IO,
 * EQAT_OUT_OF_MEMORY.  *out is NULL after every failure. */
EQAT_API eqat_status eqat_tokenizer_open(eqat_context *context, eqat_tokenizer **out,
                                         const char *path);

/** Releases the handle.  NULL is fine. */
EQAT_API void eqat_tokenizer_free(eqat_tokenizer *tokenizer);

/** Encodes `length` bytes of UTF-8 at `text` (NUL bytes are text like others; NULL is fine when
 * length is 0). Bytes that are not UTF-8 are replaced by U+FFFD, one for each maximal ill-formed
 * part, before anything else. flags: eqat_tokenize_flags. *ids receives *count ids in [0,
 * eqat_tokenizer_vocab_size()); borrowed, valid until the next encode, release_buffers or free on
 * this handle.  The ids of a text are not those of its parts put together: hand over whole texts.
 * Errors: EQAT_INVALID_ARGUMENT, EQAT_OUT_OF_MEMORY, EQAT_UNSUPPORTED (one word of 2^31 bytes or
 * more; a pattern of the tokenizer that would not end on this text); *ids is then NULL and *count
 * 0.
 */
EQAT_API eqat_status eqat_tokenizer_encode(const eqat_tokenizer *tokenizer, const char *text,
                                           size_t length, uint32_t flags, const int32_t **ids,
                                           size_t *count);

/** Decodes `count` ids to bytes.  The bytes are those that the ids stand for, also where they are
 * no whole UTF-8 characters (a caller that needs UTF-8 replaces the rest itself); the space that
 * the tokenizer put in front of the text is taken off again, as its decoder says. *text receives
 * *length bytes, with a NUL behind them that length does not count; borrowed, valid until the next
 * decode, release_buffers or free on this handle. Errors: EQAT_INVALID_ARGUMENT (an id is out of
 * range or stands for no token; the message gives its position), EQAT_OUT_OF_MEMORY; *text is then
 * NULL and *length 0. */
EQAT_API eqat_status eqat_tokenizer_decode(const eqat_tokenizer *tokenizer, const int32_t *ids,
                                           size_t count, uint32_t flags, const char **text,
                                           size_t *length);

/** One more than the highest id: the rows an embedding needs. */
EQAT_API int32_t eqat_tokenizer_vocab_size(const eqat_tokenizer *tokenizer);

/** The token's text as the vocabulary writes it: byte-level tokens in the printable alphabet
 * ("\u0120the"), SentencePiece tokens with U+2581 for a space.  *length (may be NULL) receives its
 * bytes; one NUL follows.  NULL when no token has this id.  Borrowed, valid as long as the handle.
 */
EQAT_API const char *eqat_tokenizer_token_text(const eqat_tokenizer *tokenizer, int32_t id,
                                               size_t *length);

/** The id of the token that the vocabulary writes so, added tokens first; -1 when there is none. */
EQAT_API int32_t eqat_tokenizer_token_id(const eqat_tokenizer *tokenizer, const char *text,
                                         size_t length);

/** Whether the id is a special token: one that plain text never gives and that SKIP_SPECIAL leaves
 * out. */
EQAT_API bool eqat_tokenizer_is_special(const eqat_tokenizer *tokenizer, int32_t id);

/** The tokenizer's beginning-of-text token; -1 when it names none. */
EQAT_API int32_t eqat_tokenizer_bos(const eqat_tokenizer *tokenizer);
/** Its end-of-text token; -1 when it names none. */
EQAT_API int32_t eqat_tokenizer_eos(const eqat_tokenizer *tokenizer);
/** Its token for what it does not know; -1 when it names none. */
EQAT_API int32_t eqat_tokenizer_unk(const eqat_tokenizer *tokenizer);

/** Writes the tokenizer's files into the existing folder `dir`.  Files of a Hugging Face folder are
 * copied byte by byte (tokenizer.json, tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json, vocab.json, merges.txt, tokenizer.model, chat_template.jinja, those that
 * exist); from GGUF a tokenizer.json and a tokenizer_config.json are made that give the same ids.
 * Reads the place the tokenizer was opened from again. Errors: EQAT_EXISTS (one of the files is
 * there already), EQAT_NOT_FOUND, EQAT_IO, EQAT_OUT_OF_MEMORY, EQAT_FORMAT (the source changed).
 * Files written before a failure stay: write into a folder that is put in place when complete. */
EQAT_API eqat_status eqat_tokenizer_save(const eqat_tokenizer *tokenizer, const char *dir);

/** Gives the memory of the last results and of working buffers back; borrowed ids and text become
 * invalid.  They grow with the longest text encoded so far. */
EQAT_API void eqat_tokenizer_release_buffers(const eqat_tokenizer *tokenizer);

#ifdef __cplusplus
}
#endif
#endif
