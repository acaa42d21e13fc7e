#include "train/schedule.h"

#include <math.h>

double eqi_schedule_factor(const eqi_schedule *s, int64_t k)
{
    if (k < s->warmup) return (double)k / (double)s->warmup;
    if (s->total == 0) return 1.0;
    if (k >= s->total) return s->floor;
    const double length = s->decay * (double)(s->total - s->warmup),
                 done = (double)(k - s->total) + length;
    if (done <= 0) return 1.0;
    return s->floor + (1.0 - s->floor) * 0.5 * (1.0 + cos(3.14159265358979323846 * done / length));
}
