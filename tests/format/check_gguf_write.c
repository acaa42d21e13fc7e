/* GGUF files written and read back; carriers of quantized weights against a decoder of their own,
 * worked out from the text of the formats. */
#include <math.h>

#include "base/half.h"
#include "base/rng.h"
#include "each_test.h"
#include "format/gguf.h"
#include "format/gguf_carriers.h"
#include "format/gguf_write.h"

static eqi_gguf_writer *create(const char *name)
{
    eqi_gguf_writer *w;
    OK(ctx, eqi_gguf_create(ctx, &w, scratch(name)));
    return w;
}

static void put_values(eqi_gguf_writer *w)
{
    const int32_t ints[] = {-1, 7};
    const float reals[] = {0.5f, -3};
    eqi_gguf_put_u32(w, "u", 4000000000u);
    eqi_gguf_put_f32(w, "f", 0.1f);
    eqi_gguf_put_bool(w, "b", true);
    eqi_gguf_put_string(w, "s", "text");
    eqi_gguf_put_i32_array(w, "ints", ints, 2);
    eqi_gguf_put_f32_array(w, "reals", reals, 2);
    eqi_gguf_put_string_array(w, "texts", 2);
    eqi_gguf_add_string(w, "", 0);
    eqi_gguf_add_string(w, "a\0b", 3);
}

START_TEST(values_and_tensors)
{
    const int64_t shape[3] = {2, 3, 5}, none[1] = {0}, one[1] = {7};
    float x[30], y[7], back[30];
    for (int i = 0; i < 30; i++) x[i] = (float)i;
    for (int i = 0; i < 7; i++) y[i] = (float)-i;
    eqi_gguf_writer *w = create("out.gguf");
    put_values(w);
    eqi_gguf_declare(w, "nothing", EQI_STORED_F32, 1, none);
    eqi_gguf_declare(w, "x", EQI_STORED_F32, 3, shape);
    eqi_gguf_declare(w, "y", EQI_STORED_F32, 1, one);
    /* In pieces that begin and end anywhere. */
    unsigned char all[sizeof x + sizeof y];
    memcpy(all, x, sizeof x);
    memcpy(all + sizeof x, y, sizeof y);
    for (size_t at = 0, n; at < sizeof all; at += n) {
        n = sizeof all - at < 11 ? sizeof all - at : 11;
        OK(ctx, eqi_gguf_write(w, all + at, n));
    }
    ck_assert_int_eq(entries(dir), 1); /* beside its place */
    OK(ctx, eqi_gguf_finish(w));
    ck_assert_int_eq(entries(dir), 1);
    eqi_gguf *g;
    eqi_source *s;
    OK(ctx, eqi_gguf_open(ctx, &g, scratch("out.gguf")));
    int64_t n;
    double r;
    bool b;
    size_t length;
    ck_assert(eqi_gguf_int(g, "u", &n) && n == 4000000000);
    ck_assert(eqi_gguf_float(g, "f", &r) && r == 0.1f);
    ck_assert(eqi_gguf_bool(g, "b", &b) && b);
    ck_assert_str_eq(eqi_gguf_string(g, "s", NULL), "text");
    ck_assert(eqi_gguf_array_int(g, "ints", 0, &n) && n == -1);
    ck_assert(eqi_gguf_array_float(g, "reals", 1, &r) && r == -3);
    ck_assert_str_eq(eqi_gguf_array_string(g, "texts", 0, NULL), "");
    ck_assert_mem_eq(eqi_gguf_array_string(g, "texts", 1, &length), "a\0b", 3);
    ck_assert_uint_eq(length, 3);
    OK(ctx, eqi_gguf_source(g, &s));
    const eqi_source_entry *e = eqi_source_find(s, "x");
    ck_assert(e->ndim == 3 && !memcmp(e->shape, shape, sizeof shape));
    OK(ctx, eqi_source_read_f32(s, e, 0, 30, back));
    ck_assert_mem_eq(back, x, sizeof x);
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "y"), 0, 7, back));
    ck_assert_mem_eq(back, y, sizeof y);
    ck_assert_int_eq(eqi_source_find(s, "nothing")->elements, 0);
    eqi_source_close(s);
    eqi_gguf_close(g);
}
END_TEST

