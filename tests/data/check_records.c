#include <stddef.h>
#include <string.h>

#include "calibration.h"

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
    eqat_data_options behind = o;
    eqat_data *d;
    behind.skip_tokens = 4;
    ck_assert_int_eq(
        eqat_data_from_records(ctx, &d, write_record, NULL, EQAT_SAMPLE_IDS, 0, 0, &behind),
        EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "skip_tokens: found 4, expected 0 with a callback");
    behind.skip_tokens = 0;
    behind.held_tokens = 4;
    ck_assert_int_eq(
        eqat_data_from_records(ctx, &d, write_record, NULL, EQAT_SAMPLE_IDS, 0, 0, &behind),
        EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "held_tokens: found 4, expected 0 with a callback");
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, listen, NULL);
    tcase_add_test(tc, samples_from_a_callback);
    tcase_add_test(tc, records_hold_what_was_declared);
    tcase_add_test(tc, what_records_lack_is_made_up);
    tcase_add_test(tc, records_out_of_range);
    tcase_add_test(tc, records_that_cannot_be);
    return run_case("the caller's samples", tc, CK_NOFORK);
}
