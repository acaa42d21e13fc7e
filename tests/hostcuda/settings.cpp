#include "settings.h"

#include "hostcuda/types.h"

#include <stdlib.h>

namespace hostcuda
{

static long long number(const char *name, long long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoll(text, nullptr, 0) : otherwise;
}

static settings read_settings()
{
    settings s;
    s.seed = (uint64_t)number("HOSTCUDA_SEED", 1);
    s.fail_alloc = (long)number("HOSTCUDA_FAIL_ALLOC", 0);
    s.full_at = (long)number("HOSTCUDA_FULL_AT", 0);
    s.fail_pin = (long)number("HOSTCUDA_FAIL_PIN", 0);
    s.memory = (size_t)number("HOSTCUDA_MEMORY", 8ll << 30);
    s.devices = (int)number("HOSTCUDA_DEVICES", 1);
    s.driver = (int)number("HOSTCUDA_DRIVER", CUDART_VERSION);
    s.capability = (int)number("HOSTCUDA_CAPABILITY", 90);
    s.fault_at = (long)number("HOSTCUDA_FAULT_AT", 0);
    s.trace = number("HOSTCUDA_TRACE", 0) != 0;
    s.report = getenv("HOSTCUDA_REPORT");
    s.catch_segv = number("HOSTCUDA_SEGV", 0) != 0;
    return s;
}

const settings &asked()
{
    static const settings s = read_settings();
    return s;
}

/* xorshift64*, started from a mixed seed so that neighbouring seeds have nothing in common. */
uint32_t draw(uint32_t bound)
{
    static uint64_t x = (asked().seed + 1) * 0x9e3779b97f4a7c15u | 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    uint32_t high = (uint32_t)(x * 0x2545f4914f6cdd1du >> 32);
    return (uint32_t)((uint64_t)high * bound >> 32);
}

} // namespace hostcuda
