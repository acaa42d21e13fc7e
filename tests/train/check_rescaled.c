#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* The same function written with other weights: rows that enter the product of an MLP times 2^k,
 * and what takes the product times 2^-k, both exact. */

/* Scales of the small model are a few hundredths: 2^-6 of these are normal numbers of fp16 (2^-14
 * and more), with all 11 bits, and 2^6 of them are far below 65504. With 2^-16 they would be
 * subnormal, with a bit or two, and nothing could be the same. */
enum { K = 6, EPOCHS = 8 };
static const double LOUD = 1 << 30;

static void scale(bench *b, const char *name, int exponent)
{
    eqat_tensor *t;
    int64_t n;
    OK(b->ctx, eqat_model_parameter(b->model, name, &t));
    float *x = read_floats(t, &n);
    for (int64_t i = 0; i < n; i++) x[i] = ldexpf(x[i], exponent);
    OK(b->ctx, eqat_tensor_write(t, x, (size_t)n * sizeof *x));
    free(x);
}

static bench rescaled(int k)
{
    bench b = set_up(&usual);
    for (int i = 0; i < BLOCKS; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%d.mlp.up_proj.weight", i);
        scale(&b, name, k);
        snprintf(name, sizeof name, "model.layers.%d.mlp.down_proj.weight", i);
        scale(&b, name, -k);
    }
    return b;
}

static void scales_are_normal(bench *b)
{
    static const char *const linears[] = {"up_proj", "down_proj"};
    for (int i = 0; i < 2 * BLOCKS; i++) {
        char name[64];
        int64_t n;
        snprintf(name, sizeof name, "model.layers.%d.mlp.%s.scales", i / 2, linears[i % 2]);
        float *s = parameter_floats(b->ctx, b->model, name, &n);
        for (int64_t k = 0; k < n; k++)
            ck_assert(fabsf(s[k]) >= ldexpf(1, -14) && fabsf(s[k]) < 65504);
        free(s);
    }
}

START_TEST(rounding_is_the_same_bit_for_bit)
{
    bench a = set_up(&usual), b = rescaled(K);
    same_logits(a.model, b.model, TIME);
    OK(a.ctx, eqat_model_quantize_rtn(a.model, a.quantizer, NULL));
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    scales_are_normal(&b);
    same_logits(a.model, b.model, TIME);
    tear_down(&a);
    tear_down(&b);
}
END_TEST

/* As large a loss that the eps of Adam, which is the same whatever a gradient's size, is nothing
 * beside the gradients. */
static eqat_status loud(void *user, eqat_tape *tape, eqat_tensor *y, eqat_tensor *target,
                        eqat_tensor **loss)
{
    eqat_tensor *mse;
    (void)user;
    ck_assert_int_eq(eqat_op_mse(tape, y, target, &mse), EQAT_OK);
    eqat_status st = eqat_op_scale(tape, mse, LOUD, loss);
    eqat_tensor_free(mse);
    return st;
}

static bench trained(int k, int epochs, int32_t unit, eqat_block_loss_fn loss)
{
    bench b = rescaled(k);
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.epochs = epochs;
    o.lr_unit = unit;
    o.loss = loss;
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    return b;
}

/* Mean squared difference of its logits from those in full precision; ends the bench. */
static double distance(bench b)
{
    eqat_model *full = open_model(b.ctx, "model", EQAT_F32);
    double d = logits_distance(b.model, full);
    eqat_model_free(full);
    tear_down(&b);
    return d;
}

START_TEST(training_at_relative_rates_is_the_same_bit_for_bit)
{
    bench a = trained(0, EPOCHS, EQAT_LR_RELATIVE, loud),
          b = trained(K, EPOCHS, EQAT_LR_RELATIVE, loud);
    scales_are_normal(&b);
    same_logits(a.model, b.model, TIME);
    tear_down(&a);
    tear_down(&b);
}
END_TEST

/* With the usual loss eps makes a difference, which is small beside what training does. */
START_TEST(training_at_relative_rates_is_about_the_same)
{
    double start = distance(trained(0, 0, EQAT_LR_RELATIVE, NULL)),
           plain = distance(trained(0, EPOCHS, EQAT_LR_RELATIVE, NULL)),
           other = distance(trained(K, EPOCHS, EQAT_LR_RELATIVE, NULL));
    ck_assert_double_lt(plain, 0.8 * start);
    ck_assert_double_lt(fabs(other - plain), 0.25 * (start - plain));
}
END_TEST

