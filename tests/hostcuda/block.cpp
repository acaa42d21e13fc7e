/* The barrier of a block, and threads that wait in vain. */
#include "block.h"

#include "fault.h"

namespace hostcuda
{

void begin_block(fiber **fibers)
{
    block &b = running_block;
    b.fibers = fibers;
    b.live = b.threads;
    b.arrived = 0;
    for (unsigned t = 0; t < b.threads; t += 32)
        begin_warp(&b.warps[t / 32], b.threads - t < 32 ? b.threads - t : 32);
    for (unsigned t = 0; t < b.threads; t++) make_ready(fibers[t]);
}

static void open_barrier(block &b)
{
    b.result = b.how == OR ? b.any : b.how == AND ? b.all : b.count;
    b.arrived = 0;
    here.phase++;
    for (unsigned t = 0; t < b.threads; t++)
        if (b.fibers[t]->waits == AT_BARRIER) make_ready(b.fibers[t]);
}

int barrier(combine how, int value, int site)
{
    block &b = running_block;
    if (b.arrived == 0) {
        b.site = site;
        b.how = how;
        b.any = b.count = 0;
        b.all = 1;
    }
    if (b.site != site || b.how != how)
        fault("threads of a block wait at different barriers, lines %d and %d", b.site, site);
    b.any |= value != 0;
    b.all &= value != 0;
    b.count += value != 0;
    self->waits = AT_BARRIER;
    self->site = site;
    if (++b.arrived == b.live) open_barrier(b);
    pause_fiber();
    return b.result;
}

void leave_block(fiber *f)
{
    block &b = running_block;
    f->waits = LEFT;
    leave_warp(f);
    b.live--;
    if (b.live && b.arrived == b.live) open_barrier(b);
}

void report_stuck()
{
    block &b = running_block;
    fiber *lane = nullptr, *blocked = nullptr;
    for (unsigned t = 0; t < b.threads; t++) {
        if (b.fibers[t]->waits == AT_MEETING && !lane) lane = b.fibers[t];
        if (b.fibers[t]->waits == AT_BARRIER) blocked = b.fibers[t];
    }
    if (!lane) fault("threads wait at a barrier for others that never come");
    self = lane;
    meeting *m = lane->last;
    unsigned absent = m->mask & lane->home->present & ~m->arrived;
    unsigned first = absent ? (unsigned)__builtin_ctz(absent) : 0;
    fiber *other = b.fibers[lane->index / 32 * 32 + first];
    fault("%s in line %d waits for lane %u, which never comes: it waits in line %d%s", m->what,
          m->site, first, other->site,
          blocked == other || blocked ? " (a barrier holds threads)" : "");
}

} // namespace hostcuda
