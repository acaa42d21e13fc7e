#include <float.h>

#include "cpu/ref/quant.h"

typedef struct group {
    bool wide;
    const double *w, *h; /* h: what the square of each error counts */
    int64_t n;
    double top, lo, hi;     /* lo <= 0 <= hi */
    double least_z, most_z; /* zero points to choose from */
    double squares;         /* sum h w^2 */
    int patience;           /* of the grid */
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

/* Sum of h (w - w^)^2. */
static double error_of(const group *g, double s, double z)
{
    double sum = 0.0;
    for (int64_t i = 0; i < g->n; i++) {
        double e = g->w[i] - ref_fake(g->wide, g->w[i], s, z, g->top).value;
        sum += g->h[i] * (e * e);
    }
    return sum;
}

/* The s that is best for the codes which s and z give. Of codes c = q - z the error is least at s =
 * sum h w c / sum h c^2, where it is sum h w^2 - (sum h w c)^2 / sum h c^2; the codes of that s can
 * only be better. */
static void fit(group *g, double s, double z)
{
    if (!(s >= (double)FLT_MIN && s <= (double)FLT_MAX && z >= g->least_z && z <= g->most_z))
        return;
    double above = 0.0, below = 0.0, inverse = ref_f(g->wide, 1.0 / s);
    for (int64_t i = 0; i < g->n; i++) {
        double c = ref_clamp(rint(ref_f(g->wide, g->w[i] * inverse)), 0.0 - z, g->top - z);
        double hc = g->h[i] * c;
        above += hc * g->w[i];
        below += hc * c;
    }
    double best = ref_f(g->wide, above / below), error = g->squares - above * (above / below);
    if (!(error < g->error && best >= (double)FLT_MIN && best <= (double)FLT_MAX)) return;
    g->s = best;
    g->z = z;
    g->error = error;
}

/* s times 2^(-i/16), i = -8..64 (few codes between outliers at both ends want a larger s than that
 * of minmax), from -16 on where z stays in the middle; for each, the z from keeping one end of the
 * range to keeping the other, between which the best lies: all, or 16 of them. Looked at after
 * every eighth, the grid ends where `patience` have been tried behind the best in vain: down to
 * half of its s, or a fourth where squares are weighted, few weights may count and there are fewer
 * than 16 codes. In five million groups of a trained model none ended elsewhere than by the whole
 * grid, with z in the middle one in 800000, and of weighted ones at 4 bits, of two models, four in
 * 900000. Not while more than a fourth of the squares is left: codes that are 0 but for an
 * outlier's stay so over many s. */
static void grid(group *g, double start)
{
    int best = 0;
    for (int i = g->least_z > 0.0 ? -16 : -8; i <= 64; i++) {
        double s = ref_f(g->wide, start * exp2(-i / 16.0)), upper = g->top - g->hi / s,
               lower = -g->lo / s;
        double first = ref_clamp(floor(fmin(upper, lower)), g->least_z, g->most_z),
               last = ref_clamp(ceil(fmax(upper, lower)), g->least_z, g->most_z),
               step = ceil((last - first + 1.0) / 16.0), before = g->error;
        for (double z = first; z <= last; z += step) fit(g, s, z);
        if (g->error < before) best = i;
        if ((i + 1) % 8 == 0 && i - best >= g->patience && g->error < g->squares / 4) return;
    }
}

/* The grid, each of whose points is fitted; then, while it helps, z - 1, z, z + 1 and s (1 +-
 * 2^-j), j = 4..10, around the best. The first of equals is kept, and minmax, its z moved to where
 * it may be, where nothing is better. Groups of 64 mostly end within 1% of the least error;
 * where outliers divide what is left among few codes, a narrow optimum may be missed. */
static void mse(group *g)
{
    minmax(g);
    if (isnan(g->s)) return;
    g->z = ref_clamp(g->z, g->least_z, g->most_z);
    if (g->lo == 0.0 && g->hi == 0.0) return;
    const group start = *g;
    g->squares = 0.0;
    for (int64_t i = 0; i < g->n; i++) g->squares += g->h[i] * (g->w[i] * g->w[i]);
    g->error = (double)INFINITY;
    grid(g, start.s);
    double before;
    do {
        const group best = *g;
        before = best.error;
        for (int d = -1; d <= 1; d++) fit(g, best.s, best.z + d);
        for (int j = 4; j <= 10; j++) {
            fit(g, ref_f(g->wide, best.s * (1.0 + exp2(-j))), best.z);
            fit(g, ref_f(g->wide, best.s * (1.0 - exp2(-j))), best.z);
        }
    } while (g->error < before);
    if (error_of(g, g->s, g->z) < error_of(g, start.s, start.z)) return;
    g->s = start.s;
    g->z = start.z;
}

static eqat_status init(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w,
                        const eqi_view *h, const eqi_quant_desc *q, void (*start)(group *g))
{
    double *weights = eqi_alloc(ctx, 2 * (size_t)q->group * sizeof *weights, "a group of weights");
    if (!weights) return EQAT_OUT_OF_MEMORY;
    double *counts = weights + q->group;
    for (int64_t n = 0; n < eqi_view_rows(w); n++)
        for (int64_t first = 0; first < ref_width(w); first += q->group) {
            for (int64_t i = 0; i < q->group; i++) {
                weights[i] = ref_get(w, ref_at(w, n, first + i));
                counts[i] = h ? ref_get(h, first + i) : 1.0;
            }
            group g = {.wide = ref_is_wide(w),
                       .w = weights,
                       .h = counts,
                       .n = q->group,
                       .top = ref_top(q),
                       .patience = h && q->bits < 4 ? 32 : 16};
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
    return init(ctx, s, z, w, NULL, q, minmax);
}

eqat_status eqi_ref_init_mse(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w,
                             const eqi_view *h, const eqi_quant_desc *q)
{
    return init(ctx, s, z, w, h, q, mse);
}
