#include "plain.h"

int64_t odd_size(suite *s, int64_t most)
{
    static const int64_t sizes[] = {1,  2,  3,  5,  7,  8,   15,  16,  17,  31,  32,  33,
                                    48, 63, 64, 65, 96, 100, 127, 128, 129, 130, 200, 257};
    int64_t n;
    do n = sizes[suite_pick(s, 0, (int64_t)EQI_COUNT(sizes) - 1)];
    while (n > most);
    return n > 8 && suite_is_aligned(s) && s->run % 8 != 2 ? n / 8 * 8 : n;
}

int64_t odd_rows(suite *s)
{
    static const int64_t rows[] = {1, 1, 2, 3, 4, 5, 8, 15, 16, 17, 33, 70};
    if (s->run % 9 == 4) return 0; /* not by chance */
    return rows[suite_pick(s, 0, (int64_t)EQI_COUNT(rows) - 1)];
}

const char *flavour_name(flavour f)
{
    static const char *const names[] = {"normal", "scaled", "zero", "nan", "inf"};
    return names[f];
}

void arg_flavour(suite *s, arg *a, flavour f)
{
    static const double scales[] = {1.0, 0x1p-40, 0x1p40, 0x1p-8, -0x1p10};
    int64_t width = a->v.ndim ? a->v.shape[a->v.ndim - 1] : 1;
    double scale = 1.0;
    for (int64_t i = 0; i < a->count; i++) {
        if (f == SCALED && i % width == 0) scale = scales[suite_pick(s, 0, 4)];
        arg_set(a, i, f == ZERO ? 0.0 : scale * suite_normal(s));
    }
    if (a->count && f == WITH_NAN) arg_set(a, suite_pick(s, 0, a->count - 1), (double)NAN);
    if (a->count && f == WITH_INF) arg_set(a, suite_pick(s, 0, a->count - 1), -(double)INFINITY);
}

void plain_start(arg *a)
{
    for (int64_t i = 0; i < a->count; i++) {
        a->again[i] = a->role == ACC ? a->in[i] : 0.0;
        a->mag[i] = fabs(a->again[i]);
    }
}

void plain_term(arg *a, int64_t i, double term)
{
    a->again[i] += term;
    a->mag[i] += fabs(term);
}

void plain_product(arg *y, const double *x, const double *w, int64_t rows, int64_t out, int64_t in)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < out; n++)
            for (int64_t k = 0; k < in; k++)
                plain_term(y, r * out + n, x[r * in + k] * w[n * in + k]);
}

void plain_product_bwd_x(arg *dx, const double *dy, const double *w, int64_t rows, int64_t out,
                         int64_t in)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < out; n++)
            for (int64_t k = 0; k < in; k++)
                plain_term(dx, r * in + k, dy[r * out + n] * w[n * in + k]);
}

void plain_product_bwd_w(arg *dw, const double *dy, const double *x, int64_t rows, int64_t out,
                         int64_t in)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t n = 0; n < out; n++)
            for (int64_t k = 0; k < in; k++)
                plain_term(dw, n * in + k, dy[r * out + n] * x[r * in + k]);
}

#define LIMIT(x, lo, hi) ((x) < (lo) ? (lo) : (x) > (hi) ? (hi) : (x))

/* docs/numerics.md, once for each type of arithmetic */
#define QUANTIZE(NAME, T, RINT)                                                        \
    static plain_fq NAME(T w, T s, T z, int bits, bool clamp)                          \
    {                                                                                  \
        T top = (T)((1 << bits) - 1);                                                  \
        T step = clamp ? LIMIT(s, (T)0x1p-24, (T)65504) : s;                           \
        T zero = RINT(z);                                                              \
        zero = LIMIT(zero, (T)0, top);                                                 \
        T t = w / step;                                                                \
        T r = RINT(t);                                                                 \
        T u = r + zero;                                                                \
        T code = LIMIT(u, (T)0, top);                                                  \
        T offset = code - zero;                                                        \
        T value = offset * step;                                                       \
        bool inside = (T)0 <= u && u <= top;                                           \
        plain_fq f = {.code = (double)code, .value = (double)value, .inside = inside}; \
        f.coefficient_s = inside ? (double)(r - t) : (double)offset;                   \
        f.coefficient_z = inside ? 0.0 : -(double)step;                                \
        return f;                                                                      \
    }
QUANTIZE(quantize_f32, float, rintf)
QUANTIZE(quantize_f64, double, rint)

plain_fq plain_quantize(bool wide, double w, double s, double z, int bits, bool clamp)
{
    return wide ? quantize_f64(w, s, z, bits, clamp)
                : quantize_f32((float)w, (float)s, (float)z, bits, clamp);
}

