#include "model/generate.h"

#include "eqat/generate.h"

#define FIRST_CAPACITY 16 /* tokens; doubles */

static void unref(void *owner)
{
    eqat_generation *g = owner;
    eqi_ctx *ctx = g->ctx;
    for (int64_t i = 0; i < g->held; i++) eqi_block_release(g->model, i);
    for (int64_t i = 0; g->kv && i < g->model->config.blocks; i++) {
        eqi_tensor_unref(g->kv[i].k);
        eqi_tensor_unref(g->kv[i].v);
    }
    eqi_free(ctx, g->kv);
    eqi_tape_free(g->tape);
    eqat_model_free(g->model);
    eqi_free(ctx, g);
    eqi_ctx_unref(ctx);
}

void eqat_generation_free(eqat_generation *g)
{
    if (g) eqi_handle_free(g->ctx, &g->handle, unref, g);
}

eqat_status eqat_generation_create(eqat_model *m, eqat_generation **out, int64_t batch_size)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, out);
    if (batch_size < 1 || batch_size > INT32_MAX)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "batch_size: found %lld, expected 1 to 2147483647", (long long)batch_size);
    eqat_generation *g = eqi_calloc(m->ctx, 1, sizeof *g, "a generation");
    if (!g) return EQAT_OUT_OF_MEMORY;
    g->ctx = eqi_ctx_ref(m->ctx);
    g->model = eqi_model_ref(m);
    g->batch = batch_size;
    g->kv = eqi_calloc(m->ctx, (size_t)m->config.blocks, sizeof *g->kv, "keys and values");
    eqat_status st = g->kv ? eqi_tape_create(m->ctx, &g->tape) : EQAT_OUT_OF_MEMORY;
    if (st != EQAT_OK) {
        unref(g);
        return st;
    }
    eqi_tape_set_recording(g->tape, false);
    *out = g;
    return EQAT_OK;
}

/* A larger *cache with what the old one holds. */
static eqat_status enlarge(const eqat_generation *g, const eqi_block *b, int64_t capacity,
                           eqi_tensor **cache)
{
    const int64_t shape[4] = {g->batch, capacity, b->attention.kv_heads, b->attention.head_dim};
    eqi_tensor *larger, *from = NULL, *to = NULL;
    EQI_RETURN_IF(eqi_tensor_create(g->ctx, &larger, g->model->compute, 4, shape));
    eqat_status st = EQAT_OK;
    if (g->length) {
        EQI_GOTO(done, eqi_tensor_slice(*cache, &from, 1, 0, g->length));
        EQI_GOTO(done, eqi_tensor_slice(larger, &to, 1, 0, g->length));
        EQI_GOTO(done, eqi_tensor_copy(to, from));
    }
    eqi_tensor_unref(*cache);
    *cache = larger;
    larger = NULL;
done:
    eqi_tensor_unref(from);
    eqi_tensor_unref(to);
    eqi_tensor_unref(larger);
    return st;
}

static eqat_status make_room(eqat_generation *g, int64_t length)
{
    const eqi_config *c = &g->model->config;
    int64_t capacity = g->capacity ? g->capacity : FIRST_CAPACITY;
    if (length > c->max_positions)
        return eqi_fail(
            g->ctx, EQAT_INVALID_ARGUMENT,
            "generation: found %lld tokens, expected at most the model's %lld positions",
            (long long)length, (long long)c->max_positions);
    while (capacity < length) capacity *= 2;
    if (capacity > c->max_positions) capacity = c->max_positions;
    EQI_RETURN_IF(eqi_model_prepare(g->model, capacity));
    if (capacity == g->capacity) return EQAT_OK;
    for (int64_t i = 0; i < c->blocks; i++) {
        EQI_RETURN_IF(enlarge(g, &g->model->blocks[i], capacity, &g->kv[i].k));
        EQI_RETURN_IF(enlarge(g, &g->model->blocks[i], capacity, &g->kv[i].v));
    }
    g->capacity = capacity;
    return EQAT_OK;
}

