/* The learning-rate schedule. */
#ifndef EQI_TRAIN_SCHEDULE_H
#define EQI_TRAIN_SCHEDULE_H

#include <stdint.h>

/* Factor of the rate at step k (from 0): linear warm-up, then a cosine down to `floor`; total 0:
 * constant after the warm-up. */
double eqi_schedule_factor(int64_t k, int64_t warmup, int64_t total, double floor);

#endif
