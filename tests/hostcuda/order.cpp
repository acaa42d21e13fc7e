#include "order.h"

#include "clocks.h"
#include "fault.h"
#include "fibers.h"
#include "streams.h"

#include <stdio.h>
#include <unordered_map>
#include <vector>

namespace hostcuda
{

running here;

/* Readers in several streams that are not ordered among each other: a clock of them all. */
static std::vector<clock> sets;
static uint64_t known_for; /* the work whose `known` these are */
static std::unordered_map<uint64_t, uint32_t> known;

static const clock &set_of(stamp s) { return sets[s & 0x3fffffff]; }

static bool same_lanes_before(stamp s)
{
    unsigned first = thread_of(s), count = 1u << kind_of(s), me = thread_of(here.now);
    if (kind_of(s) > LANES || first / 32 != me / 32) return false;
    for (unsigned t = first; t < first + count; t++)
        if (t != me && !lane_synced(t, epoch_of(s))) return false;
    return true;
}

bool ordered_before(stamp s)
{
    unchecked pause;
    uint64_t phase = phase_of(s);
    if (phase == PHASE_OF_SETS) return covers(running_clock(), set_of(s));
    if (phase < here.work_first) return phase < here.settled || is_settled(phase);
    if (phase < here.block_first || kind_of(s) == GRID) return false;
    return phase < here.phase || same_lanes_before(s);
}

/* The smallest aligned group of lanes that holds the old one and the running thread. */
static stamp widened_lanes(stamp old)
{
    unsigned me = thread_of(here.now), kind = kind_of(old), first = thread_of(old);
    while (first >> kind != me >> kind) kind++;
    unsigned epoch = epoch_of(old) > here.epoch ? epoch_of(old) : here.epoch;
    return make_stamp(here.phase, first >> kind << kind, epoch) | kind;
}

static uint64_t identity(stamp s)
{
    uint32_t slot, number;
    if (phase_of(s) == PHASE_OF_SETS) return s;
    work_at(phase_of(s), &slot, &number);
    return (uint64_t)slot << 32 | number;
}

static stamp widened_works(stamp old)
{
    unchecked pause;
    if (known_for != here.serial) known.clear();
    known_for = here.serial;
    auto found = known.emplace(identity(old), (uint32_t)sets.size());
    if (found.second) {
        clock set;
        if (phase_of(old) == PHASE_OF_SETS) {
            set = set_of(old);
        } else {
            uint32_t slot, number;
            work_at(phase_of(old), &slot, &number);
            raise(set, slot, number);
        }
        raise(set, running_slot(), running_number());
        sets.push_back(set);
        known.emplace(PHASE_OF_SETS << PHASE_AT | found.first->second, found.first->second);
    }
    return PHASE_OF_SETS << PHASE_AT | found.first->second;
}

stamp widened(stamp old)
{
    uint64_t phase = phase_of(old);
    if (phase < here.work_first || phase == PHASE_OF_SETS) return widened_works(old);
    if (phase < here.block_first || kind_of(old) == GRID) return here.now | GRID;
    if (phase < here.phase) return here.now;
    if (kind_of(old) == BLOCK || thread_of(old) / 32 != thread_of(here.now) / 32)
        return here.now | BLOCK;
    return widened_lanes(old);
}

void report_conflict(const char *to, const char *did, stamp other, const char *space,
                     uintptr_t offset)
{
    unchecked pause;
    uint64_t phase = phase_of(other);
    if (phase == PHASE_OF_SETS)
        fault("%s what several streams %s, without order between: %s + %zu", to, did, space,
              (size_t)offset);
    if (phase < here.work_first)
        fault("%s what %s %s, without order between (no event or wait): %s + %zu", to,
              name_at(phase), did, space, (size_t)offset);
    if (phase < here.block_first || kind_of(other) == GRID)
        fault("%s what another block %s: %s + %zu", to, did, space, (size_t)offset);
    if (kind_of(other) == BLOCK)
        fault("%s what other threads %s, without a barrier or __syncwarp between: %s + %zu", to,
              did, space, (size_t)offset);
    if (kind_of(other) > 0)
        fault(
            "%s what one of threads %u to %u %s, without a barrier or __syncwarp between: %s + %zu",
            to, thread_of(other), thread_of(other) + (1u << kind_of(other)) - 1, did, space,
            (size_t)offset);
    fault("%s what thread %u %s, without a barrier or __syncwarp between: %s + %zu", to,
          thread_of(other), did, space, (size_t)offset);
}

} // namespace hostcuda
