/* Helpers that other tests share assert by Check, which wants a test to be running. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "run_suite.h"

void _mark_point(const char *file, int line) { (void)file, (void)line; }

void _ck_assert_failed(const char *file, int line, const char *expr, const char *message, ...)
{
    va_list list;
    va_start(list, message);
    fprintf(stderr, "%s:%d: %s\n", file, line, expr);
    if (message) vfprintf(stderr, message, list);
    va_end(list);
    abort();
}
