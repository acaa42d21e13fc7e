#include "grad.h"

#define RUN(name)                                                                   \
    static eqat_status name(eqi_tape *tape, eqi_dtype dtype, eqi_tensor *const *in, \
                            eqi_tensor **out)

RUN(add)
{
    (void)dtype;
    return eqi_op_add(tape, in[0], in[1], out);
}
RUN(add_self)
{
    (void)dtype;
    return eqi_op_add(tape, in[0], in[0], out);
}
RUN(mul)
{
    (void)dtype;
    return eqi_op_mul(tape, in[0], in[1], out);
}
RUN(mul_self)
{
    (void)dtype;
    return eqi_op_mul(tape, in[0], in[0], out);
}
RUN(scale)
{
    (void)dtype;
    return eqi_op_scale(tape, in[0], -1.75, out);
}
RUN(reshape)
{
    (void)dtype;
    return eqi_op_reshape(tape, in[0], 2, DIMS(4, 6).at, out);
}
RUN(slice)
{
    (void)dtype;
    return eqi_op_slice(tape, in[0], 1, 1, 3, out);
}
/* Parts that overlap. */
RUN(slices)
{
    (void)dtype;
    eqi_tensor *a, *b;
    EQI_RETURN_IF(eqi_op_slice(tape, in[0], 2, 0, 3, &a));
    eqat_status st = eqi_op_slice(tape, in[0], 2, 1, 3, &b);
    if (st == EQAT_OK) st = eqi_op_mul(tape, a, b, out);
    eqi_tensor_unref(a);
    eqi_tensor_unref(b);
    return st;
}
RUN(transpose)
{
    (void)dtype;
    return eqi_op_transpose(tape, in[0], 2, 0, out);
}
RUN(transpose_same)
{
    (void)dtype;
    return eqi_op_transpose(tape, in[0], 1, 1, out);
}
RUN(cast)
{
    return eqi_op_cast(tape, in[0],
                       dtype == EQI_F64       ? EQI_F64
                           : dtype == EQI_F32 ? EQI_BF16
                                              : EQI_F32,
                       out);
}
RUN(contiguous)
{
    (void)dtype;
    return eqi_op_contiguous(tape, in[0], out);
}
RUN(gated_silu)
{
    (void)dtype;
    return eqi_op_gated(tape, in[0], in[1], EQI_SILU, out);
}
RUN(gated_gelu)
{
    (void)dtype;
    return eqi_op_gated(tape, in[0], in[1], EQI_GELU_TANH, out);
}
RUN(gated_self)
{
    (void)dtype;
    return eqi_op_gated(tape, in[0], in[0], EQI_SILU, out);
}
RUN(rmsnorm)
{
    (void)dtype;
    return eqi_op_rmsnorm(tape, in[0], in[1], 0.01, 0, out);
}
RUN(rmsnorm_offset)
{
    (void)dtype;
    return eqi_op_rmsnorm(tape, in[0], in[1], 0.01, 1, out);
}
RUN(rmsnorm_self)
{
    (void)dtype;
    return eqi_op_rmsnorm(tape, in[0], in[0], 0.01, 1, out);
}
RUN(gather_rows)
{
    (void)dtype;
    return eqi_op_gather_rows(tape, in[0], in[1], out);
}
RUN(scatter_rows)
{
    (void)dtype;
    *out = eqi_tensor_ref(in[0]);
    return eqi_op_scatter_rows(tape, out, in[1], in[2], in[3], in[4]);
}
RUN(scatter_rows_self)
{
    (void)dtype;
    *out = eqi_tensor_ref(in[0]);
    return eqi_op_scatter_rows(tape, out, in[0], in[1], in[2], in[3]);
}

static eqat_status route_some(eqi_tape *tape, eqi_tensor *logits, bool normalised, eqi_tensor **out)
{
    eqi_tensor *index;
    eqat_status st = eqi_op_route(tape, logits, 2, normalised, out, &index);
    eqi_tensor_unref(index);
    return st;
}
RUN(route)
{
    (void)dtype;
    return route_some(tape, in[0], false, out);
}
RUN(route_normalised)
{
    (void)dtype;
    return route_some(tape, in[0], true, out);
}

