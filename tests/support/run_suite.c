#include "run_suite.h"

#include <stdlib.h>

int run_suite(Suite *suite, enum fork_status status)
{
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, status);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int run_case(const char *suite, TCase *tests, enum fork_status status)
{
    Suite *alone = suite_create(suite);
    suite_add_tcase(alone, tests);
    return run_suite(alone, status);
}
