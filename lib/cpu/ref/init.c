#include <float.h>

#include "cpu/ref/quant.h"

typedef struct group {
    bool wide;
    const double *w;
    int64_t n;
    double top, lo, hi;     /* lo <= 0 <= hi */
    double least_z, most_z; /* zero points to choose from */
    double s, z, error;     /* the best so far */
} group;

/* s = (max - min) / Q, z = rne(-min / s), with these exceptions: a group of zeros, or of weights so
 * small that s is not a normal f32, gets s = EQI_SCALE_OF_ZEROS and z = 0, by which every weight
 * becomes 0; a range above the largest f32 counts as the largest; a weight that is not finite makes
 * s and z NaN. */
static void minmax(group *g)
{
    g->lo = g->hi = 0.0;
    for (int64_t i = 0; i < g->n; i++) {
        if (!isfinite(g->w[i])) {
            g->s = g->z = (double)NAN;
            return;
        }
        if (g->w[i] < g->lo) g->lo = g->w[i];
        if (g->w[i] > g->hi) g->hi = g->w[i];
    }
    double range = ref_f(g->wide, g->hi - g->lo);
    if (range > (double)FLT_MAX) range = (double)FLT_MAX;
    g->s = ref_f(g->wide, range / g->top);
    g->z = g->s < (double)FLT_MIN ? 0.0 : rint(ref_f(g->wide, (0.0 - g->lo) / g->s));
    if (g->s < (double)FLT_MIN) g->s = (double)EQI_SCALE_OF_ZEROS;
}

/* Sum of (w - w^)^2, given up once it is no better than the best. */
static double error_of(const group *g, double s, double z, double limit)
{
    double sum = 0.0;
    for (int64_t i = 0; i < g->n && sum < limit; i++) {
        double e = g->w[i] - ref_fake(g->wide, g->w[i], s, z, g->top).value;
        sum += e * e;
    }
    return sum;
}

static void consider(group *g, double s, double z)
{
    s = ref_f(g->wide, s);
    if (!(s >= (double)FLT_MIN && s <= (double)FLT_MAX && z >= g->least_z && z <= g->most_z))
        return;
    double error = error_of(g, s, z, g->error);
    if (!(error < g->error)) return;
    g->s = s;
    g->z = z;
    g->error = error;
}

/* The s of least squared error for the codes that s and z give: sum w (q - z) / sum (q - z)^2. */
static double refit(const group *g, double s, double z)
{
    double above = 0.0, below = 0.0;
    for (int64_t i = 0; i < g->n; i++) {
        double c = ref_fake(g->wide, g->w[i], s, z, g->top).q - z;
        above += g->w[i] * c;
        below += c * c;
    }
    return above / below;
}

/* Starting from minmax, its z moved to where it may be, keeping the first of equals: a grid, then
 * refinement while it helps.
 * Grid: s times 2^(-i/8), i = -4..32 (few codes between outliers at both ends want a larger s than
 * that of minmax), from -8 on where z stays in the middle; for each, z in nine steps from keeping
 * the upper end of the range to keeping the lower end. Refinement: for z - 1, z, z + 1 the s that
 * refits the codes; s (1 +- 2^-j), j = 4..10. Groups of 64 around zero end within 2% of the least
 * error; narrow ones far from it, up to 6%. */
static void mse(group *g)
{
    minmax(g);
    if (isnan(g->s)) return;
    g->z = ref_clamp(g->z, g->least_z, g->most_z);
    if (g->lo == 0.0 && g->hi == 0.0) return;
    double s0 = g->s;
    g->error = error_of(g, g->s, g->z, (double)INFINITY);
    for (int i = g->least_z > 0.0 ? -8 : -4; i <= 32; i++) {
        double s = ref_f(g->wide, s0 * exp2(-i / 8.0)), upper = g->top - g->hi / s,
               lower = -g->lo / s, last = -1.0;
        for (int j = 0; j <= 8; j++) {
            double z = ref_clamp(rint(upper + (lower - upper) * j / 8.0), g->least_z, g->most_z);
            if (z != last) consider(g, s, z);
            last = z;
        }
    }
    double before;
    do {
        before = g->error;
        for (int d = -1; d <= 1; d++) consider(g, refit(g, g->s, g->z + d), g->z + d);
        for (int j = 4; j <= 10; j++) {
            consider(g, g->s * (1.0 + exp2(-j)), g->z);
            consider(g, g->s * (1.0 - exp2(-j)), g->z);
        }
    } while (g->error < before);
}

static eqat_status init(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w,
                        const eqi_quant_desc *q, void (*start)(group *g))
{
    double *weights = eqi_alloc(ctx, (size_t)q->group * sizeof *weights, "a group of weights");
    if (!weights) return EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < eqi_view_rows(w); n++)
        for (int64_t first = 0; first < ref_width(w); first += q->group) {
            for (int64_t i = 0; i < q->group; i++) weights[i] = ref_get(w, ref_at(w, n, first + i));
            group g = {.wide = ref_is_wide(w), .w = weights, .n = q->group, .top = ref_top(q)};
            g.least_z = q->middle ? floor(g.top / 2) : 0.0;
            g.most_z = q->middle ? ceil(g.top / 2) : g.top;
            start(&g);
            ref_put(s, ref_at(s, n, first / q->group), g.s);
            ref_put(z, ref_at(z, n, first / q->group), g.z);
        }
    eqi_free(ctx, weights);
    return EQAT_OK;
}

eqat_status eqi_ref_init_minmax(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z,
                                const eqi_view *w, const eqi_quant_desc *q)
{
    return init(ctx, s, z, w, q, minmax);
}

eqat_status eqi_ref_init_mse(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w,
                             const eqi_quant_desc *q)
{
    return init(ctx, s, z, w, q, mse);
}
