#include "calibration.h"

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

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, listen, NULL);
    tcase_add_test(tc, every_epoch_is_another_permutation);
    tcase_add_test(tc, every_order_comes_up_equally_often);
    tcase_add_test(tc, ranks_have_equally_many_samples);
    tcase_add_test(tc, more_ranks_than_samples);
    return run_case("orders of samples", tc, CK_NOFORK);
}
