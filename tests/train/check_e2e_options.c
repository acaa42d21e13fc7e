#include "e2e.h"

START_TEST(the_default_rate_is_that_of_the_fewest_bits)
{
    for (int first = 2; first <= 4; first++) {
        bench b = set_up_mixed("model", 8, first, "model.layers.2.*", first == 3 ? 4 : 6 - first);
        seen s = {0};
        eqat_e2e_qp_options o = own_options();
        o.lr = 0;
        o.progress = watch;
        o.progress_user = &s;
        OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
        ck_assert_double_eq(s.lr[1], first == 3 ? 1e-5 : 2e-5);
        tear_down(&b);
    }
}
END_TEST

START_TEST(bad_input_is_refused)
{
    bench b = set_up_packed(4);
    eqat_e2e_qp_options o = own_options();
    o.micro_batch_size = 3;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_INVALID_ARGUMENT,
         "micro_batch_size: found 3");
    o = own_options();
    o.epochs = 0;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_INVALID_ARGUMENT, "epochs");
    o = own_options();
    eqat_model *dense = open_model(b.ctx, "model", EQAT_F32);
    says(b.ctx, eqat_e2e_qp_train(dense, b.data, &o), EQAT_INVALID_ARGUMENT, "no quantized linear");
    eqat_model_free(dense);
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = 2;
    d.val_size = 0;
    d.seq_len = 1;
    d.sampling = EQAT_SAMPLING_CONSECUTIVE;
    const int32_t ids[] = {1, 2, 3, 4};
    eqat_data *data;
    OK(b.ctx, eqat_data_from_tokens(b.ctx, &data, ids, 4, 0, &d));
    says(b.ctx, eqat_e2e_qp_train(b.model, data, &o), EQAT_INVALID_ARGUMENT, "seq_len");
    eqat_data_free(data);
    tear_down(&b);
}
END_TEST

/* check agrees with create, on a model that is not quantized yet, too, and changes nothing. */
START_TEST(check_refuses_what_create_would)
{
    bench b = set_up_packed(4);
    eqat_model *dense = open_model(b.ctx, "model", EQAT_F32);
    eqat_quantizer *all = make_quantizer(b.ctx, BITS, 32), *none = make_quantizer(b.ctx, BITS, 32);
    eqat_e2e_qp_options o = own_options();
    OK(b.ctx, add_rule(none, "*", 0, 32));
    OK(b.ctx, eqat_e2e_qp_check(b.model, NULL, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_check(b.model, none, b.data, NULL));
    OK(b.ctx, eqat_e2e_qp_check(dense, all, b.data, &o));
    says(b.ctx, eqat_e2e_qp_check(dense, NULL, b.data, &o), EQAT_INVALID_ARGUMENT,
         "no quantized linear");
    says(b.ctx, eqat_e2e_qp_check(dense, none, b.data, &o), EQAT_INVALID_ARGUMENT,
         "no quantized linear");
    o.micro_batch_size = 3;
    says(b.ctx, eqat_e2e_qp_check(dense, all, b.data, &o), EQAT_INVALID_ARGUMENT,
         "micro_batch_size: found 3");
    o = own_options();
    o.params = 7;
    says(b.ctx, eqat_e2e_qp_check(dense, all, b.data, &o), EQAT_INVALID_ARGUMENT, "params");
    eqat_quantizer_free(all);
    eqat_quantizer_free(none);
    eqat_model_free(dense);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, the_default_rate_is_that_of_the_fewest_bits);
    tcase_add_test(tc, bad_input_is_refused);
    tcase_add_test(tc, check_refuses_what_create_would);
    return run_case("options of E2E-QP", tc, CK_NOFORK);
}
