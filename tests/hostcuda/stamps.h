/* A stamp tells in 64 bits who accessed memory, and when.
 *
 *     phase 34 | thread 10 | epoch 16 | atomic 1 | kind 3
 *
 * A phase is a stretch of one block between two barriers, or a whole copy or product; phases are
 * numbered in the order in which they run, from 1. An epoch is a stretch of one lane between two
 * __syncwarp. The kind widens a stamp to several threads: 0 to 5 are an aligned group of 2^kind
 * lanes that begins at `thread`, then come several warps of the block, and several blocks.
 */
#ifndef HOSTCUDA_STAMPS_H
#define HOSTCUDA_STAMPS_H

#include <stdint.h>

namespace hostcuda
{

typedef uint64_t stamp;

enum { PHASE_AT = 30, THREAD_AT = 20, EPOCH_AT = 4 };
enum : uint32_t { EPOCH_LIMIT = 0xfff0 };
enum { LANES = 5, BLOCK = 6, GRID = 7 }; /* kinds */
const stamp KIND = 7, ATOMIC = 8, EPOCH = (stamp)0xffff << EPOCH_AT;
/* Of this phase are stamps that stand for several unordered readers; the rest is a number. */
const uint64_t PHASE_OF_SETS = ((uint64_t)1 << 34) - 1;

inline uint64_t phase_of(stamp s) { return s >> PHASE_AT; }
inline unsigned thread_of(stamp s) { return s >> THREAD_AT & 0x3ff; }
inline unsigned epoch_of(stamp s) { return s >> EPOCH_AT & 0xffff; }
inline unsigned kind_of(stamp s) { return s & KIND; }

inline stamp make_stamp(uint64_t phase, unsigned thread, unsigned epoch)
{
    return phase << PHASE_AT | (stamp)thread << THREAD_AT | (stamp)epoch << EPOCH_AT;
}

/* The last accesses of a granule of memory. */
struct cell {
    stamp write; /* 0: nobody wrote it yet */
    stamp read;  /* since the last write; 0: nobody */
};

/* Who is running, for the checks. */
struct running {
    uintptr_t stack; /* of the thread; its own accesses there are nobody else's business */
    stamp now;
    uint64_t phase;       /* the last one begun */
    uint64_t block_first; /* the first phase of the block */
    uint64_t work_first;  /* the first phase of the launch, copy or product */
    uint64_t settled;     /* every phase before this one is ordered before the work */
    uint64_t serial;      /* of the work, from 1; 0: nothing runs */
    uint64_t accesses;    /* checked so far */
    uint32_t epoch;       /* of the lane */
};
extern running here;

} // namespace hostcuda

#endif
