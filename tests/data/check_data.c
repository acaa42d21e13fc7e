#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "each_test.h"
#include "eqat/eqat.h"

static char logged[1024];

static void on_log(void *user, int level, const char *line)
{
    (void)user;
    if (level == EQAT_LOG_WARN) snprintf(logged, sizeof logged, "%s", line);
}

static void listen(void)
{
    ctx->log = on_log;
    ctx->log_level = EQAT_LOG_WARN;
    logged[0] = 0;
}

static eqat_data_options options(int64_t train, int64_t val, int64_t time, int32_t sampling)
{
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = train;
    o.val_size = val;
    o.seq_len = time;
    o.sampling = sampling;
    return o;
}

/* Ids 0, 1, 2, ...: a sample tells where it was cut. */
static eqat_data *ascending(eqat_context *c, size_t n, const eqat_data_options *o)
{
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)i;
    eqat_data *d;
    OK(c, eqat_data_from_tokens(c, &d, ids, n, 0, o));
    free(ids);
    return d;
}

static eqat_status ids_of(eqat_data *d, bool validation, int64_t index, int32_t *ids)
{
    const eqat_sample sample = {.struct_size = sizeof sample, .ids = ids};
    return eqat_data_sample(d, validation, index, &sample);
}

static int32_t first_id(eqat_context *c, eqat_data *d, bool validation, int64_t index)
{
    int32_t ids[64];
    int64_t time = eqat_data_seq_len(d);
    OK(c, ids_of(d, validation, index, ids));
    for (int64_t i = 1; i < time; i++) ck_assert_int_eq(ids[i], ids[0] + i);
    return ids[0];
}

static void refuse(const char *path, const eqat_tokenizer *tokenizer, int64_t vocab,
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

/* ---- windows ---- */

START_TEST(consecutive_windows)
{
    eqat_data_options o = options(5, 3, 4, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d = ascending(ctx, 35, &o); /* 8 windows and 3 tokens over */
    ck_assert_int_eq(eqat_data_train_size(d), 5);
    ck_assert_int_eq(eqat_data_val_size(d), 3);
    ck_assert_int_eq(eqat_data_token_count(d), 35);
    for (int64_t i = 0; i < 5; i++) ck_assert_int_eq(first_id(ctx, d, false, i), 4 * i);
    for (int64_t i = 0; i < 3; i++) ck_assert_int_eq(first_id(ctx, d, true, i), 20 + 4 * i);
    ck_assert_str_eq(logged, "");
    int32_t ids[4];
    ck_assert_int_eq(ids_of(d, false, 5, ids), EQAT_INVALID_ARGUMENT);
    ck_assert_int_eq(ids_of(d, true, -1, ids), EQAT_INVALID_ARGUMENT);
    eqat_data_free(d);
    /* fewer than asked for: validation gets what training leaves, and the log says so */
    o = options(7, 3, 4, EQAT_SAMPLING_CONSECUTIVE);
    d = ascending(ctx, 35, &o);
    ck_assert_int_eq(eqat_data_train_size(d), 7);
    ck_assert_int_eq(eqat_data_val_size(d), 1);
    ck_assert_ptr_nonnull(strstr(logged, "found 1 validation windows of 4 tokens, expected 3"));
    eqat_data_free(d);
    o = options(100, 0, 4, EQAT_SAMPLING_CONSECUTIVE);
    d = ascending(ctx, 35, &o);
    ck_assert_int_eq(eqat_data_train_size(d), 8);
    ck_assert_ptr_nonnull(strstr(logged, "found 8 training windows of 4 tokens, expected 100"));
    eqat_data_free(d);
    /* 0: all */
    logged[0] = 0;
    o = options(0, 0, 4, EQAT_SAMPLING_CONSECUTIVE);
    d = ascending(ctx, 35, &o);
    ck_assert_int_eq(eqat_data_train_size(d), 8);
    ck_assert_str_eq(logged, "");
    eqat_data_free(d);
    o = options(0, 2, 4, EQAT_SAMPLING_CONSECUTIVE);
    d = ascending(ctx, 35, &o);
    ck_assert_int_eq(eqat_data_train_size(d), 6);
    ck_assert_int_eq(eqat_data_val_size(d), 2);
    eqat_data_free(d);
}
END_TEST

START_TEST(random_windows)
{
    enum { TOKENS = 4001, TIME = 16, TRAIN = 300, VAL = 5 };
    eqat_data_options o = options(TRAIN, VAL, TIME, EQAT_SAMPLING_RANDOM);
    eqat_data *d = ascending(ctx, TOKENS, &o), *same = ascending(ctx, TOKENS, &o);
    eqat_context *other_ctx = open_ctx("cpu");
    other_ctx->seed = 2;
    eqat_data *other = ascending(other_ctx, TOKENS, &o);
    int32_t last = 0, first = TOKENS, differ = 0;
    for (int64_t i = 0; i < TRAIN; i++) {
        int32_t start = first_id(ctx, d, false, i);
        ck_assert_int_eq(start, first_id(ctx, same, false, i));
        differ += start != first_id(other_ctx, other, false, i);
        last = start > last ? start : last;
        first = start < first ? start : first;
    }
    ck_assert_int_gt(differ, TRAIN / 2);
    ck_assert_int_le(last + TIME, TOKENS - VAL * TIME); /* training ends before validation begins */
    ck_assert_int_gt(last, TOKENS / 2);
    ck_assert_int_lt(first, TOKENS / 10);
    for (int64_t i = 0; i < VAL; i++)
        ck_assert_int_eq(first_id(ctx, d, true, i), TOKENS - VAL * TIME + TIME * i);
    eqat_data_free(d);
    eqat_data_free(same);
    eqat_data_free(other);
    eqat_context_free(other_ctx);
    /* the last place is within reach: two starts, both drawn */
    o = options(40, 0, TIME, EQAT_SAMPLING_RANDOM);
    d = ascending(ctx, TIME + 1, &o);
    bool seen[2] = {false, false};
    for (int64_t i = 0; i < 40; i++) seen[first_id(ctx, d, false, i)] = true;
    ck_assert(seen[0] && seen[1]);
    eqat_data_free(d);
    /* validation takes a tenth at most */
    o = options(10, 64, TIME, EQAT_SAMPLING_RANDOM);
    d = ascending(ctx, 1000, &o);
    ck_assert_int_eq(eqat_data_val_size(d), 6);
    ck_assert_ptr_nonnull(strstr(logged, "found 6 validation windows of 16 tokens, expected 64"));
    eqat_data_free(d);
}
END_TEST

START_TEST(too_few_tokens)
{
    eqat_data *d;
    const int32_t ids[3] = {0, 1, 2};
    for (int32_t sampling = 0; sampling < 2; sampling++)
        for (size_t n = 0; n <= 3; n++) {
            eqat_data_options o = options(2, 1, 4, sampling);
            ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, n, 0, &o), EQAT_FORMAT);
            char expected[80];
            snprintf(expected, sizeof expected, "found %d tokens, expected at least 4", (int)n);
            ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), expected));
            ck_assert_ptr_null(d);
        }
}
END_TEST

