/* Drivers of one's own end where the library's loops end. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* ---- freeze and set_linear ---- */

static eqat_tensor *trained(eqat_block_ap *job, const char *local, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", local, suffix);
    eqat_tensor *t = eqat_block_ap_parameter(job, name);
    ck_assert_msg(t, "%s", name);
    return t;
}

/* What the job has trained in its block, into a model of the driver's. */
static void take_over(const bench *b, eqat_block_ap *job, eqat_model *mine)
{
    static const char *const norms[] = {"input_layernorm.weight",
                                        "post_attention_layernorm.weight"};
    int64_t block = eqat_block_ap_block(job), n;
    char prefix[64], name[128];
    snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)block);
    for (int64_t i = 0; i < eqat_model_linear_count(mine, block); i++) {
        eqat_linear_info l = {.struct_size = sizeof l};
        eqat_tensor *s, *z, *codes;
        OK(b->ctx, eqat_model_linear(mine, block, i, &l));
        const char *local = l.name + strlen(prefix);
        OK(b->ctx,
           eqat_quantizer_freeze(b->quantizer, trained(job, local, ".weight"),
                                 trained(job, local, ".scales"), trained(job, local, ".zeros"), &s,
                                 &z, &codes));
        OK(b->ctx, eqat_model_set_linear(mine, block, i, codes, s, z));
        eqat_tensor_free(s);
        eqat_tensor_free(z);
        eqat_tensor_free(codes);
    }
    for (int i = 0; i < 2; i++) {
        float *gain = read_floats(trained(job, norms[i], ""), &n);
        eqat_tensor *t;
        snprintf(name, sizeof name, "%s%s", prefix, norms[i]);
        OK(b->ctx, eqat_model_parameter(mine, name, &t));
        OK(b->ctx, eqat_tensor_write(t, gain, (size_t)n * sizeof *gain));
        free(gain);
    }
}

/* The clamps of both ends have something to do. */
static void push_out(const bench *b, eqat_block_ap *job)
{
    int64_t n;
    eqat_tensor *s = trained(job, "mlp.up_proj", ".scales"),
                *z = trained(job, "mlp.up_proj", ".zeros");
    float *x = read_floats(s, &n);
    for (int64_t i = 0; i < n; i += 3) x[i] *= i % 2 ? 1e-8f : 1e8f;
    OK(b->ctx, eqat_tensor_write(s, x, (size_t)n * sizeof *x));
    for (int64_t i = 0; i < n; i++) x[i] = (float)(i % 7) * 60 - 100.5f;
    OK(b->ctx, eqat_tensor_write(z, x, (size_t)n * sizeof *x));
    free(x);
}

START_TEST(what_a_driver_freezes_has_the_bytes_of_finish)
{
    static const int bits[] = {2, 4, 8};
    setting chosen = usual;
    chosen.bits = bits[_i];
    bench b = set_up(&chosen);
    eqat_model *mine = open_model(b.ctx, "model", chosen.compute);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    while (eqat_block_ap_block(job) < BLOCKS) {
        OK(b.ctx, eqat_block_ap_begin(job));
        for (int64_t step = 0; step < eqat_block_ap_steps(job); step++)
            OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
        push_out(&b, job);
        take_over(&b, job, mine);
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    same_logits(b.model, mine, TIME);
    char finished[32], frozen[32];
    snprintf(finished, sizeof finished, "finished-%d", _i);
    snprintf(frozen, sizeof frozen, "frozen-%d", _i);
    const char *wanted = save_as(b.ctx, b.model, finished);
    ck_assert(same_folders(save_as(b.ctx, mine, frozen), wanted));
    eqat_model_free(mine);
    tear_down(&b);
}
END_TEST

/* ---- ops that take a quantizer ---- */

enum { ROWS = 3, COLUMNS = 64, GROUPS = 2 };

typedef struct weights {
    float w[ROWS * COLUMNS], s[ROWS * GROUPS], z[ROWS * GROUPS];
    eqat_tensor *tw, *ts, *tz;
} weights;

static void make_weights(eqat_context *ctx, weights *m, float step)
{
    const int64_t wide[2] = {ROWS, COLUMNS}, narrow[2] = {ROWS, GROUPS};
    for (int i = 0; i < ROWS * COLUMNS; i++) m->w[i] = step * (float)((i * 37) % 23 - 11) * 0.7f;
    for (int i = 0; i < ROWS * GROUPS; i++) m->s[i] = step * (1 + 0.1f * (float)i);
    for (int i = 0; i < ROWS * GROUPS; i++) m->z[i] = 1 + (float)(i % 2);
    OK(ctx, eqat_tensor_create(ctx, &m->tw, EQAT_F32, 2, wide, m->w));
    OK(ctx, eqat_tensor_create(ctx, &m->ts, EQAT_F32, 2, narrow, m->s));
    OK(ctx, eqat_tensor_create(ctx, &m->tz, EQAT_F32, 2, narrow, m->z));
}

static void drop_weights(weights *m)
{
    eqat_tensor_free(m->tw);
    eqat_tensor_free(m->ts);
    eqat_tensor_free(m->tz);
}

static double fake(const weights *m, int bits, int i)
{
    int g = i / (COLUMNS / GROUPS);
    double s = m->s[g], z = m->z[g];
    s = fmin(fmax(s, 0x1p-24), 65504);
    return (fmin(fmax(rint(m->w[i] / s) + z, 0), (1 << bits) - 1) - z) * s;
}

/* Scales are clamped as in Block-AP. */
START_TEST(fakequant_follows_the_quantizer)
{
    for (int bits = 2; bits <= 8; bits++) {
        eqat_context *ctx = make_context(1, 0);
        eqat_quantizer *q = make_quantizer(ctx, bits, COLUMNS / GROUPS);
        eqat_tape *tape;
        eqat_tensor *y, *x, *product;
        weights m;
        int64_t n;
        make_weights(ctx, &m, 3e-8f);
        OK(ctx, eqat_tape_create(ctx, &tape));
        OK(ctx, eqat_op_fakequant(tape, m.tw, m.ts, m.tz, q, EQAT_F32, &y));
        float *found = read_floats(y, &n);
        for (int i = 0; i < n; i++) ck_assert_double_eq_tol(found[i], fake(&m, bits, i), 1e-12);
        OK(ctx, eqat_tensor_create(ctx, &x, EQAT_F32, 2, (int64_t[]){1, COLUMNS}, NULL));
        OK(ctx, eqat_tensor_fill(x, 1));
        OK(ctx, eqat_op_fakequant_linear(tape, x, m.tw, m.ts, m.tz, NULL, q, &product));
        float *sums = read_floats(product, &n);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int k = 0; k < COLUMNS; k++) sum += fake(&m, bits, r * COLUMNS + k);
            ck_assert_double_eq_tol(sums[r], sum, 1e-10);
        }
        free(found);
        free(sums);
        eqat_tensor *used[] = {x, y, product};
        for (int i = 0; i < 3; i++) eqat_tensor_free(used[i]);
        drop_weights(&m);
        eqat_tape_free(tape);
        eqat_quantizer_free(q);
        eqat_context_free(ctx);
    }
}
END_TEST

