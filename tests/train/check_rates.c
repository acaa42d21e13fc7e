#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* Relative rates, by the size of what moves: the first step of AdamW moves by the rate, or not at
 * all where the gradient is 0. */

static double mean_size(const float *values, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs((double)values[i]);
    return sum / (double)n;
}

START_TEST(relative_rates_of_block_ap)
{
    const struct {
        const char *name, *size;
        double first, given; /* rates of one step in all; when 0.03 and 0.02 are given */
    } cases[] = {
        {"self_attn.q_proj.weight", "self_attn.q_proj.scales", 0.1, 0.03},
        {"mlp.down_proj.weight", "mlp.down_proj.scales", 0.1, 0.03},
        {"mlp.down_proj.scales", "mlp.down_proj.scales", 0.04, 0.02},
        {"input_layernorm.weight", "input_layernorm.weight", 0.01, 0.005},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    for (int given = 0; given < 2; given++) {
        bench b = set_up(&usual);
        eqat_block_ap_options o = fast_options();
        eqat_block_ap *job;
        o.lr_unit = EQAT_LR_RELATIVE;
        o.weight_lr = given ? 0.03 : 0;
        o.quant_lr = given ? 0.02 : 0;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        OK(b.ctx, eqat_block_ap_begin(job));
        double steps = (double)(o.epochs * eqat_block_ap_steps(job)), rate[CASES];
        float *before[CASES];
        int64_t n;
        for (int i = 0; i < CASES; i++) {
            rate[i] = given ? cases[i].given : cases[i].first / sqrt(steps);
            float *size = read_floats(eqat_block_ap_parameter(job, cases[i].size), &n);
            rate[i] *= mean_size(size, n);
            free(size);
            before[i] = read_floats(eqat_block_ap_parameter(job, cases[i].name), &n);
        }
        OK(b.ctx, eqat_block_ap_step(job, 0, 0, NULL));
        for (int i = 0; i < CASES; i++) {
            float *after = read_floats(eqat_block_ap_parameter(job, cases[i].name), &n);
            double most = 0;
            for (int64_t k = 0; k < n; k++)
                most = fmax(most, fabs((double)after[k] - (double)before[i][k]));
            ck_assert_msg(fabs(most - rate[i]) < 0.01 * rate[i], "%s: %g, expected %g",
                          cases[i].name, most, rate[i]);
            free(before[i]);
            free(after);
        }
        eqat_block_ap_free(job);
        tear_down(&b);
    }
}
END_TEST

/* The rate stays, then falls along half a cosine. */
START_TEST(decay_ratio_of_block_ap)
{
    const double ratios[] = {0, 0.5, 1};
    for (size_t i = 0; i < EQI_COUNT(ratios); i++) {
        bench b = set_up(&usual);
        eqat_block_ap_options o = fast_options();
        eqat_block_ap *job;
        o.epochs = 10;
        o.min_lr_factor = 0.2;
        o.decay_ratio = ratios[i];
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        OK(b.ctx, eqat_block_ap_begin(job));
        const int64_t n = o.epochs * eqat_block_ap_steps(job);
        const double falls = ratios[i] * (double)n;
        for (int64_t k = 0; k <= n; k++) {
            const double left = (double)(n - k),
                         expected =
                             k < n && left >= falls ? 1 : 0.6 - 0.4 * cos(M_PI * left / falls);
            ck_assert_double_eq_tol(eqat_optimizer_lr_factor(eqat_block_ap_optimizer(job), k),
                                    k < n ? expected : 0.2, 1e-12);
        }
        eqat_block_ap_free(job);
        tear_down(&b);
    }
}
END_TEST

static eqat_tensor *parameter(bench *b, const char *name)
{
    eqat_tensor *t;
    OK(b->ctx, eqat_model_parameter(b->model, name, &t));
    return t;
}

/* Zero points in codes: at the rate of 1 one step moves them by one. */
START_TEST(relative_rates_of_e2e_qp)
{
    const struct {
        const char *name;
        bool is_code;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.scales", false},
        {"model.layers.1.mlp.down_proj.scales", false},
        {"model.layers.1.mlp.down_proj.zeros", true},
        {"model.layers.0.input_layernorm.weight", false},
    };
    const struct {
        int64_t epochs; /* of two steps */
        double lr, rate;
    } runs[] = {{1, 0.25, 0.25}, {1, 0, 0.004}, {200, 0, 0.004}};
    for (size_t run = 0; run < EQI_COUNT(runs); run++) {
        bench b = {.ctx = make_context(2, 1)};
        b.model = open_model(b.ctx, "model", EQAT_F32);
        eqat_quantizer *quantizer = make_quantizer(b.ctx, 3, 32);
        OK(b.ctx, eqat_model_quantize_rtn(b.model, quantizer, NULL));
        eqat_quantizer_free(quantizer);
        b.data = make_data(b.ctx, 8, 0, true);
        eqat_e2e_qp_options o;
        eqat_e2e_qp *job;
        eqat_e2e_qp_options_init(&o, sizeof o);
        o.batch_size = 4;
        o.params = EQAT_E2E_SZ;
        o.train_norms = true;
        o.warmup_ratio = o.max_grad_norm = 0;
        o.lr_unit = EQAT_LR_RELATIVE;
        o.lr = runs[run].lr;
        o.epochs = runs[run].epochs;
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        double rate = runs[run].rate;
        float *before[EQI_COUNT(cases)];
        int64_t n;
        for (size_t i = 0; i < EQI_COUNT(cases); i++)
            before[i] = read_floats(parameter(&b, cases[i].name), &n);
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, 0); micro++)
            OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, micro, NULL));
        OK(b.ctx, eqat_e2e_qp_step(job));
        for (size_t i = 0; i < EQI_COUNT(cases); i++) {
            float *after = read_floats(parameter(&b, cases[i].name), &n);
            double most = 0, expected = rate * (cases[i].is_code ? 1 : mean_size(before[i], n));
            for (int64_t k = 0; k < n; k++)
                most = fmax(most, fabs((double)after[k] - (double)before[i][k]));
            ck_assert_msg(fabs(most - expected) < 0.01 * expected, "%s: %g, expected %g",
                          cases[i].name, most, expected);
            free(before[i]);
            free(after);
        }
        eqat_e2e_qp_free(job);
        tear_down(&b);
    }
}
END_TEST

