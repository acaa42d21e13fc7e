/* Randomness as a pure function of (seed, purpose, index): no generator state to save or share. */
#ifndef EQI_BASE_RNG_H
#define EQI_BASE_RNG_H

#include <stdint.h>

typedef enum eqi_rng_purpose {
    EQI_RNG_WINDOW = 1,
    EQI_RNG_SHUFFLE = 2,
    EQI_RNG_INIT = 3,
    EQI_RNG_USER = 4,
    EQI_RNG_TOKEN = 5
} eqi_rng_purpose;

/* 64 uniform bits. */
uint64_t eqi_rng_bits(uint64_t seed, uint32_t purpose, uint64_t index);
/* Uniform in [0, bound), bound > 0, without modulo bias beyond 2^-64 * bound. */
uint64_t eqi_rng_below(uint64_t seed, uint32_t purpose, uint64_t index, uint64_t bound);
/* Standard normal, from two draws at 2*index and 2*index+1 (Box-Muller). */
double eqi_rng_normal(uint64_t seed, uint32_t purpose, uint64_t index);

#endif
