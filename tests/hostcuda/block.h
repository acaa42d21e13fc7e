/* The threads of the running block: who waits for whom. Inside fibers.cpp, block.cpp, warps.cpp. */
#ifndef HOSTCUDA_BLOCK_H
#define HOSTCUDA_BLOCK_H

#include "context.h"
#include "stamps.h"

#include "hostcuda/device.h"

#include <vector>

namespace hostcuda
{

/* A warp operation for which lanes gather; kept until the last of them has seen its values. */
struct meeting {
    shot shots[32];
    unsigned mask, arrived, holders;
    int site;
    const char *what;
    meeting *next; /* of those that are free */
};

struct warp {
    unsigned present; /* lanes that exist and have not left */
    std::vector<meeting *> open;
    /* seen[i][j]: the last epoch of lane j that __syncwarp ordered before lane i goes on. */
    uint16_t epoch[32], seen[32][32];
};

enum waiting { NOWHERE, AT_BARRIER, AT_MEETING, LEFT };

struct fiber {
    context registers;
    uintptr_t stack;
    dim3 thread;
    unsigned index, lane;
    warp *home;
    waiting waits;
    int site;
    meeting *last; /* whose values it may look at */
};

struct block {
    fiber **fibers;
    unsigned threads, live, arrived;
    int site; /* of the barrier that threads wait at */
    int any, all, count, result;
    combine how;
    std::vector<fiber *> ready;
    std::vector<warp> warps;
};

extern block running_block;
extern fiber *self;

/* Lets another fiber go on; returns once this one was made ready and is drawn. */
void pause_fiber();

void begin_block(fiber **fibers);
/* The thread has come to its end. */
void leave_block(fiber *f);
[[noreturn]] void report_stuck();

/* ---- warps ---- */
void begin_warp(warp *w, unsigned lanes);
void leave_warp(fiber *f);

inline void make_ready(fiber *f)
{
    f->waits = NOWHERE;
    running_block.ready.push_back(f);
}

} // namespace hostcuda

#endif
