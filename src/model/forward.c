#include <math.h>
#include <string.h>

#include "api/options.h"
#include "base/entry.h"
#include "base/half.h"
#include "data/sample.h"
#include "model/weights.h"

static const eqat_field batch_fields[] = {
    EQI_FIELD_PLAIN(eqat_batch, batch, EQAT_FIELD_I64, "sequences"),
    EQI_FIELD_PLAIN(eqat_batch, time, EQAT_FIELD_I64, "tokens of each"),
    EQI_FIELD_PLAIN(eqat_batch, ids, EQAT_FIELD_POINTER, "int32_t [batch, time]"),
    EQI_FIELD_PLAIN(eqat_batch, embeddings, EQAT_FIELD_POINTER,
                    "tensor [batch, time, hidden size] in place of ids"),
    EQI_FIELD_PLAIN(eqat_batch, labels, EQAT_FIELD_POINTER, "int32_t [batch, time]"),
    EQI_FIELD_PLAIN(eqat_batch, positions, EQAT_FIELD_POINTER, "int32_t [batch, time]"),
    EQI_FIELD_PLAIN(eqat_batch, segments, EQAT_FIELD_POINTER, "int32_t [batch, time]"),
    EQI_FIELD_BOOL(eqat_batch, keep_activations, false, "of all blocks, for backward"),
};

const eqi_struct eqi_struct_batch = EQI_STRUCT(eqat_batch, "batch", batch_fields);

void eqat_batch_init(eqat_batch *batch, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_batch, batch, struct_size);
}

/* A batch as the blocks take it. */
typedef struct input {
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

static eqat_status check_hidden(eqat_model *m, const char *name, const eqi_tensor *x, int64_t batch,
                                int64_t time)
{
    const eqi_view *v = &x->v;
    char found[EQI_SHAPE_TEXT];
    if (v->ndim == 3 && v->shape[0] == batch && v->shape[1] == time &&
        v->shape[2] == m->config.hidden && v->dtype == m->compute)
        return EQAT_OK;
    return eqi_fail(
        m->ctx, EQAT_INVALID_ARGUMENT, "%s: found %s %s, expected %s [%lld, %lld, %lld]", name,
        eqi_dtype_name(v->dtype), eqi_view_shape_text(v, found, sizeof found),
        eqi_dtype_name(m->compute), (long long)batch, (long long)time, (long long)m->config.hidden);
}

eqat_status eqi_model_embed_batch(eqi_tape *tape, eqat_model *m, const eqat_batch *b,
                                  eqi_tensor **out)
{
    *out = NULL;
    if (b->embeddings) {
        EQI_RETURN_IF(check_hidden(m, "embeddings", b->embeddings, b->batch, b->time));
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

static eqat_status copy_batch(eqat_model *m, const eqat_batch *given, eqat_batch *b)
{
    EQI_RETURN_IF(eqi_options_take(m->ctx, &eqi_struct_batch, b, given));
    if (b->batch < 1 || b->time < 1 || b->batch > INT32_MAX / b->time)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "batch: found %lld sequences of %lld tokens, expected at least 1 of 1 and "
                        "fewer than 2^31 tokens",
                        (long long)b->batch, (long long)b->time);
    return EQAT_OK;
}

static eqat_status expect_input(const eqat_model *m, const eqat_batch *b)
{
    if (b->ids || b->embeddings) return EQAT_OK;
    return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT, "batch: found neither ids nor embeddings");
}

/* Positions and segments, and rotary tables that are long enough. */
static eqat_status take_marks(eqat_model *m, const eqat_batch *b, input *in)
{
    int64_t length;
    in->keep_activations = b->keep_activations;
    EQI_RETURN_IF(take_positions(m, b, &length, &in->positions));
    if (b->segments)
        EQI_RETURN_IF(to_tensor(m->ctx, b->segments, b->batch, b->time, &in->segments));
    return eqi_model_prepare(m, length);
}

static eqat_status take_batch(eqi_tape *tape, eqat_model *m, const eqat_batch *given, bool labels,
                              input *in)
{
    eqat_batch b;
    eqat_status st;
    *in = (input){0};
    EQI_RETURN_IF(copy_batch(m, given, &b));
    EQI_RETURN_IF(expect_input(m, &b));
    EQI_GOTO(done, take_marks(m, &b, in));
    if (labels) EQI_GOTO(done, take_labels(m, &b, &in->labels));
    st = eqi_model_embed_batch(tape, m, &b, &in->x);
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
    EQI_RETURN_IF(eqi_tape_checkpoint(tape, run_block, s, segment_release, &x, 1, out));
    /* What enters the first block may be the caller's; what enters another one, only this reads. */
    bool waits = tape->offload && (*out)->on_tape && template->index > 0;
    eqat_status st = waits ? eqi_tensor_to_host(x) : EQAT_OK;
    if (st == EQAT_OK) return st;
    eqi_tensor_unref(*out);
    *out = NULL;
    return st;
}

static eqat_status run_or_record(eqi_tape *tape, eqat_model *m, int64_t index, const input *in,
                                 eqi_tensor **out)
{
    segment s = {.model = m, .index = index, .positions = in->positions, .segments = in->segments};
    eqi_tensor *x = in->x;
    memcpy(s.rotary, m->rotary, sizeof s.rotary);
    return in->keep_activations ? run_block(tape, &s, &x, 1, out) : record_block(tape, &s, x, out);
}

/* in->x through all blocks; in->x is replaced. */
static eqat_status run_blocks(eqi_tape *tape, eqat_model *m, input *in)
{
    for (int64_t i = 0; i < m->config.blocks; i++) {
        eqi_tensor *next;
        EQI_RETURN_IF(run_or_record(tape, m, i, in, &next));
        eqi_tensor_unref(in->x);
        in->x = next;
    }
    return EQAT_OK;
}

eqat_status eqi_model_final_norm(eqi_tape *tape, eqat_model *m, eqi_tensor *x, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_model_load_ends(m));
    return eqi_op_rmsnorm(tape, x, m->final_norm.gain, m->config.eps, m->config.family->norm_offset,
                          out);
}

