#include "step.h"

#include "base/rng.h"

enum { V = 11, H = 8, T = 4, PARAMS = 6 };
enum { TABLE, GAIN, W, S, Z, HEAD };

typedef struct net {
    eqi_tensor *p[PARAMS], *m[PARAMS], *v[PARAMS];
    eqi_tensor *ids, *labels, *cos;
} net;

static eqat_status param(eqi_ctx *ctx, eqi_tensor **out, dims shape, uint32_t stream)
{
    float values[V * H];
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, EQI_F32, shape.n, shape.at));
    int64_t n = eqi_view_count(&(*out)->v);
    for (int64_t i = 0; i < n; i++) values[i] = (float)eqi_rng_normal(1, stream, (uint64_t)i);
    (*out)->requires_grad = true;
    return eqi_tensor_upload(*out, values, (size_t)n * sizeof values[0]);
}

static eqat_status build(eqi_ctx *ctx, net *n)
{
    static const int32_t ids[T] = {3, 1, 4, 1}, labels[T] = {1, 4, 1, -1};
    const dims shapes[PARAMS] = {DIMS(V, H), DIMS(H),    DIMS(H, H),
                                 DIMS(H, 2), DIMS(H, 2), DIMS(V, H)};
    for (int i = 0; i < PARAMS; i++) {
        EQI_RETURN_IF(param(ctx, &n->p[i], shapes[i], (uint32_t)i));
        EQI_RETURN_IF(eqi_tensor_zeros(ctx, &n->m[i], EQI_F32, shapes[i].n, shapes[i].at));
        EQI_RETURN_IF(eqi_tensor_zeros(ctx, &n->v[i], EQI_F32, shapes[i].n, shapes[i].at));
    }
    EQI_RETURN_IF(eqi_tensor_create(ctx, &n->ids, EQI_I32, 2, DIMS(1, T).at));
    EQI_RETURN_IF(eqi_tensor_upload(n->ids, ids, sizeof ids));
    EQI_RETURN_IF(eqi_tensor_create(ctx, &n->labels, EQI_I32, 2, DIMS(1, T).at));
    EQI_RETURN_IF(eqi_tensor_upload(n->labels, labels, sizeof labels));
    return eqi_tensor_zeros(ctx, &n->cos, EQI_F32, 2, DIMS(T, 2).at);
}

static void drop(net *n)
{
    for (int i = 0; i < PARAMS; i++) {
        eqi_tensor_unref(n->p[i]);
        eqi_tensor_unref(n->m[i]);
        eqi_tensor_unref(n->v[i]);
    }
    eqi_tensor_unref(n->ids);
    eqi_tensor_unref(n->labels);
    eqi_tensor_unref(n->cos);
}

/* x + silu(a) a with a = attention of the rotated, normed, quantized projection; every kind of
 * slice on the way. */
static eqat_status block(eqi_tape *tape, void *user, eqi_tensor *const *in, int n_in,
                         eqi_tensor **out)
{
    net *n = user;
    (void)n_in;
    eqi_weight w = {
        .w = n->p[W], .s = n->p[S], .z = n->p[Z], .q = {.bits = 2, .group = 4, .clamp = true}};
    eqi_attention_desc d = {.scale = 0.5f, .causal = true};
    eqi_tensor *t[7] = {NULL};
    eqat_status st = EQAT_OK;
    *out = NULL;
    EQI_GOTO(done, eqi_op_rmsnorm(tape, in[0], n->p[GAIN], 1e-5, 0, &t[0]));
    EQI_GOTO(done, eqi_op_linear(tape, t[0], &w, &t[1]));
    EQI_GOTO(done, eqi_op_reshape(tape, t[1], 4, DIMS(1, T, 2, H / 2).at, &t[2]));
    EQI_GOTO(done, eqi_op_rope(tape, t[2], n->cos, n->cos, NULL, &t[3]));
    EQI_GOTO(done, eqi_op_attention(tape, t[3], t[2], t[2], NULL, &d, &t[4]));
    EQI_GOTO(done, eqi_op_gated(tape, t[4], t[4], EQI_SILU, &t[5]));
    EQI_GOTO(done, eqi_op_reshape(tape, t[5], 3, DIMS(1, T, H).at, &t[6]));
    EQI_GOTO(done, eqi_op_add(tape, in[0], t[6], out));
done:
    for (size_t i = 0; i < EQI_COUNT(t); i++) eqi_tensor_unref(t[i]);
    return st;
}

