/* What comes next: the likeliest token, or a drawn one, against shares computed token by token. */
#include <math.h>

#include "cases.h"
#include "each_test.h"

enum { SEQUENCES = 3000, LAST = 2, TOKENS = 50 };

static eqat_model *model;
static eqat_generation *generation;
static eqi_tensor *logits; /* [SEQUENCES, LAST, TOKENS]; of the last position the same everywhere */
static float row[TOKENS];
static int32_t chosen[SEQUENCES];

static void write_logits(void)
{
    float *values = malloc(sizeof *values * SEQUENCES * LAST * TOKENS);
    ck_assert_ptr_nonnull(values);
    for (int i = 0; i < SEQUENCES * LAST; i++)
        for (int t = 0; t < TOKENS; t++) values[i * TOKENS + t] = i % LAST ? row[t] : NAN;
    OK(ctx, eqi_tensor_upload(logits, values, sizeof *values * SEQUENCES * LAST * TOKENS));
    free(values);
}

/* Eleven sizes, each of several tokens; one token is ruled out. */
static void begin(void)
{
    write_model(ctx, dir, tiny_find("llama")->config, EQI_STORED_F32, NULL);
    model = open_model(ctx, dir, EQAT_F32);
    OK(ctx, eqat_generation_create(model, &generation, SEQUENCES));
    for (int t = 0; t < TOKENS; t++) row[t] = 0.4f * (float)(t * 7 % 11) - 3;
    row[8] = -INFINITY;
    logits = make(ctx, EQI_F32, DIMS(SEQUENCES, LAST, TOKENS));
    write_logits();
}

static void end(void)
{
    eqi_tensor_unref(logits);
    eqat_generation_free(generation);
    eqat_model_free(model);
}

static eqat_choose_options options_of(double temperature, int64_t top_k, double top_p)
{
    eqat_choose_options o;
    eqat_choose_options_init(&o, sizeof o);
    o.temperature = temperature;
    o.top_k = top_k;
    o.top_p = top_p;
    return o;
}

static void choose(double temperature, int64_t top_k, double top_p)
{
    eqat_choose_options o = options_of(temperature, top_k, top_p);
    memset(chosen, 0xff, sizeof chosen);
    OK(ctx, eqat_generation_choose(generation, logits, &o, chosen));
}

static bool is_before(int a, int b) { return row[a] > row[b] || (row[a] == row[b] && a < b); }

/* The probability of each token: every one against all others. */
static void shares_of(const eqat_choose_options *o, double share[TOKENS])
{
    double size[TOKENS], of_k = 0, all = 0;
    bool among_k[TOKENS];
    for (int t = 0; t < TOKENS; t++) {
        int before = 0;
        for (int i = 0; i < TOKENS; i++) before += is_before(i, t);
        size[t] = exp((double)row[t] / o->temperature);
        among_k[t] = !o->top_k || before < o->top_k;
        if (among_k[t]) of_k += size[t];
    }
    for (int t = 0; t < TOKENS; t++) {
        double above = 0;
        for (int i = 0; i < TOKENS; i++)
            if (is_before(i, t)) above += size[i];
        share[t] = among_k[t] && (above == 0 || above < o->top_p * of_k) ? size[t] : 0;
        all += share[t];
    }
    for (int t = 0; t < TOKENS; t++) share[t] /= all;
}

static const struct {
    double temperature;
    int64_t top_k;
    double top_p;
} draws[] = {{1, 0, 1},    {0.5, 0, 1},    {3, 0, 1},       {1, 7, 1},   {1, 0, 0.6}, {1, 0, 0.999},
             {2, 9, 0.73}, {1, TOKENS, 1}, {1, 1 << 30, 1}, {1, 1, 0.5}, {1, 0, 0},   {0.01, 0, 1}};

START_TEST(draws_have_their_shares)
{
    eqat_choose_options o = options_of(draws[_i].temperature, draws[_i].top_k, draws[_i].top_p);
    double share[TOKENS];
    int count[TOKENS] = {0};
    begin();
    choose(o.temperature, o.top_k, o.top_p);
    shares_of(&o, share);
    for (int i = 0; i < SEQUENCES; i++) {
        ck_assert_int_ge(chosen[i], 0);
        ck_assert_int_lt(chosen[i], TOKENS);
        count[chosen[i]]++;
    }
    for (int t = 0; t < TOKENS; t++) {
        double expected = SEQUENCES * share[t],
               bound = 4.5 * sqrt(expected * (1 - share[t])) + (share[t] > 0);
        ck_assert_msg(fabs(count[t] - expected) <= bound, "token %d: found %d, expected %g +- %g",
                      t, count[t], expected, bound);
    }
    end();
}
END_TEST

START_TEST(without_a_temperature_the_first_of_the_likeliest)
{
    int best = 0;
    begin();
    for (int t = 1; t < TOKENS; t++)
        if (row[t] > row[best]) best = t;
    OK(ctx, eqat_generation_choose(generation, logits, NULL, chosen));
    for (int i = 0; i < SEQUENCES; i++) ck_assert_int_eq(chosen[i], best);
    choose(0, 3, 0.5);
    for (int i = 0; i < SEQUENCES; i++) ck_assert_int_eq(chosen[i], best);
    end();
}
END_TEST

static int same_as(const int32_t *before)
{
    int same = 0;
    for (int i = 0; i < SEQUENCES; i++) same += chosen[i] == before[i];
    return same;
}

