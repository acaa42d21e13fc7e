#include "grad.h"

/* The rules of docs/numerics.md, written out again:
 *   s' = clamp(s, 2^-24, 65504)  z' = clamp(rne(z), 0, Q)   u = rne(w/s') + z'   w^ = (clamp(u, 0,
 * Q)
 * - z') s' inside 0 <= u <= Q: dw = 1, ds = rne(w/s') - w/s', dz = 0; outside: dw = 0, ds = q - z',
 * dz = -s' */

enum { N = 6, K = 24, R = 5 };

static double clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

typedef struct rule {
    double what[N * K], dw[N * K], ds[N * K], dz[N * K]; /* ds and dz not summed yet */
    int outside;
} rule;

static void by_rule(rule *r, const eqi_tensor *w, const eqi_tensor *s, const eqi_tensor *z,
                    const eqi_quant_desc *q)
{
    double top = (1 << q->bits) - 1;
    memset(r, 0, sizeof *r);
    for (int i = 0; i < N * K; i++) {
        int64_t g = i / q->group;
        double step = q->clamp ? clamp(get(s, g), 0x1p-24, 65504) : get(s, g),
               zero = clamp(rint(get(z, g)), 0, top);
        double t = get(w, i) / step, u = rint(t) + zero;
        r->what[i] = (clamp(u, 0, top) - zero) * step;
        if (u >= 0 && u <= top) {
            r->dw[i] = 1;
            r->ds[i] = rint(t) - t;
        } else {
            r->ds[i] = clamp(u, 0, top) - zero;
            r->dz[i] = -step;
            r->outside++;
        }
    }
}

static void expect(const char *name, const eqi_tensor *g, const double *expected)
{
    ck_assert_ptr_nonnull(g);
    for (int64_t i = 0; i < count(g); i++)
        ck_assert_msg(fabs(get(g, i) - expected[i]) <= 1e-11 * (1 + fabs(expected[i])),
                      "%s[%lld]: found %.15g, expected %.15g", name, (long long)i, get(g, i),
                      expected[i]);
}

static void expect_gradients(const rule *r, const double *dwhat, int64_t group, eqi_tensor *w,
                             eqi_tensor *s, eqi_tensor *z)
{
    double dw[N * K], ds[N * K] = {0}, dz[N * K] = {0};
    for (int i = 0; i < N * K; i++) {
        dw[i] = dwhat[i] * r->dw[i];
        ds[i / group] += dwhat[i] * r->ds[i];
        dz[i / group] += dwhat[i] * r->dz[i];
    }
    expect("dw", w->grad, dw);
    expect("ds", s->grad, ds);
    expect("dz", z->grad, dz);
}

static void parameters(eqi_ctx *ctx, int64_t group, eqi_tensor **w, eqi_tensor **s, eqi_tensor **z)
{
    *w = trainable(make_random(ctx, EQI_F64, DIMS(N, K), 1, 1));
    *s = trainable(make(ctx, EQI_F64, DIMS(N, K / group)));
    *z = trainable(make(ctx, EQI_F64, DIMS(N, K / group)));
    for (int i = 0; i < count(*s); i++) {
        put(*s, i, i == 1 ? 1e-9 : i == 2 ? 7e4 : 0.1 + 0.07 * (i % 7));
        put(*z, i, i == 3 ? -2.2 : i == 4 ? 300 : 0.4 * i);
    }
}

