#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "e2e.h"

/* Before saving too: they are rounded to the BF16 of the file, which is coarser than what trains.
 */
START_TEST(gains_train_in_every_block_and_have_the_dtype_of_the_file)
{
    llama_shape half = small_shape;
    half.bf16 = true;
    write_llama("half", &half, NULL);
    bench b = set_up_mixed("half", 8, BITS, "model.layers.1.*", 0);
    eqat_e2e_qp_options o = own_options();
    o.train_norms = true;
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
    eqat_model *file = open_model(b.ctx, "half", EQAT_F32);
    for (int block = 0; block < BLOCKS; block++) {
        char name[64];
        int64_t n;
        eqat_tensor *original;
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", block);
        OK(b.ctx, eqat_model_parameter(file, name, &original));
        float *before = read_floats(original, &n), *after = read_floats(parameter(&b, name), &n);
        ck_assert_msg(memcmp(before, after, (size_t)n * sizeof *before) != 0, "%s", name);
        free(before);
        free(after);
    }
    eqat_model_free(file);
    eqat_perplexity here = {.struct_size = sizeof here}, again = here;
    OK(b.ctx, eqat_eval_perplexity(b.model, b.data, NULL, &here));
    eqat_model *saved = open_model(b.ctx, save_as(b.ctx, b.model, "half-saved"), EQAT_F32);
    OK(b.ctx, eqat_eval_perplexity(saved, b.data, NULL, &again));
    ck_assert_double_eq(again.nll, here.nll);
    eqat_model_free(saved);
    tear_down(&b);
}
END_TEST

/* What trains is what was asked for, and nothing else moves. */
START_TEST(params_choose_what_trains)
{
    for (int params = 0; params < 3; params++)
        for (int norms = 0; norms < 2; norms++) {
            bench b = set_up_packed(8);
            const char *const names[] = {
                "model.layers.1.mlp.up_proj.scales", "model.layers.1.mlp.up_proj.zeros",
                "model.layers.1.input_layernorm.weight", "model.norm.weight"};
            const bool moves[] = {params != EQAT_E2E_Z, params != EQAT_E2E_S, norms, norms};
            char before[4][4096], after[4096];
            for (int i = 0; i < 4; i++) {
                eqat_tensor *t = parameter(&b, names[i]);
                size_t n = (size_t)eqat_tensor_count(t) * eqat_dtype_size(eqat_tensor_dtype(t));
                ck_assert_uint_le(n, sizeof after);
                OK(b.ctx, eqat_tensor_read(t, before[i], n));
            }
            eqat_e2e_qp_options o = own_options();
            o.params = params;
            o.train_norms = norms;
            o.lr = params == EQAT_E2E_S ? 2e-3 : 0.6; /* zero points move in whole steps */
            OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
            for (int i = 0; i < 4; i++) {
                eqat_tensor *t = parameter(&b, names[i]);
                size_t n = (size_t)eqat_tensor_count(t) * eqat_dtype_size(eqat_tensor_dtype(t));
                OK(b.ctx, eqat_tensor_read(t, after, n));
                ck_assert_msg((memcmp(before[i], after, n) != 0) == moves[i],
                              "params %d, norms %d: %s", params, norms, names[i]);
                for (size_t k = 0; k < n && i == 1; k++)
                    ck_assert_int_lt(((unsigned char *)after)[k], 1 << BITS);
            }
            tear_down(&b);
        }
}
END_TEST

START_TEST(zero_points_are_rounded_to_whole_ones_in_range)
{
    const char name[] = "model.layers.1.mlp.up_proj.zeros";
    bench b = set_up_packed(8);
    eqat_e2e_qp_options o = own_options();
    o.params = EQAT_E2E_Z;
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    int64_t n = eqat_tensor_count(parameter(&b, name));
    float trained[1024];
    unsigned char z[1024];
    ck_assert_int_le(n, EQI_COUNT(z));
    for (int64_t i = 0; i < n; i++)
        trained[i] = (float)(i % 64) / 4.0f - 3.0f; /* beyond both ends */
    OK(b.ctx, eqat_tensor_write(parameter(&b, name), trained, (size_t)n * sizeof *trained));
    OK(b.ctx, eqat_e2e_qp_finish(job));
    eqat_e2e_qp_free(job);
    OK(b.ctx, eqat_tensor_read(parameter(&b, name), z, (size_t)n));
    for (int64_t i = 0; i < n; i++)
        ck_assert_float_eq((float)z[i],
                           fminf(fmaxf(rintf(trained[i]), 0.0f), (float)((1 << BITS) - 1)));
    tear_down(&b);
}
END_TEST

START_TEST(training_starts_from_scales_that_a_file_can_hold)
{
    bench b = set_up_packed(8);
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_tensor_fill(parameter(&b, Q0), 0.1));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    int64_t n;
    float *s = read_floats(parameter(&b, Q0), &n);
    for (int64_t i = 0; i < n; i++) ck_assert_float_eq(s[i], 0x1.998p-4f); /* 0.1 in F16 */
    free(s);
    eqat_e2e_qp_free(job);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, gains_train_in_every_block_and_have_the_dtype_of_the_file);
    tcase_add_test(tc, params_choose_what_trains);
    tcase_add_test(tc, zero_points_are_rounded_to_whole_ones_in_range);
    tcase_add_test(tc, training_starts_from_scales_that_a_file_can_hold);
    return run_case("what E2E-QP trains", tc, CK_NOFORK);
}
