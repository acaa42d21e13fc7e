/* Factors and error feedback at sizes of more than one block, against Optimal Brain Quantization in
 * doubles. */
#include <math.h>
#include <stdlib.h>

#include "public.h"
#include "quant/factor.h"
#include "quant/feedback.h"

#define SWEEPS 2

enum { K = 200, N = 24, GROUP = 8, BITS = 3, MOST = (1 << BITS) - 1 };

static double noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 33) / (double)(1u << 31) * 2 - 1;
}

/* Products of correlated columns, whose sizes differ a hundredfold. */
static void fill_moments(double *h, int64_t k, double sum)
{
    uint64_t state = 7;
    double *x = malloc((size_t)(2 * k * k) * sizeof *x);
    for (int64_t r = 0; r < 2 * k; r++)
        for (int64_t i = 0; i < k; i++)
            x[r * k + i] = (noise(&state) + (i ? 0.5 * x[r * k + i - 1] : 0)) *
                pow(100, (double)(i * 37 % k) / (double)k - 1);
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) {
            h[i * k + j] = i == j ? sum : 0;
            for (int64_t r = 0; r < 2 * k; r++) h[i * k + j] += x[r * k + i] * x[r * k + j];
        }
    free(x);
}

static eqi_tensor *to_tensor(eqat_context *ctx, const double *values, int64_t rows, int64_t columns)
{
    const int64_t shape[] = {rows, columns}, n = rows * columns;
    float *narrow = malloc((size_t)n * sizeof *narrow);
    eqi_tensor *out;
    for (int64_t i = 0; i < n; i++) narrow[i] = (float)values[i];
    OK(ctx, eqi_tensor_create(ctx, &out, EQI_F32, 2, shape));
    OK(ctx, eqi_tensor_upload(out, narrow, (size_t)n * sizeof *narrow));
    free(narrow);
    return out;
}