static eqat_status forward_backward(eqi_tape *tape, net *n, eqi_dtype dtype, float *loss_out)
{
    eqi_tensor *x = NULL, *y = NULL, *z = NULL, *ce = NULL, *mse = NULL, *loss = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_embedding(tape, n->ids, n->p[TABLE], dtype, &x));
    EQI_GOTO(done, block(tape, n, &x, 1, &y));
    EQI_GOTO(done, eqi_tape_checkpoint(tape, block, n, NULL, &y, 1, &z));
    EQI_GOTO(done, eqi_op_linear_cross_entropy(tape, z, n->p[HEAD], n->labels, NULL, &ce, NULL));
    EQI_GOTO(done, eqi_op_mse(tape, z, x, &mse));
    EQI_GOTO(done, eqi_op_add(tape, ce, mse, &loss));
    EQI_GOTO(done, eqi_tape_backward(tape, loss, 1));
    EQI_GOTO(done, eqi_tensor_download(loss, loss_out, sizeof *loss_out));
done:
    eqi_tape_clear(tape);
    eqi_tensor *used[] = {x, y, z, ce, mse, loss};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
    return st;
}

static eqat_status update(eqi_ctx *ctx, net *n)
{
    const eqi_backend *b = ctx->backend;
    eqi_adamw_desc d = {.lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = 1};
    eqi_tensor *sum = NULL, *norm = NULL, *factor = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &sum, EQI_F64, 1, DIMS(1).at));
    EQI_GOTO(done, eqi_tensor_create(ctx, &norm, EQI_F32, 1, DIMS(1).at));
    EQI_GOTO(done, eqi_tensor_create(ctx, &factor, EQI_F32, 1, DIMS(1).at));
    for (int i = 0; i < PARAMS; i++)
        EQI_GOTO(done, b->sum_squares(ctx, &sum->v, &n->p[i]->grad->v));
    EQI_GOTO(done, b->clip_factor(ctx, &norm->v, &factor->v, &sum->v, 0.3, 1));
    for (int i = 0; i < PARAMS; i++)
        EQI_GOTO(done,
                 b->adamw(ctx, &n->p[i]->v, &n->p[i]->grad->v, &n->m[i]->v, &n->v[i]->v, &factor->v,
                          &d));
done:
    eqi_tensor_unref(sum);
    eqi_tensor_unref(norm);
    eqi_tensor_unref(factor);
    return st;
}

eqat_status training_step(eqi_ctx *ctx, eqi_dtype dtype, float *loss)
{
    net n = {0};
    eqi_tape *tape = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_tape_create(ctx, &tape));
    EQI_GOTO(done, build(ctx, &n));
    for (int i = 0; i < 2; i++) {
        EQI_GOTO(done, forward_backward(tape, &n, dtype, loss));
        EQI_GOTO(done, update(ctx, &n));
        for (int j = 0; j < PARAMS; j++) eqi_tensor_zero_grad(n.p[j]);
    }
done:
    drop(&n);
    eqi_tape_free(tape);
    return st;
}

