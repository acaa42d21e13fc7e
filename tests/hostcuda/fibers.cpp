#include "fibers.h"

#include "block.h"
#include "fault.h"
#include "settings.h"
#include "shadow.h"

#include "hostcuda/device.h"

#include <numeric>
#include <stdlib.h>
#include <sys/mman.h>

/* Kernels see these as constants, which for each thread they are. */
static_assert(sizeof(hostcuda::index3) == 3 * sizeof(unsigned));
#define WRITABLE(name) __asm__(name) __attribute__((visibility("hidden")))
extern unsigned thread_index[3] WRITABLE("threadIdx");
extern unsigned block_index[3] WRITABLE("blockIdx");
extern unsigned block_size[3] WRITABLE("blockDim");
extern unsigned grid_size[3] WRITABLE("gridDim");
unsigned thread_index[3], block_index[3], block_size[3], grid_size[3];

namespace hostcuda
{

__thread bool kernel_runs;
block running_block;
fiber *self;

static const size_t GUARD_PAGE = 4096, STACK_STEP = STACK_SIZE + GUARD_PAGE;
static const unsigned MOST_THREADS = 1024;
static char *stacks; /* of all fibers, a guard in front of each */
static std::vector<fiber *> fibers;
static context host;
static const grid *running_grid;
static void *shared_memory;

static void set(unsigned *to, dim3 value)
{
    to[0] = value.x;
    to[1] = value.y;
    to[2] = value.z;
}

/* The fiber goes on: what the checks and the kernel know of it. */
static void enter(fiber *f)
{
    self = f;
    set(thread_index, f->thread);
    here.stack = f->stack;
    here.epoch = f->home->epoch[f->lane];
    here.now = make_stamp(here.phase, f->index, here.epoch);
}

static context *next()
{
    std::vector<fiber *> &ready = running_block.ready;
    if (ready.empty()) {
        if (running_block.live) report_stuck();
        return &host;
    }
    uint32_t i = draw((uint32_t)ready.size());
    fiber *f = ready[i];
    ready[i] = ready.back();
    ready.pop_back();
    return &f->registers;
}

void pause_fiber()
{
    fiber *f = self;
    context *to = next();
    if (to != &f->registers) context_switch(&f->registers, to);
    enter(f);
}

static void entry()
{
    fiber *f = nullptr;
    for (fiber *other : fibers) /* `self` is of the fiber that made way */
        if ((uintptr_t)__builtin_frame_address(0) - other->stack < STACK_SIZE) f = other;
    for (;;) {
        enter(f);
        running_grid->call(running_grid->kernel, running_grid->params);
        leave_block(f);
        context *to = next();
        if (to != &f->registers) context_switch(&f->registers, to);
    }
}

static void add_fiber()
{
    if (!stacks) {
        void *p = mmap(nullptr, MOST_THREADS * STACK_STEP, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) fault("no memory left for the stacks of threads");
        stacks = (char *)p;
    }
    fiber *f = new fiber();
    f->index = (unsigned)fibers.size();
    f->lane = f->index % 32;
    char *stack = stacks + f->index * STACK_STEP + GUARD_PAGE;
    if (mprotect(stack, STACK_SIZE, PROT_READ | PROT_WRITE) != 0)
        fault("no memory left for the stacks of threads");
    f->stack = (uintptr_t)stack;
    /* Tops of stacks at different places of their pages share the cache better. */
    context_make(&f->registers, stack, STACK_SIZE - f->index % 16 * 256, entry);
    fibers.push_back(f);
}

bool foreign_stack(const void *at)
{
    return stacks && (uintptr_t)at - (uintptr_t)stacks < MOST_THREADS * STACK_STEP;
}

bool stack_guard(const void *at)
{
    return foreign_stack(at) && ((uintptr_t)at - (uintptr_t)stacks) % STACK_STEP < GUARD_PAGE;
}

bool where(place *at)
{
    if (!running_grid) return false;
    dim3 b(block_index[0], block_index[1], block_index[2]);
    *at = {running_grid->blocks, b, running_grid->threads, self->thread};
    return true;
}

void *dynamic_shared() { return shared_memory; }

int lane() { return (int)self->lane; }

static void prepare(const grid &g)
{
    unsigned n = g.threads.x * g.threads.y * g.threads.z;
    while (fibers.size() < n) add_fiber();
    running_block.warps.resize(MOST_THREADS / 32);
    for (unsigned t = 0; t < n; t++) {
        fiber *f = fibers[t];
        f->home = &running_block.warps[t / 32];
        f->thread =
            dim3(t % g.threads.x, t / g.threads.x % g.threads.y, t / (g.threads.x * g.threads.y));
    }
    running_block.threads = n;
    set(block_size, g.threads);
    set(grid_size, g.blocks);
}

static void run_block(const grid &g, uint32_t number)
{
    set(block_index,
        dim3(number % g.blocks.x, number / g.blocks.x % g.blocks.y,
             number / (g.blocks.x * g.blocks.y)));
    shared_memory = shared_begin(g.shared);
    here.block_first = ++here.phase;
    begin_block(fibers.data());
    context_switch(&host, next());
}

/* All blocks once, in an order of the seed: steps of a size that shares no factor with their
 * number, from anywhere. */
static void run_blocks(const grid &g)
{
    uint64_t n = (uint64_t)g.blocks.x * g.blocks.y * g.blocks.z;
    uint64_t at = draw((uint32_t)n), step = 1 + draw((uint32_t)n);
    while (std::gcd(step, n) != 1) step++;
    for (uint64_t i = 0; i < n; i++) {
        at = (at + step) % n;
        run_block(g, (uint32_t)at);
    }
}

void run_grid(const grid &g)
{
    running_grid = &g;
    prepare(g);
    kernel_runs = true;
    run_blocks(g);
    kernel_runs = false;
    running_grid = nullptr;
    here.stack = 0;
    fault_code = nullptr;
}

} // namespace hostcuda
