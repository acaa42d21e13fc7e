#include <float.h>
#include <math.h>
#include <stdio.h>

#include "api/options.h"
#include "base/entry.h"
#include "ops/ops.h"
#include "train/optimizer.h"
#include "train/report.h"
#include "train/schedule.h"

typedef struct moments {
    eqi_tensor *m, *v;
    int32_t group;
    int64_t steps; /* of the optimizer when it was last updated; 0: never */
} moments;

struct eqat_optimizer {
    eqi_ctx *ctx;
    eqi_handle handle;
    eqat_optimizer_options options;
    double *rates; /* one a group */
    int32_t groups;
    eqi_tensor **parameters; /* an array of their own: the gradient callback is handed it */
    moments *moments;
    size_t count, capacity;
    eqi_tensor *sum, *norm, *factor; /* device scalars of the last step */
    bool offload;                    /* moments wait on the host */
    bool wants_norm, asked; /* for the norm of the next step; of the last one, under ticket */
    uint64_t ticket;
    float asked_norm;
    int64_t steps;
    eqat_grad_fn callback;
    void *callback_user;
};

static const eqat_field fields[] = {
    EQI_FIELD_F64(eqat_optimizer_options, beta1, 0.9, 0, 0.999999999, "decay of the first moment"),
    EQI_FIELD_F64(eqat_optimizer_options, beta2, 0.999, 0, 0.999999999,
                  "decay of the second moment"),
    EQI_FIELD_F64(eqat_optimizer_options, eps, 1e-8, 1e-30, 1,
                  "added to the root of the second moment"),
    EQI_FIELD_F64(eqat_optimizer_options, weight_decay, 0, 0, 1e6, "decoupled weight decay"),
    EQI_FIELD_F64(eqat_optimizer_options, max_grad_norm, 0, 0, DBL_MAX,
                  "clips the gradient norm over all groups; 0: no clipping"),
    EQI_FIELD_I64(eqat_optimizer_options, total_steps, 0, 0, 1e15,
                  "steps of the whole schedule; 0: constant rate"),
    EQI_FIELD_I64(eqat_optimizer_options, warmup_steps, 0, 0, 1e15, "steps of linear warm-up"),
    EQI_FIELD_F64(eqat_optimizer_options, min_lr_factor, 0, 0, 1,
                  "floor of the cosine, as a share of the rate"),
    EQI_FIELD_F64(
        eqat_optimizer_options, decay_ratio, 1, 0, 1,
        "share of the steps behind the warm-up, the last of them, in which the rate falls"),
};

const eqi_struct eqi_struct_optimizer = EQI_STRUCT(eqat_optimizer_options, "optimizer", fields);

void eqat_optimizer_options_init(eqat_optimizer_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_optimizer, options, struct_size);
}

eqat_status eqat_optimizer_create(eqat_context *ctx, eqat_optimizer **out,
                                  const eqat_optimizer_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out);
    eqat_optimizer_options checked;
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_optimizer, &checked, options));
    eqat_optimizer *o = eqi_calloc(ctx, 1, sizeof *o, "an optimizer");
    if (!o) return EQAT_OUT_OF_MEMORY;
    o->ctx = eqi_ctx_ref(ctx);
    o->options = checked;
    const int64_t one = 1;
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &o->sum, EQI_F64, 1, &one));
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &o->norm, EQI_F32, 1, &one));
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &o->factor, EQI_F32, 1, &one));
    *out = o;
    return EQAT_OK;
done:
    eqat_optimizer_free(o);
    return st;
}

static void unref(void *optimizer)
{
    eqat_optimizer *o = optimizer;
    eqi_ctx *ctx = o->ctx;
    for (size_t i = 0; i < o->count; i++) {
        eqi_tensor_unref(o->parameters[i]);
        eqi_tensor_unref(o->moments[i].m);
        eqi_tensor_unref(o->moments[i].v);
    }
    eqi_free(ctx, o->parameters);
    eqi_free(ctx, o->moments);
    eqi_free(ctx, o->rates);
    eqi_tensor_unref(o->sum);
    eqi_tensor_unref(o->norm);
    eqi_tensor_unref(o->factor);
    eqi_free(ctx, o);
    eqi_ctx_unref(ctx);
}

void eqat_optimizer_free(eqat_optimizer *o)
{
    if (o) eqi_handle_free(o->ctx, &o->handle, unref, o);
}

