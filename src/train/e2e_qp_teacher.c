#include <string.h>

#include "base/entry.h"
#include "train/e2e_qp.h"

/* The teacher's hidden states for the micro-batches of a group, made together, so that its blocks
 * are read once for all of them. */

/* Tokens of a group, where a step has fewer. */
#define TOKENS 4096

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

eqat_status eqi_e2e_qp_check_teacher(const eqat_model *m, eqat_data *data,
                                     const eqat_e2e_qp_options *o)
{
    const eqat_model *teacher = o->teacher;
    if (!teacher) return EQAT_OK;
    if (teacher == m || teacher->ctx != m->ctx)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "teacher: found %s, expected another model of the same context",
                        teacher == m ? "the model that trains" : "a model of another context");
    if (o->loss)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "teacher: found a loss beside it, expected one of the two");
    if (teacher->config.vocab != m->config.vocab)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "teacher: found a vocabulary of %lld, expected the model's %lld",
                        (long long)teacher->config.vocab, (long long)m->config.vocab);
    if (teacher->compute != m->compute)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "teacher: found it computing in %s, expected %s as the model",
                        eqi_dtype_name(teacher->compute), eqi_dtype_name(m->compute));
    eqat_status st = eqi_samples_check(teacher, data, true);
    return st == EQAT_OK ? st : eqi_fail_in(m->ctx, st, "teacher");
}

eqat_status eqi_e2e_qp_make_teacher(eqat_e2e_qp *job)
{
    const eqat_e2e_qp_options *o = &job->options;
    if (!o->teacher || o->teacher_share == 0) return EQAT_OK;
    const int64_t most = least(job->sequences, larger(o->batch_size, TOKENS / job->time));
    const int64_t pass = eqi_samples_of_pass(o->micro_batch_size, job->time);
    job->teacher = eqi_model_ref(o->teacher);
    EQI_RETURN_IF(eqi_hidden_create(&job->lesson, job->teacher, job->data, false, most, pass));
    job->together = job->lesson.room / job->together * job->together; /* whole micro-batches */
    job->taught =
        eqi_alloc(job->ctx, (size_t)job->together * sizeof *job->taught, "sample numbers");
    return job->taught ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

void eqi_e2e_qp_drop_teacher(eqat_e2e_qp *job)
{
    eqi_hidden_release(&job->lesson);
    eqi_free(job->ctx, job->taught);
    eqat_model_free(job->teacher);
    job->taught = NULL;
    job->teacher = NULL;
}

static bool in_hand(const eqat_e2e_qp *job, int64_t count)
{
    const eqi_hidden *h = &job->lesson;
    return h->validation == job->validating && h->count == count &&
        !memcmp(job->taught, job->numbers, (size_t)count * sizeof *job->taught);
}

static eqat_status teach(eqat_e2e_qp *job, int64_t count)
{
    eqi_hidden *h = &job->lesson;
    if (in_hand(job, count)) return EQAT_OK;
    h->validation = job->validating;
    memcpy(job->taught, job->numbers, (size_t)count * sizeof *job->taught);
    const eqat_status st = eqi_hidden_run(h, job->taught, count);
    if (st != EQAT_OK) h->count = 0; /* nothing is in hand */
    return st;
}

eqat_status eqi_e2e_qp_lesson(eqat_e2e_qp *job, const eqi_group *group, eqi_distill *out)
{
    eqi_hidden *h = &job->lesson;
    eqi_tensor *x;
    *out = (eqi_distill){.share = job->options.teacher_share};
    EQI_RETURN_IF(teach(job, group->count));
    EQI_RETURN_IF(eqi_tensor_slice(h->streams, &x, 0, group->at, group->n));
    eqat_status st = eqi_model_final_norm(h->tape, job->teacher, x, &out->x);
    eqi_tensor_unref(x);
    out->w = job->teacher->head; /* which the norm has read again where a job had dropped it */
    return st;
}
