/* One access to one cell: a few compares where the answer is plain, order.h where it is not. */
#ifndef HOSTCUDA_CELLS_H
#define HOSTCUDA_CELLS_H

#include "fault.h"
#include "order.h"

namespace hostcuda
{

/* Where the checked memory is, for messages. */
struct spot {
    const char *space;
    uintptr_t offset;
};

/* Cells of shared memory know nothing of earlier blocks: stamps of theirs count as none. */
template <bool SHARED> inline bool is_none(stamp s)
{
    return SHARED ? phase_of(s) < here.block_first : s == 0;
}

/* By the running thread in this phase, alone. */
inline bool is_mine(stamp s) { return ((s ^ here.now) & ~(EPOCH | ATOMIC)) == 0; }

/* Plainly ordered before; false tells nothing. */
template <bool SHARED> inline bool is_past(stamp s)
{
    return SHARED ? phase_of(s) < here.phase : phase_of(s) < here.settled;
}

/* By several blocks of this launch: nothing widens that. */
inline bool is_of_grid(stamp s)
{
    return kind_of(s) == GRID && phase_of(s) - here.work_first <= here.phase - here.work_first;
}

template <bool SHARED> inline void need_written(stamp w, spot at)
{
    if (__builtin_expect(is_none<SHARED>(w), 0))
        fault("reads memory that nobody wrote: %s + %zu", at.space, (size_t)at.offset);
}

template <bool SHARED> inline void read_cell(cell *c, spot at)
{
    stamp w = c->write, r = c->read;
    need_written<SHARED>(w, at);
    if (__builtin_expect(!is_past<SHARED>(w) && !is_mine(w), 0) && !ordered_before(w))
        report_conflict("reads", "wrote", w, at.space, at.offset);
    if (r == here.now) return;
    if (is_past<SHARED>(r) || is_mine(r)) {
        c->read = here.now;
        return;
    }
    if (phase_of(r) == here.phase && kind_of(r) >= BLOCK) return;
    if (is_of_grid(r)) return;
    c->read = ordered_before(r) ? here.now : widened(r);
}

/* No reader since the last write, and that write, may be unordered with the running access. */
template <bool SHARED> inline void need_settled(const cell *c, const char *to, spot at)
{
    stamp w = c->write, r = c->read;
    if (__builtin_expect(!is_past<SHARED>(w) && !is_mine(w), 0) && !ordered_before(w))
        report_conflict(to, "wrote", w, at.space, at.offset);
    if (__builtin_expect(!is_past<SHARED>(r) && !is_mine(r), 0) && !ordered_before(r))
        report_conflict(to, "reads", r, at.space, at.offset);
}

template <bool SHARED> inline void write_cell(cell *c, spot at)
{
    need_settled<SHARED>(c, "writes", at);
    c->write = here.now;
    c->read = 0;
}

/* Atomics of one launch do not conflict with each other. */
template <bool SHARED> inline void atomic_cell(cell *c, spot at)
{
    stamp w = c->write, r = c->read;
    need_written<SHARED>(w, at);
    bool among = (w & ATOMIC) && phase_of(w) >= here.work_first && !is_none<SHARED>(w);
    if (!among && !is_past<SHARED>(w) && !is_mine(w) && !ordered_before(w))
        report_conflict("changes atomically", "wrote", w, at.space, at.offset);
    if (!is_past<SHARED>(r) && !is_mine(r) && !ordered_before(r))
        report_conflict("changes atomically", "reads", r, at.space, at.offset);
    bool alone = !among || ordered_before(w);
    c->write = (alone ? here.now : widened(w)) | ATOMIC;
    c->read = 0;
}

} // namespace hostcuda

#endif
