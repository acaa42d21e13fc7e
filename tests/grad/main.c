#include "grad.h"

int main(void)
{
    Suite *suite = suite_create("grad");
    suite_add_tcase(suite, case_table());
    suite_add_tcase(suite, case_smooth());
    suite_add_tcase(suite, case_straight_through());
    suite_add_tcase(suite, case_backends());
    return run_suite(suite, CK_NOFORK);
}
