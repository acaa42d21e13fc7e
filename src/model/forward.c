#include <math.h>
#include <string.h>

#include "base/half.h"
#include "data/sample.h"
#include "model/weights.h"

void eqat_batch_init(eqat_batch *batch, size_t struct_size)
{
    if (!batch || struct_size < sizeof batch->struct_size) return;
    memset(batch, 0, struct_size); /* a newer caller's members, too */
    batch->struct_size = struct_size;
}

/* A batch as the blocks take it. */
typedef struct input {
    int64_t batch, time;
    bool keep_activations;
    eqi_tensor *x;                             /* [B, T, H] */
    eqi_tensor *labels, *positions, *segments; /* I32 [B, T] or NULL */
} input;

static void input_release(input *in)
{
    eqi_tensor_unref(in->x);
    eqi_tensor_unref(in->labels);
    eqi_tensor_unref(in->positions);
    eqi_tensor_unref(in->segments);
    *in = (input){0};
}

static eqat_status to_tensor(eqi_ctx *ctx, const int32_t *values, int64_t batch, int64_t time,
                             eqi_tensor **out)
{
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, EQI_I32, 2, (int64_t[]){batch, time}));
    return eqi_tensor_upload(*out, values, (size_t)(batch * time) * sizeof *values);
}

eqat_status eqi_model_check_ids(eqat_model *m, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= m->config.vocab)
            return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                            "ids: found %d at position %zu, expected 0 to %lld", ids[i], i,
                            (long long)m->config.vocab - 1);
    return EQAT_OK;
}

eqat_status eqi_model_check_labels(eqat_model *m, const int32_t *labels, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (labels[i] >= m->config.vocab)
            return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                            "labels: found %d at position %zu, expected less than %lld", labels[i],
                            i, (long long)m->config.vocab);
    return EQAT_OK;
}

eqat_status eqi_model_check_positions(eqat_model *m, const int32_t *positions, size_t n,
                                      int64_t time, int64_t *length)
{
    /* Positions beyond would only buy an endless rotary table. */
    int64_t limit = time > m->config.max_positions ? time : m->config.max_positions;
    for (size_t i = 0; i < n; i++) {
        if (positions[i] < 0 || positions[i] >= limit)
            return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                            "positions: found %d at %zu, expected 0 to %lld", positions[i], i,
                            (long long)limit - 1);
        if (positions[i] >= *length) *length = positions[i] + 1;
    }
    return EQAT_OK;
}

static eqat_status shifted_labels(eqat_model *m, const eqat_batch *b, eqi_tensor **out)
{
    size_t n = (size_t)(b->batch * b->time);
    int32_t *labels = eqi_alloc(m->ctx, n * sizeof *labels, "labels");
    if (!labels) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < b->batch; i++) {
        int64_t first = i * b->time;
        eqi_sample_shift(b->ids + first, b->segments ? b->segments + first : NULL, b->time,
                         labels + first);
    }
    eqat_status st = to_tensor(m->ctx, labels, b->batch, b->time, out);
    eqi_free(m->ctx, labels);
    return st;
}

static eqat_status take_labels(eqat_model *m, const eqat_batch *b, eqi_tensor **out)
{
    if (!b->labels && !b->ids)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "batch: found embeddings alone, expected labels with them");
    if (!b->labels) return shifted_labels(m, b, out);
    EQI_RETURN_IF(eqi_model_check_labels(m, b->labels, (size_t)(b->batch * b->time)));
    return to_tensor(m->ctx, b->labels, b->batch, b->time, out);
}

static eqat_status take_positions(eqat_model *m, const eqat_batch *b, int64_t *length,
                                  eqi_tensor **out)
{
    *length = b->time;
    if (!b->positions) return EQAT_OK;
    *length = 1;
    EQI_RETURN_IF(
        eqi_model_check_positions(m, b->positions, (size_t)(b->batch * b->time), b->time, length));
    return to_tensor(m->ctx, b->positions, b->batch, b->time, out);
}

eqat_status eqi_model_embed_batch(eqi_tape *tape, eqat_model *m, const eqat_batch *b,
                                  eqi_tensor **out)
{
    if (b->embeddings) {
        const eqi_view *v = &b->embeddings->v;
        char found[EQI_SHAPE_TEXT];
        if (v->ndim != 3 || v->shape[0] != b->batch || v->shape[1] != b->time ||
            v->shape[2] != m->config.hidden || v->dtype != m->compute)
            return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                            "embeddings: found %s %s, expected %s [%lld, %lld, %lld]",
                            eqi_dtype_name(v->dtype), eqi_view_shape_text(v, found, sizeof found),
                            eqi_dtype_name(m->compute), (long long)b->batch, (long long)b->time,
                            (long long)m->config.hidden);
        *out = eqi_tensor_ref(b->embeddings);
        return EQAT_OK;
    }
    EQI_RETURN_IF(eqi_model_check_ids(m, b->ids, (size_t)(b->batch * b->time)));
    eqi_tensor *ids = NULL;
    eqat_status st = to_tensor(m->ctx, b->ids, b->batch, b->time, &ids);
    if (st == EQAT_OK) st = eqi_model_embed(tape, m, ids, out);
    eqi_tensor_unref(ids);
    return st;
}

