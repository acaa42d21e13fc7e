/* libeqat: calibration and training data.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_DATA_H
#define EQAT_DATA_H

#include "eqat/context.h"
#include "eqat/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Samples of seq_len token ids cut from one long stream of tokens; training and validation windows
 * never overlap.
 *
 * Consecutive sampling: window i is tokens [i * seq_len, (i + 1) * seq_len); training windows
 * first, validation windows next. Random sampling: starts are a pure function of (seed, sample);
 * the stream's last val_size * seq_len tokens (at most a tenth of the stream) are kept for
 * validation and training windows start before them. Threads: as the context. */
typedef struct eqat_data eqat_data;

typedef enum eqat_sampling {
    EQAT_SAMPLING_RANDOM = 0,
    EQAT_SAMPLING_CONSECUTIVE = 1
} eqat_sampling;

typedef struct eqat_data_options {
    size_t struct_size;
    int64_t train_size; /* samples; default 4096; 0: all windows that validation leaves (consecutive
                           sampling only) */
    int64_t val_size;   /* samples; default 64; may be 0 */
    int64_t seq_len;    /* tokens of a sample; default 2048 */
    int32_t sampling;   /* eqat_sampling; default random */
    bool shuffle;       /* another order of the training samples in each epoch; default true */
    int32_t rank,
        world; /* this process takes every world-th sample, from rank on; default 0 of 1 */
} eqat_data_options;

EQAT_API void eqat_data_options_init(eqat_data_options *options, size_t struct_size);

/* From a file, by its ending: .txt (tokenized once, whole), .jsonl (key "text", tokenized per
 * record, concatenated), .npy (one dimension of u16, u32, i32 or i64), .u16, .u32 (raw,
 * little-endian).  Text needs a tokenizer (borrowed during the call; NULL: tokens only). vocab_size
 * > 0 checks every id: one out of range is EQAT_FORMAT naming file, position and id.  Fewer tokens
 * than one training window is EQAT_FORMAT; fewer windows than asked for are taken, with a warning
 * in the log. */
EQAT_API eqat_status eqat_data_open(eqat_context *context, eqat_data **out, const char *path,
                                    const eqat_tokenizer *tokenizer, int64_t vocab_size,
                                    const eqat_data_options *options);
/* From memory: `count` ids, copied. */
EQAT_API eqat_status eqat_data_from_tokens(eqat_context *context, eqat_data **out,
                                           const int32_t *ids, size_t count, int64_t vocab_size,
                                           const eqat_data_options *options);
/* From the caller: fill(user, validation, index, ids) writes seq_len ids of sample `index`; called
 * in any order, repeatedly, and gives the same ids each time. */
typedef eqat_status (*eqat_sample_fn)(void *user, bool validation, int64_t index, int32_t *ids);
EQAT_API eqat_status eqat_data_from_callback(eqat_context *context, eqat_data **out,
                                             eqat_sample_fn fill, void *user, int64_t vocab_size,
                                             const eqat_data_options *options);
EQAT_API void eqat_data_free(eqat_data *data); /* NULL is fine */

EQAT_API int64_t eqat_data_train_size(const eqat_data *data); /* samples of this rank */
EQAT_API int64_t eqat_data_val_size(const eqat_data *data);
EQAT_API int64_t eqat_data_seq_len(const eqat_data *data);
/* Tokens in the stream; 0 for a callback. */
EQAT_API int64_t eqat_data_token_count(const eqat_data *data);
/* Ids of training or validation sample `index` (of this rank, from 0) into ids[seq_len].  Errors:
 * EQAT_INVALID_ARGUMENT (no such sample), EQAT_IO and EQAT_FORMAT (the file has changed, or the
 * callback gave an id out of range), and what the callback returned. */
EQAT_API eqat_status eqat_data_sample(eqat_data *data, bool validation, int64_t index,
                                      int32_t *ids);
/* Which training sample stands at `position` of `epoch`, both from 0: the identity without shuffle;
 * -1 out of range. */
EQAT_API int64_t eqat_data_order(const eqat_data *data, int64_t epoch, int64_t position);

#ifdef __cplusplus
}
#endif
#endif