/* Adds what expert `number` makes of its rows: the rows themselves, times a gain of its own. */
static eqat_status expert(eqi_tape *tape, eqi_tensor *const *in, int number, eqi_tensor *weights,
                          const eqi_tensor *index, eqi_tensor **sum)
{
    int64_t k = index->v.shape[1], n = 0;
    eqi_tensor *rows = make(tape->ctx, EQI_I32, DIMS(count(index))),
               *slots = make(tape->ctx, EQI_I32, DIMS(count(index))), *t[4] = {NULL};
    for (int64_t i = 0; i < count(index); i++)
        if ((int)get(index, i) == number) {
            put(rows, n, (double)(i / k));
            put(slots, n++, (double)(i % k));
        }
    eqat_status st = EQAT_OK;
    if (n == 0) goto done;
    EQI_GOTO(done, eqi_tensor_slice(rows, &t[0], 0, 0, n));
    EQI_GOTO(done, eqi_tensor_slice(slots, &t[1], 0, 0, n));
    EQI_GOTO(done, eqi_op_gather_rows(tape, in[0], t[0], &t[2]));
    EQI_GOTO(done, eqi_op_scale(tape, t[2], 1 + number, &t[3]));
    EQI_GOTO(done, eqi_op_scatter_rows(tape, sum, t[3], weights, t[0], t[1]));
done:
    eqi_tensor_unref(rows);
    eqi_tensor_unref(slots);
    for (int i = 0; i < 4; i++) eqi_tensor_unref(t[i]);
    return st;
}

RUN(experts)
{
    eqi_tensor *weights, *index;
    EQI_RETURN_IF(eqi_op_route(tape, in[1], 2, true, &weights, &index));
    eqat_status st = eqi_tensor_zeros(tape->ctx, out, dtype, 2, in[0]->v.shape);
    for (int i = 0; i < 4 && st == EQAT_OK; i++) st = expert(tape, in, i, weights, index, out);
    eqi_tensor_unref(weights);
    eqi_tensor_unref(index);
    return st;
}

RUN(rope)
{
    (void)dtype;
    return eqi_op_rope(tape, in[0], in[1], in[2], in[3], out);
}
RUN(kl_divergence)
{
    (void)dtype;
    return eqi_op_kl_divergence(tape, in[0], in[1], in[2], out);
}
RUN(kl_divergence_all)
{
    (void)dtype;
    return eqi_op_kl_divergence(tape, in[0], in[1], NULL, out);
}
RUN(mse)
{
    (void)dtype;
    return eqi_op_mse(tape, in[0], in[1], out);
}
RUN(embedding) { return eqi_op_embedding(tape, in[0], in[1], dtype, out); }
RUN(linear_dense)
{
    (void)dtype;
    return eqi_op_linear(tape, in[0], &(eqi_weight){.w = in[1], .bias = in[2]}, out);
}
RUN(linear_self)
{
    (void)dtype;
    return eqi_op_linear(tape, in[0], &(eqi_weight){.w = in[0]}, out);
}
RUN(cross_entropy)
{
    (void)dtype;
    return eqi_op_linear_cross_entropy(tape, in[0], in[1], in[2], NULL, out, NULL);
}

RUN(distilled)
{
    (void)dtype;
    const eqi_distill from = {.x = in[3], .w = in[4], .share = 0.75};
    return eqi_op_linear_cross_entropy(tape, in[0], in[1], in[2], &from, out, NULL);
}

static const eqi_quant_desc fq3 = {.bits = 3, .group = 4, .clamp = true},
                            packed3 = {.bits = 3, .group = 16};

RUN(linear_fq)
{
    (void)dtype;
    eqi_weight w = {.w = in[1], .s = in[2], .z = in[3], .bias = in[4], .q = fq3};
    return eqi_op_linear(tape, in[0], &w, out);
}

RUN(linear_packed)
{
    (void)dtype;
    eqi_weight w = {.codes = in[1], .s = in[2], .z = in[3], .bias = in[4], .q = packed3};
    return eqi_op_linear(tape, in[0], &w, out);
}

RUN(fakequant) { return eqi_op_fakequant(tape, in[0], in[1], in[2], &fq3, dtype, out); }

/* A weight that is itself made on the tape, in the compute dtype. */
RUN(linear_of_fakequant)
{
    eqi_tensor *w;
    EQI_RETURN_IF(eqi_op_fakequant(tape, in[1], in[2], in[3], &fq3, dtype, &w));
    eqat_status st = eqi_op_linear(tape, in[0], &(eqi_weight){.w = w}, out);
    eqi_tensor_unref(w);
    return st;
}