START_TEST(a_factor_times_itself_is_the_matrix)
{
    static const int64_t sizes[] = {1, 2, 63, 64, 65, 128, K};
    const int64_t k = sizes[_i];
    eqat_context *ctx = make_context(2, 0);
    double *h = malloc((size_t)(k * k) * sizeof *h);
    int64_t n;
    fill_moments(h, k, 1e-3);
    eqi_tensor *a = to_tensor(ctx, h, k, k);
    OK(ctx, eqi_factor(a));
    float *v = read_floats(a, &n);
    for (int64_t i = 0; i < k; i++) {
        ck_assert(v[i * k + i] > 0);
        for (int64_t j = i; j < k; j++) {
            double sum = 0;
            for (int64_t l = j; l < k; l++) sum += (double)v[i * k + l] * (double)v[j * k + l];
            ck_assert_double_eq_tol(sum, h[i * k + j], 1e-5 * sqrt(h[i * k + i] * h[j * k + j]));
        }
    }
    free(v);
    free(h);
    eqi_tensor_unref(a);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(a_factor_of_what_has_none_is_refused)
{
    eqat_context *ctx = make_context(1, 0);
    double *h = malloc(K * K * sizeof *h);
    fill_moments(h, K, 1e-3);
    h[100 * K + 100] = _i ? -1 : NAN;
    eqi_tensor *a = to_tensor(ctx, h, K, K);
    ck_assert_int_eq(eqi_factor(a), EQAT_NUMERIC);
    free(h);
    eqi_tensor_unref(a);
    eqat_context_free(ctx);
}
END_TEST

typedef struct problem {
    double h[K * K], w[N * K], s[N * K / GROUP], z[N * K / GROUP];
} problem;

static problem *make_problem(void)
{
    problem *p = malloc(sizeof *p);
    uint64_t state = 3;
    fill_moments(p->h, K, 0);
    for (int i = 0; i < N * K; i++) p->w[i] = noise(&state);
    for (int i = 0; i < N * K / GROUP; i++) {
        p->s[i] = (double)(float)(0.3 + 0.05 * noise(&state));
        p->z[i] = 3 + (noise(&state) > 0);
    }
    return p;
}

/* By Gauss and Jordan, in place. */
static void invert(double *a)
{
    for (int p = 0; p < K; p++) {
        double pivot = a[p * K + p];
        a[p * K + p] = 1;
        for (int j = 0; j < K; j++) a[p * K + j] /= pivot;
        for (int i = 0; i < K; i++) {
            double factor = a[i * K + p];
            if (i == p) continue;
            a[i * K + p] = 0;
            for (int j = 0; j < K; j++) a[i * K + j] -= factor * a[p * K + j];
        }
    }
}

/* In the order of falling moments: the error of each weight goes to those that are left, and its
 * row and column leave the inverse. */
static void by_hand(problem *p)
{
    static double h[K * K];
    bool done[K] = {false};
    double moment[K], mean = 0;
    memcpy(h, p->h, sizeof h);
    for (int i = 0; i < K; i++) mean += (moment[i] = h[i * K + i]) / K;
    for (int i = 0; i < K; i++) h[i * K + i] += 0.4 * moment[i] + 0.01 * mean;
    invert(h);
    for (int step = 0; step < K; step++) {
        int j = -1;
        for (int i = 0; i < K; i++)
            if (!done[i] && (j < 0 || moment[i] > moment[j])) j = i;
        done[j] = true;
        for (int r = 0; r < N; r++) {
            double *w = p->w + r * K, s = p->s[r * (K / GROUP) + j / GROUP],
                   z = p->z[r * (K / GROUP) + j / GROUP],
                   code = fmin(fmax(rint(w[j] / s) + z, 0), MOST),
                   error = (w[j] - (code - z) * s) / h[j * K + j];
            for (int i = 0; i < K; i++)
                if (!done[i]) w[i] -= error * h[j * K + i];
        }
        for (int a = 0; a < K; a++)
            for (int b = 0; b < K; b++)
                if (!done[a] && !done[b])
                    h[a * K + b] -= h[a * K + j] * h[j * K + b] / h[j * K + j];
    }
}

static double code_of(const problem *p, int row, int i)
{
    const double z = p->z[(row * K + i) / GROUP];
    return fmin(fmax(rint(p->w[row * K + i] / p->s[(row * K + i) / GROUP]) + z, 0), MOST) - z;
}

/* SWEEPS times: each code, then each scale to its best value beside all others, in the metric of
 * the damped moments. */
static void descend_by_hand(problem *p, const double *w0)
{
    static double h[K * K];
    double mean = 0, error[K];
    memcpy(h, p->h, sizeof h);
    for (int i = 0; i < K; i++) mean += p->h[i * K + i] / K;
    for (int i = 0; i < K; i++) h[i * K + i] += 2 * h[i * K + i] + 0.01 * mean;
    for (int r = 0; r < N; r++)
        for (int visit = 0; visit < SWEEPS * (K + K / GROUP); visit++) {
            const int at = visit % (K + K / GROUP), j = at < K ? at : (at - K) * GROUP,
                      width = at < K ? 1 : GROUP, g = (r * K + j) / GROUP;
            double pull = 0, square = 0, old = p->s[g];
            for (int i = 0; i < K; i++)
                error[i] = w0[r * K + i] - p->s[(r * K + i) / GROUP] * code_of(p, r, i);
            for (int a = j; a < j + width; a++) {
                const double by = at < K ? 1 : code_of(p, r, a);
                for (int i = 0; i < K; i++) pull += by * h[a * K + i] * error[i];
                for (int b = j; b < j + width; b++)
                    square += by * h[a * K + b] * (at < K ? 1 : code_of(p, r, b));
            }
            if (at < K) {
                p->w[r * K + j] = code_of(p, r, j) * old + pull / square;
                continue;
            }
            p->s[g] = fmin(fmax(old + pull / square, 0.5 * old), 2 * old);
            for (int i = j; i < j + width; i++) p->w[r * K + i] *= p->s[g] / old;
        }
}

typedef struct found {
    float *w, *s; /* [N][K], [N][K / GROUP] */
} found;

static found start(const problem *p, int threads, double scale, bool descent)
{
    eqat_context *ctx = make_context(threads, 0);
    double *h = malloc(sizeof p->h);
    const eqi_quant_desc q = {.bits = BITS, .group = GROUP};
    eqi_feedback f;
    found out;
    int64_t n;
    for (int i = 0; i < K * K; i++) h[i] = scale * p->h[i];
    eqi_tensor *moments = to_tensor(ctx, h, K, K), *w = to_tensor(ctx, p->w, N, K),
               *s = to_tensor(ctx, p->s, N, K / GROUP), *z = to_tensor(ctx, p->z, N, K / GROUP);
    OK(ctx, eqi_feedback_make(moments, &f));
    OK(ctx, eqi_feedback_start(&f, w, s, z, &q, descent));
    eqi_feedback_release(ctx, &f);
    out.w = read_floats(w, &n);
    out.s = read_floats(s, &n);
    eqi_tensor_unref(moments);
    eqi_tensor_unref(w);
    eqi_tensor_unref(s);
    eqi_tensor_unref(z);
    free(h);
    eqat_context_free(ctx);
    return out;
}

static void release(found f)
{
    free(f.w);
    free(f.s);
}

/* Without and with descent, and with descent from scales so small that it is bound. */
START_TEST(masters_are_those_of_optimal_brain_quantization)
{
    problem *p = make_problem();
    const bool descent = _i > 0;
    for (int i = 0; i < N * K / GROUP && _i == 2; i++) p->s[i] = (double)(float)(0.15 * p->s[i]);
    found one = start(p, 1, 1, descent), two = start(p, 2, 1, descent);
    double *w0 = malloc(sizeof p->w), *s0 = malloc(sizeof p->s);
    ck_assert_mem_eq(one.w, two.w, N * K * sizeof *one.w);
    ck_assert_mem_eq(one.s, two.s, N * K / GROUP * sizeof *one.s);
    memcpy(w0, p->w, sizeof p->w);
    memcpy(s0, p->s, sizeof p->s);
    by_hand(p);
    if (descent) descend_by_hand(p, w0);
    int same = 0;
    double moved = 0;
    for (int r = 0; r < N; r++) {
        double apart = 0;
        for (int i = r * K; i < r * K + K; i++) {
            apart = fmax(apart, fabs(p->w[i] - (double)one.w[i]));
            apart = fmax(apart, 10 * fabs(p->s[i / GROUP] - (double)one.s[i / GROUP]));
            moved = fmax(moved, fabs((double)one.s[i / GROUP] / s0[i / GROUP] - 1));
        }
        same += apart < 1e-3;
    }
    /* A weight between two codes may be rounded otherwise, and the rest of its row with it. */
    ck_assert_msg(same >= N - 2, "%d of %d rows", same, N);
    if (descent)
        ck_assert(moved > 0.05);
    else
        ck_assert(moved == 0);
    release(one);
    release(two);
    free(w0);
    free(s0);
    free(p);
}
END_TEST

START_TEST(without_inputs_masters_and_scales_stay)
{
    problem *p = make_problem();
    found f = start(p, 1, 0, true);
    for (int i = 0; i < N * K; i++) ck_assert(f.w[i] == (float)p->w[i]);
    for (int i = 0; i < N * K / GROUP; i++) ck_assert(f.s[i] == (float)p->s[i]);
    release(f);
    free(p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("feedback");
    tcase_add_loop_test(tc, a_factor_times_itself_is_the_matrix, 0, 7);
    tcase_add_loop_test(tc, a_factor_of_what_has_none_is_refused, 0, 2);
    tcase_add_loop_test(tc, masters_are_those_of_optimal_brain_quantization, 0, 3);
    tcase_add_test(tc, without_inputs_masters_and_scales_stay);
    return run_case("error feedback", tc, CK_NOFORK);
}