eqat_status quantizing(eqi_ctx *ctx, float *loss)
{
    eqi_tensor *w = NULL, *half = NULL, *s = NULL, *z = NULL, *codes = NULL, *y = NULL, *x = NULL;
    eqi_tensor *counts = NULL;
    eqi_tape *tape = NULL;
    eqi_quant_desc q = {.bits = 3, .group = 16};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_tape_create(ctx, &tape));
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &w, EQI_F32, 2, DIMS(2, 32).at));
    EQI_GOTO(done, eqi_tensor_cast(w, EQI_BF16, &half));
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &counts, EQI_F32, 1, DIMS(32).at));
    EQI_GOTO(done, eqi_second_moments(half, counts));
    EQI_GOTO(done, eqi_quant_minmax(half, &q, &s, &z));
    eqi_tensor_unref(s);
    eqi_tensor_unref(z);
    EQI_GOTO(done, eqi_quant_search(half, counts, &q, &s, &z));
    eqi_tensor_unref(s);
    eqi_tensor_unref(z);
    EQI_GOTO(done, eqi_quantize_minmax(half, &q, &s, &z, &codes));
    eqi_tensor_unref(codes);
    codes = NULL;
    EQI_GOTO(done, eqi_tensor_fill(s, 0.5));
    EQI_GOTO(done, eqi_quantize(half, s, z, &q, &codes));
    eqi_weight packed = {.codes = codes, .s = s, .z = z, .q = q};
    EQI_GOTO(done, eqi_dequantize(&packed, EQI_BF16, &x));
    s->requires_grad = z->requires_grad = x->requires_grad = true;
    EQI_GOTO(done, eqi_op_linear(tape, x, &packed, &y));
    EQI_GOTO(done, eqi_tape_backward_from(tape, y, y));
    *loss = 1;
done:
    eqi_tape_free(tape);
    eqi_tensor *used[] = {w, half, s, z, codes, y, x, counts};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
    return st;
}

eqat_status routing(eqi_ctx *ctx, float *result)
{
    enum { X, LEFT, TURNED, WEIGHTS, INDEX, ROWS, SLOTS, PART, CAST, SUM, TENSORS };
    static const int32_t rows[2] = {1, 3}, slots[2] = {0, 1};
    eqi_tensor *t[TENSORS] = {NULL};
    eqi_tape *tape = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_tape_create(ctx, &tape));
    EQI_GOTO(done, param(ctx, &t[X], DIMS(T, H), 1));
    EQI_GOTO(done, eqi_op_slice(tape, t[X], 1, 0, T, &t[LEFT]));
    EQI_GOTO(done, eqi_op_transpose(tape, t[LEFT], 0, 1, &t[TURNED]));
    EQI_GOTO(done, eqi_op_route(tape, t[TURNED], 2, true, &t[WEIGHTS], &t[INDEX]));
    for (int i = 0; i < 2; i++) {
        EQI_GOTO(done, eqi_tensor_create(ctx, &t[ROWS + i], EQI_I32, 1, DIMS(2).at));
        EQI_GOTO(done, eqi_tensor_upload(t[ROWS + i], i ? slots : rows, sizeof rows));
    }
    EQI_GOTO(done, eqi_op_gather_rows(tape, t[TURNED], t[ROWS], &t[PART]));
    EQI_GOTO(done, eqi_op_cast(tape, t[PART], EQI_BF16, &t[CAST]));
    EQI_GOTO(done, eqi_tensor_zeros(ctx, &t[SUM], EQI_BF16, 2, DIMS(T, T).at));
    for (int i = 0; i < 2; i++)
        EQI_GOTO(done, eqi_op_scatter_rows(tape, &t[SUM], t[CAST], t[WEIGHTS], t[ROWS], t[SLOTS]));
    EQI_GOTO(done, eqi_tape_backward_from(tape, t[SUM], t[SUM]));
    float grad[T * H];
    EQI_GOTO(done, eqi_tensor_download(t[X]->grad, grad, sizeof grad));
    *result = 0;
    for (int i = 0; i < T * H; i++) *result += grad[i];
done:
    eqi_tape_free(tape);
    for (int i = 0; i < TENSORS; i++) eqi_tensor_unref(t[i]);
    return st;
}
