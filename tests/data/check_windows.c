#include "calibration.h"

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

/* 10 of 35 tokens: six windows behind them, two of them. */
START_TEST(skipped_tokens_come_last)
{
    static const int32_t expected[] = {10, 14, 18, 22, 26, 30, 0, 4};
    for (int64_t train = 1; train <= 8; train++) {
        eqat_data_options o = options(train, 8 - train, 4, EQAT_SAMPLING_CONSECUTIVE);
        o.skip_tokens = 10;
        eqat_data *d = ascending(ctx, 35, &o);
        ck_assert_int_eq(eqat_data_train_size(d), train);
        ck_assert_int_eq(eqat_data_val_size(d), 8 - train);
        for (int64_t i = 0; i < 8; i++)
            ck_assert_int_eq(first_id(ctx, d, i >= train, i < train ? i : i - train), expected[i]);
        ck_assert_str_eq(logged, "");
        eqat_data_free(d);
    }
    /* all of them: as if none were; more than there are, too */
    for (int64_t more = 0; more < 2; more++) {
        eqat_data_options o = options(0, 0, 4, EQAT_SAMPLING_CONSECUTIVE);
        o.skip_tokens = 35 + more * (int64_t)1000000000000;
        eqat_data *d = ascending(ctx, 35, &o);
        ck_assert_int_eq(eqat_data_train_size(d), 8);
        for (int64_t i = 0; i < 8; i++) ck_assert_int_eq(first_id(ctx, d, false, i), 4 * i);
        eqat_data_free(d);
    }
}
END_TEST

/* Windows of 4 of 35 tokens without the last 6 of the 10 skipped ones, or of the stream. */
START_TEST(held_tokens_are_in_no_window)
{
    static const int32_t behind[] = {10, 14, 18, 22, 26, 30, 0};
    eqat_data_options o = options(0, 0, 4, EQAT_SAMPLING_CONSECUTIVE);
    o.skip_tokens = 10;
    o.held_tokens = 6;
    eqat_data *d = ascending(ctx, 35, &o);
    ck_assert_int_eq(eqat_data_train_size(d), 7);
    for (int64_t i = 0; i < 7; i++) ck_assert_int_eq(first_id(ctx, d, false, i), behind[i]);
    eqat_data_free(d);
    o.skip_tokens = 0;
    d = ascending(ctx, 35, &o);
    ck_assert_int_eq(eqat_data_train_size(d), 7);
    for (int64_t i = 0; i < 7; i++) ck_assert_int_eq(first_id(ctx, d, false, i), 4 * i);
    eqat_data_free(d);
    /* {skipped, held, windows}: as many as a job of so many tokens trains on where it validates on
     * so many, of a stream that is too short for it. */
    static const int64_t few[][3] = {{50, 16, 8}, {50, 40, 2}, {0, 100, 1}};
    for (size_t i = 0; i < EQI_COUNT(few); i++) {
        o.skip_tokens = few[i][0];
        o.held_tokens = few[i][1];
        d = ascending(ctx, 35, &o);
        ck_assert_int_eq(eqat_data_train_size(d), few[i][2]);
        eqat_data_free(d);
    }
    o = options(300, 2, 16, EQAT_SAMPLING_RANDOM);
    for (int64_t held = 0; held <= 2000; held += 50) { /* a tenth of them at most */
        const int64_t end = 4001 - (held < 400 ? held : 400);
        o.held_tokens = held;
        d = ascending(ctx, 4001, &o);
        for (int64_t i = 0; i < 300; i++)
            ck_assert_int_le(first_id(ctx, d, false, i) + 16, end - 2 * 16);
        ck_assert_int_eq(first_id(ctx, d, true, 1) + 16, end);
        eqat_data_free(d);
    }
}
END_TEST

START_TEST(skipped_tokens_are_told)
{
    ctx->log_level = EQAT_LOG_INFO;
    for (int64_t train = 5; train < 8; train++) {
        eqat_data_options o = options(train, 0, 4, EQAT_SAMPLING_CONSECUTIVE);
        char expected[128];
        o.skip_tokens = 10;
        eqat_data_free(ascending(ctx, 35, &o));
        snprintf(expected, sizeof expected,
                 "tokens: windows begin behind 10 tokens; %d of %d are of these", train > 6,
                 (int)train);
        ck_assert_str_eq(logged, expected);
    }
}
END_TEST

/* Ten windows of 16 tokens were drawn, and a bit of one. */
START_TEST(skipped_draws_are_others)
{
    eqat_data_options o = options(40, 3, 16, EQAT_SAMPLING_RANDOM);
    eqat_data *all = ascending(ctx, 4001, &o);
    ctx->log_level = EQAT_LOG_INFO;
    o.train_size = 29;
    o.skip_tokens = 10 * 16 + 1;
    eqat_data *rest = ascending(ctx, 4001, &o);
    ck_assert_str_eq(logged, "tokens: windows are those behind the first 11 draws");
    for (int64_t i = 0; i < 29; i++)
        ck_assert_int_eq(first_id(ctx, rest, false, i), first_id(ctx, all, false, 11 + i));
    for (int64_t i = 0; i < 3; i++)
        ck_assert_int_eq(first_id(ctx, rest, true, i), first_id(ctx, all, true, i));
    eqat_data_free(all);
    eqat_data_free(rest);
}
END_TEST

START_TEST(random_windows)
{
    enum { TOKENS = 4001, WINDOW = 16, TRAIN = 300, VAL = 5 };
    eqat_data_options o = options(TRAIN, VAL, WINDOW, EQAT_SAMPLING_RANDOM);
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
    ck_assert_int_le(last + WINDOW,
                     TOKENS - VAL * WINDOW); /* training ends before validation begins */
    ck_assert_int_gt(last, TOKENS / 2);
    ck_assert_int_lt(first, TOKENS / 10);
    for (int64_t i = 0; i < VAL; i++)
        ck_assert_int_eq(first_id(ctx, d, true, i), TOKENS - VAL * WINDOW + WINDOW * i);
    eqat_data_free(d);
    eqat_data_free(same);
    eqat_data_free(other);
    eqat_context_free(other_ctx);
    /* the last place is within reach: two starts, both drawn */
    o = options(40, 0, WINDOW, EQAT_SAMPLING_RANDOM);
    d = ascending(ctx, WINDOW + 1, &o);
    bool seen[2] = {false, false};
    for (int64_t i = 0; i < 40; i++) seen[first_id(ctx, d, false, i)] = true;
    ck_assert(seen[0] && seen[1]);
    eqat_data_free(d);
    /* validation takes a tenth at most */
    o = options(10, 64, WINDOW, EQAT_SAMPLING_RANDOM);
    d = ascending(ctx, 1000, &o);
    ck_assert_int_eq(eqat_data_val_size(d), 6);
    ck_assert_ptr_nonnull(strstr(logged, "found 6 validation windows of 16 tokens, expected 64"));
    eqat_data_free(d);
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

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, listen, NULL);
    tcase_add_test(tc, consecutive_windows);
    tcase_add_test(tc, skipped_tokens_come_last);
    tcase_add_test(tc, held_tokens_are_in_no_window);
    tcase_add_test(tc, skipped_tokens_are_told);
    tcase_add_test(tc, skipped_draws_are_others);
    tcase_add_test(tc, random_windows);
    tcase_add_test(tc, windows_that_overlap_are_told);
    tcase_add_test(tc, too_few_tokens);
    tcase_add_test(tc, options_are_checked);
    return run_case("windows of tokens", tc, CK_NOFORK);
}
