#include <stdlib.h>

#include "job.h"
#include "trained.h"

static void end_block(job *j)
{
    double now = tool_seconds();
    trained_block(&j->t, j->ap, j->block, j->blocks, now - j->block_started);
    j->block_started = now;
}

static eqat_status save_blocks(void *ap, const char *path) { return eqat_block_ap_save(ap, path); }
static eqat_status save_scales(void *e2e, const char *path) { return eqat_e2e_qp_save(e2e, path); }

/* Within a block an interrupt waits for the end of a step, which can be saved; from the end of a
 * block to the first step of the next one nothing is lost that was not saved. */
static bool keep_blocks(job *j, const eqat_progress *p, bool ends_epoch)
{
    bool last = ends_epoch && (p->epoch + 1 == p->epochs || j->block_ap.early_stop);
    bool due = checkpoint_due(&j->kept);
    if (!j->kept.dir) return false;
    tool_hold_interrupts(!last);
    if (last || due || tool_interrupted())
        checkpoint_save(&j->t, &j->kept, "block-ap", save_blocks, j->ap);
    return tool_interrupted();
}

/* Into a job that was just created, where there is a checkpoint of it. */
static eqat_status load_blocks(job *j)
{
    char *path = checkpoint_state(&j->kept, "block-ap");
    if (!path) return EQAT_OK;
    eqat_status st = eqat_block_ap_load(j->ap, path);
    free(path);
    j->block = eqat_block_ap_block(j->ap);
    if (st == EQAT_OK) checkpoint_resumed(&j->t, &j->kept, "block-ap");
    return st;
}

static eqat_status load_scales(job *j)
{
    char *path = checkpoint_state(&j->kept, "e2e-qp");
    if (!path) return EQAT_OK;
    eqat_status st = eqat_e2e_qp_load(j->end_to_end, path);
    free(path);
    if (st == EQAT_OK) checkpoint_resumed(&j->t, &j->kept, "e2e-qp");
    return st;
}

/* E2E-QP can be cancelled within a step, and saved behind the one before. */
static int32_t e2e_progress(void *user, const eqat_progress *p)
{
    job *j = user;
    int32_t stop = tool_progress(&j->t, p);
    if (checkpoint_due(&j->kept) || p->step == p->steps)
        checkpoint_save(&j->t, &j->kept, "e2e-qp", save_scales, j->end_to_end);
    return stop;
}

static eqat_status run_end_to_end(job *j)
{
    eqat_status st = eqat_e2e_qp_run(j->end_to_end);
    if (st != EQAT_CANCELLED) return st;
    checkpoint_save(&j->t, &j->kept, "e2e-qp", save_scales, j->end_to_end);
    return tool_fail(&j->t, st, "cancelled");
}

static int32_t block_progress(void *user, const eqat_progress *p)
{
    job *j = user;
    j->blocks = p->blocks;
    if (p->block != j->block) end_block(j);
    j->block = p->block;
    int32_t stop = tool_progress(&j->t, p);
    bool ends_epoch = p->step % eqat_block_ap_steps(j->ap) == 0;
    if (ends_epoch) {
        double now = tool_seconds();
        trained_epoch(&j->t, j->ap, p, now - j->epoch_started);
        j->epoch_started = now;
    }
    return keep_blocks(j, p, ends_epoch) ? 1 : stop;
}

void job_follow(job *j)
{
    j->block_ap.progress = block_progress;
    j->block_ap.between = j->e2e.between = tool_between;
    j->e2e.progress = e2e_progress;
    j->e2e.progress_user = j;
    j->e2e.between_user = &j->t;
}

eqat_status job_train_blocks(job *j, eqat_model *model, const eqat_quantizer *quantizer,
                             eqat_data *data)
{
    j->block_ap.progress_user = j;
    j->block_ap.between_user = &j->t;
    j->block_started = j->epoch_started = tool_seconds();
    tool_begin_phase(&j->t, "block-ap");
    eqat_status st = eqat_block_ap_create(model, &j->ap, quantizer, data, &j->block_ap);
    if (st == EQAT_OK) st = load_blocks(j);
    bool trained = st == EQAT_OK && !eqat_block_ap_stages(j->ap, eqat_block_ap_block(j->ap));
    if (st == EQAT_OK && !trained) st = eqat_block_ap_run(j->ap);
    tool_hold_interrupts(false);
    if (st == EQAT_OK && !trained) {
        end_block(j);
        tool_end_phase(&j->t);
        checkpoint_save(&j->t, &j->kept, "block-ap", save_blocks, j->ap);
    }
    if (st == EQAT_OK) trained_blocks(&j->t, j->ap, j->block_ap.epochs);
    eqat_block_ap_free(j->ap);
    j->ap = NULL;
    return st;
}

eqat_status job_train_end_to_end(job *j, eqat_model *model, eqat_data *data)
{
    tool_begin_phase(&j->t, "e2e-qp");
    eqat_status st = eqat_e2e_qp_create(model, &j->end_to_end, data, &j->e2e);
    const eqat_e2e_qp *e2e = j->end_to_end;
    if (st == EQAT_OK) st = load_scales(j);
    if (st == EQAT_OK) st = run_end_to_end(j);
    if (st == EQAT_OK) {
        trained_end_to_end(&j->t, e2e);
        tool_end_phase(&j->t);
    }
    eqat_e2e_qp_free(j->end_to_end);
    j->end_to_end = NULL;
    return st;
}
