#include "autograd/tape.h"
#include "model/weights.h"
#include "quant/freeze.h"
#include "train/e2e_qp.h"

/* What E2E-QP trains. */

/* Where it trains, and its values before. */
static eqat_status begin_training(const eqat_e2e_qp *job, eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_SCALES)
        EQI_RETURN_IF(eqi_quant_round_s(*t->place)); /* training starts from what a file holds */
    t->before = t->value = *t->place;
    if (t->kind == EQI_TRAINED_ZERO_POINTS) {
        EQI_RETURN_IF(eqi_tensor_cast(t->before, EQI_F32, &t->value));
        *t->place = t->value;
        return EQAT_OK;
    }
    if (t->kind == EQI_TRAINED_SCALES && !job->options.host_state)
        return eqi_tensor_cast(t->value, EQI_F16, &t->before);
    return eqi_e2e_qp_copy(job, t->value, &t->before);
}

static eqat_status add(eqat_e2e_qp *job, eqi_trained t)
{
    eqi_trained *trained = eqi_grow(job->ctx, job->trained, job->count, &job->capacity,
                                    sizeof *trained, "the list of what trains");
    if (!trained) return EQAT_OUT_OF_MEMORY;
    job->trained = trained;
    EQI_RETURN_IF(begin_training(job, &t));
    t.was_trainable = t.value->requires_grad;
    t.value->requires_grad = true;
    job->trained[job->count++] = t;
    return EQAT_OK;
}

static eqat_status add_linear(eqat_e2e_qp *job, eqi_weight *w, int *bits)
{
    int32_t params = job->options.params;
    if (!w->codes) return EQAT_OK;
    if (w->q.bits < *bits) *bits = w->q.bits;
    if (params != EQAT_E2E_Z)
        EQI_RETURN_IF(add(job, (eqi_trained){.kind = EQI_TRAINED_SCALES, .place = &w->s}));
    if (params == EQAT_E2E_S) return EQAT_OK;
    return add(job,
               (eqi_trained){.kind = EQI_TRAINED_ZERO_POINTS, .place = &w->z, .bits = w->q.bits});
}

/* What trains must not be dropped with its block: codes stay anyway, trained gains are kept. */
static eqat_status add_block(eqat_e2e_qp *job, int64_t index, int *bits)
{
    eqat_model *m = job->model;
    eqi_block *b = &m->blocks[index];
    const eqi_block *read;
    EQI_RETURN_IF(eqi_block_acquire(m, index, &read));
    eqat_status st = EQAT_OK;
    for (int i = 0; i < b->n_linears; i++)
        EQI_GOTO(done, add_linear(job, &b->linears[i].weight, bits));
    if (!job->options.train_norms) goto done;
    EQI_GOTO(done, eqi_block_keep(m, index, m->compute, &b));
    for (int i = 0; i < b->n_norms; i++) {
        eqi_norm *n = &b->norms[i];
        EQI_GOTO(
            done,
            add(job,
                (eqi_trained){.kind = EQI_TRAINED_GAIN, .place = &n->gain, .stored = n->stored}));
    }
done:
    eqi_block_release(m, index);
    return st;
}

eqat_status eqi_e2e_qp_add_trained(eqat_e2e_qp *job, int *bits)
{
    eqat_model *m = job->model;
    const int none = 9;
    *bits = none;
    int64_t blocks = m->config.blocks, parts = blocks + 1;
    for (int64_t i = 0; i < blocks; i++) {
        EQI_RETURN_IF(eqi_e2e_qp_tell(job, "load", 0, i, parts));
        EQI_RETURN_IF(add_block(job, i, bits));
    }
    if (*bits == none) return eqi_e2e_qp_refuse_dense(m);
    EQI_RETURN_IF(eqi_e2e_qp_tell(job, "load", 0, blocks, parts));
    EQI_RETURN_IF(eqi_model_load_ends(m));
    if (!job->options.train_norms) return EQAT_OK;
    return add(job,
               (eqi_trained){.kind = EQI_TRAINED_GAIN,
                             .place = &m->final_norm.gain,
                             .stored = m->final_norm.stored});
}

/* The values before training. */
static void undo(eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_ZERO_POINTS) {
        *t->place = t->before;
        eqi_tensor_unref(t->value);
    } else {
        (void)eqi_tensor_copy(t->value, t->before); /* needs no memory: nothing to fail */
        eqi_tensor_unref(t->before);
    }
}

eqat_status eqi_e2e_qp_round(eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_SCALES) return eqi_quant_round_s(t->value);
    if (t->kind == EQI_TRAINED_GAIN) return eqi_round_kept(t->value, t->stored);
    eqi_tensor *rounded;
    EQI_RETURN_IF(eqi_quant_round_z(t->value, t->bits, &rounded));
    eqat_status st = eqi_tensor_copy(t->value, rounded);
    eqi_tensor_unref(rounded);
    return st;
}

/* Zero points go back into the model's own tensor. */
static void keep(eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_ZERO_POINTS) {
        (void)eqi_tensor_copy(t->before, t->value);
        *t->place = t->before;
        eqi_tensor_unref(t->value);
    } else {
        eqi_tensor_unref(t->before);
    }
}

static void end_training(eqat_e2e_qp *job, void (*end)(eqi_trained *))
{
    eqi_tape_clear(job->tape);
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        eqi_tensor_zero_grad(t->value);
        t->value->requires_grad = t->was_trainable;
        eqi_tensor_unref(t->good);
        eqi_tensor_unref(t->best);
        t->good = t->best = NULL;
        end(t);
    }
    job->count = 0;
    job->model->job = EQI_JOB_NONE;
    eqat_optimizer_free(job->optimizer);
    job->optimizer = NULL;
}

void eqi_e2e_qp_undo_trained(eqat_e2e_qp *job) { end_training(job, undo); }
void eqi_e2e_qp_keep_trained(eqat_e2e_qp *job) { end_training(job, keep); }