START_TEST(nothing_is_left_of_failures)
{
    const int64_t shape[1] = {4}, thirty[1] = {30};
    eqi_gguf_writer *w = create("a.gguf");
    eqi_gguf_declare(w, "x", EQI_STORED_F32, 1, shape);
    says(ctx, eqi_gguf_finish(w), EQAT_INVALID_ARGUMENT, "the bytes of 0 tensors");
    w = create("a.gguf");
    says(ctx, eqi_gguf_write(w, "x", 1), EQAT_INVALID_ARGUMENT, "more bytes");
    ck_assert_int_eq(eqi_gguf_finish(w), EQAT_INVALID_ARGUMENT);
    w = create("a.gguf");
    eqi_gguf_declare(w, "q", EQI_STORED_Q4_0, 1, thirty);
    eqi_gguf_put_u32(w, "late", 1);
    ck_assert(strstr(ctx->error, "rows of 30") != NULL);
    ck_assert_int_eq(eqi_gguf_finish(w), EQAT_FORMAT);
    w = create("a.gguf");
    eqi_gguf_declare(w, "q", EQI_STORED_U8, 1, thirty);
    ck_assert(strstr(ctx->error, "cannot hold U8") != NULL);
    ck_assert_int_eq(eqi_gguf_write(w, "", 0), EQAT_INVALID_ARGUMENT);
    eqi_gguf_discard(w);
    w = create("a.gguf");
    eqi_gguf_declare(w, "a.name.that.is.longer.than.the.sixty.four.bytes.that.readers.allow",
                     EQI_STORED_F32, 1, shape);
    ck_assert(strstr(ctx->error, "fewer than 64") != NULL);
    ck_assert_int_eq(eqi_gguf_finish(w), EQAT_UNSUPPORTED);
    eqi_gguf_discard(create("a.gguf"));
    eqi_gguf_discard(NULL);
    ck_assert_int_eq(entries(dir), 0);
    write_text(scratch("a.gguf"), "mine");
    says(ctx, eqi_gguf_create(ctx, &w, scratch("a.gguf")), EQAT_EXISTS, "a.gguf");
    ck_assert_ptr_null(w);
    OK(ctx, eqi_gguf_create(ctx, &w, NULL));
    put_values(w);
    eqi_gguf_discard(w);
    ck_assert_int_eq(entries(dir), 1);
}
END_TEST

START_TEST(memory_runs_out)
{
    eqat_status st = EQAT_OUT_OF_MEMORY;
    const int64_t shape[1] = {1};
    for (long n = 0; st != EQAT_OK; n++) {
        ck_assert_int_lt(n, 100);
        refuse_after(n);
        eqi_gguf_writer *w;
        st = eqi_gguf_create(ctx, &w, scratch("m.gguf"));
        if (st == EQAT_OK) {
            put_values(w);
            eqi_gguf_declare(w, "x", EQI_STORED_F32, 1, shape);
            eqi_gguf_write(w, "1234", 4);
            st = eqi_gguf_finish(w);
        }
        refuse_after(-1);
        ck_assert(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY);
        ck_assert_int_eq(entries(dir), st == EQAT_OK);
    }
}
END_TEST

/* ---- carriers ---- */

/* Weight i of a row, by the text: bits of the block as one little-endian number. */
static unsigned bits_at(const unsigned char *p, int first, int count)
{
    unsigned value = 0;
    for (int b = 0; b < count; b++) value |= (p[(first + b) / 8] >> (first + b) % 8 & 1u) << b;
    return value;
}