START_TEST(options_are_checked)
{
    eqat_data *d;
    const int32_t ids[8] = {0};
    eqat_data_options o = options(0, 0, 4, EQAT_SAMPLING_RANDOM);
    ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, 8, 0, &o), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), "train_size: found 0"));
    o = options(1, 0, 0, EQAT_SAMPLING_RANDOM);
    ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, 8, 0, &o), EQAT_INVALID_ARGUMENT);
    o = options(1, 0, 4, 2);
    ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, 8, 0, &o), EQAT_INVALID_ARGUMENT);
    o = options(1, 0, 4, EQAT_SAMPLING_CONSECUTIVE);
    o.rank = o.world = 2;
    ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, 8, 0, &o), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), "rank: found 2"));
    o.rank = 1; /* one window for two processes */
    ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, 4, 0, &o), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_null(d);
}
END_TEST

/* ---- orders ---- */

START_TEST(every_epoch_is_another_permutation)
{
    enum { N = 50 };
    eqat_data_options o = options(N, 0, 2, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d = ascending(ctx, 2 * N, &o), *same = ascending(ctx, 2 * N, &o);
    int moved = 0, changed = 0;
    for (int64_t epoch = 3; epoch >= 0;
         epoch--) { /* backwards: not a matter of what was asked before */
        bool seen[N] = {false};
        for (int64_t i = 0; i < N; i++) {
            int64_t sample = eqat_data_order(d, epoch, i);
            ck_assert(sample >= 0 && sample < N && !seen[sample]);
            seen[sample] = true;
            moved += sample != i;
        }
    }
    for (int64_t i = 0; i < N; i++) {
        ck_assert_int_eq(eqat_data_order(d, 1, i), eqat_data_order(same, 1, i));
        changed += eqat_data_order(d, 1, i) != eqat_data_order(same, 2, i);
    }
    ck_assert_int_gt(moved, 3 * N);
    ck_assert_int_gt(changed, N / 2);
    ck_assert_int_eq(eqat_data_order(d, 0, N), -1);
    eqat_data_free(d);
    eqat_data_free(same);
    o.shuffle = false;
    d = ascending(ctx, 2 * N, &o);
    for (int64_t i = 0; i < N; i++) ck_assert_int_eq(eqat_data_order(d, 5, i), i);
    ck_assert_int_eq(eqat_data_order(d, 5, N), -1);
    eqat_data_free(d);
}
END_TEST

/* Six orders of three samples, 100 times each but for chance; the seed is fixed. */
START_TEST(every_order_comes_up_equally_often)
{
    eqat_data_options o = options(3, 0, 2, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d = ascending(ctx, 6, &o);
    int seen[3][3] = {{0}};
    for (int64_t epoch = 0; epoch < 600; epoch++)
        seen[eqat_data_order(d, epoch, 0)][eqat_data_order(d, epoch, 1)]++;
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            if (a != b)
                ck_assert_msg(seen[a][b] > 60 && seen[a][b] < 140, "%d %d: %d times", a, b,
                              seen[a][b]);
    eqat_data_free(d);
}
END_TEST

/* 33 samples on 2 ranks: a rank that took one step more would wait for the other for ever. */
START_TEST(ranks_have_equally_many_samples)
{
    enum { TRAIN = 11, VAL = 4, WORLD = 3 };
    int seen[TRAIN + VAL] = {0};
    for (int32_t rank = 0; rank < WORLD; rank++) {
        eqat_data_options o = options(TRAIN, VAL, 2, EQAT_SAMPLING_CONSECUTIVE);
        o.rank = rank;
        o.world = WORLD;
        logged[0] = 0;
        eqat_data *d = ascending(ctx, 2 * (TRAIN + VAL), &o);
        ck_assert_int_eq(eqat_data_train_size(d), 3);
        ck_assert_int_eq(eqat_data_val_size(d), 1);
        ck_assert_str_eq(logged,
                         "world: found 4 validation samples for 3 ranks, the last 1 are left out");
        for (int64_t i = 0; i < 3; i++) {
            int32_t window = first_id(ctx, d, false, i) / 2;
            ck_assert_int_eq(window, i * WORLD + rank);
            seen[window]++;
        }
        seen[first_id(ctx, d, true, 0) / 2]++;
        ck_assert_int_eq(ids_of(d, false, 3, (int32_t[2]){0}), EQAT_INVALID_ARGUMENT);
        eqat_data_free(d);
    }
    for (int i = 0; i < TRAIN + VAL; i++)
        ck_assert_int_eq(seen[i], i < 9 || (i >= TRAIN && i < TRAIN + 3));
}
END_TEST

START_TEST(more_ranks_than_samples)
{
    eqat_data_options o = options(3, 0, 2, EQAT_SAMPLING_CONSECUTIVE);
    int32_t ids[6] = {0};
    eqat_data *d;
    o.world = 4;
    ck_assert_int_eq(eqat_data_from_tokens(ctx, &d, ids, 6, 0, &o), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx),
                     "world: found 4 ranks, expected at most one for each of 3 training samples");
    ck_assert_ptr_null(d);
}
END_TEST

/* ---- the caller's samples ---- */

static eqat_status fill(void *user, bool validation, int64_t index, const eqat_sample *sample)
{
    int *calls = user;
    ++*calls;
    if (index == 5) return EQAT_IO;
    for (int i = 0; i < 3; i++) sample->ids[i] = (int32_t)((validation ? 100 : 0) + index * 3 + i);
    if (!validation && index == 1) sample->ids[2] = -1;
    return EQAT_OK;
}

START_TEST(samples_from_a_callback)
{
    eqat_data_options o = options(6, 2, 3, EQAT_SAMPLING_RANDOM);
    eqat_data *d;
    int calls = 0;
    int32_t ids[3];
    o.world = 2;
    o.rank = 1;
    OK(ctx, eqat_data_from_records(ctx, &d, fill, &calls, EQAT_SAMPLE_IDS, 103, 0, &o));
    ck_assert_int_eq(calls, 0);
    ck_assert_int_eq(eqat_data_train_size(d), 3);
    ck_assert_int_eq(eqat_data_val_size(d), 1);
    ck_assert_int_eq(eqat_data_token_count(d), 0);
    ck_assert_int_eq(eqat_data_fields(d), EQAT_SAMPLE_IDS);
    OK(ctx, ids_of(d, false, 1, ids)); /* number 3 of all ranks */
    ck_assert_int_eq(ids[0], 9);
    ck_assert_int_eq(ids_of(d, false, 0, ids), EQAT_FORMAT);
    ck_assert_str_eq(eqat_context_error(ctx),
                     "callback, training sample 1, token 2: found id -1, expected 0 to 102");
    ck_assert_int_eq(ids_of(d, false, 2, ids), EQAT_IO);
    ck_assert_str_eq(eqat_context_error(ctx), "callback, training sample 5: failed: io");
    ck_assert_int_eq(ids_of(d, true, 0, ids), EQAT_FORMAT);
    ck_assert_str_eq(eqat_context_error(ctx),
                     "callback, validation sample 1, token 0: found id 103, expected 0 to 102");
    eqat_data_free(d);
}
END_TEST

enum { ALL_FIELDS = 31 };

/* Writes the declared fields and looks that no others are there; spoil: one to put out of range. */
typedef struct writer {
    int32_t declared, spoil;
} writer;

static eqat_status write_record(void *user, bool validation, int64_t index,
                                const eqat_sample *sample)
{
    const writer *w = user;
    ck_assert_int_eq(validation, false);
    ck_assert_uint_eq(sample->struct_size, sizeof *sample);
    ck_assert_int_eq(!sample->ids, !(w->declared & EQAT_SAMPLE_IDS));
    ck_assert_int_eq(!sample->labels, !(w->declared & EQAT_SAMPLE_LABELS));
    ck_assert_int_eq(!sample->positions, !(w->declared & EQAT_SAMPLE_POSITIONS));
    ck_assert_int_eq(!sample->segments, !(w->declared & EQAT_SAMPLE_SEGMENTS));
    ck_assert_int_eq(!sample->embeddings, !(w->declared & EQAT_SAMPLE_EMBEDDINGS));
    for (int32_t t = 0; t < 4; t++) {
        bool spoiled = t == 3;
        if (sample->ids)
            sample->ids[t] = spoiled && w->spoil == EQAT_SAMPLE_IDS ? 50 : 10 + t + (int32_t)index;
        if (sample->labels)
            sample->labels[t] = spoiled && w->spoil == EQAT_SAMPLE_LABELS ? 50 : t - 2;
        if (sample->positions)
            sample->positions[t] = spoiled && w->spoil == EQAT_SAMPLE_POSITIONS ? -1 : t % 2;
        if (sample->segments) sample->segments[t] = t / 2 + 7;
        for (int32_t i = 0; sample->embeddings && i < 2; i++)
            sample->embeddings[t * 2 + i] = (float)(t + i) / 2;
    }
    return EQAT_OK;
}

static eqat_data *records(writer *w)
{
    const eqat_data_options o = options(2, 0, 4, EQAT_SAMPLING_RANDOM);
    eqat_data *d;
    OK(ctx,
       eqat_data_from_records(ctx, &d, write_record, w, w->declared, 50,
                              w->declared & EQAT_SAMPLE_EMBEDDINGS ? 2 : 0, &o));
    return d;
}

START_TEST(records_hold_what_was_declared)
{
    writer w = {.declared = ALL_FIELDS};
    eqat_data *d = records(&w);
    int32_t ids[4], labels[4], positions[4], segments[4];
    float embeddings[8];
    const eqat_sample all = {sizeof all, ids, labels, positions, segments, embeddings};
    ck_assert_int_eq(eqat_data_fields(d), ALL_FIELDS);
    ck_assert_int_eq(eqat_data_hidden_size(d), 2);
    OK(ctx, eqat_data_sample(d, false, 1, &all));
    for (int32_t t = 0; t < 4; t++) {
        ck_assert_int_eq(ids[t], 11 + t);
        ck_assert_int_eq(labels[t], t - 2);
        ck_assert_int_eq(positions[t], t % 2);
        ck_assert_int_eq(segments[t], t / 2 + 7);
        for (int i = 0; i < 2; i++) ck_assert_float_eq(embeddings[2 * t + i], (float)(t + i) / 2);
    }
    /* one field of it, asked for by a program that knows no others */
    memset(labels, 0, sizeof labels);
    const eqat_sample old = {offsetof(eqat_sample, positions), NULL, labels, positions, NULL, NULL};
    positions[0] = 77;
    OK(ctx, eqat_data_sample(d, false, 0, &old));
    ck_assert_int_eq(labels[0], -2);
    ck_assert_int_eq(positions[0], 77);
    eqat_data_free(d);
}
END_TEST

START_TEST(what_records_lack_is_made_up)
{
    writer w = {.declared = EQAT_SAMPLE_IDS | EQAT_SAMPLE_SEGMENTS};
    eqat_data *d = records(&w);
    int32_t labels[4], positions[4], segments[4] = {0};
    eqat_sample s = {sizeof s, NULL, labels, positions, NULL, NULL};
    OK(ctx, eqat_data_sample(d, false, 0, &s));
    ck_assert_mem_eq(labels, ((int32_t[]){11, -1, 13, -1}), sizeof labels);
    ck_assert_mem_eq(positions, ((int32_t[]){0, 1, 2, 3}), sizeof positions);
    eqat_data_free(d);
    w.declared = EQAT_SAMPLE_IDS;
    d = records(&w);
    s.segments = memset(segments, 5, sizeof segments);
    OK(ctx, eqat_data_sample(d, false, 0, &s));
    ck_assert_mem_eq(labels, ((int32_t[]){11, 12, 13, -1}), sizeof labels);
    ck_assert_mem_eq(segments, ((int32_t[]){0, 0, 0, 0}), sizeof segments);
    eqat_data_free(d);
    /* but not what nobody knows */
    w.declared = EQAT_SAMPLE_EMBEDDINGS;
    d = records(&w);
    ck_assert_int_eq(eqat_data_sample(d, false, 0, &s), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "sample: found records without labels");
    ck_assert_int_eq(ids_of(d, false, 0, labels), EQAT_INVALID_ARGUMENT);
    eqat_data_free(d);
}
END_TEST

START_TEST(records_out_of_range)
{
    static const struct {
        int32_t field;
        const char *text;
    } cases[] = {{EQAT_SAMPLE_IDS, "token 3: found id 50, expected 0 to 49"},
                 {EQAT_SAMPLE_LABELS, "token 3: found label 50, expected"},
                 {EQAT_SAMPLE_POSITIONS, "token 3: found position -1, expected 0 to"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        writer w = {.declared = ALL_FIELDS, .spoil = cases[i].field};
        eqat_data *d = records(&w);
        int32_t segments[4]; /* also of a field that was not asked for */
        const eqat_sample s = {sizeof s, NULL, NULL, NULL, segments, NULL};
        ck_assert_int_eq(eqat_data_sample(d, false, 0, &s), EQAT_FORMAT);
        ck_assert_msg(strstr(eqat_context_error(ctx), cases[i].text), "%s",
                      eqat_context_error(ctx));
        eqat_data_free(d);
    }
}
END_TEST

START_TEST(records_that_cannot_be)
{
    static const struct {
        int32_t fields;
        int64_t hidden;
        const char *text;
    } cases[] = {{EQAT_SAMPLE_LABELS, 0, "fields: found 2"},
                 {32 | EQAT_SAMPLE_IDS, 0, "fields: found 33"},
                 {EQAT_SAMPLE_EMBEDDINGS, 0, "hidden_size: found 0"},
                 {EQAT_SAMPLE_IDS, 8, "hidden_size: found 8"}};
    const eqat_data_options o = options(2, 0, 4, EQAT_SAMPLING_RANDOM);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        eqat_data *d;
        ck_assert_int_eq(eqat_data_from_records(ctx, &d, write_record, NULL, cases[i].fields, 0,
                                                cases[i].hidden, &o),
                         EQAT_INVALID_ARGUMENT);
        ck_assert_ptr_null(d);
        ck_assert_msg(strstr(eqat_context_error(ctx), cases[i].text), "%s",
                      eqat_context_error(ctx));
    }
}
END_TEST

/* ---- token files ---- */

enum { COUNT = 70001 }; /* more than one piece of a file */

static void little_endian(unsigned char *p, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) p[i] = (unsigned char)(value >> 8 * i);
}

