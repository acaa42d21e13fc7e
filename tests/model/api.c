/* Options and descriptors as a stranger hands them over. */
#include <locale.h>

#include "cases.h"
#include "each_test.h"
#include "eqat/eqat.h"

START_TEST(attention_options_have_a_size)
{
    struct {
        eqat_attention_options o;
        char newer[16]; /* of a library after this one */
    } later;
    memset(&later, 0x55, sizeof later);
    eqat_attention_options_init(&later.o, sizeof later);
    ck_assert_uint_eq(later.o.struct_size, sizeof later);
    for (size_t i = 0; i < sizeof later.newer; i++) ck_assert_int_eq(later.newer[i], 0);

    eqi_tensor *q = make_random(ctx, EQI_F32, DIMS(1, 4, 2, 8), 1, 1), *y = NULL;
    eqat_tape *tape;
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_op_attention(tape, q, q, q, NULL, &later.o, &y));
    eqat_tensor_free(y);
    eqat_attention_options zeros = {.window = 2};
    says(ctx, eqat_op_attention(tape, q, q, q, NULL, &zeros, &y), EQAT_INVALID_ARGUMENT,
         "struct_size: found 0");
    ck_assert_ptr_null(y);
    eqat_tape_free(tape);
    eqi_tensor_unref(q);
}
END_TEST

START_TEST(a_batch_of_a_newer_caller_begins_empty)
{
    struct {
        eqat_batch b;
        char newer[16];
    } later;
    memset(&later, 0x55, sizeof later);
    eqat_batch_init(&later.b, sizeof later);
    ck_assert_uint_eq(later.b.struct_size, sizeof later);
    ck_assert_ptr_null(later.b.ids);
    for (size_t i = 0; i < sizeof later.newer; i++) ck_assert_int_eq(later.newer[i], 0);
}
END_TEST

/* A host program may have set a locale that writes 0,5; the text of an option is C's. */
START_TEST(numbers_do_not_depend_on_the_locale)
{
    char command[4096];
    snprintf(command, sizeof command,
             "localedef -f UTF-8 -i de_DE '%s/de_DE.UTF-8' >/dev/null 2>&1", dir);
    if (system(command) != 0) return; /* no locales to be had here */
    setenv("LOCPATH", dir, 1);
    ck_assert_ptr_nonnull(setlocale(LC_NUMERIC, "de_DE.UTF-8"));
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    OK(ctx, eqat_options_set(ctx, "block_ap", &o, "min_lr_factor", "0.25"));
    ck_assert_double_eq(o.min_lr_factor, 0.25);
    says(ctx, eqat_options_set(ctx, "block_ap", &o, "min_lr_factor", "0,5"), EQAT_INVALID_ARGUMENT,
         "min_lr_factor");
    setlocale(LC_NUMERIC, "C");
}
END_TEST

START_TEST(a_field_is_described_as_far_as_the_caller_says)
{
    eqat_field f = {0};
    ck_assert_int_eq(eqat_options_field("data", 0, &f), EQAT_INVALID_ARGUMENT);
    f.struct_size = offsetof(eqat_field, help);
    ck_assert_int_eq(eqat_options_field("data", 0, &f), EQAT_OK);
    ck_assert_str_eq(f.name, "train_size");
    ck_assert_ptr_null(f.help);
    ck_assert_int_eq(eqat_options_field("data", 10, &f), EQAT_NOT_FOUND);
}
END_TEST

TCase *case_api(void)
{
    TCase *tc = tcase_create("api");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, attention_options_have_a_size);
    tcase_add_test(tc, a_batch_of_a_newer_caller_begins_empty);
    tcase_add_test(tc, a_field_is_described_as_far_as_the_caller_says);
    tcase_add_test(tc, numbers_do_not_depend_on_the_locale);
    return tc;
}