static float half(const unsigned char *p) { return eqi_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static float decode(eqi_stored stored, const unsigned char *row, int64_t i)
{
    const int64_t block = eqi_stored_block(stored);
    const unsigned char *p = row + (int64_t)eqi_stored_bytes(stored, block) * (i / block);
    const int k = (int)(i % block);
    switch (stored) {
    case EQI_STORED_Q2_0: return half(p) * (float)((int)bits_at(p + 2, 2 * k, 2) - 1);
    case EQI_STORED_TQ2_0: /* byte b has values b, b + 32, b + 64 and b + 96 of its half */
        return half(p + 64) *
            (float)((int)bits_at(p + k / 128 * 32 + k % 32, k % 128 / 32 * 2, 2) - 1);
    case EQI_STORED_Q4_0: return half(p) * (float)((int)bits_at(p + 2 + k % 16, k / 16 * 4, 4) - 8);
    case EQI_STORED_Q5_0:
        return half(p) *
            (float)((int)(bits_at(p + 6 + k % 16, k / 16 * 4, 4) | bits_at(p + 2, k, 1) << 4) - 16);
    case EQI_STORED_Q8_0: return half(p) * (float)(int8_t)p[2 + k];
    default: ck_abort_msg("%d", stored);
    }
    return 0;
}

enum { WIDTH = 256 };

typedef struct sample {
    int16_t steps[WIDTH];
    float scales[WIDTH / 16];
    eqi_gguf_row row;
} sample;

/* Codes of `bits`, the smallest and the largest among them in every group. */
static void draw(sample *s, int bits, int64_t group, const int *zeros, uint32_t stream)
{
    const int top = (1 << bits) - 1;
    for (int64_t i = 0; i < WIDTH; i++) {
        int code = (int)(eqi_rng_bits(3, stream, (uint64_t)i) % (unsigned)(top + 1));
        if (i % group == 0) code = 0;
        if (i % group == 1) code = top;
        s->steps[i] = (int16_t)(code - zeros[i / group]);
    }
    for (int64_t g = 0; g < WIDTH / group; g++)
        s->scales[g] =
            eqi_f16_to_f32(eqi_f32_to_f16((float)(0.01 * eqi_rng_normal(4, stream, (uint64_t)g))));
    s->row = (eqi_gguf_row){s->steps, s->scales, WIDTH, group};
}

static bool equal(const sample *s, eqi_stored stored, const unsigned char *bytes)
{
    bool same = true;
    for (int64_t i = 0; i < WIDTH; i++)
        same &= decode(stored, bytes, i) == (float)s->steps[i] * s->scales[i / s->row.group];
    return same;
}

/* The smallest type by the table of the formats: bits of a block, its range. */
static eqi_stored smallest(const sample *s)
{
    static const struct {
        eqi_stored stored;
        int block, low, high;
    } types[] = {{EQI_STORED_Q2_0, 64, -1, 2},
                 {EQI_STORED_Q4_0, 32, -8, 7},
                 {EQI_STORED_Q5_0, 32, -16, 15},
                 {EQI_STORED_Q8_0, 32, -128, 127}};
    for (size_t t = 0; t < EQI_COUNT(types); t++) {
        bool fits = s->row.group % types[t].block == 0;
        for (int64_t g = 0; fits && g < WIDTH / s->row.group; g++) {
            bool as_is = true, turned = true;
            for (int64_t i = g * s->row.group; i < (g + 1) * s->row.group; i++) {
                as_is &= s->steps[i] >= types[t].low && s->steps[i] <= types[t].high;
                turned &= -s->steps[i] >= types[t].low && -s->steps[i] <= types[t].high;
            }
            fits = as_is || turned;
        }
        if (fits) return types[t].stored;
    }
    return EQI_STORED_COUNT;
}

static const eqi_gguf_carrier *choose(const sample *s)
{
    const eqi_gguf_carrier *c = eqi_gguf_carrier_first();
    while (c && !eqi_gguf_carrier_holds(c, &s->row)) c = eqi_gguf_carrier_next(c);
    return c;
}

static void check(const sample *s)
{
    unsigned char bytes[2 * WIDTH];
    const eqi_gguf_carrier *c = choose(s);
    const eqi_stored want = smallest(s);
    ck_assert(c ? c->stored == want : want == EQI_STORED_COUNT);
    for (; c; c = eqi_gguf_carrier_next(c)) { /* what one holds, the next does too */
        ck_assert(eqi_gguf_carrier_holds(c, &s->row));
        memset(bytes, 0xaa, sizeof bytes);
        ck_assert(eqi_gguf_carrier_encode(c, &s->row, bytes) == 0);
        ck_assert_msg(equal(s, c->stored, bytes), "%s", c->name);
    }
}

/* All bits, groups and zero points, of one kind in a row and all kinds among each other. */
START_TEST(every_zero_point)
{
    static const int64_t groups[] = {32, 64, 128, 256};
    const int bits = _i;
    for (size_t k = 0; k < EQI_COUNT(groups); k++) {
        sample s;
        int zeros[WIDTH / 32];
        for (int z = 0; z < 1 << bits; z++) {
            for (int g = 0; g < WIDTH / 32; g++) zeros[g] = z;
            draw(&s, bits, groups[k], zeros, (uint32_t)(bits * 256 + z));
            check(&s);
            for (int g = 0; g < WIDTH / 32; g++) zeros[g] = (z + g) % (1 << bits);
            draw(&s, bits, groups[k], zeros, (uint32_t)(bits * 256 + z));
            check(&s);
        }
    }
}
END_TEST

/* By bits and zero points alone: what is said to suit, holds everything. */
START_TEST(what_suits_holds)
{
    static const char *const names[] = {"tq2_0", "q2_0", "q4_0", "q5_0", "q8_0"};
    for (size_t k = 0; k < EQI_COUNT(names); k++) {
        const eqi_gguf_carrier *c = eqi_gguf_carrier_find(names[k]);
        for (int bits = 2; bits <= 8; bits++)
            for (int middle = 0; middle < 2; middle++) {
                bool all = true;
                const int top = (1 << bits) - 1;
                for (int z = middle ? top / 2 : 0; z <= (middle ? top / 2 + 1 : top); z++) {
                    sample s;
                    const int zeros[1] = {z};
                    draw(&s, bits, WIDTH, zeros, 9);
                    all &= eqi_gguf_carrier_holds(c, &s.row);
                }
                ck_assert_int_eq(eqi_gguf_carrier_suits(c, bits, WIDTH, middle), all);
            }
        ck_assert(!eqi_gguf_carrier_suits(c, 2, 16, true));
    }
    ck_assert_ptr_null(eqi_gguf_carrier_find("q6_k"));
    /* As the documents say. */
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q2_0"), 2, 64, true));
    ck_assert(!eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q2_0"), 2, 32, true));
    ck_assert(!eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q2_0"), 2, 64, false));
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("tq2_0"), 2, 256, true));
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q4_0"), 3, 32, false));
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q4_0"), 4, 32, true));
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q5_0"), 4, 32, false));
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q8_0"), 7, 32, false));
    ck_assert(eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q8_0"), 8, 32, true));
    ck_assert(!eqi_gguf_carrier_suits(eqi_gguf_carrier_find("q8_0"), 8, 32, false));
}
END_TEST

/* Blocks that span groups hold them when their scales are one. */
START_TEST(forced_types)
{
    sample s;
    unsigned char bytes[2 * WIDTH];
    const eqi_gguf_carrier *c = eqi_gguf_carrier_find("tq2_0");
    int zeros[WIDTH / 16];
    for (size_t g = 0; g < EQI_COUNT(zeros); g++) zeros[g] = 1;
    draw(&s, 2, 64, zeros, 1);
    ck_assert(!eqi_gguf_carrier_holds(c, &s.row));
    for (int g = 0; g < 4; g++) s.scales[g] = 0.25f;
    ck_assert(eqi_gguf_carrier_holds(c, &s.row));
    ck_assert(eqi_gguf_carrier_encode(c, &s.row, bytes) == 0 && equal(&s, c->stored, bytes));
    draw(&s, 2, 16, zeros, 1);
    check(&s);
    ck_assert_ptr_null(choose(&s)); /* groups of 16 */
    for (size_t g = 0; g < EQI_COUNT(s.scales); g++) s.scales[g] = 0;
    c = choose(&s);
    ck_assert(c->stored == EQI_STORED_Q2_0 && eqi_gguf_carrier_encode(c, &s.row, bytes) == 0);
    ck_assert(equal(&s, c->stored, bytes));
}
END_TEST

/* What is rounded is told: the largest difference, and no more of it than a plain choice gives. */
START_TEST(rounded)
{
    static const char *const names[] = {"tq2_0", "q2_0", "q4_0", "q5_0", "q8_0"};
    int zeros[WIDTH / 32];
    for (int g = 0; g < WIDTH / 32; g++) zeros[g] = g * 17 % 256;
    for (size_t k = 0; k < EQI_COUNT(names); k++) {
        sample s;
        unsigned char bytes[2 * WIDTH];
        draw(&s, 8, 32, zeros, 5);
        const eqi_gguf_carrier *c = eqi_gguf_carrier_find(names[k]);
        const float told = eqi_gguf_carrier_encode(c, &s.row, bytes);
        float most = 0, range = 0;
        double sum = 0, plain = 0;
        for (int64_t i = 0; i < WIDTH; i++) {
            const float w = (float)s.steps[i] * s.scales[i / 32];
            const float error = fabsf(w - decode(c->stored, bytes, i));
            most = fmaxf(most, error);
            range = fmaxf(range, fabsf(w));
            sum += (double)error * error;
            plain += (double)w * w;
        }
        ck_assert(told == most && most > 0 && most <= range);
        ck_assert(sum < plain / 2);
    }
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("gguf_write");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, values_and_tensors);
    tcase_add_test(c, nothing_is_left_of_failures);
    tcase_add_test(c, memory_runs_out);
    tcase_add_loop_test(c, every_zero_point, 2, 9);
    tcase_add_test(c, what_suits_holds);
    tcase_add_test(c, forced_types);
    tcase_add_test(c, rounded);
    return run_case("gguf_write", c, CK_FORK_GETENV);
}