/* Bits and group size are read from the shapes. */
START_TEST(packed_linear_reads_the_shapes)
{
    for (int bits = 2; bits <= 8; bits++) {
        eqat_context *ctx = make_context(1, 0);
        eqat_quantizer *q = make_quantizer(ctx, bits, COLUMNS / GROUPS);
        eqat_tape *tape;
        eqat_tensor *s, *z, *codes, *x, *y = NULL;
        weights m;
        int64_t n;
        make_weights(ctx, &m, 0.25f);
        OK(ctx, eqat_tape_create(ctx, &tape));
        OK(ctx, eqat_quantizer_freeze(q, m.tw, m.ts, m.tz, &s, &z, &codes));
        OK(ctx, eqat_tensor_create(ctx, &x, EQAT_F32, 2, (int64_t[]){1, COLUMNS}, NULL));
        OK(ctx, eqat_tensor_fill(x, 1));
        OK(ctx, eqat_op_packed_linear(tape, x, codes, s, z, NULL, &y));
        float *sums = read_floats(y, &n), *steps = read_floats(s, &n);
        memcpy(m.s, steps, sizeof m.s);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int k = 0; k < COLUMNS; k++) sum += fake(&m, bits, r * COLUMNS + k);
            ck_assert_double_eq_tol(sums[r], sum, 1e-3);
        }
        eqat_tensor_free(y);
        ck_assert_int_eq(eqat_op_packed_linear(tape, x, codes, m.tw, z, NULL, &y),
                         EQAT_INVALID_ARGUMENT); /* groups of one, and z has others */
        ck_assert_int_eq(eqat_op_packed_linear(tape, codes, codes, s, z, NULL, &y),
                         EQAT_INVALID_ARGUMENT);
        ck_assert_ptr_null(y);
        free(sums);
        free(steps);
        eqat_tensor *used[] = {x, s, z, codes};
        for (int i = 0; i < 4; i++) eqat_tensor_free(used[i]);
        drop_weights(&m);
        eqat_tape_free(tape);
        eqat_quantizer_free(q);
        eqat_context_free(ctx);
    }
}
END_TEST

START_TEST(freeze_wants_masters)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_quantizer *q = make_quantizer(ctx, 2, COLUMNS / GROUPS);
    eqat_tensor *s, *z, *codes, *whole;
    weights m;
    make_weights(ctx, &m, 0.25f);
    OK(ctx, eqat_tensor_create(ctx, &whole, EQAT_U8, 2, (int64_t[]){ROWS, GROUPS}, NULL));
    ck_assert_int_eq(eqat_quantizer_freeze(q, m.tw, m.ts, whole, &s, &z, &codes),
                     EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "freeze: z: found u8, expected f32");
    ck_assert_int_eq(eqat_quantizer_freeze(q, m.tw, m.tw, m.tz, &s, &z, &codes),
                     EQAT_INVALID_ARGUMENT);
    ck_assert(!s && !z && !codes);
    eqat_tensor_free(whole);
    drop_weights(&m);
    eqat_quantizer_free(q);
    eqat_context_free(ctx);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_loop_test(tc, what_a_driver_freezes_has_the_bytes_of_finish, 0, 3);
    tcase_add_test(tc, fakequant_follows_the_quantizer);
    tcase_add_test(tc, packed_linear_reads_the_shapes);
    tcase_add_test(tc, freeze_wants_masters);
    return run_case("driver", tc, CK_NOFORK);
}
