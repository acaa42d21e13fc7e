/** @file
 * libeqat: continuing texts, token by token.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_GENERATE_H
#define EQAT_GENERATE_H

#include "eqat/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Sequences of one length that grow, with the keys and values of their tokens in every block, so
 * that a further token costs no pass over those before it.  Keeps a reference to the model.
 * Threads: as the context. */
typedef struct eqat_generation eqat_generation;

/** batch_size sequences without tokens.  The first tokens read the model's weights, which then stay
 * in memory until eqat_generation_free: packed blocks as they are, full-precision ones in the
 * compute dtype.  Keys and values take 2 * kv_heads * head_dim elements of the compute dtype for
 * each token and block, and grow with the sequences.  A model that is changed meanwhile computes
 * later tokens with its new weights, behind keys and values of the old ones.  Errors:
 * EQAT_INVALID_ARGUMENT (a batch_size below 1), EQAT_OUT_OF_MEMORY. */
EQAT_API eqat_status eqat_generation_create(eqat_model *model, eqat_generation **out,
                                            int64_t batch_size);
EQAT_API void eqat_generation_free(eqat_generation *generation); /**< NULL is fine */

/** Puts `time` more tokens behind each sequence: ids int32_t [batch_size, time].  *logits (may be
 * NULL: then last_n does not matter) receives a new tensor F32 [batch_size, last_n, V] of the last
 * positions, 0 < last_n <= time: what eqat_model_forward gives for the whole sequences, but for the
 * order of sums, which depends on how many tokens come at once.  Nothing is recorded.
 * eqat_context_cancel stops it between blocks. After a failure the sequences are what they were.
 * Errors: EQAT_INVALID_ARGUMENT (an id out of range; last_n; more tokens than the model's
 * max_positions), EQAT_CANCELLED, EQAT_OUT_OF_MEMORY, those of reading weights (eqat_model);
 * *logits is then NULL. */
EQAT_API eqat_status eqat_generation_feed(eqat_generation *generation, const int32_t *ids,
                                          int64_t time, int64_t last_n, eqat_tensor **logits);

/** How the next token of a sequence is chosen. */
typedef struct eqat_choose_options {
    size_t struct_size; /**< set by eqat_choose_options_init */
    double temperature; /**< logits are divided by it, then a token is drawn from their softmax;
                           default 0: the likeliest token, the first of equals */
    int64_t top_k;      /**< > 0: drawn among so many likeliest tokens; default 0: among all */
    double top_p;       /**< of these, among the fewest likeliest whose probabilities add up to at
                           least so much, and at least one; default 1: among all */
} eqat_choose_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_choose_options_init(eqat_choose_options *options, size_t struct_size);

/** ids[batch_size] receives a next token for each sequence, which it does not feed, from logits of
 * the last position: F32 [batch_size, n, V] of the caller's or of eqat_generation_feed, of which
 * the last of n counts; -infinity rules a token out.  What is drawn depends on the logits, the
 * context's seed, the number of the sequence in the batch and its length, on nothing else: another
 * call gives the same, another seed another text.  options may be NULL: all defaults.  Waits for
 * the device.  Errors: EQAT_INVALID_ARGUMENT (an option, the logits' shape or dtype, a tensor of
 * another context), EQAT_NUMERIC (a logit is nan or infinite, or all are -infinite),
 * EQAT_OUT_OF_MEMORY. */
EQAT_API eqat_status eqat_generation_choose(const eqat_generation *generation,
                                            const eqat_tensor *logits,
                                            const eqat_choose_options *options, int32_t *ids);

/** Tokens of each sequence so far. */
EQAT_API int64_t eqat_generation_length(const eqat_generation *generation);

/** Keeps the first `length` tokens of each sequence: another continuation of a common start needs
 * no second pass over it.  Errors: EQAT_INVALID_ARGUMENT (below 0, or more than there are). */
EQAT_API eqat_status eqat_generation_rewind(eqat_generation *generation, int64_t length);

#ifdef __cplusplus
}
#endif
#endif
