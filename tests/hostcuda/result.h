/* What every call of the interface does first and last. */
#ifndef HOSTCUDA_RESULT_H
#define HOSTCUDA_RESULT_H

#include "streams.h"

namespace hostcuda
{

/* The device of the calling thread. */
int current_device();
/* Why no call can succeed: no device, an old driver, a broken device; cudaSuccess: nothing. */
cudaError_t unusable();
/* Remembers a failure for cudaGetLastError; a broken device comes before everything. */
cudaError_t result(cudaError_t error);
/* The call is this thread's (counted from 1) allocation, on the device or pinned, or launch that
 * shall fail. */
bool allocation_fails();
bool pinning_fails();
bool launch_breaks();

} // namespace hostcuda

/* Takes the turn; fails when nothing can succeed. */
#define HOSTCUDA_ENTER                                            \
    std::lock_guard<std::recursive_mutex> held(hostcuda::turn()); \
    if (hostcuda::unusable()) return hostcuda::result(hostcuda::unusable())
/* For calls that give back something: they do it on a broken device, too. */
#define HOSTCUDA_ENTER_ANYWAY std::lock_guard<std::recursive_mutex> held(hostcuda::turn())

#endif
