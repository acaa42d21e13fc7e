/* The threads of a block are fibers of the calling thread; they switch at barriers and at warp
 * operations, and which one goes on is drawn by the seed. Blocks run one after the other.
 */
#ifndef HOSTCUDA_FIBERS_H
#define HOSTCUDA_FIBERS_H

#include "hostcuda/host.h"

namespace hostcuda
{

const size_t STACK_SIZE = 64 << 10;

struct grid {
    dim3 blocks, threads;
    size_t shared;
    const void *kernel;
    invoke call;
    const void *params;
};
/* Runs every block of a grid. */
void run_grid(const grid &g);

/* Where the running thread is, for messages. False: no kernel runs. */
struct place {
    dim3 grid, block, threads, thread;
};
bool where(place *at);

/* Whether the calling host thread is running a kernel; others run code of their own meanwhile. */
extern __thread bool kernel_runs __attribute__((tls_model("initial-exec")));
inline bool inside_kernel() { return kernel_runs; }

/* Around code of the checks that calls templates of the C++ library: the linker may have kept a
 * kernel file's copy of one, whose accesses must not be checked in turn. */
struct unchecked {
    bool was = kernel_runs;
    unchecked() { kernel_runs = false; }
    ~unchecked() { kernel_runs = was; }
};
/* Whether __syncwarp ordered this epoch of a lane of the running warp before the running lane. */
bool lane_synced(unsigned thread, unsigned epoch);

/* Whether the address lies on the stack of some thread, or in front of one. */
bool foreign_stack(const void *at);
bool stack_guard(const void *at);

} // namespace hostcuda

#endif