/* Ids 7 i mod 60000 behind `head`, `size` bytes each. */
static const char *write_tokens(const char *name, const char *head, size_t head_size, size_t size,
                                int64_t count)
{
    unsigned char *bytes = malloc(head_size + (size_t)count * size + 1);
    ck_assert_ptr_nonnull(bytes);
    if (head_size) memcpy(bytes, head, head_size);
    for (int64_t i = 0; i < count; i++)
        little_endian(bytes + head_size + (size_t)i * size, (uint64_t)(7 * i % 60000), size);
    const char *path = write_file(scratch(name), bytes, head_size + (size_t)count * size);
    free(bytes);
    return path;
}

static void expect_tokens(const char *path)
{
    eqat_data_options o = options(0, 0, 1000, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d;
    size_t before = eqat_context_bytes(ctx);
    OK(ctx, eqat_data_open(ctx, &d, path, NULL, 60000, &o));
    ck_assert_int_eq(eqat_data_token_count(d), COUNT);
    ck_assert_int_eq(eqat_data_train_size(d), COUNT / 1000);
    ck_assert_uint_lt(eqat_context_bytes(ctx) - before, 1 << 17); /* the file stays where it is */
    int32_t ids[1000];
    for (int64_t w = 0; w < COUNT / 1000; w++) {
        OK(ctx, ids_of(d, false, w, ids));
        for (int64_t i = 0; i < 1000; i++) ck_assert_int_eq(ids[i], 7 * (1000 * w + i) % 60000);
    }
    eqat_data_free(d);
    ck_assert_uint_eq(eqat_context_bytes(ctx), before);
}

/* A header as numpy.save writes it. */
static size_t npy_header(char *head, int version, const char *dictionary)
{
    size_t prefix = version == 1 ? 10 : 12, n = strlen(dictionary),
           total = (prefix + n + 1 + 63) / 64 * 64;
    memset(head, ' ', total);
    memcpy(head, "\x93NUMPY", 6);
    head[6] = (char)version;
    head[7] = 0;
    little_endian((unsigned char *)head + 8, total - prefix, version == 1 ? 2 : 4);
    memcpy(head + prefix, dictionary, n);
    head[total - 1] = '\n';
    return total;
}

START_TEST(token_files)
{
    expect_tokens(write_tokens("raw.u16", NULL, 0, 2, COUNT));
    expect_tokens(write_tokens("raw.u32", NULL, 0, 4, COUNT));
    static const struct {
        const char *descr;
        size_t size;
    } types[] = {{"<u2", 2}, {"<u4", 4}, {"<i4", 4}, {"<i8", 8}};
    for (int version = 1; version <= 3; version++)
        for (size_t i = 0; i < 4; i++) {
            char head[256], dictionary[128];
            snprintf(dictionary, sizeof dictionary,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }", types[i].descr,
                     COUNT);
            expect_tokens(write_tokens("array.npy", head, npy_header(head, version, dictionary),
                                       types[i].size, COUNT));
        }
}
END_TEST

