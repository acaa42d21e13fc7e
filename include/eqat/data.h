/** @file
 * libeqat: calibration and training data.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_DATA_H
#define EQAT_DATA_H

#include "eqat/context.h"
#include "eqat/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Samples of seq_len tokens: windows cut from one long stream of tokens, or records of the
 * caller's. Training and validation windows never overlap.
 *
 * Consecutive sampling: window i is tokens [i * seq_len, (i + 1) * seq_len), behind those of
 * skip_tokens; training windows first, validation windows next. Random sampling: starts are a pure
 * function of (seed, sample); the stream's last val_size * seq_len tokens (at most a tenth of the
 * stream) are kept for validation and training windows start before them. Threads: as the
 * context. */
typedef struct eqat_data eqat_data;

/** Where the windows of a stream begin. */
typedef enum eqat_sampling {
    EQAT_SAMPLING_RANDOM = 0,     /**< anywhere, by the seed */
    EQAT_SAMPLING_CONSECUTIVE = 1 /**< one behind the other */
} eqat_sampling;

/** Which samples are made of a file. */
typedef struct eqat_data_options {
    size_t struct_size;   /**< set by eqat_data_options_init */
    int64_t train_size;   /**< samples; default 4096; 0: all windows that validation leaves
                             (consecutive  sampling only) */
    int64_t val_size;     /**< samples; default 64; may be 0 */
    int64_t seq_len;      /**< tokens of a sample; default 2048 */
    int32_t sampling;     /**< eqat_sampling; default random */
    bool shuffle;         /**< another order of the training samples in each epoch; default true */
    int32_t rank;         /**< of this process among world; default 0 */
    int32_t world;        /**< processes that share the samples: each takes every world-th, from its
                             rank on; default 1. All have equally many: up to world - 1 training and
                             validation samples are left out, which the log says */
    const char *text_key; /**< of a .jsonl record's text; default "text" (also of NULL) */
    int64_t skip_tokens;  /**< tokens that another job takes from the same stream with the same
                             sampling: consecutive windows begin behind them and, where the stream
                             ends, go on at its front; random windows are those behind the first
                             skip_tokens / seq_len, rounded up.  0 of records; default 0 */
    int64_t held_tokens;  /**< of no window, for another job of the same stream validates on them:
                             with consecutive sampling the last of skip_tokens, or where that is 0
                             of the stream; with random sampling the last of the stream, at most a
                             tenth of it.  0 of records; default 0 */
} eqat_data_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_data_options_init(eqat_data_options *options, size_t struct_size);

/** From a file, by its ending: .txt (tokenized once, whole), .jsonl (key text_key, tokenized per
 * record, concatenated), .npy (one dimension of u16, u32, i32 or i64), .u16, .u32 (raw,
 * little-endian).  Text needs a tokenizer (borrowed during the call; NULL: tokens only). vocab_size
 * > 0 checks every id.  A byte order mark in front of .jsonl is passed over, and NaN and Infinity,
 * which Python writes, are read as numbers.  Warnings in the log tell when there are fewer windows
 * than asked for (those are taken), when random windows must overlap, and where .txt is not UTF-8.
 * Errors: EQAT_INVALID_ARGUMENT (an option; another ending; text without a tokenizer; fewer
 * training samples than ranks), EQAT_NOT_FOUND, EQAT_IO, EQAT_FORMAT (damaged; UTF-16 or binary
 * data as .txt; an id out of range, told with its position; fewer tokens than one training window),
 * EQAT_UNSUPPORTED (a word of 2^31 bytes). */
EQAT_API eqat_status eqat_data_open(eqat_context *context, eqat_data **out, const char *path,
                                    const eqat_tokenizer *tokenizer, int64_t vocab_size,
                                    const eqat_data_options *options);
/** From memory: `count` ids, copied.  Errors: EQAT_INVALID_ARGUMENT (an option; fewer training
 * samples than ranks), EQAT_FORMAT (an id out of range; fewer tokens than one training window). */
