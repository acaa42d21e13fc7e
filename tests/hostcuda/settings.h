/* What the environment asks for; read once. */
#ifndef HOSTCUDA_SETTINGS_H
#define HOSTCUDA_SETTINGS_H

#include <stddef.h>
#include <stdint.h>

namespace hostcuda
{

struct settings {
    uint64_t seed;      /* HOSTCUDA_SEED: order of threads, blocks and queued work */
    long fail_alloc;    /* HOSTCUDA_FAIL_ALLOC: this device allocation fails, counted from 1 */
    long full_at;       /* HOSTCUDA_FULL_AT: this one and all behind it fail */
    long fail_pin;      /* HOSTCUDA_FAIL_PIN: the same of pinned memory */
    size_t memory;      /* HOSTCUDA_MEMORY: bytes of a device */
    int devices;        /* HOSTCUDA_DEVICES */
    int driver;         /* HOSTCUDA_DRIVER: version */
    int capability;     /* HOSTCUDA_CAPABILITY: compute capability, 90 for 9.0 */
    long fault_at;      /* HOSTCUDA_FAULT_AT: this launch breaks the device, counted from 1 */
    bool trace;         /* HOSTCUDA_TRACE: work is told on stderr as it runs */
    const char *report; /* HOSTCUDA_REPORT: a file that tells of every wait of the host; or NULL */
    bool catch_segv;    /* HOSTCUDA_SEGV: SIGSEGV is reported like a fault */
};

const settings &asked();

/* The next number of the seed's sequence, below `bound`. */
uint32_t draw(uint32_t bound);

} // namespace hostcuda

#endif