START_TEST(bad_token_files)
{
    char head[256];
    refuse(scratch("missing.u16"), NULL, 0, EQAT_NOT_FOUND, "cannot open");
    refuse(write_file(scratch("other.bin"), "abcd", 4), NULL, 0, EQAT_INVALID_ARGUMENT,
           "expected .txt, .jsonl, .npy, .u16 or .u32");
    refuse(write_file(scratch("text.txt"), "abcd", 4), NULL, 0, EQAT_INVALID_ARGUMENT,
           "no tokenizer");
    refuse(write_file(scratch("empty.u16"), "", 0), NULL, 0, EQAT_FORMAT,
           "found 0 tokens, expected at least 2");
    refuse(write_file(scratch("odd.u16"), "abcde", 5), NULL, 0, EQAT_FORMAT,
           "found 5 bytes, expected a multiple of 2");
    refuse(write_file(scratch("odd.u32"), "abcdef", 6), NULL, 0, EQAT_FORMAT,
           "found 6 bytes, expected a multiple of 4");
    refuse(write_tokens("high.u16", NULL, 0, 2, COUNT), NULL, 59997, EQAT_FORMAT,
           "token 8571: found id 59997, expected 0 to 59996");
    refuse(write_file(scratch("wide.u32"), "\0\0\0\0\0\0\0\x80", 8), NULL, 0, EQAT_FORMAT,
           "token 1: found id 2147483648, expected 0 to 2147483647");
    refuse(write_file(scratch("none.npy"), "", 0), NULL, 0, EQAT_FORMAT, "no NumPy header");
    refuse(write_file(scratch("magic.npy"), "\x93NUMPX\1\0\0\0\0\0\0", 14), NULL, 0, EQAT_FORMAT,
           "no NumPy header");
    refuse(write_file(scratch("version.npy"), "\x93NUMPY\4\0\0\0\0\0\0", 14), NULL, 0, EQAT_FORMAT,
           "no NumPy header");
    refuse(write_file(scratch("length.npy"), "\x93NUMPY\1\0\xff\x7f\0\0\0", 13), NULL, 0,
           EQAT_FORMAT, "header of 32767 bytes");
    refuse(write_file(scratch("long.npy"), "\x93NUMPY\2\0\xff\xff\xff\xff\0", 13), NULL, 0,
           EQAT_FORMAT, "header of 4294967295 bytes");
    static const struct {
        const char *dictionary, *expected;
    } cases[] = {
        {"{'fortran_order': False, 'shape': (3,), }", "without descr"},
        {"{'descr': '<u2', 'shape': (3,), }", "without fortran_order"},
        {"{'descr': '<u2', 'fortran_order': False}", "without shape"},
        {"{'descr': '>u2', 'fortran_order': False, 'shape': (3,), }",
         "found dtype '>u2', expected '<u2', '<u4', '<i4' or '<i8'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "found dtype '<f4'"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (3, 1), }", "found shape (3, 1)"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (), }", "found shape ()"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (-3,), }", "found shape (-3,)"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': 3, }", "found shape 3"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }",
         "found 6 bytes behind the header, expected 4 tokens of 2 bytes"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }",
         "found 6 bytes behind the header, expected 2 tokens of 2 bytes"},
        {"{'descr'", "without descr"},
        {"{'shape': (3,), 'fortran_order': False, 'descr': ", "found dtype"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = npy_header(head, 1, cases[i].dictionary);
        refuse(write_tokens("case.npy", head, n, 2, 3), NULL, 0, EQAT_FORMAT, cases[i].expected);
    }
    size_t n = npy_header(head, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }");
    memset(head + n, 0xff, 8);
    refuse(write_file(scratch("negative.npy"), head, n + 8), NULL, 0, EQAT_FORMAT,
           "token 0: found id -1, expected 0 to 2147483647");
}
END_TEST

