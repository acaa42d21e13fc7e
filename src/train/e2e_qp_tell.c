#include <math.h>
#include <string.h>

#include "train/e2e_qp.h"
#include "train/report.h"

/* What a job tells while it works. */

eqat_progress eqi_e2e_qp_progress(const eqat_e2e_qp *job, int64_t step, int64_t done)
{
    return (eqat_progress){
        .phase = "e2e-qp",
        .epoch = step / job->steps_per_epoch,
        .epochs = job->options.epochs,
        .step = done,
        .steps = job->options.epochs * job->steps_per_epoch,
        .loss = NAN,
        .val_loss = NAN,
        .grad_norm = NAN,
        .work = "step",
    };
}

/* Work behind the last step of an epoch belongs to it; a step that accumulates is the next one. */
eqat_status eqi_e2e_qp_tell(const eqat_e2e_qp *job, const char *work, int64_t done, int64_t batch,
                            int64_t batches)
{
    bool next = !done || !strcmp(work, "accumulate");
    eqat_progress p = eqi_e2e_qp_progress(job, next ? done : done - 1, done);
    p.work = work;
    p.batch = batch;
    p.batches = batches;
    return eqi_report_progress(job->ctx, job->options.between, job->options.between_user, &p);
}
