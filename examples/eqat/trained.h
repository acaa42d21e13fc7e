/* What jobs have come to, for the report and the log. */
#ifndef EQAT_TOOL_TRAINED_H
#define EQAT_TOOL_TRAINED_H

#include "tool.h"

/* The member "kept": of every stage of a block which state it keeps. */
json_t *trained_kept(const eqat_block_ap *ap, int64_t block);
/* To the log, with the seconds that they took: a block, an epoch. */
void trained_block(tool *t, const eqat_block_ap *ap, int64_t block, int64_t blocks, double seconds);
void trained_epoch(tool *t, const eqat_block_ap *ap, const eqat_progress *p, double seconds);
/* Into the report: losses of the blocks that are done. */
void trained_blocks(tool *t, const eqat_block_ap *ap, int64_t epochs_of_stage);
/* Into the report, and to the log: losses of a run, and which state it keeps. */
void trained_end_to_end(tool *t, const eqat_e2e_qp *e2e);

#endif
