#include "job.h"

static eqat_status open_e2e_data(job *j, eqat_model *model, eqat_data **out)
{
    return input_open(&j->t, j->e2e_in.path ? &j->e2e_in : &j->calib, model, &j->e2e_data, out);
}

/* What E2E-QP would refuse after Block-AP is refused before it; the result of Block-AP outlives
 * whatever happens to E2E-QP. */
static eqat_status run_both(job *j, eqat_model *model, eqat_quantizer **quantizer, eqat_data *data)
{
    eqat_data *e2e_data = NULL;
    eqat_status st = output_check_stage(&j->t, &j->out, &j->save);
    if (st == EQAT_OK) st = open_e2e_data(j, model, &e2e_data);
    if (st == EQAT_OK) st = eqat_e2e_qp_check(model, *quantizer, e2e_data, &j->e2e);
    if (st == EQAT_OK) st = job_allocate(j, model, data, quantizer);
    if (st == EQAT_OK) st = job_check_need(j, model, *quantizer, data);
    if (st == EQAT_OK) st = job_train_blocks(j, model, *quantizer, data);
    if (st == EQAT_OK) st = output_save_stage(&j->t, &j->out, model, &j->save);
    if (st == EQAT_OK) st = job_train_end_to_end(j, model, e2e_data);
    eqat_data_free(e2e_data);
    return st;
}

static eqat_status run_trained(job *j, eqat_model *model, eqat_quantizer **quantizer)
{
    eqat_data *data = NULL;
    eqat_status st = input_open(&j->t, &j->calib, model, &j->data, &data);
    if (st == EQAT_OK && j->method == EFFICIENTQAT) {
        st = run_both(j, model, quantizer, data);
    } else if (st == EQAT_OK) {
        st = job_allocate(j, model, data, quantizer);
        if (st == EQAT_OK) st = job_check_need(j, model, *quantizer, data);
        if (st == EQAT_OK) st = job_train_blocks(j, model, *quantizer, data);
    }
    if (st == EQAT_OK) st = job_take_windows(j, data);
    eqat_data_free(data);
    return st;
}

eqat_status job_run_quantize(job *j, eqat_model *model)
{
    eqat_quantizer *quantizer = NULL;
    eqat_status st = job_make_quantizer(j, model, &quantizer);
    if (st == EQAT_OK && j->method == RTN) {
        eqat_rtn_options rounding = tool_rtn_options(&j->t);
        st = job_check_need(j, model, quantizer, NULL);
        if (st == EQAT_OK) st = eqat_model_quantize_rtn(model, quantizer, &rounding);
    } else if (st == EQAT_OK) {
        st = run_trained(j, model, &quantizer);
    }
    eqat_quantizer_free(quantizer);
    return st;
}

eqat_status job_run_e2e(job *j, eqat_model *model)
{
    eqat_data *data = NULL;
    eqat_status st = eqat_model_check_save(model, NULL, &j->save);
    if (st == EQAT_OK) st = open_e2e_data(j, model, &data);
    if (st == EQAT_OK) st = eqat_e2e_qp_check(model, NULL, data, &j->e2e);
    if (st == EQAT_OK) st = job_check_need(j, model, NULL, data);
    if (st == EQAT_OK) st = job_train_end_to_end(j, model, data);
    eqat_data_free(data);
    return st;
}