static eqat_status positions_of(const eqat_generation *g, int64_t time, eqi_tensor **out)
{
    size_t n = (size_t)(g->batch * time);
    int32_t *values = eqi_alloc(g->ctx, n * sizeof *values, "positions");
    *out = NULL;
    if (!values) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++) values[i] = (int32_t)(g->length + (int64_t)i % time);
    eqat_status st = eqi_tensor_create(g->ctx, out, EQI_I32, 2, (int64_t[]){g->batch, time});
    if (st == EQAT_OK) st = eqi_tensor_upload(*out, values, n * sizeof *values);
    eqi_free(g->ctx, values);
    return st;
}

/* *x through a block, whose weights stay. */
static eqat_status run_block(eqat_generation *g, int64_t index, eqi_tensor *positions,
                             eqi_tensor **x)
{
    const eqi_block *block;
    eqi_tensor *next;
    eqi_block_input in = eqi_model_input(g->model, *x);
    in.positions = positions;
    in.kv = &g->kv[index];
    in.kv->length = g->length;
    EQI_RETURN_IF(eqi_check_cancel(g->ctx));
    EQI_RETURN_IF(eqi_block_acquire(g->model, index, &block));
    eqat_status st = eqi_block_forward(g->tape, block, &in, &next);
    if (index == g->held)
        g->held++;
    else
        eqi_block_release(g->model, index);
    EQI_RETURN_IF(st);
    eqi_tensor_unref(*x);
    *x = next;
    return EQAT_OK;
}

static eqat_status feed(eqat_generation *g, const int32_t *ids, int64_t time, int64_t last_n,
                        eqi_tensor **logits)
{
    const eqat_batch batch = {.batch = g->batch, .time = time, .ids = ids};
    eqi_tensor *positions = NULL, *x = NULL;
    eqat_status st;
    EQI_RETURN_IF(make_room(g, g->length + time));
    EQI_GOTO(done, positions_of(g, time, &positions));
    EQI_GOTO(done, eqi_model_embed_batch(g->tape, g->model, &batch, &x));
    for (int64_t i = 0; i < g->model->config.blocks; i++)
        EQI_GOTO(done, run_block(g, i, positions, &x));
    if (logits) EQI_GOTO(done, eqi_model_last_logits(g->tape, g->model, x, last_n, logits));
    g->length += time;
done:
    eqi_tensor_unref(positions);
    eqi_tensor_unref(x);
    return st;
}

eqat_status eqat_generation_feed(eqat_generation *g, const int32_t *ids, int64_t time,
                                 int64_t last_n, eqat_tensor **logits)
{
    if (logits) *logits = NULL;
    EQI_ENTER_OF(g);
    EQI_NEED(g->ctx, ids);
    if (time < 1 || time > INT32_MAX / g->batch)
        return eqi_fail(g->ctx, EQAT_INVALID_ARGUMENT,
                        "time: found %lld tokens for each of %lld sequences, expected at least 1 "
                        "and fewer than 2^31 in all",
                        (long long)time, (long long)g->batch);
    if (logits && (last_n < 1 || last_n > time))
        return eqi_fail(g->ctx, EQAT_INVALID_ARGUMENT, "last_n: found %lld, expected 1 to %lld",
                        (long long)last_n, (long long)time);
    return feed(g, ids, time, last_n, logits);
}

int64_t eqat_generation_length(const eqat_generation *g) { return g ? g->length : 0; }

eqat_status eqat_generation_rewind(eqat_generation *g, int64_t length)
{
    EQI_ENTER_OF(g);
    if (length < 0 || length > g->length)
        return eqi_fail(g->ctx, EQAT_INVALID_ARGUMENT, "length: found %lld, expected 0 to %lld",
                        (long long)length, (long long)g->length);
    g->length = length;
    return EQAT_OK;
}
