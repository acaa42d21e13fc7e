/* How a program of Check tests ends. */
#ifndef TESTS_SUPPORT_RUN_SUITE_H
#define TESTS_SUPPORT_RUN_SUITE_H

#include <check.h>

/* Runs the tests and returns the exit status. CK_FORK_GETENV: each test has a process and a time
 * limit of its own, unless the environment says CK_FORK=no; for what may crash. CK_NOFORK: all in
 * this process; for contexts with threads, because a failing test must not leave a fork of the
 * runner behind them. */
int run_suite(Suite *suite, enum fork_status status);
/* A suite of one case. */
int run_case(const char *suite, TCase *tests, enum fork_status status);

#endif
