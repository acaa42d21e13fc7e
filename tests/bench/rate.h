/* Threads that start together, for the measurements of the machine itself. */
#ifndef BENCH_RATE_H
#define BENCH_RATE_H

#include <stdint.h>

typedef void (*bench_share_fn)(void *arg, int thread, int threads);

/* Runs fn on `threads` threads of its own, which OpenMP inside oneDNN does not multiply, and
 * returns the seconds from their common start until the last one's end. */
double bench_together(int threads, bench_share_fn fn, void *arg);
int bench_processors(void);

#endif