static void add_line(void *user, int32_t level, const char *line)
{
    char *told = user;
    if (level == EQAT_LOG_WARN) snprintf(told + strlen(told), 512 - strlen(told), "%s\n", line);
}

/* An absolute rate under the unit of relative ones. */
START_TEST(a_rate_of_the_other_unit_is_told)
{
    char told[512] = "";
    eqat_context_options c;
    eqat_context_options_init(&c, sizeof c);
    c.log = add_line;
    c.log_user = told;
    c.log_level = EQAT_LOG_WARN;
    eqat_context *ctx;
    ck_assert_int_eq(eqat_context_create(&ctx, &c, NULL, 0), EQAT_OK);
    bench b = {.ctx = ctx, .model = open_model(ctx, "model", EQAT_F32)};
    b.quantizer = make_quantizer(ctx, 2, 32);
    b.data = make_data(ctx, 8, 0, true);
    const struct {
        double weight, quant;
        int32_t unit;
        bool of_weight, of_quant;
    } cases[] = {{2e-5, 1e-4, EQAT_LR_RELATIVE, true, true},
                 {2e-5, 0.01, EQAT_LR_RELATIVE, true, false},
                 {0, -1, EQAT_LR_RELATIVE, false, false},
                 {0.01, 0.01, EQAT_LR_RELATIVE, false, false},
                 {2e-5, 1e-4, EQAT_LR_ABSOLUTE, false, false}};
    for (size_t i = 0; i < EQI_COUNT(cases); i++) {
        eqat_block_ap *job;
        eqat_block_ap_options o = fast_options();
        o.lr_unit = cases[i].unit;
        o.weight_lr = cases[i].weight;
        o.quant_lr = cases[i].quant;
        told[0] = 0;
        OK(ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        ck_assert_msg(!!strstr(told, "weight_lr: found 2e-05 with lr_unit relative") ==
                          cases[i].of_weight,
                      "%zu: %s", i, told);
        ck_assert_msg(!!strstr(told, "quant_lr: found 0.0001") == cases[i].of_quant, "%zu: %s", i,
                      told);
        ck_assert(cases[i].of_weight || cases[i].of_quant || !*told);
        eqat_block_ap_free(job);
    }
    OK(ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    eqat_e2e_qp_options e;
    eqat_e2e_qp_options_init(&e, sizeof e);
    e.batch_size = 4;
    e.lr_unit = EQAT_LR_RELATIVE;
    for (int i = 0; i < 2; i++) {
        eqat_e2e_qp *job;
        e.lr = i ? 0.001 : 2e-5;
        told[0] = 0;
        OK(ctx, eqat_e2e_qp_create(b.model, &job, b.data, &e));
        ck_assert_msg(!strncmp(told, "lr: found 2e-05", 15) == !i, "%s", told);
        eqat_e2e_qp_free(job);
    }
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, relative_rates_of_block_ap);
    tcase_add_test(tc, decay_ratio_of_block_ap);
    tcase_add_test(tc, relative_rates_of_e2e_qp);
    tcase_add_test(tc, a_rate_of_the_other_unit_is_told);
    return run_case("rates", tc, CK_NOFORK);
}
