/* -fsanitize=thread turns atomics of C++, and the guards of static variables, into these calls.
 * They stand in host code of .cu files; in a kernel they are checked like other atomics.
 */
#include "shadow.h"

#include <stdint.h>

/* Orders that the caller asked for are of no use: all are the strongest. */
enum { STRONGEST = __ATOMIC_SEQ_CST };
#define CHECK_ATOMIC \
    hostcuda::check_atomic((const void *)at, sizeof *at, __builtin_return_address(0))

#define CHANGE(bits, name)                                                              \
    extern "C" uint##bits##_t __tsan_atomic##bits##_##name(volatile uint##bits##_t *at, \
                                                           uint##bits##_t value, int)   \
    {                                                                                   \
        CHECK_ATOMIC;                                                                   \
        return __atomic_##name(at, value, STRONGEST);                                   \
    }
#define COMPARE(bits, name)                                                                    \
    extern "C" bool __tsan_atomic##bits##_compare_exchange_##name(                             \
        volatile uint##bits##_t *at, uint##bits##_t *expected, uint##bits##_t value, int, int) \
    {                                                                                          \
        CHECK_ATOMIC;                                                                          \
        return __atomic_compare_exchange_n(at, expected, value, false, STRONGEST, STRONGEST);  \
    }
#define ATOMICS(bits)                                                                              \
    extern "C" uint##bits##_t __tsan_atomic##bits##_load(const volatile uint##bits##_t *at, int)   \
    {                                                                                              \
        CHECK_ATOMIC;                                                                              \
        return __atomic_load_n(at, STRONGEST);                                                     \
    }                                                                                              \
    extern "C" void __tsan_atomic##bits##_store(volatile uint##bits##_t *at, uint##bits##_t value, \
                                                int)                                               \
    {                                                                                              \
        CHECK_ATOMIC;                                                                              \
        __atomic_store_n(at, value, STRONGEST);                                                    \
    }                                                                                              \
    extern "C" uint##bits##_t __tsan_atomic##bits##_exchange(volatile uint##bits##_t *at,          \
                                                             uint##bits##_t value, int)            \
    {                                                                                              \
        CHECK_ATOMIC;                                                                              \
        return __atomic_exchange_n(at, value, STRONGEST);                                          \
    }                                                                                              \
    CHANGE(bits, fetch_add)                                                                        \
    CHANGE(bits, fetch_sub)                                                                        \
    CHANGE(bits, fetch_and)                                                                        \
    CHANGE(bits, fetch_or)                                                                         \
    CHANGE(bits, fetch_xor)                                                                        \
    COMPARE(bits, strong)                                                                          \
    COMPARE(bits, weak)

ATOMICS(8)
ATOMICS(16)
ATOMICS(32)
ATOMICS(64)

extern "C" void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(STRONGEST); }
extern "C" void __tsan_atomic_signal_fence(int) {}
