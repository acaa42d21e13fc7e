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
    const float *w;       /* [n][EQI_MSE_GROUPS] */
    const double *h, *hw; /* the same; h w has no rounding */
    int64_t n;
    int patience;
    double top, least_z, most_z, lo[EQI_MSE_GROUPS], hi[EQI_MSE_GROUPS];
    double squares[EQI_MSE_GROUPS];
    float s[EQI_MSE_GROUPS], z[EQI_MSE_GROUPS]; /* the best so far */
    double error[EQI_MSE_GROUPS];
    bool live[EQI_MSE_GROUPS];
} groups;

typedef struct candidate {
    float s[EQI_MSE_GROUPS], z[EQI_MSE_GROUPS];
    bool fits[EQI_MSE_GROUPS];
} candidate;

/* Sums of h (w - w^)^2. */
static void errors(const groups *g, const float *s, const float *z, double *sum)
{
    const vf top = v_set1((float)g->top);
    for (int l = 0; l < EQI_MSE_GROUPS; l += VL) {
        vd total = vd_zero();
        const vf step = v_load(s + l), zero = v_load(z + l);
        for (int64_t i = l; i < g->n * EQI_MSE_GROUPS; i += EQI_MSE_GROUPS) {
            const vf w = v_load(g->w + i),
                     code = v_min(top, v_max(v_zero(), v_add(v_rint(v_div(w, step)), zero)));
            const vd e = vd_sub(vd_of(w), vd_of(v_mul(v_sub(code, zero), step)));
            total = vd_add(total, vd_mul(vd_load(g->h + i), vd_mul(e, e)));
        }
        vd_store(sum + l, total);
    }
}

/* Whether any lane has a use for it. */
static bool check(const groups *g, candidate *c)
{
    bool any = false;
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        const double z = (double)c->z[l];
        c->fits[l] = g->live[l] && c->s[l] >= FLT_MIN && c->s[l] <= FLT_MAX && z >= g->least_z &&
            z <= g->most_z;
        any = any || c->fits[l];
    }
    return any;
}

/* Sums of h w c and h c^2. */
static void sums(const groups *g, const candidate *c, double *above, double *below)
{
    const vf top = v_set1((float)g->top);
    for (int l = 0; l < EQI_MSE_GROUPS; l += VL) {
        vd a = vd_zero(), b = vd_zero();
        const vf inverse = v_div(v_set1(1.0f), v_load(c->s + l)), zero = v_load(c->z + l),
                 least = v_sub(v_zero(), zero), most = v_sub(top, zero);
        for (int64_t i = l; i < g->n * EQI_MSE_GROUPS; i += EQI_MSE_GROUPS) {
            const vf ideal = v_mul(v_load(g->w + i), inverse);
            const vd code = vd_of(v_min(most, v_max(least, v_rint(ideal))));
            a = vd_add(a, vd_mul(vd_load(g->hw + i), code));
            b = vd_add(b, vd_mul(vd_mul(vd_load(g->h + i), code), code));
        }
        vd_store(above + l, a);
        vd_store(below + l, b);
    }
}

static void fit(groups *g, candidate *c)
{
    double above[EQI_MSE_GROUPS], below[EQI_MSE_GROUPS];
    if (!check(g, c)) return;
    sums(g, c, above, below);
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        const double ratio = above[l] / below[l], error = g->squares[l] - above[l] * ratio;
        const float best = (float)ratio;
        if (!(c->fits[l] && error < g->error[l] && best >= FLT_MIN && best <= FLT_MAX)) continue;
        g->s[l] = best;
        g->z[l] = c->z[l];
        g->error[l] = error;
    }
}

/* Of one s for each lane, the zero points. */
static void fit_zeros(groups *g, candidate *c)
{
    double last[EQI_MSE_GROUPS], step[EQI_MSE_GROUPS];
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        const double s = (double)c->s[l], upper = g->top - g->hi[l] / s, lower = -g->lo[l] / s,
                     first = fmin(fmax(floor(fmin(upper, lower)), g->least_z), g->most_z);
        last[l] = fmin(fmax(ceil(fmax(upper, lower)), g->least_z), g->most_z);
        step[l] = ceil((last[l] - first + 1.0) / 16.0);
        c->z[l] = (float)first;
    }
    for (bool more = true; more;) {
        fit(g, c);
        more = false;
        for (int l = 0; l < EQI_MSE_GROUPS; l++) {
            const double next = (double)c->z[l] + step[l];
            if (!(next <= last[l])) continue;
            c->z[l] = (float)next;
            more = true;
        }
    }
}

