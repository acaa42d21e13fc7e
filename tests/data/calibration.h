/* What tests of calibration data share: data whose samples tell where they were cut, what the log
 * warned of last, files that are refused. */
#ifndef TESTS_DATA_CALIBRATION_H
#define TESTS_DATA_CALIBRATION_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "each_test.h"
#include "public.h"

static char logged[1024]; /* the last line */

static inline void on_log(void *user, int level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(logged, sizeof logged, "%s", line);
}

/* A fixture behind setup. */
static inline void listen(void)
{
    ctx->log = on_log;
    ctx->log_level = EQAT_LOG_WARN;
    logged[0] = 0;
}

static inline eqat_data_options options(int64_t train, int64_t val, int64_t time, int32_t sampling)
{
    eqat_data_options o = consecutive(train, val, time);
    o.sampling = sampling;
    o.shuffle = true;
    return o;
}

/* Ids 0, 1, 2, ...: a sample tells where it was cut. */
static inline eqat_data *ascending(eqat_context *c, size_t n, const eqat_data_options *o)
{
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    eqat_data *d;
    OK(c, eqat_data_from_tokens(c, &d, ids, n, 0, o));
    free(ids);
    return d;
}

static inline eqat_status ids_of(eqat_data *d, bool validation, int64_t index, int32_t *ids)
{
    const eqat_sample sample = {.struct_size = sizeof sample, .ids = ids};
    return eqat_data_sample(d, validation, index, &sample);
}

/* Of a sample of ascending ids. */
static inline int32_t first_id(eqat_context *c, eqat_data *d, bool validation, int64_t index)
{
    int32_t ids[64];
    int64_t time = eqat_data_seq_len(d);
    OK(c, ids_of(d, validation, index, ids));
    for (int64_t i = 1; i < time; i++) ck_assert_int_eq(ids[i], ids[0] + i);
    return ids[0];
}

/* Opening fails with a line that has the text and the file's name. */
static inline void refuse(const char *path, const eqat_tokenizer *tokenizer, int64_t vocab,
                          eqat_status expected, const char *text)
{
    const eqat_data_options o = options(1, 0, 2, EQAT_SAMPLING_CONSECUTIVE);
    size_t before = eqat_context_bytes(ctx);
    eqat_data *d;
    eqat_status st = eqat_data_open(ctx, &d, path, tokenizer, vocab, &o);
    ck_assert_msg(st == expected, "%s: found %s: %s", path, eqat_status_name(st),
                  eqat_context_error(ctx));
    ck_assert_msg(strstr(eqat_context_error(ctx), text), "found \"%s\", expected \"%s\"",
                  eqat_context_error(ctx), text);
    ck_assert_msg(strstr(eqat_context_error(ctx), strrchr(path, '/') + 1), "%s",
                  eqat_context_error(ctx));
    ck_assert_ptr_null(d);
    if (!tokenizer) ck_assert_uint_eq(eqat_context_bytes(ctx), before);
}

#endif
