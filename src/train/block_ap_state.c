#include <math.h>
#include <stdio.h>

#include "model/weights.h"
#include "train/block_ap.h"
#include "train/fingerprint.h"
#include "train/optimizer.h"

#define KIND "block-ap"
#define MOST (INT64_C(1) << 53) /* steps or epochs: what F64 counts exactly */

/* How far a job is. */
typedef struct place {
    int64_t done;    /* blocks in the model */
    int64_t working; /* 1: the next one is in work */
    int64_t stage;   /* of it */
    int64_t taken;   /* steps of it */
    int64_t retries; /* of its stage */
    int64_t best;    /* 1: there is a best state of the stage; its epoch */
    int64_t epoch;
} place;

static place place_of(const eqat_block_ap *job)
{
    bool working = job->work.state == EQI_BLOCK_MASTERS;
    return (place){.done = job->block + (job->work.state == EQI_BLOCK_FROZEN),
                   .working = working,
                   .stage = eqat_block_ap_stage(job),
                   .taken = working ? job->taken : 0,
                   .retries = working ? (int64_t)eqi_block_ap_outcome(job)->retries : 0,
                   .best = working && job->best.tensors,
                   .epoch = job->best.epoch};
}

static eqat_status agree(const eqat_block_ap *job, eqi_state *state)
{
    uint64_t hash;
    EQI_RETURN_IF(eqi_fingerprint_files(job->model, &hash));
    EQI_RETURN_IF(eqi_state_agree_hash(state, "model", hash));
    EQI_RETURN_IF(eqi_state_agree(state, "compute_dtype", eqi_dtype_name(job->model->compute)));
    EQI_RETURN_IF(eqi_fingerprint_quantizer(job->model, job->quantizer, &hash));
    EQI_RETURN_IF(eqi_state_agree_hash(state, "quantizer", hash));
    EQI_RETURN_IF(eqi_fingerprint_data(job->ctx, job->data, &hash));
    EQI_RETURN_IF(eqi_state_agree_hash(state, "data", hash));
    eqat_block_ap_options same = job->options;
    same.offload_memory = 0; /* a run may go on with more or less memory */
    return eqi_state_agree_options(state, &eqi_struct_block_ap, &same);
}

static eqat_status agree_place(const eqat_block_ap *job, eqi_state *state, place *p)
{
    int64_t blocks = job->model->config.blocks;
    EQI_RETURN_IF(eqi_state_number(state, "blocks_done", blocks, &p->done));
    EQI_RETURN_IF(eqi_state_number(state, "block_in_work", p->done < blocks, &p->working));
    int64_t stages = p->working ? eqat_block_ap_stages(job, p->done) : 1;
    EQI_RETURN_IF(eqi_state_number(state, "stage", stages - 1, &p->stage));
    EQI_RETURN_IF(eqi_state_number(state, "steps_taken", MOST, &p->taken));
    EQI_RETURN_IF(eqi_state_number(state, "retries", EQI_RETRIES, &p->retries));
    EQI_RETURN_IF(eqi_state_number(state, "best", p->working, &p->best));
    return eqi_state_number(state, "best_epoch", MOST, &p->epoch);
}

/* ---- tensors ---- */

static eqat_status list_part(eqi_state *state, const eqi_linear *l, const char *part, eqi_tensor *t)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", l->name, part);
    return eqi_state_tensor(state, name, t);
}

static eqat_status list_norms(eqi_state *state, const eqi_block *b)
{
    for (int i = 0; i < b->n_norms; i++)
        EQI_RETURN_IF(eqi_state_tensor(state, b->norms[i].name, b->norms[i].gain));
    return EQAT_OK;
}

/* Biases do not train. */
static eqat_status list_frozen(eqi_state *state, const eqi_linear *l)
{
    if (!l->weight.codes) return list_part(state, l, "weight", l->weight.w);
    EQI_RETURN_IF(list_part(state, l, "codes", l->weight.codes));
    EQI_RETURN_IF(list_part(state, l, "scales", l->weight.s));
    return list_part(state, l, "zeros", l->weight.z);
}