START_TEST(a_file_that_changes)
{
    const eqat_data_options o = options(0, 0, 1000, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d;
    int32_t ids[1000];
    const char *path = write_tokens("changes.u16", NULL, 0, 2, 5000);
    OK(ctx, eqat_data_open(ctx, &d, path, NULL, 60000, &o));
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    fseek(f, 2 * 1500, SEEK_SET);
    fwrite("\xff\xff", 1, 2, f);
    fclose(f);
    ck_assert_int_eq(ids_of(d, false, 1, ids), EQAT_FORMAT);
    ck_assert_ptr_nonnull(
        strstr(eqat_context_error(ctx), "token 1500: found id 65535, expected 0 to 59999"));
    ck_assert_int_eq(truncate(path, 100), 0);
    ck_assert_int_eq(ids_of(d, false, 4, ids), EQAT_FORMAT);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), "truncated"));
    eqat_data_free(d);
}
END_TEST

/* ---- text ---- */

/* a is 0, b is 1, ...; "<s>" (6) stands in front of every text. */
static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
    "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,"
    "\"normalized\":false,\"special\":true}],"
    "\"normalizer\":null,"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
    "\"type_id\":0}}],"
    "\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":"
    "1}}],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[6],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_"
    "regex\":true},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":"
    "null,"
    "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"\\u010a\":4,\"\\u0120\":5},\"merges\":[]}}";