static eqat_status attend(eqi_tape *tape, eqi_tensor *const *in, eqi_attention_desc d,
                          eqi_tensor **out)
{
    d.scale = 0.4f;
    return eqi_op_attention(tape, in[0], in[1], in[2], in[3], &d, out);
}
RUN(attention)
{
    (void)dtype;
    return attend(tape, in, (eqi_attention_desc){.causal = true}, out);
}
RUN(attention_all)
{
    (void)dtype;
    return attend(tape, in, (eqi_attention_desc){0}, out);
}
RUN(attention_window)
{
    (void)dtype;
    return attend(tape, in, (eqi_attention_desc){.causal = true, .window = 2}, out);
}
RUN(attention_softcap)
{
    (void)dtype;
    return attend(tape, in, (eqi_attention_desc){.causal = true, .softcap = 1.5f}, out);
}
RUN(attention_offset)
{
    (void)dtype;
    return attend(tape, in, (eqi_attention_desc){.causal = true, .q_offset = 2}, out);
}
RUN(attention_self)
{
    (void)dtype;
    eqi_tensor *same[4] = {in[0], in[0], in[0], NULL};
    return attend(tape, same, (eqi_attention_desc){.causal = true}, out);
}

static eqat_status custom_backward(void *user, eqi_tape *tape, eqi_tensor *dy,
                                   eqi_tensor *const *in, int n_in)
{
    (void)user, (void)n_in;
    eqi_tensor *g;
    EQI_RETURN_IF(eqi_op_scale(tape, dy, 2.5, &g));
    return eqi_grad_give(in[0], g);
}

RUN(custom)
{
    (void)dtype;
    bool recording = tape->recording;
    tape->recording = false;
    eqat_status st = eqi_op_scale(tape, in[0], 2.5, out);
    tape->recording = recording;
    return st == EQAT_OK ? eqi_op_custom(tape, "times", in, 1, *out, custom_backward, NULL, NULL)
                         : st;
}

static eqat_status segment(eqi_tape *tape, void *user, eqi_tensor *const *in, int n_in,
                           eqi_tensor **out)
{
    (void)user, (void)n_in;
    eqi_tensor *square;
    EQI_RETURN_IF(eqi_op_mul(tape, in[0], in[0], &square));
    eqat_status st = eqi_op_mul(tape, square, in[1], out);
    eqi_tensor_unref(square);
    return st;
}
RUN(checkpoint)
{
    (void)dtype;
    return eqi_tape_checkpoint(tape, segment, NULL, NULL, in, 2, out);
}

static void some_rows(eqi_tensor *const *in)
{
    static const int rows[4] = {4, 0, 2, 4};
    for (int i = 0; i < 4; i++) put(in[1], i, rows[i]);
}

static void some_places(eqi_tensor *rows, eqi_tensor *slots)
{
    static const int row[4] = {4, 0, 2, 4}, slot[4] = {1, 1, 0, 0};
    for (int i = 0; i < 4; i++) {
        put(rows, i, row[i]);
        put(slots, i, slot[i]);
    }
}
static void places_after_weights(eqi_tensor *const *in) { some_places(in[3], in[4]); }
static void places_after_self(eqi_tensor *const *in)
{
    some_places(in[2], in[3]);
    put(in[2], 4, 1);
    put(in[3], 4, 1);
}

static void some_ids(eqi_tensor *const *in)
{
    static const int ids[6] = {3, 0, 3, 4, 1, 3};
    for (int i = 0; i < 6; i++) put(in[0], i, ids[i]);
}

static void some_labels(eqi_tensor *const *in)
{
    static const int labels[6] = {3, -100, 8, 0, -1, 3};
    for (int i = 0; i < 6; i++) put(in[2], i, labels[i]);
}

static void masked_labels(eqi_tensor *const *in)
{
    for (int i = 0; i < 6; i++) put(in[2], i, -100);
}

static void two_segments(eqi_tensor *const *in)
{
    for (int i = 0; i < 10; i++) put(in[3], i, i % 5 < 2 ? 7 : 9);
}

static void some_positions(eqi_tensor *const *in)
{
    for (int i = 0; i < 10; i++) put(in[3], i, (3 * i) % 11);
}

/* Steps that leave some weights outside; zero points off the grid and beyond it, one step below its
 * floor. */
static void steps(eqi_tensor *s, eqi_tensor *z)
{
    for (int64_t i = 0; i < count(s); i++) {
        put(s, i, i == 1 ? 1e-6 : 0.15 + 0.1 * (double)(i % 5));
        put(z, i, i == 2 ? -1.3 : i == 3 ? 8.6 : 0.3 + 1.4 * (double)(i % 5));
    }
}
static void steps_after_x(eqi_tensor *const *in) { steps(in[2], in[3]); }
static void steps_after_w(eqi_tensor *const *in) { steps(in[1], in[2]); }