static eqat_status list_masters(eqi_state *state, const eqi_linear *l)
{
    EQI_RETURN_IF(list_part(state, l, "weight", l->weight.w));
    for (int t = 0; t < EQI_KIND_TENSORS && l->beside[t]; t++)
        EQI_RETURN_IF(list_part(state, l, l->quant.kind->tensors[t].name, l->beside[t]));
    return EQAT_OK;
}

static eqat_status list_done(eqi_state *state, const eqi_block *b)
{
    for (int i = 0; i < b->n_linears; i++) EQI_RETURN_IF(list_frozen(state, &b->linears[i]));
    return list_norms(state, b);
}

static eqat_status list_best(eqat_block_ap *job, eqi_state *state)
{
    EQI_RETURN_IF(eqi_block_ap_make_best(job));
    EQI_RETURN_IF(eqi_state_values(state, "best.loss", EQI_STORED_F64, &job->best.loss, 1));
    for (size_t i = 0; i < job->best.count; i++) {
        char name[64];
        snprintf(name, sizeof name, "best.%zu", i);
        EQI_RETURN_IF(eqi_state_tensor(state, name, job->best.tensors[i]));
    }
    return EQAT_OK;
}

/* Linears of later stages are as the file has them. */
static eqat_status list_work(eqat_block_ap *job, eqi_state *state)
{
    const eqi_block *b = &job->work;
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        int64_t stage = eqi_block_ap_stage_of(job, l);
        if (stage < job->stage) EQI_RETURN_IF(list_frozen(state, l));
        if (stage == job->stage) EQI_RETURN_IF(list_masters(state, l));
    }
    EQI_RETURN_IF(list_norms(state, b));
    return eqi_optimizer_state(job->optimizer, state, MOST);
}

static bool is_count(double x, double least, double most)
{
    return x >= least && x <= most && floor(x) == x;
}

static bool are_outcomes(const void *values, int64_t n, int64_t most)
{
    const eqi_outcome *o = values;
    for (int64_t i = 0; i < n / 4; i++)
        if (!is_count(o[i].retries, 0, EQI_RETRIES) ||
            !(isnan(o[i].epoch) || is_count(o[i].epoch, -1, (double)most)))
            return false;
    return true;
}

/* done: the finished blocks. */
static eqat_status list_all(eqat_block_ap *job, eqi_state *state, const eqi_block *done,
                            const place *p)
{
    int64_t reports = eqi_block_ap_first_epoch(job, job->model->config.blocks);
    if (reports)
        EQI_RETURN_IF(eqi_state_values(state, "epochs", EQI_STORED_F64, job->epochs, 2 * reports));
    EQI_RETURN_IF(eqi_state_fitting(state, "outcomes", EQI_STORED_F64, job->outcomes,
                                    4 * eqi_block_ap_outcomes(job), are_outcomes, MOST));
    EQI_RETURN_IF(eqi_state_tensor(state, "losses", job->losses));
    for (int64_t i = 0; i < p->done; i++) EQI_RETURN_IF(list_done(state, &done[i]));
    if (p->best) EQI_RETURN_IF(list_best(job, state));
    return p->working ? list_work(job, state) : EQAT_OK;
}

/* ---- saving ---- */

eqat_status eqat_block_ap_save(eqat_block_ap *job, const char *path)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, path);
    eqi_state *state;
    eqat_status st;
    place p = place_of(job);
    if (job->cut) return eqi_block_ap_expect_training(job);
    EQI_RETURN_IF(p.working ? eqi_block_ap_begin_stage(job) : eqi_model_check_idle(job->model));
    EQI_RETURN_IF(eqi_state_create(job->ctx, &state, path, KIND));
    EQI_GOTO(failed, agree(job, state));
    EQI_GOTO(failed, agree_place(job, state, &p));
    EQI_GOTO(failed, list_all(job, state, job->model->blocks, &p));
    return eqi_state_end(state);
failed:
    eqi_state_drop(state);
    return st;
}

/* ---- loading ---- */

static eqat_status expect_fresh(const eqat_block_ap *job)
{
    if (job->block || job->work.state != EQI_BLOCK_DENSE)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "block %lld: found it begun or done, expected a new job",
                        (long long)job->block);
    return eqi_model_check_idle(job->model);
}

/* eqi_tensor_create for the block in work; those that are done wait on the host. */
typedef eqat_status create(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                           const int64_t *shape);

