/* What jobs have come to, for the report and the log. */
#ifndef EQAT_TOOL_TRAINED_H
#define EQAT_TOOL_TRAINED_H

#include "tool.h"

/* The member "kept": of every stage of a block which state it keeps. */
json_t *trained_kept(const eqat_block_ap *ap, int64_t block);
/* Into the report: losses of the blocks that are done. */
void trained_blocks(tool *t, const eqat_block_ap *ap, int64_t epochs_of_stage);
/* Into the report, and to the log: losses of a run, and which state it keeps. */
void trained_end_to_end(tool *t, const eqat_e2e_qp *e2e);

#endif