static void grid(groups *g, const float *start)
{
    int best[EQI_MSE_GROUPS] = {0};
    bool live[EQI_MSE_GROUPS], any = true;
    memcpy(live, g->live, sizeof live);
    for (int i = g->least_z > 0.0 ? -16 : -8; i <= 64 && any; i++) {
        double before[EQI_MSE_GROUPS];
        candidate c;
        memcpy(before, g->error, sizeof before);
        for (int l = 0; l < EQI_MSE_GROUPS; l++)
            c.s[l] = (float)((double)start[l] * exp2(-i / 16.0));
        fit_zeros(g, &c);
        any = false;
        for (int l = 0; l < EQI_MSE_GROUPS; l++) {
            if (g->error[l] < before[l]) best[l] = i;
            if ((i + 1) % 8 == 0 && i - best[l] >= g->patience && g->error[l] < g->squares[l] / 4)
                g->live[l] = false;
            any = any || g->live[l];
        }
    }
    memcpy(g->live, live, sizeof live);
}

static void refine(groups *g)
{
    for (bool again = true; again;) {
        double before[EQI_MSE_GROUPS];
        candidate best, c;
        memcpy(before, g->error, sizeof before);
        memcpy(best.s, g->s, sizeof best.s);
        memcpy(best.z, g->z, sizeof best.z);
        for (int d = -1; d <= 1; d++) {
            c = best;
            for (int l = 0; l < EQI_MSE_GROUPS; l++) c.z[l] += (float)d;
            fit(g, &c);
        }
        for (int j = 4; j <= 10; j++)
            for (int sign = 1; sign >= -1; sign -= 2) {
                c = best;
                for (int l = 0; l < EQI_MSE_GROUPS; l++)
                    c.s[l] = (float)((double)best.s[l] * (1.0 + sign * exp2(-j)));
                fit(g, &c);
            }
        again = false;
        for (int l = 0; l < EQI_MSE_GROUPS; l++) {
            g->live[l] = g->live[l] && g->error[l] < before[l];
            again = again || g->live[l];
        }
    }
}

/* Where the best is no better, minmax. */
static void fall_back(groups *g, const float *s, const float *z)
{
    double start[EQI_MSE_GROUPS], found[EQI_MSE_GROUPS];
    errors(g, s, z, start);
    errors(g, g->s, g->z, found);
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        if (found[l] < start[l]) continue;
        g->s[l] = s[l];
        g->z[l] = z[l];
    }
}

/* Minmax, with its z where it may be, and the sums of h w^2. */
static void begin(groups *g, const float *const *from, int bits)
{
    for (int l = 0; l < EQI_MSE_GROUPS; l += VL) {
        const starts r = minmax(from + l, VL, g->n, bits);
        const vd lo = vd_of(r.lo), hi = vd_of(r.hi);
        vd_store(g->lo + l, lo);
        vd_store(g->hi + l, hi);
        v_store(g->s + l, r.s);
        v_store(g->z + l, r.z);
        vd squares = vd_zero();
        for (int64_t i = l; i < g->n * EQI_MSE_GROUPS; i += EQI_MSE_GROUPS) {
            const vd w = vd_of(v_load(g->w + i));
            squares = vd_add(squares, vd_mul(vd_load(g->h + i), vd_mul(w, w)));
        }
        vd_store(g->squares + l, squares);
    }
    for (int l = 0; l < EQI_MSE_GROUPS; l++) {
        g->error[l] = (double)INFINITY;
        g->live[l] = !isnan(g->s[l]) && (g->lo[l] != 0.0 || g->hi[l] != 0.0);
        if (!isnan(g->s[l])) g->z[l] = fminf(fmaxf(g->z[l], (float)g->least_z), (float)g->most_z);
    }
}

void VEC(mse)(float *s, float *z, const float *const *from, const float *const *counts, int64_t n,
              int bits, bool middle, double *scratch)
{
    double *h = scratch, *hw = h + n * EQI_MSE_GROUPS;
    float *w = (float *)(hw + n * EQI_MSE_GROUPS);
    groups g = {.w = w, .h = h, .hw = hw, .n = n, .top = (double)((1 << bits) - 1)};
    g.patience = counts && bits < 4 ? 32 : 16;
    g.least_z = middle ? floor(g.top / 2) : 0.0;
    g.most_z = middle ? ceil(g.top / 2) : g.top;
    for (int l = 0; l < EQI_MSE_GROUPS; l++)
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = i * EQI_MSE_GROUPS + l;
            w[at] = from[l][i];
            h[at] = counts ? (double)counts[l][i] : 1.0;
            hw[at] = h[at] * (double)w[at];
        }
    begin(&g, from, bits);
    memcpy(s, g.s, sizeof g.s);
    memcpy(z, g.z, sizeof g.z);
    grid(&g, s);
    refine(&g);
    fall_back(&g, s, z);
    memcpy(s, g.s, sizeof g.s);
    memcpy(z, g.z, sizeof g.z);
}