static eqat_status make_packed(eqi_ctx *ctx, const eqi_linear *l, const eqi_quant_desc *desc,
                               create *make, eqi_weight *w)
{
    const int64_t codes[2] = {l->out, l->in / 32 * desc->bits};
    const int64_t groups[2] = {l->out, l->in / desc->group};
    w->q = (eqi_quant_desc){.bits = desc->bits, .group = desc->group};
    EQI_RETURN_IF(make(ctx, &w->codes, EQI_U32, 2, codes));
    EQI_RETURN_IF(make(ctx, &w->s, EQI_F32, 2, groups));
    return make(ctx, &w->z, EQI_U8, 2, groups);
}

static eqat_status make_frozen(const eqat_block_ap *job, eqi_linear *l, create *make)
{
    eqi_quant quant;
    EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &quant));
    if (quant.kind) return make_packed(job->ctx, l, &quant.desc, make, &l->weight);
    return make(job->ctx, &l->weight.w, EQI_F32, 2, (int64_t[]){l->out, l->in});
}

/* Room for what list_done lists. */
static eqat_status make_done(const eqat_block_ap *job, int64_t index, eqi_block *b)
{
    EQI_RETURN_IF(eqi_block_outline(job->model, index, b));
    create *make = eqi_tensor_create_on_host;
    for (int i = 0; i < b->n_linears; i++) EQI_RETURN_IF(make_frozen(job, &b->linears[i], make));
    for (int i = 0; i < b->n_norms; i++)
        EQI_RETURN_IF(make(job->ctx, &b->norms[i].gain, EQI_F32, 1, &b->norms[i].size));
    return EQAT_OK;
}

/* Room for what list_work lists. */
static eqat_status make_work(eqat_block_ap *job, int64_t stage, int64_t retries)
{
    job->stage = stage;
    eqi_block_ap_outcome(job)->retries = (double)retries;
    EQI_RETURN_IF(eqi_block_ap_take_block(job, stage));
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        if (eqi_block_ap_stage_of(job, l) < stage)
            EQI_RETURN_IF(make_frozen(job, l, eqi_tensor_create));
    }
    return EQAT_OK;
}

/* Fills `done` and the block in work; takes over the state. */
static eqat_status read_blocks(eqat_block_ap *job, eqi_state *state, eqi_block *done,
                               const place *p)
{
    eqat_status st;
    job->block = p->done;
    for (int64_t i = 0; i < p->done; i++) EQI_GOTO(failed, make_done(job, i, &done[i]));
    if (p->working) EQI_GOTO(failed, make_work(job, p->stage, p->retries));
    EQI_GOTO(failed, list_all(job, state, done, p));
    st = eqi_state_end(state);
    state = NULL;
    if (st == EQAT_OK) return st;
failed:
    eqi_state_drop(state);
    eqat_block_ap_abandon(job);
    job->block = 0;
    return st;
}

static eqat_status restore(eqat_block_ap *job, eqi_state *state, const place *p)
{
    eqi_block *done =
        eqi_calloc(job->ctx, (size_t)p->done, sizeof *done, "the blocks that are done");
    if (!done) {
        eqi_state_drop(state);
        return EQAT_OUT_OF_MEMORY;
    }
    eqat_status st = read_blocks(job, state, done, p);
    for (int64_t i = 0; i < p->done; i++) {
        if (st == EQAT_OK) eqi_block_put(job->model, &done[i]);
        eqi_block_drop(job->ctx, &done[i]);
    }
    eqi_free(job->ctx, done);
    if (st == EQAT_OK) {
        job->taken = p->taken;
        job->best.epoch = p->epoch;
    }
    return st;
}

eqat_status eqat_block_ap_load(eqat_block_ap *job, const char *path)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, path);
    eqi_state *state;
    place p = {0};
    EQI_RETURN_IF(expect_fresh(job));
    EQI_RETURN_IF(eqi_state_open(job->ctx, &state, path, KIND));
    eqat_status st = agree(job, state);
    if (st == EQAT_OK) st = agree_place(job, state, &p);
    if (st != EQAT_OK) {
        eqi_state_drop(state);
        return st;
    }
    EQI_RETURN_IF(restore(job, state, &p));
    return eqi_block_ap_catch_up(job);
}