eqat_status eqat_optimizer_add_group(eqat_optimizer *o, double lr, int32_t *group)
{
    EQI_ENTER_OF(o);
    if (!(lr >= 0) || isinf(lr))
        return eqi_fail(o->ctx, EQAT_INVALID_ARGUMENT,
                        "learning rate: found %g, expected 0 or more", lr);
    double *rates =
        eqi_realloc(o->ctx, o->rates, ((size_t)o->groups + 1) * sizeof *rates, "parameter groups");
    if (!rates) return EQAT_OUT_OF_MEMORY;
    o->rates = rates;
    rates[o->groups] = lr;
    if (group) *group = o->groups;
    o->groups++;
    return EQAT_OK;
}

static eqat_status grow(eqat_optimizer *o)
{
    if (o->count < o->capacity) return EQAT_OK;
    size_t capacity = o->capacity ? 2 * o->capacity : 32;
    eqi_tensor **parameters =
        eqi_realloc(o->ctx, o->parameters, capacity * sizeof *parameters, "the parameter list");
    if (!parameters) return EQAT_OUT_OF_MEMORY;
    o->parameters = parameters;
    moments *both = eqi_realloc(o->ctx, o->moments, capacity * sizeof *both, "the moment list");
    if (!both) return EQAT_OUT_OF_MEMORY;
    o->moments = both;
    o->capacity = capacity;
    return EQAT_OK;
}

static eqat_status rest(const eqat_optimizer *o, moments *both)
{
    if (!o->offload) return EQAT_OK;
    EQI_RETURN_IF(eqi_tensor_to_host(both->m));
    return eqi_tensor_to_host(both->v);
}

static eqat_status make_moments(eqat_optimizer *o, const eqi_tensor *p, moments *both)
{
    EQI_RETURN_IF(eqi_tensor_zeros(o->ctx, &both->m, EQI_F32, p->v.ndim, p->v.shape));
    EQI_RETURN_IF(eqi_tensor_zeros(o->ctx, &both->v, EQI_F32, p->v.ndim, p->v.shape));
    return rest(o, both);
}

eqat_status eqat_optimizer_add(eqat_optimizer *o, int32_t group, eqat_tensor *p)
{
    EQI_ENTER_OF(o);
    EQI_NEED(o->ctx, p);
    if (group < 0 || group >= o->groups)
        return eqi_fail(o->ctx, EQAT_INVALID_ARGUMENT,
                        "parameter group: found %d, expected one of %d groups", group, o->groups);
    if (p->v.dtype != EQI_F32 || !p->requires_grad || !eqi_view_is_contiguous(&p->v))
        return eqi_fail(o->ctx, EQAT_INVALID_ARGUMENT,
                        "parameter: found %s%s%s, expected trainable contiguous f32",
                        p->requires_grad ? "" : "untrainable ",
                        eqi_view_is_contiguous(&p->v) ? "" : "strided ",
                        eqi_dtype_name(p->v.dtype));
    for (size_t i = 0; i < o->count; i++)
        if (o->parameters[i] == p)
            return eqi_fail(o->ctx, EQAT_INVALID_ARGUMENT,
                            "parameter: found it in group %d already", o->moments[i].group);
    EQI_RETURN_IF(grow(o));
    moments both = {.group = group};
    eqat_status st = make_moments(o, p, &both);
    if (st != EQAT_OK) {
        eqi_tensor_unref(both.m);
        eqi_tensor_unref(both.v);
        return st;
    }
    o->parameters[o->count] = eqi_tensor_ref(p);
    o->moments[o->count++] = both;
    return EQAT_OK;
}

void eqat_optimizer_zero_grad(eqat_optimizer *o)
{
    if (!o) return;
    for (size_t i = 0; i < o->count; i++) eqi_tensor_zero_grad(o->parameters[i]);
}

void eqat_optimizer_set_grad_callback(eqat_optimizer *o, eqat_grad_fn callback, void *user)
{
    if (!o) return;
    o->callback = callback;
    o->callback_user = user;
}

/* A zero gradient changes nothing: nobody trains it any more, or it never had another one. */
static bool rests(const eqat_optimizer *o, size_t i)
{
    return !o->parameters[i]->requires_grad ||
        (!o->moments[i].steps && o->options.weight_decay == 0);
}

/* What took no part in the loss has a gradient of zeros: its moments fade, and ranks that saw no
 * token of an expert reduce the same tensors as the others. */
static eqat_status zero_gradient(eqi_tensor *p)
{
    eqi_tensor *grad;
    bool acc;
    EQI_RETURN_IF(eqi_grad_of(p, &grad, &acc));
    return eqi_tensor_fill(grad, 0);
}

