#include <math.h>
#include <string.h>

#include "api/progress.h"
#include "model/formats.h"

/* Embeddings, every block, what is behind them. */
eqat_status eqi_save_tell(const eqat_model *m, const eqat_save_options *o, const char *work,
                          int64_t at)
{
    bool step = !strcmp(work, "step"), sync = !strcmp(work, "sync");
    int64_t parts = m->config.blocks + 2;
    eqat_progress p = {.phase = "save",
                       .step = step ? at
                           : sync   ? parts
                                    : 0,
                       .steps = parts,
                       .loss = NAN,
                       .val_loss = NAN,
                       .grad_norm = NAN,
                       .work = work,
                       .batch = step ? 0 : at,
                       .batches = step ? 0
                           : sync      ? 1
                                       : parts};
    return eqi_report_progress(m->ctx, o->progress, o->progress_user, &p);
}
