#include "base/rng.h"

#include <math.h>

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t eqi_rng_bits(uint64_t seed, uint32_t purpose, uint64_t index)
{
    return mix(mix(mix(seed) ^ purpose) ^ index);
}

uint64_t eqi_rng_below(uint64_t seed, uint32_t purpose, uint64_t index, uint64_t bound)
{
    /* High word of the 128-bit product: bits * bound / 2^64. */
    uint64_t r = eqi_rng_bits(seed, purpose, index);
    uint64_t rl = r & 0xffffffffu, rh = r >> 32, bl = bound & 0xffffffffu, bh = bound >> 32;
    uint64_t ll = rl * bl, lh = rl * bh, hl = rh * bl;
    uint64_t carry = ((ll >> 32) + (lh & 0xffffffffu) + (hl & 0xffffffffu)) >> 32;
    return rh * bh + (lh >> 32) + (hl >> 32) + carry;
}

double eqi_rng_normal(uint64_t seed, uint32_t purpose, uint64_t index)
{
    const double unit = 1.0 / 9007199254740992.0; /* 2^-53 */
    double u = (double)((eqi_rng_bits(seed, purpose, 2 * index) >> 11) + 1) * unit;
    double v = (double)(eqi_rng_bits(seed, purpose, 2 * index + 1) >> 11) * unit;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}
