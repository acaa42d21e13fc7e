#include "api.h"
#include "run_suite.h"

int main(void)
{
    Suite *s = suite_create("api");
    suite_add_tcase(s, cancel_case());
    suite_add_tcase(s, floats_case());
    suite_add_tcase(s, frees_case());
    suite_add_tcase(s, options_case());
    suite_add_tcase(s, threads_case());
    return run_suite(s, CK_FORK_GETENV);
}
