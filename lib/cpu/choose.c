#include <string.h>

#include "cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* AMX in plain C: only in programs that link it for a test. */
extern const eqi_simd eqi_simd_amxmodel __attribute__((weak));

static const eqi_simd *const sets[] = {&eqi_simd_amx,  &eqi_simd_avx512bf16, &eqi_simd_avx512,
                                       &eqi_simd_avx2, &eqi_simd_generic,    &eqi_simd_amxmodel};

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

/* Linux gives a process the state of the matrix registers on request (oneDNN asks for the same). */
static bool has_amx(void)
{
    enum { REQUEST = 0x1023, TILE_DATA = 18, BF16 = 1 << 22, TILE = 1 << 24, STATE = 3 << 17 };
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & BF16) == 0 || (d & TILE) == 0)
        return false;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & STATE) == STATE && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}
#else
static bool has_amx(void) { return false; }
#endif

/* clang 14 has no name for it. Where AVX2 works, so does its state. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool runs_here(const eqi_simd *simd, bool amx)
{
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c() &&
        __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (simd == &eqi_simd_amx) return bf16 && amx && has_amx();
    if (simd == &eqi_simd_avx512bf16 || simd == &eqi_simd_amxmodel) return bf16;
    if (simd == &eqi_simd_avx512) return avx512;
    if (simd == &eqi_simd_avx2) return avx2;
    return true;
}

#else

static const eqi_simd *const sets[] = {&eqi_simd_generic};

static bool runs_here(const eqi_simd *simd, bool amx)
{
    (void)simd;
    (void)amx;
    return true;
}

#endif

const eqi_simd *eqi_cpu_simd(const char *name, bool amx)
{
    for (size_t i = 0; i < EQI_COUNT(sets); i++)
        if (sets[i] && (!name || strcmp(name, sets[i]->name) == 0) && runs_here(sets[i], amx))
            return sets[i];
    return NULL;
}