static eqat_tokenizer *open_tokenizer(void)
{
    eqat_tokenizer *t;
    OK(ctx,
       eqat_tokenizer_open(
           ctx, &t,
           write_file(scratch("tokenizer.json"), tokenizer_json, sizeof tokenizer_json - 1)));
    return t;
}

static void expect_text(const eqat_tokenizer *t, const char *path, size_t count,
                        const int32_t *expected)
{
    const eqat_data_options o = options(1, 0, (int64_t)count, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d;
    int32_t ids[64];
    OK(ctx, eqat_data_open(ctx, &d, path, t, 10, &o));
    ck_assert_int_eq(eqat_data_token_count(d), (int64_t)count);
    OK(ctx, ids_of(d, false, 0, ids));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == expected[i], "%s: token %d: found %d", path, (int)i, ids[i]);
    eqat_data_free(d);
}

START_TEST(text_files)
{
    eqat_tokenizer *t = open_tokenizer();
    static const char plain[] = "ab\ncd";
    static const char lines[] = "{\"text\": \"ab\\nc\", \"n\": 1}\n\n  \r\n{\"text\": "
                                "\"\"}\n{\"n\": [2], \"text\": \"<s>d\"}";
    expect_text(t, write_file(scratch("plain.txt"), plain, sizeof plain - 1), 6,
                (int32_t[]){6, 0, 1, 4, 2, 3});
    expect_text(t, write_file(scratch("lines.jsonl"), lines, sizeof lines - 1), 9,
                (int32_t[]){6, 0, 1, 4, 2, 6, 6, 6, 3});
    /* lines longer than a piece of the file, and lines that end with one */
    enum { LONG = 200000 };
    char *text = malloc(3 * LONG);
    ck_assert_ptr_nonnull(text);
    for (size_t first = 65536 - 15; first <= 65536 - 10; first++) {
        size_t n = (size_t)sprintf(text, "{\"text\": \"");
        memset(text + n, 'b', first);
        n += first;
        n += (size_t)sprintf(text + n, "\"}\n{\"text\": \"");
        memset(text + n, 'c', LONG);
        n += LONG;
        n += (size_t)sprintf(text + n, "\"}\n");
        eqat_data_options o = options(0, 0, 1, EQAT_SAMPLING_CONSECUTIVE);
        eqat_data *d;
        OK(ctx, eqat_data_open(ctx, &d, write_file(scratch("long.jsonl"), text, n), t, 10, &o));
        ck_assert_int_eq(eqat_data_token_count(d), (int64_t)(first + LONG + 2));
        int32_t id;
        OK(ctx, ids_of(d, false, (int64_t)first + 1, &id));
        ck_assert_int_eq(id, 6);
        OK(ctx, ids_of(d, false, (int64_t)first + LONG + 1, &id));
        ck_assert_int_eq(id, 2);
        eqat_data_free(d);
    }
    free(text);
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(bad_text_files)
{
    eqat_tokenizer *t = open_tokenizer();
    static const char broken[] = "{\"text\": \"ab\"}\n{\"text\": \"ab\"\n",
                      other[] = "{\"text\": \"ab\"}\n\n{\"txt\": \"ab\"}\n",
                      number[] = "{\"text\": 3}", list[] = "[1]", bytes[] = "{\"text\": \"\xff\"}";
    refuse(write_file(scratch("empty.txt"), "", 0), t, 10, EQAT_FORMAT,
           "found 0 tokens, expected at least 2");
    refuse(write_file(scratch("empty.jsonl"), "\n\n", 2), t, 10, EQAT_FORMAT,
           "found 0 tokens, expected at least 2");
    refuse(write_file(scratch("broken.jsonl"), broken, sizeof broken - 1), t, 10, EQAT_FORMAT,
           "line 2, byte 13");
    refuse(write_file(scratch("other.jsonl"), other, sizeof other - 1), t, 10, EQAT_FORMAT,
           "line 3: found no \"text\"");
    refuse(write_file(scratch("number.jsonl"), number, sizeof number - 1), t, 10, EQAT_FORMAT,
           "line 1: found a \"text\" that is no string");
    refuse(write_file(scratch("list.jsonl"), list, sizeof list - 1), t, 10, EQAT_FORMAT,
           "line 1: found something else than an object");
    refuse(write_file(scratch("bytes.jsonl"), bytes, sizeof bytes - 1), t, 10, EQAT_FORMAT,
           "line 1, byte");
    refuse(write_file(scratch("vocab.txt"), "abcd", 4), t, 3, EQAT_FORMAT,
           "token 0: found id 6, expected 0 to 2");
    refuse(scratch("missing.jsonl"), t, 10, EQAT_NOT_FOUND, "cannot open");
    eqat_tokenizer_free(t);
}
END_TEST

static void takes(eqat_tokenizer *t, const char *name, const void *data, size_t n, int64_t tokens)
{
    eqat_data *d;
    eqat_data_options o = options(0, 0, 1, EQAT_SAMPLING_CONSECUTIVE);
    OK(ctx, eqat_data_open(ctx, &d, write_file(scratch(name), data, n), t, 10, &o));
    ck_assert_int_eq(eqat_data_token_count(d), tokens);
    eqat_data_free(d);
}

/* What users bring in place of UTF-8 and of one object a line. */
START_TEST(text_of_another_kind)
{
    eqat_tokenizer *t = open_tokenizer();
    static const char mark[] = "\xef\xbb\xbf{\"text\": \"ab\"}\n",
                      numbers[] = "{\"text\": \"ab\", \"x\": NaN, \"y\": [-Infinity, Infinity]}\n"
                                  "{\"x\": NaN, \"s\": \"NaN \\\" NaN\", \"text\": \"abc\"}\n",
                      pretty[] = "[\n  {\n    \"text\": \"ab\"\n  }\n]\n",
                      object[] = "{ \r\n  \"text\": \"ab\"\n}\n", nan[] = "{\"text\": NaN}\n",
                      latin[] = "ab\xe9"
                                "cd";
    takes(t, "mark.jsonl", mark, sizeof mark - 1, 3);
    takes(t, "numbers.jsonl", numbers, sizeof numbers - 1, 7);
    ck_assert_str_eq(logged, "");
    refuse(write_file(scratch("pretty.jsonl"), pretty, sizeof pretty - 1), t, 10, EQAT_FORMAT,
           "line 1: found an array, expected JSON Lines: one object a line");
    refuse(write_file(scratch("object.jsonl"), object, sizeof object - 1), t, 10, EQAT_FORMAT,
           "line 1: found an object over several lines, expected JSON Lines");
    refuse(write_file(scratch("nan.jsonl"), nan, sizeof nan - 1), t, 10, EQAT_FORMAT,
           "line 1: found a \"text\" that is no string");
    refuse(write_file(scratch("wide.txt"),
                      "\xff\xfe"
                      "a\0b\0",
                      6),
           t, 10, EQAT_FORMAT, "wide.txt: found UTF-16, expected text in UTF-8");
    refuse(write_file(scratch("big.txt"), "\xfe\xff\0a\0b", 6), t, 10, EQAT_FORMAT, "UTF-16");
    refuse(write_file(scratch("program.txt"),
                      "\x7f"
                      "ELF\2\1\1\0\0",
                      9),
           t, 10, EQAT_FORMAT, "program.txt: found binary data, expected text in UTF-8");
    ck_assert_str_eq(logged, "");
    eqat_data *d;
    eqat_data_options o = options(0, 0, 1, EQAT_SAMPLING_CONSECUTIVE);
    (void)eqat_data_open(ctx, &d, write_file(scratch("latin.txt"), latin, sizeof latin - 1), t, 0,
                         &o);
    ck_assert_ptr_nonnull(strstr(logged, "latin.txt: byte 2: found what is not UTF-8"));
    eqat_data_free(d);
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    refuse(write_file(scratch("lfs.jsonl"), pointer, sizeof pointer - 1), t, 10, EQAT_FORMAT,
           "lfs.jsonl: found a Git-LFS pointer");
    eqat_tokenizer_free(t);
}
END_TEST

/* 35 windows side by side: 36 are more. */
START_TEST(windows_that_overlap_are_told)
{
    eqat_data_options o = options(35, 0, 4, EQAT_SAMPLING_RANDOM);
    eqat_data_free(ascending(ctx, 143, &o));
    ck_assert_str_eq(logged, "");
    o.train_size = 128;
    eqat_data_free(ascending(ctx, 143, &o));
    ck_assert_str_eq(logged,
                     "tokens: found room for 35 training windows of 4 tokens side by side, "
                     "expected 128: 128 that overlap are taken, with each token in 3.58 of them on "
                     "average");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, listen, NULL);
    tcase_add_test(tc, consecutive_windows);
    tcase_add_test(tc, random_windows);
    tcase_add_test(tc, too_few_tokens);
    tcase_add_test(tc, options_are_checked);
    tcase_add_test(tc, every_epoch_is_another_permutation);
    tcase_add_test(tc, every_order_comes_up_equally_often);
    tcase_add_test(tc, ranks_have_equally_many_samples);
    tcase_add_test(tc, more_ranks_than_samples);
    tcase_add_test(tc, samples_from_a_callback);
    tcase_add_test(tc, records_hold_what_was_declared);
    tcase_add_test(tc, what_records_lack_is_made_up);
    tcase_add_test(tc, records_out_of_range);
    tcase_add_test(tc, records_that_cannot_be);
    tcase_add_test(tc, token_files);
    tcase_add_test(tc, bad_token_files);
    tcase_add_test(tc, a_file_that_changes);
    tcase_add_test(tc, text_files);
    tcase_add_test(tc, bad_text_files);
    tcase_add_test(tc, text_of_another_kind);
    tcase_add_test(tc, windows_that_overlap_are_told);
    return run_case("calibration data", tc, CK_NOFORK);
}
