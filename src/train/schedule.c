#include "train/schedule.h"

#include <math.h>

double eqi_schedule_factor(int64_t k, int64_t warmup, int64_t total, double floor)
{
    if (k < warmup) return (double)k / (double)warmup;
    if (total == 0) return 1.0;
    if (k >= total) return floor;
    double done = (double)(k - warmup) / (double)(total - warmup);
    return floor + (1.0 - floor) * 0.5 * (1.0 + cos(3.14159265358979323846 * done));
}
