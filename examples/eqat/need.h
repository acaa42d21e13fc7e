/* What a run will take, told before it begins: memory and disk from shapes and options, time from a
 * measured step of block 0. */
#ifndef EQAT_TOOL_NEED_H
#define EQAT_TOOL_NEED_H

#include "tool.h"

typedef struct need {
    eqat_model *model;
    const eqat_quantizer *quantizer; /* NULL: the model is quantized */
    const eqat_model_options *model_options;
    const eqat_data_options *data; /* NULL: no Block-AP */
    const eqat_block_ap_options *block_ap;
    const eqat_data_options *e2e_data; /* NULL: no E2E-QP */
    const eqat_e2e_qp_options *e2e;
    const char *checkpoint_dir; /* NULL: none are kept */
    const char *out;
    const char *format; /* of it; NULL: the default */
    bool keep_ends;     /* embeddings and head must keep their type */
    bool stages;    /* the result of Block-AP stands on disk beside the one of E2E-QP for a while */
    bool on_device; /* tensors are not in the host's memory */
    int64_t judged; /* windows of the evaluation at the end */
    int64_t train, val, e2e_train; /* samples, as the data turned out; 0: as the options say */
    int64_t e2e_val;
} need;

/* Prints it, and refuses what memory, of host or device, or disk do not hold, naming the option
 * that helps. */
eqat_status need_check(tool *t, const need *n);

#endif
