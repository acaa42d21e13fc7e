/* The products of a build without oneDNN, which every build holds. */
#include "base/rng.h"
#include "cpu/cpu.h"
#include "unit.h"

/* Three blocks of columns; the inner dimension ends within a piece. */
enum { M = 80, N = 192, K = 608 };

typedef struct operands {
    float a[M * K], b[K * N], sum[M * N], c[M * N];
    _Alignas(64) char packed_a[M * K * 4], packed_b[K * N * 4];
} operands;

/* Multiples of 1/8 up to 1: exact as bf16, and so are their sums in f32, in any order. */
static void fill(float *x, int64_t n, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)eqi_rng_below(seed, EQI_RNG_USER, (uint64_t)i, 17) / 8.0f - 1.0f;
}

static operands *make_operands(eqi_ctx *ctx)
{
    operands *o = eqi_calloc(ctx, 1, sizeof *o, "a test");
    ck_assert_ptr_nonnull(o);
    fill(o->a, M * K, 1);
    fill(o->b, K * N, 2);
    for (int64_t i = 0; i < M; i++)
        for (int64_t k = 0; k < K; k++)
            for (int64_t j = 0; j < N; j++) o->sum[i * N + j] += o->a[i * K + k] * o->b[k * N + j];
    return o;
}

static void pack(operands *o, const eqi_simd *simd, eqi_elem elem)
{
    _Alignas(64) static char scratch[EQI_PACK_SCRATCH];
    const eqi_rows a = {.dtype = EQI_F32, .data = o->a, .ld = K, .rows = M, .cols = K},
                   b = {.dtype = EQI_F32, .data = o->b, .ld = N, .rows = K, .cols = N};
    const eqi_pack pa = {.src = &a, .elem = elem, .n = M, .pn = M, .k = K, .pk = K};
    const eqi_pack pb = {
        .src = &b, .elem = elem, .across = true, .n = N, .pn = N, .k = K, .pk = K, .block = 64};
    simd->pack_a(o->packed_a, &pa, scratch);
    simd->pack_b(o->packed_b, &pb, scratch);
}

static void check(operands *o, const eqi_simd *simd, eqi_elem elem)
{
    const int64_t mnk[3] = {M, N, K};
    pack(o, simd, elem);
    memset(o->c, 0xff, sizeof o->c);
    for (int acc = 0; acc < 2; acc++) {
        simd->product(o->c, elem, o->packed_a, o->packed_b, mnk, acc);
        for (int64_t i = 0; i < M * N; i++)
            ck_assert_msg(o->c[i] == (float)(1 + acc) * o->sum[i], "%s: element %lld", simd->name,
                          (long long)i);
    }
}

START_TEST(products)
{
    static const char *const names[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
    eqi_ctx *ctx = open_ctx("ref");
    operands *o = make_operands(ctx);
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        const eqi_simd *simd = eqi_cpu_simd(names[i], true);
        if (!simd) continue;
        check(o, simd, EQI_ELEM_F32);
        if (simd->bf16) check(o, simd, EQI_ELEM_BF16);
    }
    eqi_free(ctx, o);
    eqi_ctx_unref(ctx);
}
END_TEST

TCase *case_product(void)
{
    TCase *c = tcase_create("product");
    tcase_add_test(c, products);
    return c;
}