/* Of 50 tokens of like sizes two draws rarely agree. */
START_TEST(draws_follow_from_seed_sequence_and_length)
{
    static int32_t first[SEQUENCES];
    eqat_generation *one;
    eqi_tensor *of_one;
    begin();
    choose(3, 0, 1);
    memcpy(first, chosen, sizeof first);
    choose(3, 0, 1);
    ck_assert_int_eq(same_as(first), SEQUENCES);
    ctx->seed++;
    choose(3, 0, 1);
    ck_assert_int_lt(same_as(first), SEQUENCES / 5);
    ctx->seed--;
    OK(ctx, eqat_generation_feed(generation, first, 1, 0, NULL));
    choose(3, 0, 1);
    ck_assert_int_lt(same_as(first), SEQUENCES / 5);
    OK(ctx, eqat_generation_rewind(generation, 0));
    choose(3, 0, 1);
    ck_assert_int_eq(same_as(first), SEQUENCES);
    /* As in a batch of its own. */
    OK(ctx, eqat_generation_create(model, &one, 1));
    OK(ctx, eqi_tensor_slice(logits, &of_one, 0, 7, 1));
    eqat_choose_options o = options_of(3, 0, 1);
    OK(ctx, eqat_generation_choose(one, of_one, &o, chosen));
    ck_assert_int_eq(chosen[0], first[0]);
    eqi_tensor_unref(of_one);
    eqat_generation_free(one);
    end();
}
END_TEST

START_TEST(logits_that_are_none)
{
    begin();
    row[30] = NAN;
    write_logits();
    says(ctx, eqat_generation_choose(generation, logits, NULL, chosen), EQAT_NUMERIC,
         "logits: found nan for token 30, expected finite numbers");
    row[30] = INFINITY;
    write_logits();
    says(ctx, eqat_generation_choose(generation, logits, NULL, chosen), EQAT_NUMERIC,
         "logits: found infinity for token 30, expected finite numbers");
    for (int t = 0; t < TOKENS; t++) row[t] = -INFINITY;
    write_logits();
    says(ctx, eqat_generation_choose(generation, logits, NULL, chosen), EQAT_NUMERIC,
         "logits: found -infinity for all tokens, expected a number");
    row[11] = -3e38f;
    write_logits();
    choose(1e-3, 0, 1);
    for (int i = 0; i < SEQUENCES; i++) ck_assert_int_eq(chosen[i], 11);
    end();
}
END_TEST

START_TEST(what_choosing_refuses)
{
    eqat_context *other = make_context(1, 0);
    eqi_tensor *foreign = make(other, EQI_F32, DIMS(SEQUENCES, LAST, TOKENS)),
               *bf16 = make(ctx, EQI_BF16, DIMS(SEQUENCES, LAST, TOKENS)),
               *fewer = make(ctx, EQI_F32, DIMS(SEQUENCES, LAST, TOKENS - 1)),
               *flat = make(ctx, EQI_F32, DIMS(SEQUENCES, TOKENS));
    begin();
    eqi_tensor *const misfits[] = {bf16, fewer, flat};
    for (size_t i = 0; i < EQI_COUNT(misfits); i++)
        says(ctx, eqat_generation_choose(generation, misfits[i], NULL, chosen),
             EQAT_INVALID_ARGUMENT, "expected [3000, n, 50] of dtype f32");
    says(ctx, eqat_generation_choose(generation, foreign, NULL, chosen), EQAT_INVALID_ARGUMENT,
         "logits: found a tensor of another context");
    says(ctx, eqat_generation_choose(generation, NULL, NULL, chosen), EQAT_INVALID_ARGUMENT,
         "logits");
    says(ctx, eqat_generation_choose(generation, logits, NULL, NULL), EQAT_INVALID_ARGUMENT, "ids");
    ck_assert_int_eq(eqat_generation_choose(NULL, logits, NULL, chosen), EQAT_INVALID_ARGUMENT);
    eqat_choose_options o = options_of(-1, 0, 1);
    says(ctx, eqat_generation_choose(generation, logits, &o, chosen), EQAT_INVALID_ARGUMENT,
         "temperature: found -1, expected 0 to 1000000");
    o = options_of(1, 0, 1.5);
    says(ctx, eqat_generation_choose(generation, logits, &o, chosen), EQAT_INVALID_ARGUMENT,
         "top_p: found 1.5, expected 0 to 1");
    for (long n = 0;; n++) {
        refuse_after(n);
        eqat_status st = eqat_generation_choose(generation, logits, NULL, chosen);
        refuse_after(-1);
        if (st == EQAT_OK) break;
        ck_assert_int_eq(st, EQAT_OUT_OF_MEMORY);
    }
    eqi_tensor_unref(bf16);
    eqi_tensor_unref(fewer);
    eqi_tensor_unref(flat);
    eqi_tensor_unref(foreign);
    eqat_context_free(other);
    end();
}
END_TEST

TCase *case_choose(void)
{
    TCase *tc = tcase_create("choose");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, draws_have_their_shares, 0, EQI_COUNT(draws));
    tcase_add_test(tc, without_a_temperature_the_first_of_the_likeliest);
    tcase_add_test(tc, draws_follow_from_seed_sequence_and_length);
    tcase_add_test(tc, logits_that_are_none);
    tcase_add_test(tc, what_choosing_refuses);
    return tc;
}