/* Absolute rates are not in proportion to tiny weights. What that spoils is not kept. */
START_TEST(training_at_absolute_rates_does_no_harm)
{
    double start = distance(trained(16, 0, EQAT_LR_ABSOLUTE, NULL)),
           end = distance(trained(16, EPOCHS, EQAT_LR_ABSOLUTE, NULL));
    ck_assert_double_lt(end, 1.01 * start);
}
END_TEST

/* ---- beyond what fp16 stores ---- */

static char lines[4096];

static void keep_line(void *user, int level, const char *line)
{
    size_t at = strlen(lines);
    (void)user;
    snprintf(lines + at, sizeof lines - at, "%d %s\n", level, line);
}

static bench listened(int k)
{
    bench b = set_up(&usual);
    scale(&b, "model.layers.0.mlp.down_proj.weight", k);
    lines[0] = 0;
    b.ctx->log = keep_line;
    b.ctx->log_level = EQI_LOG_WARN;
    return b;
}

static eqat_status by_rtn(bench *b)
{
    return eqat_model_quantize_rtn(b->model, b->quantizer, NULL);
}

static eqat_status by_block_ap(bench *b)
{
    eqat_block_ap_options o = fast_options();
    return eqat_block_ap_quantize(b->model, b->quantizer, b->data, &o);
}

/* Weights are a tenth, scales a few hundredths. */
static const struct {
    eqat_status (*quantize)(bench *b);
    int k;
    const char *refusal, *line; /* one of them */
} limits[] = {
    {by_rtn, -21, NULL, "1 model.layers.0.mlp.down_proj: "},
    {by_rtn, -30, "model.layers.0.mlp.down_proj: found weights of ", NULL},
    {by_rtn, 23, "scales of 65504 or more, expected what fp16 stores, up to 65504", NULL},
    {by_block_ap, -21, NULL, "1 model.layers.0.mlp.down_proj: "},
    {by_block_ap, -30, "model.layers.0.mlp.down_proj: found weights of ", NULL},
    {by_block_ap, 23, "scales of 65504 or more, expected what fp16 stores, up to 65504", NULL},
};

START_TEST(scales_that_fp16_does_not_store_are_told)
{
    bench b = listened(limits[_i].k);
    eqat_status st = limits[_i].quantize(&b);
    if (limits[_i].refusal) {
        ck_assert_int_eq(st, EQAT_NUMERIC);
        ck_assert_msg(strstr(b.ctx->error, limits[_i].refusal), "%s", b.ctx->error);
    } else {
        OK(b.ctx, st);
        ck_assert_msg(strstr(lines, limits[_i].line) && strstr(lines, "are clamped to what fp16"),
                      "%s", lines);
    }
    tear_down(&b);
}
END_TEST

/* Pruned away, which is no loss. */
START_TEST(weights_that_are_all_zero_stay_so)
{
    bench b = set_up(&usual);
    char name[64];
    for (int i = 0; i < BLOCKS; i++) {
        snprintf(name, sizeof name, "model.layers.%d.mlp.up_proj.weight", i);
        scale(&b, name, -10000);
    }
    size_t before, after;
    float *x = logits_of(b.model, TIME, &before);
    eqat_quantizer *q = make_quantizer(b.ctx, usual.bits, 32);
    OK(b.ctx, eqat_quantizer_add_rule(q, "*.self_attn.*", NULL));
    OK(b.ctx, eqat_model_quantize_rtn(b.model, q, NULL));
    float *y = logits_of(b.model, TIME, &after);
    ck_assert_uint_eq(before, after);
    ck_assert_mem_eq(x, y, before);
    free(x);
    free(y);
    eqat_quantizer_free(q);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, rounding_is_the_same_bit_for_bit);
    tcase_add_test(tc, training_at_relative_rates_is_the_same_bit_for_bit);
    tcase_add_test(tc, training_at_relative_rates_is_about_the_same);
    tcase_add_test(tc, training_at_absolute_rates_does_no_harm);
    tcase_add_loop_test(tc, scales_that_fp16_does_not_store_are_told, 0, (int)EQI_COUNT(limits));
    tcase_add_test(tc, weights_that_are_all_zero_stay_so);
    return run_case("weights written in another way", tc, CK_NOFORK);
}
