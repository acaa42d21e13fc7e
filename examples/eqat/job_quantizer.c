#include "job.h"
#include "rules.h"

/* Those of all linears of the model, by their names. */
static eqat_status add_allocated(const job *j, int32_t zero_point, eqat_model *model,
                                 eqat_quantizer *to)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    eqat_status st = EQAT_OK;
    for (int64_t b = 0; st == EQAT_OK && eqat_model_linear_count(model, b) > 0; b++)
        for (int64_t i = 0; st == EQAT_OK && i < eqat_model_linear_count(model, b); i++) {
            eqat_quantizer_options o = {.struct_size = sizeof o};
            st = eqat_model_linear(model, b, i, &l);
            if (st != EQAT_OK || !eqat_quantizer_lookup(j->allocated, l.name, &o)) continue;
            o.zero_point = zero_point;
            st = eqat_quantizer_add_rule(to, l.name, &o);
        }
    return st;
}

static eqat_status make(job *j, int32_t zero_point, eqat_model *model, eqat_quantizer **out)
{
    eqat_quantizer_options o = j->quantizer;
    o.zero_point = zero_point;
    eqat_status st = eqat_quantizer_create(j->t.ctx, out, &o);
    if (st == EQAT_OK) st = rules_add(&j->t, &j->rules, &o, model, *out);
    if (st == EQAT_OK && j->allocated) st = add_allocated(j, zero_point, model, *out);
    return st;
}

/* Zero points may be trained later than by Block-AP. */
static eqat_status check_save(job *j, eqat_model *model, const eqat_quantizer *quantizer)
{
    const bool later = j->method == EFFICIENTQAT && j->e2e.params != EQAT_E2E_S;
    if (!later) return eqat_model_check_save(model, quantizer, &j->save);
    eqat_quantizer *trained = NULL;
    eqat_status st = make(j, EQAT_ZERO_POINT_TRAINED, model, &trained);
    if (st == EQAT_OK) st = eqat_model_check_save(model, trained, &j->save);
    eqat_quantizer_free(trained);
    return st;
}

/* Told before data is read. */
static eqat_status expect_full_precision(job *j, eqat_model *model, const eqat_quantizer *quantizer)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    eqat_status st = EQAT_OK;
    for (int64_t b = 0; st == EQAT_OK && eqat_model_linear_count(model, b) > 0; b++)
        for (int64_t i = 0; st == EQAT_OK && i < eqat_model_linear_count(model, b); i++) {
            st = eqat_model_linear(model, b, i, &l);
            if (st == EQAT_OK && l.bits && eqat_quantizer_lookup(quantizer, l.name, NULL))
                st = tool_fail(&j->t, EQAT_INVALID_ARGUMENT,
                               "%s: found %s of %d bits, expected full precision (eqat e2e-qp "
                               "trains a quantized model, eqat convert writes it as fp16)",
                               j->path, l.name, (int)l.bits);
        }
    return st;
}

eqat_status job_make_quantizer(void *user, eqat_model *model, eqat_quantizer **out)
{
    job *j = user;
    eqat_status st = make(j, j->quantizer.zero_point, model, out);
    if (st == EQAT_OK) st = expect_full_precision(j, model, *out);
    return st == EQAT_OK ? check_save(j, model, *out) : st;
}

eqat_status job_take_allocated(job *j, eqat_model *result)
{
    if (!(j->allocate.bits_per_weight > 0) || j->allocated) return EQAT_OK;
    eqat_linear_info l = {.struct_size = sizeof l};
    eqat_status st = eqat_quantizer_create(j->t.ctx, &j->allocated, &j->quantizer);
    for (int64_t b = 0; st == EQAT_OK && eqat_model_linear_count(result, b) > 0; b++)
        for (int64_t i = 0; st == EQAT_OK && i < eqat_model_linear_count(result, b); i++) {
            eqat_quantizer_options o = j->quantizer;
            st = eqat_model_linear(result, b, i, &l);
            o.bits = l.bits;
            o.group_size = l.group_size == l.in_features ? -1 : l.group_size;
            if (st == EQAT_OK)
                st = eqat_quantizer_add_rule(j->allocated, l.name, l.bits ? &o : NULL);
        }
    return st;
}

/* Whether the format takes whatever bits may be chosen. */
static eqat_status check_bits(job *j, eqat_model *model)
{
    const int32_t bits = j->quantizer.bits;
    eqat_status st = EQAT_OK;
    for (j->quantizer.bits = 2; j->quantizer.bits <= 4 && st == EQAT_OK; j->quantizer.bits++) {
        eqat_quantizer *any = NULL;
        st = job_make_quantizer(j, model, &any);
        eqat_quantizer_free(any);
    }
    j->quantizer.bits = bits;
    return st;
}

/* Sensitivity is measured anew by a run that goes on, to the same end. */
eqat_status job_allocate(job *j, eqat_model *model, eqat_data *data, eqat_quantizer **quantizer)
{
    if (!(j->allocate.bits_per_weight > 0)) return EQAT_OK;
    j->allocate.progress = tool_between;
    j->allocate.progress_user = &j->t;
    eqat_status st = check_bits(j, model);
    if (st != EQAT_OK) return st;
    tool_begin_phase(&j->t, "allocate");
    j->allocated = *quantizer;
    st = eqat_quantizer_allocate(j->allocated, model, data, &j->allocate);
    if (st == EQAT_OK) st = job_make_quantizer(j, model, quantizer);
    if (st == EQAT_OK) tool_end_phase(&j->t);
    if (*quantizer == j->allocated) *quantizer = NULL;
    return st;
}
