#include "base/entry.h"
#include "quant/kind.h"
#include "train/e2e_qp.h"
#include "train/rates.h"

static const char *const params_names[] = {"s", "z", "sz", NULL};

static const eqat_field fields[] = {
    EQI_FIELD_I64(eqat_e2e_qp_options, batch_size, 32, 1, 1 << 20,
                  "sequences of an optimizer step"),
    EQI_FIELD_I64(eqat_e2e_qp_options, micro_batch_size, 1, 1, 1 << 20,
                  "sequences of one forward and backward; divides batch_size"),
    EQI_FIELD_I64(eqat_e2e_qp_options, epochs, 1, 1, 1 << 20, "passes over the training samples"),
    EQI_FIELD_F64(eqat_e2e_qp_options, lr, 0, 0, 1e6,
                  "learning rate; 0: 2e-5 at 2 bits, 1e-5 at more, or as lr_unit says"),
    EQI_FIELD_ENUM(eqat_e2e_qp_options, params, EQAT_E2E_S, params_names,
                   "what trains: s (scales), z (zero points) or sz"),
    EQI_FIELD_BOOL(eqat_e2e_qp_options, train_norms, false, "train norm gains, too"),
    EQI_FIELD_F64(eqat_e2e_qp_options, max_grad_norm, 0.3, 0, 1e30,
                  "clips the gradient norm; 0: no clipping"),
    EQI_FIELD_F64(eqat_e2e_qp_options, warmup_ratio, 0.03, 0, 1,
                  "share of the steps with a rising rate, rounded up"),
    EQI_FIELD_F64(eqat_e2e_qp_options, min_lr_factor, 0, 0, 1,
                  "the rate falls along a cosine to this share of it"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, progress, "called after every step"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, progress_user, "its first argument"),
    EQI_FIELD_BOOL(eqat_e2e_qp_options, keep_activations, false,
                   "keep the activations of all blocks for backward instead of computing them "
                   "again: faster, more memory"),
    EQI_FIELD_BOOL(eqat_e2e_qp_options, host_state, false,
                   "moments, copies and inputs of blocks wait in the host's memory: less of the "
                   "device's"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, gradient, "called between backward and update"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, gradient_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, reduce, "adds up losses over ranks"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, reduce_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, loss, "a loss in place of the cross-entropy"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, loss_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, between,
                      "called before every micro-batch of a step but the first"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, between_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_e2e_qp_options, teacher, "a model to learn from besides the labels"),
    EQI_FIELD_F64(eqat_e2e_qp_options, teacher_share, 1, 0, 1,
                  "share of the divergence from the teacher in the loss"),
    EQI_FIELD_I64(eqat_e2e_qp_options, validate_steps, 0, 0, 1e15,
                  "validate every so many steps besides the end of every epoch; 0: there alone"),
    EQI_FIELD_ENUM(eqat_e2e_qp_options, keep, EQAT_KEEP_START_OR_LAST, eqi_keep_names,
                   "state that is kept: start-or-last (the last, or the start where validation "
                   "ends worse than that), last, or best (on validation)"),
    EQI_FIELD_ENUM(eqat_e2e_qp_options, lr_unit, EQAT_LR_ABSOLUTE, eqi_lr_unit_names,
                   "the rate is absolute, or relative: of scales and norm gains as a share, of "
                   "zero points in codes; 0 then follows from the number of steps"),
};

const eqi_struct eqi_struct_e2e_qp = EQI_STRUCT_RESERVED(eqat_e2e_qp_options, "e2e_qp", fields);

void eqat_e2e_qp_options_init(eqat_e2e_qp_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_e2e_qp, options, struct_size);
}

eqat_status eqi_e2e_qp_check_options(const eqat_model *m, eqat_data *data,
                                     const eqat_e2e_qp_options *o)
{
    if (o->batch_size % o->micro_batch_size)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "micro_batch_size: found %lld, expected a divisor of batch_size %lld",
                        (long long)o->micro_batch_size, (long long)o->batch_size);
    bool blind = !eqat_data_val_size(data);
    if (blind && o->keep == EQAT_KEEP_BEST) return eqi_keep_refuse_best(m->ctx);
    if (blind && o->validate_steps)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "validate_steps: found %lld without validation samples, expected 0 or "
                        "some of them",
                        (long long)o->validate_steps);
    EQI_RETURN_IF(eqi_samples_check(m, data, true));
    return eqi_e2e_qp_check_teacher(m, data, o);
}

eqat_status eqi_e2e_qp_refuse_dense(const eqat_model *m)
{
    return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                    "%s: found no quantized linear, expected a quantized model", m->path);
}

static eqat_status is_quantized(const eqi_linear *l, const eqat_quantizer *quantizer, bool *any)
{
    eqi_quant quant = {.kind = NULL};
    if (quantizer) EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
    *any |= quant.kind || eqi_linear_quantization(l).bits;
    return EQAT_OK;
}

eqat_status eqat_e2e_qp_check(eqat_model *m, const eqat_quantizer *quantizer, eqat_data *data,
                              const eqat_e2e_qp_options *options)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, data);
    bool any = false;
    eqat_e2e_qp_options checked;
    EQI_RETURN_IF(eqi_options_take(m->ctx, &eqi_struct_e2e_qp, &checked, options));
    EQI_RETURN_IF(eqi_e2e_qp_check_options(m, data, &checked));
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++)
            EQI_RETURN_IF(is_quantized(&m->blocks[b].linears[i], quantizer, &any));
    return any ? EQAT_OK : eqi_e2e_qp_refuse_dense(m);
}
