/* Tokenizers that are opened once for all inputs of a process, in a context of their own. */
#ifndef TESTS_FUZZ_TOKENIZERS_H
#define TESTS_FUZZ_TOKENIZERS_H

#include <stdio.h>
#include <stdlib.h>

#include "data/tokenizer/tokenizer.h"
#include "engine/engine.h"
#include "fuzz.h"

static inline const eqat_tokenizer *open_once(eqat_tokenizer **kept, const char *path,
                                              eqi_tokenizer_source source)
{
    static eqi_ctx *own;
    const eqi_ctx_config config = {.device = "cpu", .threads = 1};
    if (!own && eqi_ctx_create(&own, &config, NULL, 0) != EQAT_OK) abort();
    if (!*kept && eqi_tokenizer_open_as(own, kept, path, source) != EQAT_OK) {
        fprintf(stderr, "fuzz: %s\n", own->error);
        abort();
    }
    return *kept;
}

/* What the tokenizer said, said by the context of the input. */
static inline eqat_status tell(eqi_ctx *ctx, const eqat_tokenizer *t, eqat_status st)
{
    return st == EQAT_OK || ctx->error[0] ? st : eqi_fail(ctx, st, "%s", t->ctx->error);
}

#endif
