#include "format/gguf_carriers.h"

#include <math.h>
#include <string.h>

#include "tensor/quantized.h"

#define BLOCK_MOST 256 /* weights */

static void put_half(unsigned char *p, uint16_t d)
{
    p[0] = (unsigned char)d;
    p[1] = (unsigned char)(d >> 8);
}

static void pack_q2_0(const int8_t *v, uint16_t d, unsigned char *p)
{
    memset(p, 0, 18);
    put_half(p, d);
    for (int i = 0; i < 64; i++) p[2 + i / 4] |= (unsigned char)((v[i] + 1) << i % 4 * 2);
}

static void pack_tq2_0(const int8_t *v, uint16_t d, unsigned char *p)
{
    memset(p, 0, 66);
    put_half(p + 64, d);
    for (int i = 0; i < 256; i++)
        p[i / 128 * 32 + i % 32] |= (unsigned char)((v[i] + 1) << i / 32 % 4 * 2);
}

static void pack_q4_0(const int8_t *v, uint16_t d, unsigned char *p)
{
    put_half(p, d);
    for (int i = 0; i < 16; i++) p[2 + i] = (unsigned char)((v[i] + 8) | (v[i + 16] + 8) << 4);
}

static void pack_q5_0(const int8_t *v, uint16_t d, unsigned char *p)
{
    put_half(p, d);
    memset(p + 2, 0, 4);
    for (int i = 0; i < 32; i++) p[2 + i / 8] |= (unsigned char)((v[i] + 16) >> 4 << i % 8);
    for (int i = 0; i < 16; i++)
        p[6 + i] = (unsigned char)(((v[i] + 16) & 15) | ((v[i + 16] + 16) & 15) << 4);
}

static void pack_q8_0(const int8_t *v, uint16_t d, unsigned char *p)
{
    put_half(p, d);
    memcpy(p + 2, v, 32);
}

/* From the smallest on. */
static const eqi_gguf_carrier carriers[] = {
    {"tq2_0", EQI_STORED_TQ2_0, -1, 2, true, pack_tq2_0},
    {"q2_0", EQI_STORED_Q2_0, -1, 2, false, pack_q2_0},
    {"q4_0", EQI_STORED_Q4_0, -8, 7, false, pack_q4_0},
    {"q5_0", EQI_STORED_Q5_0, -16, 15, false, pack_q5_0},
    {"q8_0", EQI_STORED_Q8_0, -128, 127, false, pack_q8_0},
};

const eqi_gguf_carrier *eqi_gguf_carrier_find(const char *name)
{
    for (size_t i = 0; i < EQI_COUNT(carriers); i++)
        if (!strcmp(carriers[i].name, name)) return &carriers[i];
    return NULL;
}

const eqi_gguf_carrier *eqi_gguf_carrier_first(void)
{
    const eqi_gguf_carrier *c = carriers;
    return c->on_request ? eqi_gguf_carrier_next(c) : c;
}

const eqi_gguf_carrier *eqi_gguf_carrier_next(const eqi_gguf_carrier *c)
{
    while (++c < carriers + EQI_COUNT(carriers))
        if (!c->on_request) return c;
    return NULL;
}

/* Of codes 0 to `top` all may be there. */
static bool holds_all(const eqi_gguf_carrier *c, int top, int z)
{
    return (-z >= c->low && top - z <= c->high) || (z - top >= c->low && z <= c->high);
}

bool eqi_gguf_carrier_suits(const eqi_gguf_carrier *c, int bits, int64_t group, bool middle)
{
    const int top = (1 << bits) - 1, first = middle ? top / 2 : 0,
              last = middle ? top / 2 + 1 : top;
    bool suits = group % eqi_stored_block(c->stored) == 0;
    for (int z = first; suits && z <= last; z++) suits = holds_all(c, top, z);
    return suits;
}

/* The d under which the block from `at` on is whole numbers of the range; false: none. */
static bool find_d(const eqi_gguf_carrier *c, const eqi_gguf_row *r, int64_t at, float *d)
{
    const int64_t end = at + eqi_stored_block(c->stored);
    int low = 0, high = 0;
    for (int64_t i = at; i < end; i++) {
        if (r->steps[i] < low) low = r->steps[i];
        if (r->steps[i] > high) high = r->steps[i];
    }
    const float s = r->scales[at / r->group];
    for (int64_t g = at / r->group; g * r->group < end; g++)
        if (r->scales[g] != s) return false;
    const bool turned = low < c->low || high > c->high;
    *d = turned ? -s : s;
    return !turned || (-high >= c->low && -low <= c->high);
}

bool eqi_gguf_carrier_holds(const eqi_gguf_carrier *c, const eqi_gguf_row *r)
{
    const int64_t block = eqi_stored_block(c->stored);
    float d;
    bool held = r->n % block == 0;
    for (int64_t at = 0; held && at < r->n; at += block) held = find_d(c, r, at, &d);
    return held;
}

/* The nearest whole numbers under d; their squared error, and the largest one. */
static double round_block(const eqi_gguf_carrier *c, const float *w, int64_t n, float d,
                          int8_t *numbers, float *largest)
{
    double sum = 0;
    *largest = 0;
    for (int64_t i = 0; i < n; i++) {
        float v = d != 0 ? rintf(w[i] / d) : 0;
        v = v < (float)c->low ? (float)c->low : v > (float)c->high ? (float)c->high : v;
        numbers[i] = (int8_t)v;
        const float error = fabsf(w[i] - d * v);
        if (error > *largest) *largest = error;
        sum += (double)error * error;
    }
    return sum;
}

/* The best of a range of steps: from those that reach the largest weight to ones half as long. */
static float choose_d(const eqi_gguf_carrier *c, const float *w, int64_t n, float first)
{
    enum { TRIES = 32 };
    int8_t numbers[BLOCK_MOST];
    float most = 0, best_d = first, largest;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(w[i]));
    double best = round_block(c, w, n, first, numbers, &largest);
    for (int k = 0; k < 2 * TRIES; k++) {
        const int reach = k % 2 ? c->high : -c->low;
        const float step = most / (float)reach * (1 - 0.5f * (float)(k / 2) / TRIES);
        for (int sign = -1; sign <= 1; sign += 2) {
            const float d =
                eqi_f16_to_f32(eqi_f32_to_f16(fminf(step, EQI_SCALE_MAX) * (float)sign));
            const double error = round_block(c, w, n, d, numbers, &largest);
            if (error >= best) continue;
            best = error;
            best_d = d;
        }
    }
    return best_d;
}

float eqi_gguf_carrier_encode(const eqi_gguf_carrier *c, const eqi_gguf_row *r, unsigned char *dst)
{
    const int64_t block = eqi_stored_block(c->stored);
    const uint64_t bytes = eqi_stored_bytes(c->stored, block);
    float w[BLOCK_MOST], largest = 0, error, d;
    int8_t numbers[BLOCK_MOST];
    for (int64_t at = 0; at < r->n; at += block, dst += bytes) {
        for (int64_t i = 0; i < block; i++)
            w[i] = (float)r->steps[at + i] * r->scales[(at + i) / r->group];
        if (!find_d(c, r, at, &d)) d = choose_d(c, w, block, r->scales[at / r->group]);
        round_block(c, w, block, d, numbers, &error);
        largest = fmaxf(largest, error);
        c->pack(numbers, eqi_f32_to_f16(d), dst);
    }
    return largest;
}