eqat_status eqi_model_head_loss(eqi_tape *tape, eqat_model *m, eqi_tensor *x, eqi_tensor *labels,
                                const eqi_distill *from, eqi_tensor **loss, eqi_tensor **count)
{
    eqi_tensor *normed;
    *loss = NULL;
    EQI_RETURN_IF(eqi_model_final_norm(tape, m, x, &normed));
    eqat_status st = eqi_op_linear_cross_entropy(tape, normed, m->head, labels, from, loss, count);
    eqi_tensor_unref(normed);
    return st;
}

static eqat_status logits_of(eqi_tape *tape, eqat_model *m, eqi_tensor *x, eqi_tensor **logits)
{
    eqi_tensor *normed = NULL, *wide = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_model_final_norm(tape, m, x, &normed));
    /* Logits are sums over the whole width: in the compute dtype their last bits would go. */
    EQI_GOTO(done, eqi_op_cast(tape, normed, EQI_F32, &wide));
    st = eqi_op_linear(tape, wide, &(eqi_weight){.w = m->head}, logits);
done:
    eqi_tensor_unref(normed);
    eqi_tensor_unref(wide);
    return st;
}

eqat_status eqi_model_last_logits(eqi_tape *tape, eqat_model *m, eqi_tensor *x, int64_t last_n,
                                  eqi_tensor **logits)
{
    eqi_tensor *last;
    *logits = NULL;
    EQI_RETURN_IF(eqi_op_slice(tape, x, 1, x->v.shape[1] - last_n, last_n, &last));
    eqat_status st = logits_of(tape, m, last, logits);
    eqi_tensor_unref(last);
    return st;
}

/* A pass on the caller's tape, or on one of its own that records nothing. */
typedef eqat_status (*pass_fn)(eqi_tape *tape, eqat_model *m, const eqat_batch *batch, void *user);

static eqat_status on_tape(eqat_model *m, eqi_tape *tape, const eqat_batch *batch, pass_fn pass,
                           void *user)
{
    if (tape) return pass(tape, m, batch, user);
    EQI_RETURN_IF(eqi_tape_create(m->ctx, &tape));
    eqi_tape_set_recording(tape, false);
    eqat_status st = pass(tape, m, batch, user);
    eqi_tape_free(tape);
    return st;
}

static eqat_status forward(eqi_tape *tape, eqat_model *m, const eqat_batch *batch, void *logits)
{
    input in;
    eqat_status st;
    EQI_RETURN_IF(take_batch(tape, m, batch, false, &in));
    EQI_GOTO(done, run_blocks(tape, m, &in));
    st = logits_of(tape, m, in.x, logits);
done:
    input_release(&in);
    return st;
}

