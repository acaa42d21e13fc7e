#include "trained.h"

#include <math.h>

static json_t *stage_json(const eqat_stage_report *r)
{
    return json_pack("{s:o,s:o,s:I,s:I,s:I}", "start_loss", tool_number(r->start_loss), "val_loss",
                     tool_number(r->val_loss), "epoch", (json_int_t)r->epoch, "step",
                     (json_int_t)r->step, "retries", (json_int_t)r->retries);
}

json_t *trained_kept(const eqat_block_ap *ap, int64_t block)
{
    json_t *stages = json_array();
    eqat_stage_report r = {.struct_size = sizeof r};
    for (int64_t s = 0; s < eqat_block_ap_stages(ap, block); s++)
        if (eqat_block_ap_stage_report(ap, block, s, &r) == EQAT_OK)
            json_array_append_new(stages, stage_json(&r));
    return json_pack("{s:o}", "kept", stages);
}

void trained_blocks(tool *t, const eqat_block_ap *ap, int64_t epochs_of_stage)
{
    json_t *blocks = json_array();
    for (int64_t b = 0; b < eqat_block_ap_block(ap); b++) {
        json_t *epochs = json_array();
        eqat_epoch_report r = {.struct_size = sizeof r};
        int64_t n = epochs_of_stage * eqat_block_ap_stages(ap, b);
        for (int64_t e = 0; e < n; e++)
            if (eqat_block_ap_epoch(ap, b, e, &r) == EQAT_OK)
                json_array_append_new(epochs,
                                      json_pack("{s:I,s:o,s:o}", "epoch", (json_int_t)e,
                                                "train_loss", tool_number(r.train_loss), "val_loss",
                                                tool_number(r.val_loss)));
        json_t *block = json_pack("{s:I,s:o}", "block", (json_int_t)b, "epochs", epochs);
        json_object_update_new(block, trained_kept(ap, b));
        json_array_append_new(blocks, block);
    }
    tool_set(t, "blocks", blocks);
}

void trained_block(tool *t, const eqat_block_ap *ap, int64_t block, int64_t blocks, double seconds)
{
    json_t *event = json_pack("{s:s,s:I,s:I,s:f}", "event", "block", "block", (json_int_t)block,
                              "blocks", (json_int_t)blocks, "seconds", seconds);
    json_object_update_new(event, trained_kept(ap, block));
    tool_event(t, tool_with_peaks(t, event));
}

void trained_epoch(tool *t, const eqat_block_ap *ap, const eqat_progress *p, double seconds)
{
    eqat_epoch_report r = {.struct_size = sizeof r};
    if (eqat_block_ap_epoch(ap, p->block, p->epoch, &r) != EQAT_OK) return;
    tool_event(t,
               json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:o,s:o,s:f}", "event", "epoch", "phase",
                         p->phase, "block", (json_int_t)p->block, "blocks", (json_int_t)p->blocks,
                         "epoch", (json_int_t)p->epoch, "epochs", (json_int_t)p->epochs,
                         "train_loss", tool_number(r.train_loss), "val_loss",
                         tool_number(r.val_loss), "seconds", seconds));
}

void trained_end_to_end(tool *t, const eqat_e2e_qp *e2e)
{
    json_t *losses = json_array(), *validations = json_array();
    int64_t steps = eqat_e2e_qp_steps(e2e);
    eqat_stage_report r = {.struct_size = sizeof r};
    if (eqat_e2e_qp_stage_report(e2e, &r) != EQAT_OK) r.epoch = -1;
    for (int64_t i = 0; i < steps; i++) {
        double loss = eqat_e2e_qp_val_loss(e2e, i);
        json_array_append_new(losses, tool_number(eqat_e2e_qp_loss(e2e, i)));
        if (isfinite(loss))
            json_array_append_new(
                validations, json_pack("{s:I,s:f}", "step", (json_int_t)i + 1, "val_loss", loss));
    }
    json_t *event = json_pack("{s:s,s:s}", "event", "kept", "phase", "e2e-qp");
    json_object_update_new(event, stage_json(&r));
    tool_event(t, event);
    tool_set(t, "e2e",
             json_pack("{s:I,s:o,s:o,s:o}", "steps", (json_int_t)steps, "loss", losses,
                       "validations", validations, "kept", stage_json(&r)));
}