static eqat_status call_back(eqat_optimizer *o)
{
    if (!o->callback) return EQAT_OK;
    for (size_t i = 0; i < o->count; i++)
        if (!o->parameters[i]->grad && o->parameters[i]->requires_grad)
            EQI_RETURN_IF(zero_gradient(o->parameters[i]));
    o->ctx->error[0] = 0;
    return eqi_report_callback(o->ctx, "gradient callback",
                               o->callback(o->callback_user, o->parameters, o->count));
}

static eqat_status add_squares(eqat_optimizer *o, const eqi_tensor *p)
{
    return eqi_sum_squares(o->sum, p->grad);
}

static eqat_status take_factor(eqat_optimizer *o, double grad_scale)
{
    return eqi_clip_factor(o->norm, o->factor, o->sum, o->options.max_grad_norm, grad_scale);
}

/* Before the updates, which the device has to do when somebody waits for it. */
static eqat_status ask_norm(eqat_optimizer *o)
{
    o->asked = false;
    if (!o->wants_norm) return EQAT_OK;
    o->wants_norm = false;
    EQI_RETURN_IF(
        eqi_tensor_download_late(o->norm, &o->asked_norm, sizeof o->asked_norm, &o->ticket));
    o->asked = true;
    return EQAT_OK;
}

static eqi_adamw_desc adamw_of(const eqat_optimizer *o, size_t i)
{
    const eqat_optimizer_options *opt = &o->options;
    return (eqi_adamw_desc){
        .lr = (float)(o->rates[o->moments[i].group] * eqat_optimizer_lr_factor(o, o->steps)),
        .beta1 = (float)opt->beta1,
        .beta2 = (float)opt->beta2,
        .eps = (float)opt->eps,
        .weight_decay = (float)opt->weight_decay,
        .step = o->steps + 1};
}

static eqat_status update(eqat_optimizer *o, size_t i)
{
    eqi_tensor *p = o->parameters[i];
    moments *both = &o->moments[i];
    const eqi_adamw_desc d = adamw_of(o, i);
    EQI_RETURN_IF(eqi_tensor_to_device(both->m));
    EQI_RETURN_IF(eqi_tensor_to_device(both->v));
    both->steps = o->steps + 1;
    EQI_RETURN_IF(eqi_adamw(p, p->grad, both->m, both->v, o->factor, &d));
    eqi_tensor_zero_grad(p);
    return rest(o, both);
}

eqat_status eqat_optimizer_step(eqat_optimizer *o, double grad_scale)
{
    EQI_ENTER_OF(o);
    EQI_RETURN_IF(call_back(o));
    EQI_RETURN_IF(eqi_tensor_fill(o->sum, 0));
    for (size_t i = 0; i < o->count; i++)
        if (o->parameters[i]->grad) EQI_RETURN_IF(add_squares(o, o->parameters[i]));
    EQI_RETURN_IF(take_factor(o, grad_scale));
    EQI_RETURN_IF(ask_norm(o));
    for (size_t i = 0; i < o->count; i++) {
        if (!o->parameters[i]->grad && rests(o, i)) continue;
        if (!o->parameters[i]->grad) EQI_RETURN_IF(zero_gradient(o->parameters[i]));
        EQI_RETURN_IF(update(o, i));
    }
    o->steps++;
    return EQAT_OK;
}

/* ---- backward and update in one ---- */

static eqat_status update_alone(eqat_optimizer *o, size_t i)
{
    EQI_RETURN_IF(add_squares(o, o->parameters[i]));
    EQI_RETURN_IF(take_factor(o, 1));
    return update(o, i);
}

static size_t index_of(const eqat_optimizer *o, const eqi_tensor *p)
{
    size_t i = 0;
    while (i < o->count && o->parameters[i] != p) i++;
    return i;
}

static eqat_status take(void *user, eqi_tensor *leaf)
{
    eqat_optimizer *o = user;
    size_t i = index_of(o, leaf);
    return i < o->count ? update_alone(o, i) : EQAT_OK;
}

static bool take_over(void *user, eqi_tensor *leaf, eqi_update *update)
{
    eqat_optimizer *o = user;
    size_t i = index_of(o, leaf);
    if (i == o->count) return false;
    o->moments[i].steps = o->steps + 1;
    *update = (eqi_update){.m = o->moments[i].m->v,
                           .v = o->moments[i].v->v,
                           .squares = o->sum->v,
                           .d = adamw_of(o, i)};
    return true;
}

/* Nobody wants to see all gradients together, every one of them is known to be complete when
 * backward is past it, and kernels reach the moments. */