static void codes(eqi_tensor *const *in)
{
    uint32_t *word = in[1]->v.data;
    for (int64_t i = 0; i < count(in[1]); i++) word[i] = 2654435761u * (uint32_t)(i + 1);
    steps(in[2], in[3]);
}

/* k x 32 inputs at 3 bits are 3 k words. */
const grad_case grad_cases[] = {
    {"add", "add", {{X, DIMS(2, 3, 4)}, {X, DIMS(2, 3, 4)}}, add},
    {"add_self", "add", {{X, DIMS(2, 3, 4)}}, add_self},
    {"mul", "mul", {{X, DIMS(2, 3, 4)}, {X, DIMS(2, 3, 4)}}, mul},
    {"mul_self", "mul", {{X, DIMS(2, 3, 4)}}, mul_self},
    {"scale", "scale", {{X, DIMS(2, 3, 4)}}, scale},
    {"reshape", "reshape", {{X, DIMS(2, 3, 4)}}, reshape},
    {"slice", "slice", {{X, DIMS(2, 5, 4)}}, slice},
    {"slices", "slice", {{X, DIMS(2, 5, 4)}}, slices},
    {"transpose", "transpose", {{X, DIMS(2, 3, 4)}}, transpose},
    {"transpose_same", "transpose", {{X, DIMS(2, 3, 4)}}, transpose_same},
    {"cast", "cast", {{X, DIMS(2, 3, 4)}}, cast},
    {"contiguous", "contiguous", {{X, DIMS(2, 3, 4)}}, contiguous, .gaps = true},
    {"gated_silu", "gated", {{X, DIMS(2, 3, 5)}, {X, DIMS(2, 3, 5)}}, gated_silu},
    {"gated_gelu", "gated", {{X, DIMS(2, 3, 5)}, {X, DIMS(2, 3, 5)}}, gated_gelu},
    {"gated_self", "gated", {{X, DIMS(2, 3, 5)}}, gated_self},
    {"rmsnorm", "rmsnorm", {{X, DIMS(5, 7)}, {P, DIMS(7)}}, rmsnorm},
    {"rmsnorm_heads", "rmsnorm", {{X, DIMS(2, 3, 2, 6)}, {P, DIMS(6)}}, rmsnorm},
    {"rmsnorm_offset", "rmsnorm", {{X, DIMS(5, 7)}, {P, DIMS(7)}}, rmsnorm_offset},
    {"rmsnorm_self", "rmsnorm", {{X, DIMS(7)}}, rmsnorm_self, .no_bf16 = true},
    {"route", "route", {{X, DIMS(2, 3, 5)}}, route},
    {"route_normalised", "route", {{X, DIMS(2, 3, 5)}}, route_normalised},
    {"gather_rows", "gather_rows", {{X, DIMS(5, 3)}, {I, DIMS(4)}}, gather_rows, some_rows},
    {"scatter_rows",
     "scatter_rows",
     {{X, DIMS(5, 3)}, {X, DIMS(4, 3)}, {P, DIMS(5, 2)}, {I, DIMS(4)}, {I, DIMS(4)}},
     scatter_rows,
     places_after_weights},
    {"scatter_rows_self",
     "scatter_rows",
     {{X, DIMS(5, 3)}, {P, DIMS(5, 2)}, {I, DIMS(5)}, {I, DIMS(5)}},
     scatter_rows_self,
     places_after_self},
    {"experts", "scatter_rows", {{X, DIMS(6, 3)}, {X, DIMS(6, 4)}}, experts},
    {"rope", "rope", {{X, DIMS(2, 5, 3, 6)}, {C, DIMS(6, 3)}, {C, DIMS(6, 3)}}, rope},
    {"rope_partial",
     "rope",
     {{X, DIMS(2, 5, 3, 8)}, {C, DIMS(11, 3)}, {C, DIMS(11, 3)}, {I, DIMS(2, 5)}},
     rope,
     some_positions},
    {"mse", "mse", {{X, DIMS(2, 3, 4)}, {X, DIMS(2, 3, 4)}}, mse},
    {"embedding", "embedding", {{I, DIMS(2, 3)}, {P, DIMS(5, 4)}}, embedding, some_ids},
    {"linear", "linear", {{X, DIMS(2, 3, 6)}, {P, DIMS(5, 6)}, {P, DIMS(5)}}, linear_dense},
    {"linear_no_bias", "linear", {{X, DIMS(4, 6)}, {P, DIMS(5, 6)}}, linear_dense},
    {"linear_one_row", "linear", {{X, DIMS(6)}, {P, DIMS(5, 6)}, {P, DIMS(5)}}, linear_dense},
    {"linear_self", "linear", {{X, DIMS(4, 6)}}, linear_self},
    {"linear_fakequant",
     "linear",
     {{X, DIMS(2, 3, 8)}, {RULE, DIMS(5, 8)}, {RULE, DIMS(5, 2)}, {RULE, DIMS(5, 2)}, {P, DIMS(5)}},
     linear_fq,
     steps_after_x},
    {"linear_packed",
     "linear",
     {{X, DIMS(2, 3, 32)}, {U, DIMS(4, 3)}, {P, DIMS(4, 2)}, {RULE, DIMS(4, 2)}, {P, DIMS(4)}},
     linear_packed,
     codes},
    {"linear_of_fakequant",
     "linear",
     {{X, DIMS(2, 3, 8)}, {RULE, DIMS(5, 8)}, {RULE, DIMS(5, 2)}, {RULE, DIMS(5, 2)}},
     linear_of_fakequant,
     steps_after_x},
    {"fakequant",
     "fakequant",
     {{RULE, DIMS(5, 8)}, {RULE, DIMS(5, 2)}, {RULE, DIMS(5, 2)}},
     fakequant,
     steps_after_w},
    {"attention",
     "attention",
     {{X, DIMS(2, 5, 4, 6)}, {X, DIMS(2, 5, 2, 6)}, {X, DIMS(2, 5, 2, 6)}},
     attention},
    {"attention_all",
     "attention",
     {{X, DIMS(2, 3, 2, 4)}, {X, DIMS(2, 5, 2, 4)}, {X, DIMS(2, 5, 2, 4)}},
     attention_all},
    {"attention_window",
     "attention",
     {{X, DIMS(2, 5, 2, 4)}, {X, DIMS(2, 5, 1, 4)}, {X, DIMS(2, 5, 1, 4)}},
     attention_window},
    {"attention_softcap",
     "attention",
     {{X, DIMS(2, 5, 2, 4)}, {X, DIMS(2, 5, 1, 4)}, {X, DIMS(2, 5, 1, 4)}},
     attention_softcap},
    {"attention_offset",
     "attention",
     {{X, DIMS(2, 3, 2, 4)}, {X, DIMS(2, 5, 1, 4)}, {X, DIMS(2, 5, 1, 4)}},
     attention_offset},
    {"attention_segments",
     "attention",
     {{X, DIMS(2, 5, 2, 4)}, {X, DIMS(2, 5, 1, 4)}, {X, DIMS(2, 5, 1, 4)}, {I, DIMS(2, 5)}},
     attention,
     two_segments},
    {"attention_self", "attention", {{X, DIMS(2, 5, 2, 4)}}, attention_self},
    {"cross_entropy",
     "linear_cross_entropy",
     {{X, DIMS(2, 3, 4)}, {P, DIMS(9, 4)}, {I, DIMS(2, 3)}},
     cross_entropy,
     some_labels},
    {"cross_entropy_masked",
     "linear_cross_entropy",
     {{X, DIMS(6, 4)}, {P, DIMS(9, 4)}, {I, DIMS(6)}},
     cross_entropy,
     masked_labels},
    {"distilled",
     "linear_cross_entropy",
     {{X, DIMS(2, 3, 4)}, {P, DIMS(9, 4)}, {I, DIMS(2, 3)}, {C, DIMS(2, 3, 5)}, {C, DIMS(9, 5)}},
     distilled,
     some_labels,
     .no_bf16 = true},
    {"kl_divergence",
     "kl_divergence",
     {{X, DIMS(2, 3, 4)}, {C, DIMS(2, 3, 4)}, {I, DIMS(2, 3)}},
     kl_divergence,
     some_labels,
     .no_bf16 = true},
    {"kl_divergence_all",
     "kl_divergence",
     {{X, DIMS(6, 5)}, {C, DIMS(6, 5)}},
     kl_divergence_all,
     .no_bf16 = true},
    {"custom", "custom", {{X, DIMS(2, 3, 4)}}, custom},
    {"checkpoint", "checkpoint", {{X, DIMS(2, 3, 4)}, {X, DIMS(2, 3, 4)}}, checkpoint},
};
const size_t grad_case_count = EQI_COUNT(grad_cases);
