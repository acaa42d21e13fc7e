#include <float.h>
#include <math.h>

#include "cpu/vec/rows.h"

/* Scales and zero points: the arithmetic of lib/cpu/ref/init.c, there explained, operation by
 * operation. */

/* What minmax finds in VL groups, one a lane. */
typedef struct starts {
    vf lo, hi, s, z;
} starts;

/* Lane i: the greatest of vector i, as unsigned integers. */
static inline vf greatest(vi of[VL])
{
    vi_transpose(of);
    for (int n = VL / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) of[i] = vi_max_unsigned(of[i], of[i + n]);
    return v_from_bits(of[0]);
}

/* Among floats read as signed integers the positive ones are the greatest, among unsigned ones the
 * negative; either by magnitude, and what is not finite is beyond all others. */
static inline void extend(vi *most, vi *least, vi w)
{
    *most = vi_max(*most, w);
    *least = vi_max_unsigned(*least, w);
}

/* Of count <= VL groups of n weights at from[]; the other lanes are those of zeros. */
static starts minmax(const float *const *from, int count, int64_t n, int bits)
{
    const int64_t whole = n - n % VL;
    vi most[VL], least[VL];
    for (int g = 0; g < VL; g++) {
        most[g] = least[g] = vi_set1(0);
        if (g >= count) continue;
        for (int64_t i = 0; i < whole; i += VL) extend(&most[g], &least[g], vi_load(from[g] + i));
        if (whole < n)
            extend(&most[g], &least[g], v_bits(v_load_n(from[g] + whole, (int)(n - whole))));
    }
    const vf zero = v_zero(), nan = v_set1(NAN), hi = greatest(most), low = greatest(least),
             lo = v_min(low, zero);
    const vm finite = vm_and(v_eq(v_sub(hi, hi), zero), v_eq(v_sub(low, low), zero));
    vf s = v_div(v_min(v_sub(hi, lo), v_set1(FLT_MAX)), v_set1((float)((1 << bits) - 1)));
    vf z = v_rint(v_div(v_sub(zero, lo), s));
    const vm small = v_lt(s, v_set1(FLT_MIN));
    s = v_sel(small, v_set1(EQI_SCALE_OF_ZEROS), s);
    z = v_sel(small, zero, z);
    return (starts){.lo = lo, .hi = hi, .s = v_sel(finite, s, nan), .z = v_sel(finite, z, nan)};
}

/* Of groups g.. of a row; the number that the row has, up to VL. */
static int minmax_at(starts *r, const float *w, int64_t g, int64_t groups, int64_t n, int bits)
{
    const int count = vec_step(groups - g);
    const float *from[VL];
    for (int i = 0; i < count; i++) from[i] = w + (g + i) * n;
    *r = minmax(from, count, n, bits);
    return count;
}

void VEC(minmax)(float *s, float *z, const float *w, int64_t groups, int64_t n, int bits)
{
    starts r;
    for (int64_t g = 0; g < groups; g += VL) {
        const int count = minmax_at(&r, w, g, groups, n, bits);
        v_store_n(s + g, r.s, count);
        v_store_n(z + g, r.z, count);
    }
}

void VEC(minmax_stored)(float *s, uint8_t *z, const float *w, int64_t groups, int64_t n, int bits)
{
    starts r;
    float zero[VL];
    for (int64_t g = 0; g < groups; g += VL) {
        const int count = minmax_at(&r, w, g, groups, n, bits);
        /* A step of minmax is above 0. A NaN stays one in s and becomes 0 in z. */
        v_store_n(s + g,
                  v_max(v_set1(EQI_SCALE_MIN), v_min(v_set1(EQI_SCALE_MAX), v_round_f16(r.s))),
                  count);
        v_store(zero, v_max(r.z, v_zero()));
        for (int i = 0; i < count; i++) z[g + i] = (uint8_t)zero[i];
    }
}

/* Groups side by side, one per lane; a lane's numbers are those that the group alone would give. */
typedef struct groups {
    const float *w; /* [n][EQI_MSE_GROUPS] */
    int64_t n;
    double top, least_z, most_z, lo[EQI_MSE_GROUPS], hi[EQI_MSE_GROUPS];
    float s[EQI_MSE_GROUPS], z[EQI_MSE_GROUPS]; /* the best so far */
    double error[EQI_MSE_GROUPS];
    bool live[EQI_MSE_GROUPS];
} groups;

typedef struct candidate {
    double s[EQI_MSE_GROUPS], z[EQI_MSE_GROUPS];
} candidate;

static inline vf code_of(vf w, vf s, vf z, vf top)
{
    return v_min(top, v_max(v_zero(), v_add(v_rint(v_div(w, s)), z)));
}

/* How often it is worth looking whether all lanes are worse than the best. */
#define LOOK 16

static void errors(const groups *g, const float *s, const float *z, double *sum)
{
    const vf top = v_set1((float)g->top);
    for (int l = 0; l < EQI_MSE_GROUPS; l += VL) {
        vd total = vd_zero();
        const vf step = v_load(s + l), zero = v_load(z + l);
        for (int64_t i = 0; i < g->n; i++) {
            vf w = v_load(g->w + i * EQI_MSE_GROUPS + l);
            vf value = v_mul(v_sub(code_of(w, step, zero, top), zero), step);
            vd e = vd_sub(vd_of(w), vd_of(value));
            total = vd_add(total, vd_mul(e, e));
            if (i % LOOK != LOOK - 1) continue;
            vd_store(sum + l, total);
            bool hope = false;
            for (int k = l; k < l + VL; k++) hope = hope || (g->live[k] && sum[k] < g->error[k]);
            if (!hope) break;
        }
        vd_store(sum + l, total);
    }
}

