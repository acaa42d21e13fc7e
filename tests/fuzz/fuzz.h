/* A fuzz target is one file with eqat_fuzz_one. With clang it is a libFuzzer target:
 *   clang -fsanitize=fuzzer,address,undefined -DEQAT_LIBFUZZER fuzz_gguf.c ... corpus/
 * With any compiler it is an ordinary test: `fuzz_gguf [-n ITERATIONS] [-s SEED] FILE...` replays
 * the files and then that many mutations of them, the same ones every time. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "base/context.h"

/* Hands data to the code under test through the path of a file that holds it. What fails must leave
 * a message; what is allocated must be freed again: both are checked around the call. */
eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size);

/* Opens a model and dequantizes every block of it on the way to logits. */
eqat_status eqat_fuzz_use(eqi_ctx *ctx, const char *model);

/* Makes the file hold other data within eqat_fuzz_one. */
void eqat_fuzz_rewrite(const uint8_t *data, size_t size);
/* Another path of the file, which ends so: a symbolic link that the caller removes. Four at a
 * time. */
const char *eqat_fuzz_name(const char *ending);

#endif