START_TEST(fake_quantization)
{
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    static rule r;
    for (int bits = 2; bits <= 8; bits++) {
        for (int clamped = 0; clamped < 2; clamped++) {
            eqi_quant_desc q = {.bits = bits, .group = bits % 2 ? 8 : K, .clamp = clamped};
            eqi_tensor *w, *s, *z, *what, *y, *seed;
            parameters(ctx, q.group, &w, &s, &z);
            by_rule(&r, w, s, z, &q);
            if (bits <= 3) ck_assert(r.outside > N && r.outside < N * K - N);
            OK(ctx, eqi_op_fakequant(tape, w, s, z, &q, EQI_F64, &what));
            expect("w^", what, r.what);
            seed = make_random(ctx, EQI_F64, DIMS(N, K), 5, 1);
            OK(ctx, eqi_tape_backward_from(tape, what, seed));
            double dwhat[N * K];
            for (int i = 0; i < N * K; i++) dwhat[i] = get(seed, i);
            expect_gradients(&r, dwhat, q.group, w, s, z);
            eqi_tensor_unref(what);
            eqi_tensor_unref(seed);

            /* Through a linear: dw^ = dy^T x. */
            eqi_tensor *all[] = {w, s, z};
            for (int i = 0; i < 3; i++) eqi_tensor_zero_grad(all[i]);
            eqi_tensor *x = make_random(ctx, EQI_F64, DIMS(R, K), 6, 1);
            OK(ctx, eqi_op_linear(tape, x, &(eqi_weight){.w = w, .s = s, .z = z, .q = q}, &y));
            seed = make_random(ctx, EQI_F64, DIMS(R, N), 7, 1);
            double out[R * N] = {0};
            memset(dwhat, 0, sizeof dwhat);
            for (int t = 0; t < R; t++)
                for (int n = 0; n < N; n++)
                    for (int k = 0; k < K; k++) {
                        out[t * N + n] += get(x, t * K + k) * r.what[n * K + k];
                        dwhat[n * K + k] += get(seed, t * N + n) * get(x, t * K + k);
                    }
            expect("y", y, out);
            OK(ctx, eqi_tape_backward_from(tape, y, seed));
            expect_gradients(&r, dwhat, q.group, w, s, z);
            eqi_tensor *used[] = {w, s, z, x, y, seed};
            for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
        }
    }
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

/* w^ = (q - z') s with frozen q: ds = q - z', dz = -s for every weight, s never clamped. */
START_TEST(packed)
{
    enum { KP = 64, GROUP = 16, G = KP / GROUP };
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    for (int bits = 2; bits <= 8; bits++) {
        eqi_quant_desc q = {.bits = bits, .group = GROUP};
        double top = (1 << bits) - 1;
        eqi_tensor *codes = make(ctx, EQI_U32, DIMS(N, KP / 32 * bits)), *s, *z, *x, *y, *seed;
        memset(codes->v.data, 0, codes->storage->size);
        uint32_t *word = codes->v.data;
        double code[N * KP];
        for (int i = 0; i < N * KP; i++) {
            uint32_t c = (uint32_t)(i * 7 + i / 5) & (uint32_t)top;
            code[i] = c;
            int64_t first = (int64_t)i * bits; /* rows are whole words, so the stream has no gaps */
            for (int b = 0; b < bits; b++)
                word[(first + b) / 32] |= (c >> b & 1u) << (first + b) % 32;
        }
        s = trainable(make(ctx, EQI_F64, DIMS(N, G)));
        z = trainable(make(ctx, EQI_F64, DIMS(N, G)));
        for (int i = 0; i < N * G; i++) {
            put(s, i, i == 1 ? 1e-6 : 0.1 + 0.07 * (i % 7));
            put(z, i, i == 3 ? -2.2 : i == 4 ? 300 : 0.4 * i);
        }
        x = make_random(ctx, EQI_F64, DIMS(R, KP), 6, 1);
        seed = make_random(ctx, EQI_F64, DIMS(R, N), 7, 1);
        OK(ctx, eqi_op_linear(tape, x, &(eqi_weight){.codes = codes, .s = s, .z = z, .q = q}, &y));
        double out[R * N] = {0}, ds[N * G] = {0}, dz[N * G] = {0};
        for (int t = 0; t < R; t++)
            for (int i = 0; i < N * KP; i++) {
                int n = i / KP, g = i / GROUP;
                double zero = clamp(rint(get(z, g)), 0, top), a = get(x, t * KP + i % KP);
                out[t * N + n] += a * (code[i] - zero) * get(s, g);
                ds[g] += get(seed, t * N + n) * a * (code[i] - zero);
                dz[g] += get(seed, t * N + n) * a * -get(s, g);
            }
        expect("y", y, out);
        OK(ctx, eqi_tape_backward_from(tape, y, seed));
        expect("ds", s->grad, ds);
        expect("dz", z->grad, dz);
        eqi_tensor *used[] = {codes, s, z, x, y, seed};
        for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
    }
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

TCase *case_straight_through(void)
{
    TCase *t = tcase_create("straight_through");
    tcase_add_test(t, fake_quantization);
    tcase_add_test(t, packed);
    return t;
}
