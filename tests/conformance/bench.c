#include <stdlib.h>
#include <time.h>

#include "suite.h"

#define MAX_TIMES 400

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* More than this is not asked of the reference. */
#define REFERENCE_FLOPS 2e9

/* Median over as many calls as fit the budget; on a GPU a call ends when the device is done. */
static double median_ns(const eqi_backend *b, eqi_ctx *ctx, suite_call call,
                        const eqi_view *const *v, const void *params, double budget)
{
    double times[MAX_TIMES], begin = now();
    int n = 0;
    do {
        double t = now();
        if (call(b, ctx, v, params) != EQAT_OK || b->synchronize(ctx) != EQAT_OK)
            return (double)NAN;
        times[n++] = now() - t;
    } while (n < MAX_TIMES && now() - begin < (n < 3 ? 4.0 : 1.0) * budget);
    qsort(times + (n > 2), (size_t)(n - (n > 2)), sizeof *times, by_value); /* the first warms up */
    return times[(n + (n > 2)) / 2];
}

void suite_time(suite *s, suite_call call, const void *params)
{
    eqi_view v[SUITE_ARGS];
    const eqi_view *p[SUITE_ARGS] = {0};
    void *device[SUITE_ARGS] = {0};
    bool is_ref = strcmp(s->device, "ref") == 0;
    if (is_ref && s->flops > REFERENCE_FLOPS) goto done;
    for (int i = 0; i < s->args; i++) {
        arg *a = &s->arg[i];
        if (a->absent) continue;
        device[i] = s->b->alloc(s->timed, a->size);
        if (!device[i] || s->b->upload(s->timed, device[i], a->image, a->size) != EQAT_OK) {
            suite_fail(s, "no memory for %s", a->name);
            goto done;
        }
        v[i] = a->v;
        v[i].data = device[i];
        p[i] = &v[i];
    }
    double mine = median_ns(s->b, s->timed, call, p, params, 0.4e9);
    for (int i = 0; i < s->args; i++)
        if (p[i]) v[i] = s->arg[i].v;
    printf("%-22s %-44s %12.0f ns", s->op, s->label, mine);
    if (s->flops > 0) printf(" %9.2f GFLOP/s", s->flops / mine);
    if (s->bytes > 0) printf(" %9.2f GB/s   ", s->bytes / mine);
    if (!is_ref && s->flops <= REFERENCE_FLOPS)
        printf("  ref/%s %.1f", s->device,
               median_ns(&eqi_backend_ref, s->ref, call, p, params, 0.1e9) / mine);
    putchar('\n');
    fflush(stdout);
done:
    for (int i = 0; i < s->args; i++)
        if (device[i]) s->b->free(s->timed, device[i], s->arg[i].size);
    s->flops = s->bytes = 0;
}
