#include "train/e2e_qp.h"

/* The state that gave the last finite loss, and what training has changed. */

eqat_status eqi_e2e_qp_copy(const eqat_e2e_qp *job, const eqi_tensor *value, eqi_tensor **out)
{
    EQI_RETURN_IF(eqi_tensor_cast(value, EQI_F32, out));
    eqat_status st = job->options.host_state ? eqi_tensor_to_host(*out) : EQAT_OK;
    if (st == EQAT_OK) return st;
    eqi_tensor_unref(*out);
    *out = NULL;
    return st;
}

eqat_status eqi_e2e_qp_keep_good(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        EQI_RETURN_IF(t->good ? eqi_tensor_copy(t->good, t->value)
                              : eqi_e2e_qp_copy(job, t->value, &t->good));
    }
    return EQAT_OK;
}

bool eqi_e2e_qp_has_good(const eqat_e2e_qp *job)
{
    return job->count && job->trained[job->count - 1].good;
}

eqat_status eqi_e2e_qp_back_to_good(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++)
        EQI_RETURN_IF(eqi_tensor_copy(job->trained[i].value, job->trained[i].good));
    return EQAT_OK;
}

/* Values of the tensor that are not what they were before. */
static eqat_status count_changed(const eqi_trained *t, int64_t *changed)
{
    eqi_tensor *before = NULL;
    int64_t n = eqi_view_count(&t->value->v);
    size_t size = (size_t)n * sizeof(float);
    float *values = eqi_alloc(eqi_tensor_ctx(t->value), 2 * size, "values before and after");
    eqat_status st = values ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = eqi_tensor_cast(t->before, EQI_F32, &before);
    if (st == EQAT_OK) st = eqi_tensor_download(before, values, size);
    if (st == EQAT_OK) st = eqi_tensor_download(t->value, values + n, size);
    for (int64_t i = 0; i < n && st == EQAT_OK; i++) *changed += values[i] != values[n + i];
    eqi_tensor_unref(before);
    eqi_free(eqi_tensor_ctx(t->value), values);
    return st;
}

eqat_status eqi_e2e_qp_tell_unchanged(const eqat_e2e_qp *job)
{
    int64_t changed = 0, all = 0;
    for (size_t i = 0; i < job->count; i++) {
        EQI_RETURN_IF(count_changed(&job->trained[i], &changed));
        all += eqi_view_count(&job->trained[i].value->v);
    }
    if (!changed)
        eqi_log(job->ctx, EQI_LOG_WARN,
                "E2E-QP has changed none of %lld values, as they are stored: a higher rate or more "
                "steps are needed",
                (long long)all);
    return EQAT_OK;
}
