#include <math.h>
#include <stdio.h>

#include "train/e2e_qp.h"
#include "train/fingerprint.h"
#include "train/optimizer.h"

#define KIND "e2e-qp"

static eqat_status agree(const eqat_e2e_qp *job, eqi_state *state)
{
    uint64_t hash;
    EQI_RETURN_IF(eqi_fingerprint_codes(job->model, &hash));
    EQI_RETURN_IF(eqi_state_agree_hash(state, "model", hash));
    EQI_RETURN_IF(eqi_state_agree(state, "compute_dtype", eqi_dtype_name(job->model->compute)));
    if (job->teacher) {
        EQI_RETURN_IF(eqi_fingerprint_files(job->teacher, &hash));
        EQI_RETURN_IF(eqi_state_agree_hash(state, "teacher", hash));
    }
    EQI_RETURN_IF(eqi_fingerprint_data(job->ctx, job->data, &hash));
    EQI_RETURN_IF(eqi_state_agree_hash(state, "data", hash));
    eqat_e2e_qp_options same = job->options;
    same.host_state = false; /* a run may go on with more or less memory */
    return eqi_state_agree_options(state, &eqi_struct_e2e_qp, &same);
}

/* Of a run with keep best. */
static eqat_status list_best(eqat_e2e_qp *job, eqi_state *state)
{
    int64_t best = job->best_loss < (double)INFINITY;
    EQI_RETURN_IF(eqi_state_number(state, "best", 1, &best));
    if (!best) return EQAT_OK;
    EQI_RETURN_IF(eqi_e2e_qp_make_best(job)); /* room */
    EQI_RETURN_IF(eqi_state_values(state, "best.loss", EQI_STORED_F64, &job->best_loss, 1));
    EQI_RETURN_IF(eqi_state_counts(state, "best.step", &job->best_step, 1, eqat_e2e_qp_steps(job)));
    for (size_t i = 0; i < job->count; i++) {
        char name[64];
        snprintf(name, sizeof name, "best.%zu", i);
        EQI_RETURN_IF(eqi_state_tensor(state, name, job->trained[i].best));
    }
    return EQAT_OK;
}

static eqat_status list_validations(eqat_e2e_qp *job, eqi_state *state)
{
    EQI_RETURN_IF(eqi_state_values(state, "start_loss", EQI_STORED_F64, &job->start_loss, 1));
    EQI_RETURN_IF(eqi_state_values(state, "validations", EQI_STORED_F64, job->validations,
                                   eqat_e2e_qp_steps(job)));
    return list_best(job, state);
}

/* Of a run that may have to go back. */
static eqat_status list_good(eqat_e2e_qp *job, eqi_state *state)
{
    int64_t good = eqi_e2e_qp_has_good(job), fallen = job->fallen;
    EQI_RETURN_IF(eqi_state_number(state, "good", 1, &good));
    EQI_RETURN_IF(eqi_state_number(state, "fallen", 1, &fallen));
    job->fallen = fallen;
    if (good && !eqi_e2e_qp_has_good(job)) EQI_RETURN_IF(eqi_e2e_qp_keep_good(job)); /* room */
    for (size_t i = 0; i < job->count && good; i++) {
        char name[64];
        snprintf(name, sizeof name, "good.%zu", i);
        EQI_RETURN_IF(eqi_state_tensor(state, name, job->trained[i].good));
    }
    return EQAT_OK;
}

static eqat_status list_all(eqat_e2e_qp *job, eqi_state *state)
{
    EQI_RETURN_IF(list_good(job, state));
    if (job->val) EQI_RETURN_IF(list_validations(job, state));
    for (size_t i = 0; i < job->count; i++) {
        char name[64];
        snprintf(name, sizeof name, "trained.%zu", i);
        EQI_RETURN_IF(eqi_state_tensor(state, name, job->trained[i].value));
    }
    EQI_RETURN_IF(eqi_state_tensor(state, "losses", job->losses));
    EQI_RETURN_IF(
        eqi_state_values(state, "reports", EQI_STORED_F64, job->reports, eqat_e2e_qp_steps(job)));
    return eqi_optimizer_state(job->optimizer, state, eqat_e2e_qp_steps(job));
}

/* Takes over the state, which was created or opened with status st. */
static eqat_status transfer(eqat_e2e_qp *job, eqi_state *state, eqat_status st)
{
    if (st == EQAT_OK) st = agree(job, state);
    if (st == EQAT_OK) st = list_all(job, state);
    if (st == EQAT_OK) return eqi_state_end(state);
    eqi_state_drop(state);
    return st;
}

eqat_status eqat_e2e_qp_save(eqat_e2e_qp *job, const char *path)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, path);
    eqi_state *state;
    EQI_RETURN_IF(eqi_e2e_qp_check_step(job, 0));
    eqat_status st = eqi_state_create(job->ctx, &state, path, KIND);
    return transfer(job, state, st);
}

/* A new job has none. */
static void drop_copies(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) {
        eqi_tensor **const copies[] = {&job->trained[i].good, &job->trained[i].best};
        for (size_t k = 0; k < EQI_COUNT(copies); k++) {
            eqi_tensor_unref(*copies[k]);
            *copies[k] = NULL;
        }
    }
    job->best_loss = INFINITY;
    job->fallen = false;
}

eqat_status eqat_e2e_qp_load(eqat_e2e_qp *job, const char *path)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, path);
    eqi_state *state;
    EQI_RETURN_IF(eqi_e2e_qp_check_step(job, 0));
    if (eqat_optimizer_steps(job->optimizer))
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "E2E-QP: found %lld steps taken, expected a new job",
                        (long long)eqat_optimizer_steps(job->optimizer));
    eqat_status st = eqi_state_open(job->ctx, &state, path, KIND);
    st = transfer(job, state, st);
    if (st != EQAT_OK) drop_copies(job);
    EQI_RETURN_IF(st);
    eqi_e2e_qp_drop_gradients(job);
    return EQAT_OK;
}
