/* The learning-rate schedule. */
#ifndef EQI_TRAIN_SCHEDULE_H
#define EQI_TRAIN_SCHEDULE_H

#include <stdint.h>

typedef struct eqi_schedule {
    int64_t warmup, total; /* steps; total 0: constant after the warm-up */
    double decay;          /* share of the steps after the warm-up, the last of them, that decay */
    double floor;          /* where the decay ends */
} eqi_schedule;

/* Factor of the rate at step k (from 0): linear warm-up, 1, then a cosine down to the floor. */
double eqi_schedule_factor(const eqi_schedule *s, int64_t k);

#endif