static eqat_status take_batch(eqi_tape *tape, eqat_model *m, const eqat_batch *given, bool labels,
                              input *in)
{
    *in = (input){0};
    eqat_batch b = {0};
    if (given->struct_size < offsetof(eqat_batch, labels))
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "batch: found struct_size %zu, expected sizeof(eqat_batch)",
                        given->struct_size);
    memcpy(&b, given, given->struct_size < sizeof b ? given->struct_size : sizeof b);
    if (b.batch < 1 || b.time < 1 || b.batch > INT32_MAX / b.time)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "batch: found %lld sequences of %lld tokens, expected at least 1 of 1 and "
                        "fewer than 2^31 tokens",
                        (long long)b.batch, (long long)b.time);
    if (!b.ids && !b.embeddings)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT, "batch: found neither ids nor embeddings");
    in->batch = b.batch;
    in->time = b.time;
    in->keep_activations = b.keep_activations;
    int64_t length = 0;
    eqat_status st;
    EQI_GOTO(done, take_positions(m, &b, &length, &in->positions));
    if (b.segments) EQI_GOTO(done, to_tensor(m->ctx, b.segments, b.batch, b.time, &in->segments));
    if (labels) EQI_GOTO(done, take_labels(m, &b, &in->labels));
    EQI_GOTO(done, eqi_model_embed_batch(tape, m, &b, &in->x));
    st = eqi_model_prepare(m, length);
done:
    if (st != EQAT_OK) input_release(in);
    return st;
}

/* transformers rounds it to the dtype of the table. */
static double embedding_scale(const eqat_model *m)
{
    float scale = (float)sqrt((double)m->config.hidden);
    switch (eqi_kept_dtype(m->embedding_stored)) {
    case EQI_BF16: return (double)eqi_bf16_to_f32(eqi_f32_to_bf16(scale));
    case EQI_F16: return (double)eqi_f16_to_f32(eqi_f32_to_f16(scale));
    default: return (double)scale;
    }
}

eqat_status eqi_model_embed(eqi_tape *tape, eqat_model *m, eqi_tensor *ids, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_model_load_embedding(m));
    if (!m->config.family->scale_embeddings)
        return eqi_op_embedding(tape, ids, m->embedding, m->compute, out);
    eqi_tensor *plain;
    EQI_RETURN_IF(eqi_op_embedding(tape, ids, m->embedding, m->compute, &plain));
    eqat_status st = eqi_op_scale(tape, plain, embedding_scale(m), out);
    eqi_tensor_unref(plain);
    return st;
}

eqat_status eqi_model_prepare(eqat_model *m, int64_t time)
{
    const eqi_config *c = &m->config;
    bool dynamic = false;
    for (int i = 0; i < c->n_ropes; i++) dynamic |= c->ropes[i].kind == EQI_ROPE_DYNAMIC;
    int64_t scaled = dynamic && time > c->max_positions ? time : c->max_positions;
    if (m->rotary_length && time <= m->rotary_length && scaled == m->rotary_scaled) return EQAT_OK;
    for (int i = 0; i < c->n_ropes; i++) {
        eqi_rotary made;
        EQI_RETURN_IF(eqi_rope_tables(m->ctx, c, &c->ropes[i], time, scaled, &made));
        eqi_rotary_release(&m->rotary[i]);
        m->rotary[i] = made;
        m->rotary_length = 0; /* until the others follow */
    }
    m->rotary_length = time;
    m->rotary_scaled = scaled;
    return EQAT_OK;
}

eqi_block_input eqi_model_input(const eqat_model *m, eqi_tensor *x)
{
    return (eqi_block_input){.x = x, .rotary = m->rotary};
}

/* A block on a tape, with the tables of this call: another length may come before backward does. */
typedef struct segment {
    eqat_model *model;
    int64_t index;
    eqi_rotary rotary[EQI_ROPES];
    eqi_tensor *positions, *segments;
} segment;

static eqat_status run_block(eqi_tape *tape, void *user, eqi_tensor *const *in, int n_in,
                             eqi_tensor **out)
{
    (void)n_in;
    const segment *s = user;
    const eqi_block_input seen = {
        .x = in[0], .positions = s->positions, .segments = s->segments, .rotary = s->rotary};
    const eqi_block *block;
    *out = NULL;
    EQI_RETURN_IF(eqi_check_cancel(s->model->ctx));
    EQI_RETURN_IF(eqi_block_acquire(s->model, s->index, &block));
    eqat_status st = eqi_block_forward(tape, block, &seen, out);
    eqi_block_release(s->model, s->index);
    return st;
}

