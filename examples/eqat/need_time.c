#include "need_time.h"

#include <math.h>
#include <stdlib.h>

/* A measurement takes four steps or so; shorter runs are over before it pays. */
#define WORTHWHILE 200

static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Tokens without meaning: what a step costs does not hang on them. */
static eqat_status make_data(tool *t, const need *n, const eqat_data_options *like, int64_t windows,
                             int64_t val, eqat_data **out)
{
    eqat_model_info m = {.struct_size = sizeof m};
    eqat_data_options o = *like;
    eqat_status st = eqat_model_inspect(n->model, &m);
    if (st != EQAT_OK) return st;
    o.train_size = windows;
    o.val_size = val;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    o.rank = 0;
    o.world = 1;
    size_t count = (size_t)((windows + val) * o.seq_len);
    int32_t *ids = malloc(count * sizeof *ids);
    if (!ids) return tool_fail(t, EQAT_OUT_OF_MEMORY, "out of memory: %zu tokens", count);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)(i * 7919 % (size_t)m.vocab_size);
    st = eqat_data_from_tokens(t->ctx, out, ids, count, m.vocab_size, &o);
    free(ids);
    return st;
}

/* ---- Block-AP ---- */

static eqat_status time_steps(eqat_block_ap *ap, tool_costs *c)
{
    double loss, at[5] = {tool_seconds()};
    eqat_status st = eqat_block_ap_begin(ap);
    at[1] = tool_seconds();
    c->epochs *= eqat_block_ap_stages(ap, 0);
    if (st == EQAT_OK) st = eqat_block_ap_step(ap, 0, 0, &loss);
    at[2] = tool_seconds();
    if (st == EQAT_OK) st = eqat_block_ap_step(ap, 0, 0, &loss);
    at[3] = tool_seconds();
    if (st == EQAT_OK) st = eqat_block_ap_validate(ap, &loss);
    at[4] = tool_seconds();
    eqat_block_ap_abandon(ap);
    c->step = at[3] - at[2];
    c->move = at[4] - at[3];
    c->begin = fmax(0, at[1] - at[0] - 2 * c->move);
    return st;
}

static eqat_status measure_block(tool *t, const need *n, tool_costs *c)
{
    eqat_block_ap_options o;
    eqat_data *data = NULL;
    eqat_block_ap *ap = NULL;
    eqat_block_ap_options_init(&o, sizeof o);
    o.batch_size = n->block_ap->batch_size;
    o.experts_at_a_time = n->block_ap->experts_at_a_time;
    o.epochs = 1;
    eqat_status st = make_data(t, n, n->data, o.batch_size, o.batch_size, &data);
    if (st == EQAT_OK) st = eqat_block_ap_create(n->model, &ap, n->quantizer, data, &o);
    if (st == EQAT_OK) st = time_steps(ap, c);
    eqat_block_ap_free(ap);
    eqat_data_free(data);
    return st;
}

double tool_costs_block(const tool_costs *c)
{
    return c->begin + 2 * (double)c->move_batches * c->move +
        (double)c->epochs * (double)c->steps * c->step +
        (double)(c->epochs + 1) * (double)c->val_batches * c->move;
}

/* ---- E2E-QP ---- */

static eqat_status measure_e2e(tool *t, const need *n, double *micro)
{
    eqat_e2e_qp_options o = *n->e2e;
    eqat_data *data = NULL;
    eqat_e2e_qp *e2e = NULL;
    double loss, before = 0;
    o.batch_size = o.micro_batch_size;
    o.epochs = 1;
    o.keep = EQAT_KEEP_LAST; /* nothing is validated */
    o.validate_steps = 0;
    eqat_status st = make_data(t, n, n->e2e_data, o.micro_batch_size, 0, &data);
    if (st == EQAT_OK) st = eqat_e2e_qp_create(n->model, &e2e, data, &o);
    for (int i = 0; i < 2 && st == EQAT_OK; i++) {
        before = tool_seconds();
        st = eqat_e2e_qp_accumulate(e2e, 0, 0, &loss);
    }
    *micro = tool_seconds() - before;
    eqat_e2e_qp_free(e2e);
    eqat_data_free(data);
    return st;
}

/* A token of E2E-QP costs each block about what a step of Block-AP does. */
static double e2e_from_block(const need *n, const need_sizes *s, const tool_costs *c)
{
    double token = c->step / ((double)n->block_ap->batch_size * (double)n->data->seq_len);
    double micro = (double)n->e2e->micro_batch_size * (double)n->e2e_data->seq_len;
    return token * micro * (s->all + s->head) / s->first;
}

/* Micro-batches of all validations: each is a forward pass, of which training takes four. */
static double validations(const need *n, int64_t samples)
{
    int64_t steps = pieces(samples, n->e2e->batch_size), every = n->e2e->validate_steps;
    int64_t one = pieces(n->e2e_val, n->e2e->micro_batch_size);
    int64_t times = n->e2e->epochs + (every ? steps * n->e2e->epochs / every : 0);
    return (double)one * (double)(times + (n->e2e->keep != EQAT_KEEP_LAST));
}

eqat_status need_time(tool *t, const need *n, const need_sizes *s, double *seconds)
{
    tool_costs *c = &t->costs;
    eqat_model_info m = {.struct_size = sizeof m};
    eqat_status st = eqat_model_inspect(n->model, &m);
    double micro = 0, micros = 0;
    *seconds = NAN;
    if (n->e2e_data) {
        int64_t samples = n->e2e_train ? n->e2e_train : n->e2e_data->train_size;
        micros = (double)pieces(samples, n->e2e->micro_batch_size) * (double)n->e2e->epochs +
            validations(n, samples) / 4;
    }
    if (n->data) {
        int64_t batch = n->block_ap->batch_size;
        c->steps = pieces(n->train, batch);
        c->val_batches = pieces(n->val, batch);
        c->move_batches = pieces(n->train + n->val, batch);
        c->epochs = n->block_ap->epochs * s->stages;
    }
    double steps = (double)(c->steps * c->epochs * m.blocks);
    if (st != EQAT_OK || steps + micros < WORTHWHILE) return st;
    if (n->data) st = measure_block(t, n, c);
    if (st == EQAT_OK && micros > 0 && !n->quantizer) st = measure_e2e(t, n, &micro);
    if (st == EQAT_OK && micros > 0 && n->data) micro = e2e_from_block(n, s, c);
    if (st != EQAT_OK) return st;
    if (n->e2e->teacher) micro *= 4.0 / 3; /* a forward beside a forward and a backward */
    c->e2e = micro * micros;
    double judged = 3 * (double)pieces(n->judged, n->data ? n->block_ap->batch_size : 1) * c->move;
    /* The head's products in the last block: forward, backward, and of the target. */
    bool logits = n->data && n->block_ap->last_loss == EQAT_LAST_LOSS_LOGITS;
    double last = logits ? (double)(c->epochs * c->steps) * c->step * s->head / s->first : 0;
    *seconds = last + c->e2e + judged * s->all / s->first +
        (n->data ? tool_costs_block(c) * s->all / s->first : 0);
    return EQAT_OK;
}