static bool can_fuse(const eqat_optimizer *o, const eqat_tape *tape)
{
    return !o->callback && o->options.max_grad_norm == 0 && !eqi_tape_captures(tape) && !o->offload;
}

eqat_status eqat_optimizer_backward(eqat_optimizer *o, eqat_tape *tape, eqat_tensor *loss)
{
    EQI_ENTER_OF(o);
    EQI_NEED(o->ctx, tape, loss);
    if (!loss->requires_grad) {
        eqi_tape_clear(tape);
        return eqat_optimizer_step(o, 1);
    }
    if (!can_fuse(o, tape)) {
        EQI_RETURN_IF(eqi_tape_backward(tape, loss, 1));
        return eqat_optimizer_step(o, 1);
    }
    o->asked = false;
    EQI_RETURN_IF(eqi_tensor_fill(o->sum, 0));
    EQI_RETURN_IF(eqi_tape_backward_into(
        tape, loss, 1, &(eqi_sink){.take = take, .update = take_over, .user = o}));
    for (size_t i = 0; i < o->count; i++) {
        eqi_tensor *p = o->parameters[i];
        bool done = o->moments[i].steps == o->steps + 1 || rests(o, i);
        if (!p->grad && done) continue;
        if (!p->grad) EQI_RETURN_IF(zero_gradient(p)); /* else left by an earlier backward */
        EQI_RETURN_IF(update_alone(o, i));
    }
    EQI_RETURN_IF(take_factor(o, 1));
    o->steps++;
    return EQAT_OK;
}

void eqi_optimizer_set_offload(eqat_optimizer *o, bool on) { o->offload = on; }

size_t eqi_optimizer_count(const eqat_optimizer *o) { return o->count; }

eqi_tensor *eqi_optimizer_parameter(const eqat_optimizer *o, size_t i) { return o->parameters[i]; }

eqi_tensor *eqi_optimizer_norm(const eqat_optimizer *o) { return o->norm; }

bool eqi_optimizer_is_torn(const eqat_optimizer *o)
{
    for (size_t i = 0; i < o->count; i++)
        if (o->moments[i].steps > o->steps) return true;
    return false;
}

void eqi_optimizer_want_norm(eqat_optimizer *o) { o->wants_norm = true; }

void eqi_optimizer_scale_rates(eqat_optimizer *o, double factor)
{
    for (int32_t i = 0; i < o->groups; i++) o->rates[i] *= factor;
}

double eqat_optimizer_lr_factor(const eqat_optimizer *o, int64_t k)
{
    if (!o) return (double)NAN;
    EQI_FPENV_GUARD();
    const eqat_optimizer_options *opt = &o->options;
    return eqi_schedule_factor(&(eqi_schedule){.warmup = opt->warmup_steps,
                                               .total = opt->total_steps,
                                               .decay = opt->decay_ratio,
                                               .floor = opt->min_lr_factor},
                               k);
}

int64_t eqat_optimizer_steps(const eqat_optimizer *o)
{
    if (!o) return 0;
    return o->steps;
}

eqat_status eqat_optimizer_grad_norm(eqat_optimizer *o, double *norm)
{
    EQI_ENTER_OF(o);
    EQI_NEED(o->ctx, norm);
    float value;
    if (o->asked) {
        o->asked = false;
        EQI_RETURN_IF(eqi_tensor_arrive(o->ctx, o->ticket));
        value = o->asked_norm;
    } else {
        EQI_RETURN_IF(eqi_tensor_download(o->norm, &value, sizeof value));
    }
    *norm = (double)value;
    return EQAT_OK;
}

eqat_status eqi_optimizer_state(eqat_optimizer *o, eqi_state *state, int64_t most)
{
    EQI_RETURN_IF(eqi_state_counts(state, "optimizer.steps", &o->steps, 1, most));
    /* Relative ones are of what the parameters were when they began to train. */
    EQI_RETURN_IF(eqi_state_values(state, "optimizer.rates", EQI_STORED_F64, o->rates, o->groups));
    for (size_t i = 0; i < o->count; i++) {
        moments *both = &o->moments[i];
        char name[64];
        snprintf(name, sizeof name, "optimizer.%zu.steps", i);
        EQI_RETURN_IF(eqi_state_counts(state, name, &both->steps, 1, most));
        snprintf(name, sizeof name, "optimizer.%zu.m", i);
        EQI_RETURN_IF(eqi_state_tensor(state, name, both->m));
        snprintf(name, sizeof name, "optimizer.%zu.v", i);
        EQI_RETURN_IF(eqi_state_tensor(state, name, both->v));
    }
    return EQAT_OK;
}
