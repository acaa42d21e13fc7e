/* The checks of loads and stores against what was done to the same memory before. */
#ifndef HOSTCUDA_SHADOW_H
#define HOSTCUDA_SHADOW_H

#include "memory.h"

#include <stddef.h>

namespace hostcuda
{

/* ---- whole ranges, for copies and products; ends and order are checked ---- */
/* `p` may point to pinned memory; pageable memory is passed over. */
void range_read(const void *p, size_t size);
void range_write(void *p, size_t size);
/* A read and a write in which bytes that nobody wrote stay such. */
void range_copy(void *to, const void *from, size_t size);

/* ---- shared memory ---- */
/* A block of `size` bytes begins: nothing is written yet. Gives back where it is. */
void *shared_begin(size_t size);

/* ---- atomics of the running thread ---- */
void check_atomic(const void *p, size_t size);

/* ---- host memory that a kernel may read ---- */
/* The parameters of the launch that runs. */
void readable_params(const void *p, size_t size);
/* Memory of the runtime that kernels read: what exchange gives back. */
void readable_always(const void *p, size_t size);

} // namespace hostcuda

#endif
