#include "grad.h"

START_TEST(every_op_has_a_rule_and_a_test)
{
    ck_assert_uint_gt(eqi_op_count, 10);
    for (size_t i = 0; i < eqi_op_count; i++) {
        const eqi_op *op = eqi_op_table[i];
        ck_assert_msg(op->backward != NULL, "%s has no backward rule", op->name);
        bool tested = false;
        for (size_t j = 0; j < grad_case_count; j++)
            tested = tested || !strcmp(grad_cases[j].op, op->name);
        ck_assert_msg(tested, "%s has no gradient test", op->name);
        for (size_t j = 0; j < i; j++) ck_assert_str_ne(op->name, eqi_op_table[j]->name);
    }
    for (size_t j = 0; j < grad_case_count; j++) {
        bool known = false;
        for (size_t i = 0; i < eqi_op_count; i++)
            known = known || !strcmp(grad_cases[j].op, eqi_op_table[i]->name);
        ck_assert_msg(known, "%s tests %s, which is not in the table", grad_cases[j].name,
                      grad_cases[j].op);
    }
}
END_TEST

TCase *case_table(void)
{
    TCase *t = tcase_create("table");
    tcase_add_test(t, every_op_has_a_rule_and_a_test);
    return t;
}