static void consider(groups *g, const candidate *c)
{
    float s[EQI_MSE_GROUPS], z[EQI_MSE_GROUPS];
    double error[EQI_MSE_GROUPS];
    bool fits[EQI_MSE_GROUPS], any = false;
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        s[l] = (float)c->s[l];
        z[l] = (float)c->z[l];
        fits[l] = g->live[l] && s[l] >= FLT_MIN && s[l] <= FLT_MAX && c->z[l] >= g->least_z &&
            c->z[l] <= g->most_z;
        any = any || fits[l];
    }
    if (!any) return;
    errors(g, s, z, error);
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        if (!fits[l] || !(error[l] < g->error[l])) continue;
        g->s[l] = s[l];
        g->z[l] = z[l];
        g->error[l] = error[l];
    }
}

static void refit(const groups *g, candidate *c, double d)
{
    const vf top = v_set1((float)g->top);
    for (int l = 0; l < EQI_MSE_GROUPS; l += VL) {
        vd above = vd_zero(), below = vd_zero();
        const vf step = v_load(g->s + l), zero = v_add(v_load(g->z + l), v_set1((float)d));
        for (int64_t i = 0; i < g->n; i++) {
            vf w = v_load(g->w + i * EQI_MSE_GROUPS + l);
            vd code = vd_of(v_sub(code_of(w, step, zero, top), zero));
            above = vd_add(above, vd_mul(vd_of(w), code));
            below = vd_add(below, vd_mul(code, code));
        }
        double a[VL], b[VL];
        vd_store(a, above);
        vd_store(b, below);
        for (int k = 0; k < VL; k++) c->s[l + k] = a[k] / b[k];
    }
    for (int l = 0; l < EQI_MSE_GROUPS; l++) c->z[l] = (double)g->z[l] + d;
}

static void grid(groups *g, const float *start)
{
    for (int i = g->least_z > 0.0 ? -8 : -4; i <= 32; i++) {
        candidate c;
        double upper[EQI_MSE_GROUPS], lower[EQI_MSE_GROUPS], last[EQI_MSE_GROUPS];
        for (int l = 0; l < EQI_MSE_GROUPS; l++) {
            c.s[l] = (double)(float)((double)start[l] * exp2(-i / 8.0));
            upper[l] = g->top - g->hi[l] / c.s[l];
            lower[l] = -g->lo[l] / c.s[l];
            last[l] = -1.0;
        }
        for (int j = 0; j <= 8; j++) {
            bool other = false;
            for (int l = 0; l < EQI_MSE_GROUPS; l++) {
                double z = rint(upper[l] + (lower[l] - upper[l]) * j / 8.0);
                c.z[l] = fmin(fmax(z, g->least_z), g->most_z);
                other = other || c.z[l] != last[l];
                last[l] = c.z[l];
            }
            if (other) consider(g, &c);
        }
    }
}

static void refine(groups *g)
{
    for (bool again = true; again;) {
        double before[EQI_MSE_GROUPS];
        memcpy(before, g->error, sizeof before);
        for (int d = -1; d <= 1; d++) {
            candidate c;
            refit(g, &c, d);
            consider(g, &c);
        }
        for (int j = 4; j <= 10; j++)
            for (int sign = 1; sign >= -1; sign -= 2) {
                candidate c;
                for (int l = 0; l < EQI_MSE_GROUPS; l++) {
                    c.s[l] = (double)g->s[l] * (1.0 + sign * exp2(-j));
                    c.z[l] = (double)g->z[l];
                }
                consider(g, &c);
            }
        again = false;
        for (int l = 0; l < EQI_MSE_GROUPS; l++) {
            g->live[l] = g->live[l] && g->error[l] < before[l];
            again = again || g->live[l];
        }
    }
}

void VEC(mse)(float *s, float *z, const float *const *from, int64_t n, int bits, bool middle,
              float *scratch)
{
    groups g = {.w = scratch, .n = n, .top = (double)((1 << bits) - 1)};
    g.least_z = middle ? floor(g.top / 2) : 0.0;
    g.most_z = middle ? ceil(g.top / 2) : g.top;
    for (int l = 0; l < EQI_MSE_GROUPS; l += VL) {
        starts r = minmax(from + l, VL, n, bits);
        const vd lo = vd_of(r.lo), hi = vd_of(r.hi);
        vd_store(g.lo + l, lo);
        vd_store(g.hi + l, hi);
        v_store(g.s + l, r.s);
        v_store(g.z + l, r.z);
    }
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        g.live[l] = !isnan(g.s[l]) && (g.lo[l] != 0.0 || g.hi[l] != 0.0);
        if (!isnan(g.s[l])) g.z[l] = fminf(fmaxf(g.z[l], (float)g.least_z), (float)g.most_z);
        g.error[l] = (double)INFINITY;
        for (int64_t i = 0; i < n; i++) scratch[i * EQI_MSE_GROUPS + l] = from[l][i];
    }
    float start[EQI_MSE_GROUPS];
    memcpy(start, g.s, sizeof start);
    double error[EQI_MSE_GROUPS];
    errors(&g, g.s, g.z, error);
    memcpy(g.error, error, sizeof error);
    grid(&g, start);
    refine(&g);
    memcpy(s, g.s, sizeof g.s);
    memcpy(z, g.z, sizeof g.z);
}
