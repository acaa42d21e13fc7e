/* Whether accesses of the past are ordered before the running one; the slow half of the checks. */
#ifndef HOSTCUDA_ORDER_H
#define HOSTCUDA_ORDER_H

#include "stamps.h"

namespace hostcuda
{

bool ordered_before(stamp s);

/* A stamp for the accesses of `old` and the running one, of which none orders the others. */
stamp widened(stamp old);

/* Faults: the running access conflicts with an earlier one. `to` begins the message's verb, as in
 * "reads" or "writes"; `did` says what the other one did. */
[[noreturn]] void report_conflict(const char *to, const char *did, stamp other, const char *space,
                                  uintptr_t offset);

} // namespace hostcuda

#endif
