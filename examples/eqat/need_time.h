/* Seconds that a run takes, from a few steps of its first block on tokens that mean nothing. */
#ifndef EQAT_TOOL_NEED_TIME_H
#define EQAT_TOOL_NEED_TIME_H

#include "need_sizes.h"

/* NAN when the run is too short to be worth a measurement. Fills in t->costs. */
eqat_status need_time(tool *t, const need *n, const need_sizes *s, double *seconds);

#endif
