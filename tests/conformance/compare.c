#include <stdlib.h>

#include "suite.h"

/* "[2, 3]" of element i */
static const char *where(const arg *a, int64_t i, char *text, size_t size)
{
    int64_t at[EQI_MAX_DIMS] = {0};
    for (int d = a->v.ndim - 1; d >= 0; d--) {
        at[d] = i % a->v.shape[d];
        i /= a->v.shape[d];
    }
    int n = snprintf(text, size, "%s[", a->name);
    for (int d = 0; d < a->v.ndim; d++)
        n += snprintf(text + n, size - (size_t)n, d ? ", %lld" : "%lld", (long long)at[d]);
    snprintf(text + n, size - (size_t)n, "]");
    return text;
}

static bool same_bits(double a, double b)
{
    return (isnan(a) && isnan(b)) || (a == b && signbit(a) == signbit(b));
}

/* Compares one value, counts the worst; `top` is the largest finite value of the dtype. */
static bool close_enough(suite *s, double got, double want, double allowed, double top)
{
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got);
    if (fabs(want) > top) want = copysign((double)INFINITY, want);
    if (isinf(want) || isinf(got))
        return got == want || (isinf(got) && fabs(want) + allowed > top && got * want > 0);
    double error = fabs(got - want);
    if (error > 0 && error / allowed > s->worst) s->worst = error / allowed;
    return error <= allowed;
}

static double top_of(eqi_dtype dtype)
{
    switch (dtype) {
    case EQI_F64: return DBL_MAX;
    case EQI_BF16: return 0x1.fep127;
    case EQI_F16: return 65504.0;
    default: return (double)FLT_MAX;
    }
}

/* Half a unit in the last place for the store, eps * mag for the arithmetic before it, and what
 * flushing subnormal numbers to zero may cost. */
void suite_compare(suite *s, arg *a)
{
    for (int64_t i = 0; i < a->count; i++) {
        double want = a->ref[i], got = a->got[i], allowed = 0.0;
        bool ok;
        if (a->match == EXACT || !eqi_dtype_is_float(a->v.dtype)) {
            ok = same_bits(got, want);
        } else {
            double mag = fmax(a->mag[i], fabs(want));
            allowed = 1.001 * unit_roundoff(a->v.dtype) * fabs(want) + a->eps * mag +
                (a->v.dtype == EQI_F64 ? 1e-300 : 1e-30);
            ok = close_enough(s, got, want, allowed, top_of(a->v.dtype));
        }
        if (ok) continue;
        char text[120];
        suite_fail(s, "%s: found %.9g, expected %.9g, allowed %.3g", where(a, i, text, sizeof text),
                   got, want, allowed);
        return;
    }
}

/* The reference against the check's own lines: both compute in f64, or (SAME) the reference in the
 * dtype. */
void suite_compare_again(suite *s, arg *a)
{
    double worst = s->worst;
    for (int64_t i = 0; i < a->count; i++) {
        double want = a->again[i], got = a->ref[i], mag = fmax(a->mag[i], fabs(want));
        double allowed = (a->v.dtype == EQI_F64 ? 1.0 : 0x1p-19) * a->eps * mag + 1e-300;
        if (a->match == SAME)
            allowed = 1.001 * unit_roundoff(a->v.dtype) * fabs(want) + a->eps * mag;
        bool ok = a->match == EXACT || !eqi_dtype_is_float(a->v.dtype)
            ? same_bits(got, want)
            : close_enough(s, got, want, allowed, DBL_MAX);
        if (ok) continue;
        char text[120];
        suite_fail(s, "%s: the reference gives %.17g, the check %.17g",
                   where(a, i, text, sizeof text), got, want);
        break;
    }
    s->worst = worst;
}

void suite_compare_bytes(suite *s, const arg *a, const unsigned char *image, size_t size)
{
    if (a->first && memcmp(image, a->first, size) != 0)
        suite_fail(s, "%s depends on the number of threads", a->name);
}

/* All bytes that are not the view's own keep their value. */
void suite_check_untouched(suite *s, const arg *a, const unsigned char *image)
{
    unsigned char *own = calloc(a->size ? a->size : 1, 1);
    if (!own) return suite_fail(s, "out of memory");
    size_t item = eqi_dtype_size(a->v.dtype),
           front = (size_t)((unsigned char *)a->v.data - a->image);
    for (int64_t i = 0; i < a->count; i++) {
        int64_t at = 0, rest = i;
        for (int d = a->v.ndim - 1; d >= 0; d--) {
            at += rest % a->v.shape[d] * a->v.stride[d];
            rest /= a->v.shape[d];
        }
        memset(own + front + (size_t)at * item, 1, item);
    }
    for (size_t i = 0; i < a->size; i++)
        if (!own[i] && image[i] != a->image[i]) {
            suite_fail(s, "wrote outside %s, %lld bytes from its first element", a->name,
                       (long long)i - (long long)front);
            break;
        }
    free(own);
}
