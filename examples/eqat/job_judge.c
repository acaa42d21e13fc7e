#include "job.h"

bool job_judges(const job *j) { return j->quantizes && j->method != RTN && !j->judge.off; }

eqat_status job_take_windows(job *j, eqat_data *data)
{
    int64_t n =
        judge_windows(eqat_data_train_size(data), j->block_ap.epochs, eqat_data_val_size(data));
    return judge_take(&j->t, &j->judge, data, n);
}

void job_judge(job *j, eqat_model *result, long long log_bytes)
{
    judge_result(&j->t, &j->judge, result, j->path, &j->model, job_make_quantizer, j);
    output_log_on(&j->t, &j->out, &j->save, log_bytes);
}

/* Which another run of this command has put in its place; a checkpoint is still there when that one
 * was ended before it had judged it. */
eqat_status job_find_result(job *j)
{
    eqat_model *model = NULL;
    eqat_data *data = NULL;
    long long log_bytes = tool_log_bytes(&j->t);
    bool left = job_judges(j) && (j->kept.manifest || !j->kept.dir);
    eqat_status st = output_found(&j->t, &j->out);
    if (st != EQAT_OK || !left) return st;
    st = job_open_model(j, &model);
    if (st == EQAT_OK) st = input_open(&j->t, &j->calib, model, &j->data, &data);
    if (st == EQAT_OK) st = job_take_windows(j, data);
    eqat_data_free(data);
    eqat_model_free(model);
    model = NULL;
    if (st != EQAT_OK || !j->judge.ids) return st;
    st = eqat_model_open(j->t.ctx, &model, j->out.path, &j->model);
    if (st == EQAT_OK) st = job_take_allocated(j, model);
    if (st == EQAT_OK)
        job_judge(j, model, log_bytes);
    else
        eqat_model_free(model);
    return st;
}
