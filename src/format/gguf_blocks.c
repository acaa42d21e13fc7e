#include "format/gguf_blocks.h"

#include "base/half.h"

static float half_at(const unsigned char *p)
{
    return eqi_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* d, 32 four-bit codes: the low halves of 16 bytes first, then the high ones. */
static void decode_q4_0(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p);
    for (int i = 0; i < 16; i++) {
        y[i] = d * (float)((p[2 + i] & 15) - 8);
        y[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
    }
}

static void decode_q4_1(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p), m = half_at(p + 2);
    for (int i = 0; i < 16; i++) {
        const float low = d * (float)(p[4 + i] & 15);
        const float high = d * (float)(p[4 + i] >> 4);
        y[i] = low + m;
        y[i + 16] = high + m;
    }
}

static uint32_t word_at(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The fifth bits of the 32 codes stand in one word, in the order of the values. */
static void decode_q5_0(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p);
    const uint32_t fifth = word_at(p + 2);
    for (int i = 0; i < 16; i++) {
        const int low = (p[6 + i] & 15) | (int)(fifth >> i & 1) << 4;
        const int high = p[6 + i] >> 4 | (int)(fifth >> (i + 16) & 1) << 4;
        y[i] = d * (float)(low - 16);
        y[i + 16] = d * (float)(high - 16);
    }
}

static void decode_q5_1(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p), m = half_at(p + 2);
    const uint32_t fifth = word_at(p + 4);
    for (int i = 0; i < 16; i++) {
        const float low = d * (float)((p[8 + i] & 15) | (int)(fifth >> i & 1) << 4);
        const float high = d * (float)(p[8 + i] >> 4 | (int)(fifth >> (i + 16) & 1) << 4);
        y[i] = low + m;
        y[i + 16] = high + m;
    }
}

static void decode_q8_0(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p);
    for (int i = 0; i < 32; i++) y[i] = d * (float)(int8_t)p[2 + i];
}

/* Eight six-bit scales and eight six-bit minima in 12 bytes: the first four of each whole in bytes
 * 0-3 and 4-7, the low halves of the others in bytes 8-11, their top two bits above the first four.
 */
static void unpack_scales(const unsigned char *p, int *scale, int *min)
{
    for (int i = 0; i < 4; i++) {
        scale[i] = p[i] & 63;
        min[i] = p[i + 4] & 63;
        scale[i + 4] = (p[i + 8] & 15) | (p[i] >> 6) << 4;
        min[i + 4] = p[i + 8] >> 4 | (p[i + 4] >> 6) << 4;
    }
}

/* fifth: NULL, or 32 bytes of which bit j belongs to the j-th group of 32 values. */
static void decode_k45(float d, float dmin, const unsigned char *restrict scales,
                       const unsigned char *restrict fifth, const unsigned char *restrict codes,
                       float *restrict y)
{
    int scale[8], min[8];
    unpack_scales(scales, scale, min);
    for (int j = 0; j < 8; j++) {
        const float s = d * (float)scale[j], m = dmin * (float)min[j];
        const unsigned char *q = codes + 32 * (j / 2);
        for (int i = 0; i < 32; i++) {
            int code = q[i] >> (j & 1) * 4 & 15;
            if (fifth) code |= (fifth[i] >> j & 1) << 4;
            const float product = s * (float)code;
            y[32 * j + i] = product - m;
        }
    }
}

static void decode_q4_k(const unsigned char *restrict p, float *restrict y)
{
    decode_k45(half_at(p), half_at(p + 2), p + 4, NULL, p + 16, y);
}

static void decode_q5_k(const unsigned char *restrict p, float *restrict y)
{
    decode_k45(half_at(p), half_at(p + 2), p + 4, p + 16, p + 48, y);
}

/* 128 bytes of low halves, 64 bytes of upper pairs of bits, 16 scales of a byte, d. Each half of
 * the block has four runs of 32 values, which share their bytes of upper bits. */
static void decode_q6_k(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p + 208);
    for (int run = 0; run < 8; run++) {
        const int half = run / 4, r = run % 4;
        const unsigned char *low = p + 64 * half + 32 * (r & 1), *high = p + 128 + 32 * half;
        for (int i = 0; i < 32; i++) {
            const int code = (low[i] >> (r / 2) * 4 & 15) | (high[i] >> 2 * r & 3) << 4;
            const float s = d * (float)(int8_t)p[192 + 2 * run + i / 16];
            y[32 * run + i] = s * (float)(code - 32);
        }
    }
}

/* d, 64 two-bit codes, four to a byte from its lowest bits on. */
static void decode_q2_0(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p);
    for (int i = 0; i < 64; i++) y[i] = d * (float)((p[2 + i / 4] >> i % 4 * 2 & 3) - 1);
}

/* 256 two-bit codes, then d. Each half of the block has four runs of 32 values, which share their
 * bytes. */
static void decode_tq2_0(const unsigned char *restrict p, float *restrict y)
{
    const float d = half_at(p + 64);
    for (int i = 0; i < 256; i++) {
        const int half = i / 128, run = i / 32 % 4;
        y[i] = d * (float)((p[32 * half + i % 32] >> 2 * run & 3) - 1);
    }
}

void eqi_gguf_decode_block(eqi_stored stored, const unsigned char *src, float *dst)
{
    switch (stored) {
    case EQI_STORED_Q4_0: decode_q4_0(src, dst); break;
    case EQI_STORED_Q4_1: decode_q4_1(src, dst); break;
    case EQI_STORED_Q5_0: decode_q5_0(src, dst); break;
    case EQI_STORED_Q5_1: decode_q5_1(src, dst); break;
    case EQI_STORED_Q8_0: decode_q8_0(src, dst); break;
    case EQI_STORED_Q4_K: decode_q4_k(src, dst); break;
    case EQI_STORED_Q5_K: decode_q5_k(src, dst); break;
    case EQI_STORED_Q6_K: decode_q6_k(src, dst); break;
    case EQI_STORED_Q2_0: decode_q2_0(src, dst); break;
    case EQI_STORED_TQ2_0: decode_tq2_0(src, dst); break;
    default: break;
    }
}