EQAT_API eqat_status eqat_data_from_tokens(eqat_context *context, eqat_data **out,
                                           const int32_t *ids, size_t count, int64_t vocab_size,
                                           const eqat_data_options *options);

/** What a record holds. */
typedef enum eqat_sample_field {
    EQAT_SAMPLE_IDS = 1,
    EQAT_SAMPLE_LABELS = 2,
    EQAT_SAMPLE_POSITIONS = 4,
    EQAT_SAMPLE_SEGMENTS = 8,
    EQAT_SAMPLE_EMBEDDINGS = 16
} eqat_sample_field;

/** One sample: arrays of T = seq_len values (T rows in embeddings) that belong to the caller of
 * whoever fills them.  The meaning is that of eqat_batch.  New members come at the end. */
typedef struct eqat_sample {
    size_t struct_size; /**< set by the caller */
    int32_t *ids;       /**< [T], tokens */
    int32_t *labels;    /**< [T]: the id that position t should predict, negative: masked */
    int32_t *positions; /**< [T], from 0 */
    int32_t *segments;  /**< [T]: tokens see those of their own segment alone */
    float *embeddings;  /**< [T, H]: what enters the first block, in place of ids */
} eqat_sample;

/** Writes the fields of record `index`, which are not NULL, in full.  Called in any order,
 * repeatedly, and gives the same values each time. */
typedef eqat_status (*eqat_sample_fn)(void *user, bool validation, int64_t index,
                                      const eqat_sample *sample);
/** From the caller, who makes records with these fields (eqat_sample_field, or-ed; ids or
 * embeddings among them).  Records without ids need labels to be trained on end to end or
 * evaluated. vocab_size > 0 is held against ids and labels.  hidden_size: H of embeddings, else 0.
 * `fill` and `user` are kept as long as the handle lives.  Errors: EQAT_INVALID_ARGUMENT (an
 * option; fields and hidden_size that do not fit together; train_size 0; fewer training samples
 * than ranks). */
EQAT_API eqat_status eqat_data_from_records(eqat_context *context, eqat_data **out,
                                            eqat_sample_fn fill, void *user, int32_t fields,
                                            int64_t vocab_size, int64_t hidden_size,
                                            const eqat_data_options *options);
EQAT_API void eqat_data_free(eqat_data *data); /**< NULL is fine */

/** Training samples of this rank. */
EQAT_API int64_t eqat_data_train_size(const eqat_data *data);
/** Validation samples of this rank. */
EQAT_API int64_t eqat_data_val_size(const eqat_data *data);
/** Tokens of a sample. */
EQAT_API int64_t eqat_data_seq_len(const eqat_data *data);
/** Tokens in the stream; 0 for records. */
EQAT_API int64_t eqat_data_token_count(const eqat_data *data);
/** Fields of the records (eqat_sample_field, or-ed); of files and tokens: EQAT_SAMPLE_IDS. */
EQAT_API int32_t eqat_data_fields(const eqat_data *data);
EQAT_API int64_t eqat_data_hidden_size(const eqat_data *data); /**< of embeddings; 0: has none */
/** Training or validation sample `index` (of this rank, from 0) into those arrays of *sample that
 * are not NULL.  What the records lack is made up as eqat_batch does: labels are the ids shifted by
 * one, the last of the sample and of a segment masked; positions 0 to T - 1; segments 0.  Errors:
 * EQAT_INVALID_ARGUMENT (no such sample; ids or embeddings of records that lack them, labels of
 * records without ids), EQAT_IO and EQAT_FORMAT (the file has changed, or the callback gave an id,
 * label or position out of range), and what the callback returned. */
EQAT_API eqat_status eqat_data_sample(eqat_data *data, bool validation, int64_t index,
                                      const eqat_sample *sample);
/** Which training sample stands at `position` of `epoch`, both from 0: the identity without
 * shuffle; -1 out of range. */
EQAT_API int64_t eqat_data_order(const eqat_data *data, int64_t epoch, int64_t position);

#ifdef __cplusplus
}
#endif
#endif
