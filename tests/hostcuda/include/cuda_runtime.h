/* Stand-in for the CUDA runtime's header: kernels compile with g++ and run on the CPU, every access
 * checked. ../README.md tells how; what is missing here is not to be used by the product.
 */
#ifndef HOSTCUDA_CUDA_RUNTIME_H
#define HOSTCUDA_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "hostcuda/types.h"

#include "hostcuda/device.h"
#include "hostcuda/host.h"

#endif
