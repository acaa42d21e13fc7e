/* Bytes that a run takes, from shapes and options alone, besides what the process has by then. */
#ifndef EQAT_TOOL_NEED_SIZES_H
#define EQAT_TOOL_NEED_SIZES_H

#include "need.h"

/* Memory at most, of each phase. */
typedef struct need_phases {
    double block_ap, e2e;
} need_phases;

typedef struct need_sizes {
    double streams;       /* the activations between two blocks, of all samples */
    need_phases host;     /* without them */
    need_phases device;   /* 0: tensors are in the host's memory */
    double checkpoints;   /* on disk, while the next replaces the last */
    double out;           /* of the result */
    double ends, ends_in; /* of it, and of the source: what is no linear of a block */
    double first, all;    /* weights in the linears of block 0, of all blocks */
    double head;          /* of the output head */
    int64_t stages;       /* of Block-AP in a block, at most */
} need_sizes;

eqat_status need_sizes_of(const need *n, need_sizes *out);

#endif