static eqi_tensor *ref(eqi_tensor *t) { return t ? eqi_tensor_ref(t) : NULL; }

static void segment_release(void *user)
{
    segment *s = user;
    eqi_ctx *ctx = s->model->ctx;
    for (int i = 0; i < EQI_ROPES; i++) eqi_rotary_release(&s->rotary[i]);
    eqi_tensor_unref(s->positions);
    eqi_tensor_unref(s->segments);
    eqat_model_free(s->model);
    eqi_free(ctx, s);
}

static eqat_status record_block(eqi_tape *tape, const segment *template, eqi_tensor *x,
                                eqi_tensor **out)
{
    segment *s = eqi_alloc(template->model->ctx, sizeof *s, "a recorded block");
    if (!s) return EQAT_OUT_OF_MEMORY;
    *s = *template;
    eqi_model_ref(s->model);
    for (int i = 0; i < EQI_ROPES; i++) {
        ref(s->rotary[i].cos);
        ref(s->rotary[i].sin);
    }
    ref(s->positions);
    ref(s->segments);
    return eqi_tape_checkpoint(tape, run_block, s, segment_release, &x, 1, out);
}

/* in->x through all blocks; in->x is replaced. */
static eqat_status run_blocks(eqi_tape *tape, eqat_model *m, bool recompute, input *in)
{
    segment s = {.model = m, .positions = in->positions, .segments = in->segments};
    memcpy(s.rotary, m->rotary, sizeof s.rotary);
    for (s.index = 0; s.index < m->config.blocks; s.index++) {
        eqi_tensor *next;
        EQI_RETURN_IF(recompute ? record_block(tape, &s, in->x, &next)
                                : run_block(tape, &s, &in->x, 1, &next));
        eqi_tensor_unref(in->x);
        in->x = next;
    }
    return EQAT_OK;
}

static eqat_status final_norm(eqi_tape *tape, eqat_model *m, eqi_tensor *x, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_model_load_ends(m));
    return eqi_op_rmsnorm(tape, x, m->final_norm.gain, m->config.eps, m->config.family->norm_offset,
                          out);
}

eqat_status eqi_model_head_loss(eqi_tape *tape, eqat_model *m, eqi_tensor *x, eqi_tensor *labels,
                                eqi_tensor **loss, eqi_tensor **count)
{
    eqi_tensor *normed;
    *loss = NULL;
    EQI_RETURN_IF(final_norm(tape, m, x, &normed));
    eqat_status st = eqi_op_linear_cross_entropy(tape, normed, m->head, labels, loss, count);
    eqi_tensor_unref(normed);
    return st;
}

eqat_status eqat_model_forward(eqat_model *m, const eqat_batch *batch, eqat_tensor **logits)
{
    *logits = NULL;
    eqi_tape *tape = NULL;
    input in = {0};
    eqi_tensor *normed = NULL, *wide = NULL;
    EQI_RETURN_IF(eqi_tape_create(m->ctx, &tape));
    eqi_tape_set_recording(tape, false);
    eqat_status st;
    EQI_GOTO(done, take_batch(tape, m, batch, false, &in));
    EQI_GOTO(done, run_blocks(tape, m, false, &in));
    EQI_GOTO(done, final_norm(tape, m, in.x, &normed));
    /* Logits are sums over the whole width: in the compute dtype their last bits would go. */
    EQI_GOTO(done, eqi_tensor_cast(normed, EQI_F32, &wide));
    st = eqi_op_linear(tape, wide, &(eqi_weight){.w = m->head}, logits);
done:
    eqi_tensor_unref(normed);
    eqi_tensor_unref(wide);
    input_release(&in);
    eqi_tape_free(tape);
    return st;
}

static eqat_status loss_on(eqat_model *m, eqi_tape *tape, bool recorded, const eqat_batch *batch,
                           eqi_tensor **loss, eqi_tensor **count)
{
    input in;
    eqat_status st;
    *loss = NULL;
    if (count) *count = NULL;
    EQI_GOTO(done, take_batch(tape, m, batch, true, &in));
    EQI_GOTO(done, run_blocks(tape, m, recorded && !in.keep_activations, &in));
    st = eqi_model_head_loss(tape, m, in.x, in.labels, loss, count);
done:
    input_release(&in);
    return st;
}

eqat_status eqat_model_loss(eqat_model *m, const eqat_batch *batch, eqat_tensor **loss,
                            eqat_tensor **count)
{
    *loss = NULL;
    eqi_tape *tape = NULL;
    EQI_RETURN_IF(eqi_tape_create(m->ctx, &tape));
    eqi_tape_set_recording(tape, false);
    eqat_status st = loss_on(m, tape, false, batch, loss, count);
    eqi_tape_free(tape);
    return st;
}

eqat_status eqat_model_loss_recorded(eqat_model *m, eqat_tape *tape, const eqat_batch *batch,
                                     eqat_tensor **loss, eqat_tensor **count)
{
    return loss_on(m, tape, true, batch, loss, count);
}