eqat_status eqat_model_forward(eqat_model *m, eqat_tape *tape, const eqat_batch *batch,
                               eqat_tensor **logits)
{
    if (logits) *logits = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, batch, logits);
    return on_tape(m, tape, batch, forward, logits);
}

typedef struct loss_out {
    const eqi_distill *from;
    eqi_tensor **loss, **count;
} loss_out;

static eqat_status loss(eqi_tape *tape, eqat_model *m, const eqat_batch *batch, void *user)
{
    const loss_out *out = user;
    input in;
    eqat_status st;
    EQI_RETURN_IF(take_batch(tape, m, batch, true, &in));
    EQI_GOTO(done, run_blocks(tape, m, &in));
    st = eqi_model_head_loss(tape, m, in.x, in.labels, out->from, out->loss, out->count);
done:
    input_release(&in);
    return st;
}

eqat_status eqi_model_loss(eqi_tape *tape, eqat_model *m, const eqat_batch *batch,
                           const eqi_distill *from, eqi_tensor **out)
{
    *out = NULL;
    return on_tape(m, tape, batch, loss, &(loss_out){.from = from, .loss = out});
}

eqat_status eqat_model_loss(eqat_model *m, eqat_tape *tape, const eqat_batch *batch,
                            eqat_tensor **out, eqat_tensor **count)
{
    if (out) *out = NULL;
    if (count) *count = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, batch, out);
    return on_tape(m, tape, batch, loss, &(loss_out){.loss = out, .count = count});
}

/* ---- the same in pieces ---- */

eqat_status eqat_model_embed(eqat_model *m, eqat_tape *tape, const eqat_batch *batch,
                             eqat_tensor **x)
{
    if (x) *x = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, tape, batch, x);
    eqat_batch b;
    EQI_RETURN_IF(copy_batch(m, batch, &b));
    EQI_RETURN_IF(expect_input(m, &b));
    return eqi_model_embed_batch(tape, m, &b, x);
}

/* B and T of x, which must have the rest of its shape right. */
static eqat_status take_hidden(eqat_model *m, const eqi_tensor *x, int64_t *batch, int64_t *time)
{
    bool three = x->v.ndim == 3;
    *batch = three && x->v.shape[0] > 0 ? x->v.shape[0] : 1;
    *time = three && x->v.shape[1] > 0 ? x->v.shape[1] : 1;
    return check_hidden(m, "x", x, *batch, *time);
}

/* The marks of a batch, which may be NULL, for x. */
static eqat_status take_block_batch(eqat_model *m, const eqi_tensor *x, const eqat_batch *given,
                                    input *in)
{
    eqat_batch b = {0}, of_x = {0};
    EQI_RETURN_IF(take_hidden(m, x, &of_x.batch, &of_x.time));
    if (!given) return take_marks(m, &of_x, in);
    EQI_RETURN_IF(copy_batch(m, given, &b));
    EQI_RETURN_IF(check_hidden(m, "x", x, b.batch, b.time));
    return take_marks(m, &b, in);
}

eqat_status eqat_model_block(eqat_model *m, eqat_tape *tape, int64_t block, eqat_tensor *x,
                             const eqat_batch *batch, eqat_tensor **y)
{
    if (y) *y = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, tape, x, y);
    input in = {0};
    eqat_status st;
    if (block < 0 || block >= m->config.blocks)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "model: found block %lld, expected one of %lld", (long long)block,
                        (long long)m->config.blocks);
    EQI_GOTO(done, take_block_batch(m, x, batch, &in));
    in.x = eqi_tensor_ref(x);
    st = run_or_record(tape, m, block, &in, y);
done:
    input_release(&in);
    return st;
}

eqat_status eqat_model_logits(eqat_model *m, eqat_tape *tape, eqat_tensor *x, int64_t last_n,
                              eqat_tensor **logits)
{
    if (logits) *logits = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, tape, x, logits);
    int64_t batch, time;
    EQI_RETURN_IF(take_hidden(m, x, &batch, &time));
    if (last_n < 0 || last_n > time)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT, "last_n: found %lld, expected 0 to %lld",
                        (long long)last_n, (long long)time);
    return last_n == 0 ? logits_of(tape, m, x, logits)
                       : eqi_model_last_logits(tape, m, x, last_n, logits);
}