void plain_minmax(const double *w, int64_t n, int bits, bool wide, double *step, double *zero)
{
    double lo = 0.0, hi = 0.0, top = (double)((1 << bits) - 1);
    for (int64_t i = 0; i < n; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
        if (!isfinite(w[i])) {
            *step = *zero = (double)NAN;
            return;
        }
    }
    if (wide) {
        *step = (hi - lo) / top;
        *zero = rint(-lo / *step);
    } else {
        float range = fminf((float)hi - (float)lo, FLT_MAX), st = range / (float)top;
        *step = (double)st;
        *zero = (double)rintf(-(float)lo / st);
    }
    if (*step < (double)FLT_MIN) {
        *step = (double)EQI_SCALE_OF_ZEROS;
        *zero = 0.0;
    }
    *zero += 0.0; /* -0 becomes 0 */
}

void plain_pack(uint32_t *row, const int *codes, int64_t n, int bits)
{
    memset(row, 0, (size_t)(n * bits / 8));
    for (int64_t i = 0; i < n * bits; i++)
        if (codes[i / bits] >> (i % bits) & 1)
            ((unsigned char *)row)[i / 8] |= (unsigned char)(1u << (i % 8));
}

int plain_unpack(const uint32_t *row, int64_t i, int bits)
{
    const unsigned char *bytes = (const unsigned char *)row;
    int code = 0;
    for (int b = bits - 1; b >= 0; b--)
        code = 2 * code + (bytes[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1);
    return code;
}

void arg_weight(suite *s, arg *w, arg *step, arg *zero, const eqi_quant_desc *q, bool wild)
{
    double top = (double)((1 << q->bits) - 1);
    int64_t in = w->v.shape[1], groups = in / q->group;
    for (int64_t g = 0; g < step->count; g++) {
        arg_set(step, g, 0.02 * exp(0.5 * suite_normal(s)));
        /* Between integers and beyond both ends on purpose. */
        double z = suite_coin(s) ? (double)suite_pick(s, 0, (int64_t)top)
                                 : top * (1.4 * suite_uniform(s) - 0.2);
        if (suite_pick(s, 0, 9) == 0) z = floor(z) + 0.5;
        arg_set(zero, g, zero->v.dtype == EQI_U8 ? fmin(fmax(rint(z), 0.0), top) : z);
        static const double odd[] = {1e-9, 0x1p-24, 1e5, 0x1p-6, 1e-30, 0.0, -0.01};
        if (wild && suite_pick(s, 0, 3) == 0)
            arg_set(step, g, odd[suite_pick(s, 0, q->clamp ? 6 : 4)]);
    }
    for (int64_t i = 0; i < w->count; i++) {
        double st = arg_value(step, i / in * groups + i % in / q->group);
        double v = 0.25 * (top + 1) * suite_normal(s);
        if (suite_pick(s, 0, 15) == 0) v = rint(v) + 0.5; /* a tie */
        arg_set(w, i, v * st);
    }
    if (wild) {
        arg_sprinkle(s, w, 0.0, 30);
        arg_sprinkle(s, w, -0.0, 30);
        arg_sprinkle(s, w, 1e30, 200);
        arg_sprinkle(s, w, (double)NAN, 300);
        arg_sprinkle(s, w, -(double)INFINITY, 300);
    }
}

int64_t random_group(suite *s, int64_t in)
{
    int64_t divisors[64], n = 0;
    for (int64_t g = 1; g <= in && n < 64; g++)
        if (in % g == 0) divisors[n++] = g;
    return divisors[suite_pick(s, 0, n - 1)];
}

int64_t whole_group(suite *s, int64_t in)
{
    int64_t g;
    do g = 32 * suite_pick(s, 1, in / 32);
    while (in % g);
    return g;
}

typedef struct known {
    suite_call call;
    const void *params;
    const double *expected;
} known;

static eqat_status call_known(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                              const void *p)
{
    const known *k = p;
    return k->call(b, ctx, v, k->params);
}

static void again_known(suite *s, const void *p)
{
    const double *next = ((const known *)p)->expected;
    for (int i = 0; i < s->args; i++)
        for (int64_t e = 0; !s->arg[i].absent && s->arg[i].role != IN && e < s->arg[i].count; e++) {
            s->arg[i].again[e] = *next++;
            s->arg[i].mag[e] = 1.0;
        }
}

void known_run(suite *s, suite_call call, const void *params, const double *expected)
{
    suite_run(s, call_known, again_known,
              &(known){.call = call, .params = params, .expected = expected});
}
