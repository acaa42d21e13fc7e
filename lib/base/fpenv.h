/* The floating-point control of the calling thread: rounding, subnormals, traps, precision. Results
 * hang on it, and it is the host program's. */
#ifndef EQI_BASE_FPENV_H
#define EQI_BASE_FPENV_H

#if defined(__x86_64__)

#include <stdint.h>

typedef struct eqi_fpenv {
    uint32_t mxcsr;
    uint16_t x87;
} eqi_fpenv;

/* Round to nearest, subnormals kept, all exceptions masked; the flags below are not control. */
#define EQI_MXCSR_DEFAULT 0x1f80u
#define EQI_MXCSR_CONTROL 0xffc0u
#define EQI_X87_DEFAULT 0x037fu

/* Sets the default and returns what was there. */
static inline eqi_fpenv eqi_fpenv_default(void)
{
    eqi_fpenv found = {.mxcsr = __builtin_ia32_stmxcsr()};
    __asm__ volatile("fnstcw %0" : "=m"(found.x87));
    const uint16_t x87 = EQI_X87_DEFAULT;
    if ((found.mxcsr & EQI_MXCSR_CONTROL) != EQI_MXCSR_DEFAULT)
        __builtin_ia32_ldmxcsr(EQI_MXCSR_DEFAULT);
    if (found.x87 != x87) __asm__ volatile("fldcw %0" : : "m"(x87));
    return found;
}

/* Flags go back with a control that was not the default: one that traps would trap on them. */
static inline void eqi_fpenv_restore(const eqi_fpenv *found)
{
    if ((found->mxcsr & EQI_MXCSR_CONTROL) != EQI_MXCSR_DEFAULT)
        __builtin_ia32_ldmxcsr(found->mxcsr);
    if (found->x87 != EQI_X87_DEFAULT) __asm__ volatile("fnclex\n\tfldcw %0" : : "m"(found->x87));
}

#else

#include <fenv.h>

typedef fenv_t eqi_fpenv;

static inline eqi_fpenv eqi_fpenv_default(void)
{
    eqi_fpenv found;
    fegetenv(&found);
    fesetenv(FE_DFL_ENV);
    return found;
}

static inline void eqi_fpenv_restore(const eqi_fpenv *found) { fesetenv(found); }

#endif

/* To the end of the block. */
#define EQI_FPENV_GUARD() \
    eqi_fpenv eqi_fpenv_ __attribute__((cleanup(eqi_fpenv_restore_), unused)) = eqi_fpenv_default()

static inline void eqi_fpenv_restore_(eqi_fpenv *found) { eqi_fpenv_restore(found); }

#endif
