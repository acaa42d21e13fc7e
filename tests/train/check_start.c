/* Starts that look at activations: the moments are those of the inputs that the block will see, and
 * such a job is like any other. */
#include <math.h>

#include "engine.h"
#include "public.h"
#include "quant/feedback.h"

static const double EPS = 1e-5; /* of the small model's norms */

static setting start_of(eqat_init init)
{
    setting s = usual;
    s.init = init;
    s.compute = EQAT_F32;
    return s;
}

/* Adds the products of a sample's inputs of q, k and v in the first block: the normalised
 * embeddings. */
static void add_products(const float *x, const float *gain, double sum[HIDDEN][HIDDEN])
{
    for (int t = 0; t < TIME; t++, x += HIDDEN) {
        double mean = 0, y[HIDDEN];
        for (int i = 0; i < HIDDEN; i++) mean += (double)x[i] * (double)x[i] / HIDDEN;
        for (int i = 0; i < HIDDEN; i++) y[i] = (double)x[i] / sqrt(mean + EPS) * (double)gain[i];
        for (int i = 0; i < HIDDEN; i++)
            for (int j = 0; j < HIDDEN; j++) sum[i][j] += y[i] * y[j];
    }
}

static void moments_by_hand(bench *b, eqat_block_ap *job, double sum[HIDDEN][HIDDEN])
{
    int64_t n;
    int32_t ids[TIME];
    eqat_tape *tape;
    memset(sum, 0, HIDDEN * sizeof *sum);
    float *gain = read_floats(eqat_block_ap_parameter(job, "input_layernorm.weight"), &n);
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    eqat_tape_set_recording(tape, false);
    for (int64_t i = 0; i < eqat_data_train_size(b->data); i++) {
        eqat_tensor *x;
        read_ids(b->ctx, b->data, false, i, ids);
        const eqat_batch batch = {
            .struct_size = sizeof batch, .ids = ids, .batch = 1, .time = TIME};
        OK(b->ctx, eqat_model_embed(b->model, tape, &batch, &x));
        float *values = read_floats(x, &n);
        add_products(values, gain, sum);
        free(values);
        eqat_tensor_free(x);
    }
    eqat_tape_free(tape);
    free(gain);
}

static eqat_tensor *diagonal_by_hand(bench *b, eqat_block_ap *job)
{
    static const int64_t hidden = HIDDEN;
    double sum[HIDDEN][HIDDEN];
    float stored[HIDDEN];
    eqat_tensor *out;
    moments_by_hand(b, job, sum);
    for (int i = 0; i < HIDDEN; i++) stored[i] = (float)sum[i][i];
    OK(b->ctx, eqat_tensor_create(b->ctx, &out, EQAT_F32, 1, &hidden, stored));
    return out;
}

static bool close(eqat_tensor *a, eqat_tensor *b)
{
    int64_t n, m;
    float *x = read_floats(a, &n), *y = read_floats(b, &m);
    bool same = n == m;
    for (int64_t i = 0; i < n && same; i++) same = fabsf(x[i] - y[i]) <= 1e-5f * fabsf(y[i]);
    free(x);
    free(y);
    return same;
}

START_TEST(scales_come_of_the_moments_of_the_inputs)
{
    setting s = start_of(EQAT_INIT_WMSE);
    s.zero_point = _i ? EQAT_ZERO_POINT_FIXED : EQAT_ZERO_POINT_TRAINED;
    bench b = set_up(&s);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    eqat_tensor *w, *scale, *zero, *plain_scale, *plain_zero;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    eqat_tensor *moments = diagonal_by_hand(&b, job);
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.weight", names[i]);
        w = eqat_block_ap_parameter(job, name);
        OK(b.ctx, eqat_quantizer_init(b.quantizer, w, moments, false, &scale, &zero));
        OK(b.ctx, eqat_quantizer_init(b.quantizer, w, NULL, false, &plain_scale, &plain_zero));
        snprintf(name, sizeof name, "%s.scales", names[i]);
        ck_assert_msg(close(eqat_block_ap_parameter(job, name), scale), "%s", name);
        ck_assert_msg(!close(plain_scale, scale), "%s", name);
        snprintf(name, sizeof name, "%s.zeros", names[i]);
        ck_assert_msg(close(eqat_block_ap_parameter(job, name), zero), "%s", name);
        eqat_tensor_free(scale);
        eqat_tensor_free(zero);
        eqat_tensor_free(plain_scale);
        eqat_tensor_free(plain_zero);
    }
    eqat_tensor_free(moments);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

/* Rounding has no samples. */
START_TEST(rounding_weights_all_the_same)
{
    const setting s = start_of(EQAT_INIT_WMSE), p = start_of(EQAT_INIT_MSE);
    bench a = set_up(&s), b = set_up(&p);
    OK(a.ctx, eqat_model_quantize_rtn(a.model, a.quantizer, NULL));
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    same_logits(a.model, b.model, TIME);
    tear_down(&a);
    tear_down(&b);
}
END_TEST

typedef struct cancelling {
    int64_t seen, at;
} cancelling;

static int32_t cancel_at(void *user, const eqat_progress *p)
{
    cancelling *c = user;
    return !strcmp(p->work, "moments") && c->seen++ == c->at;
}

/* Seven samples, four at once: in the first and in the second half of every block's pass. */
START_TEST(measuring_can_be_cancelled)
{
    const setting s = start_of(_i ? EQAT_INIT_GPTQ : EQAT_INIT_WMSE);
    for (int64_t at = -1; at < 2 * BLOCKS; at++) { /* -1: not at all */
        bench b = set_up(&s);
        cancelling c = {.at = at};
        eqat_block_ap_options o = fast_options();
        eqat_block_ap *job;
        o.batch_size = 1;
        o.between = cancel_at;
        o.between_user = &c;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        if (at >= 0) {
            ck_assert_int_eq(eqat_block_ap_run(job), EQAT_CANCELLED);
            ck_assert_int_eq(c.seen, at + 1);
        }
        OK(b.ctx, eqat_block_ap_run(job));
        eqat_block_ap_free(job);
        if (at < 0) {
            ck_assert_int_eq(c.seen, 2 * BLOCKS);
            save_as(b.ctx, b.model, "expected");
        } else {
            ck_assert(same_folders(save_as(b.ctx, b.model, "again"), scratch("expected")));
            remove_dir(scratch("again"));
        }
        tear_down(&b);
    }
    remove_dir(scratch("expected"));
}
END_TEST

/* ---- error feedback ---- */

static int rows_apart(eqat_tensor *a, eqat_tensor *b)
{
    int64_t n, m;
    float *x = read_floats(a, &n), *y = read_floats(b, &m);
    int64_t rows = a->v.shape[0], width = n / rows;
    int apart = 0;
    ck_assert_int_eq(n, m);
    for (int64_t r = 0; r < rows; r++) {
        bool same = true;
        for (int64_t i = r * width; i < (r + 1) * width; i++)
            same &= fabsf(x[i] - y[i]) <= 1e-3f * (fabsf(y[i]) + 1e-2f);
        apart += !same;
    }
    free(x);
    free(y);
    return apart;
}

START_TEST(masters_and_scales_start_from_descent)
{
    static const int64_t square[2] = {HIDDEN, HIDDEN};
    const setting descent = start_of(EQAT_INIT_DESCENT), wmse = start_of(EQAT_INIT_WMSE);
    bench b = set_up(&descent), p = set_up(&wmse);
    const eqi_quant_desc desc = {.bits = 2, .group = 32};
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job, *plain;
    double sum[HIDDEN][HIDDEN];
    float stored[HIDDEN][HIDDEN];
    eqat_tensor *moments;
    eqi_feedback f;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    OK(p.ctx, eqat_block_ap_create(p.model, &plain, p.quantizer, p.data, &o));
    OK(p.ctx, eqat_block_ap_begin(plain));
    eqat_tensor *w = eqat_block_ap_parameter(plain, "self_attn.q_proj.weight"),
                *s = eqat_block_ap_parameter(plain, "self_attn.q_proj.scales"),
                *z = eqat_block_ap_parameter(plain, "self_attn.q_proj.zeros"),
                *found_w = eqat_block_ap_parameter(job, "self_attn.q_proj.weight"),
                *found_s = eqat_block_ap_parameter(job, "self_attn.q_proj.scales");
    ck_assert(!close(found_s, s));
    moments_by_hand(&b, job, sum);
    for (int i = 0; i < HIDDEN; i++)
        for (int j = 0; j < HIDDEN; j++) stored[i][j] = (float)sum[i][j];
    OK(p.ctx, eqat_tensor_create(p.ctx, &moments, EQAT_F32, 2, square, stored));
    OK(p.ctx, eqi_feedback_make(moments, &f));
    OK(p.ctx, eqi_feedback_start(&f, w, s, z, &desc, true));
    eqi_feedback_release(p.ctx, &f);
    /* A weight between two codes may be rounded otherwise, and the rest of its row with it. */
    ck_assert_int_le(rows_apart(found_w, w), 2);
    ck_assert_int_le(rows_apart(found_s, s), 2);
    eqat_tensor_free(moments);
    eqat_block_ap_free(job);
    eqat_block_ap_free(plain);
    tear_down(&b);
    tear_down(&p);
}
END_TEST

/* q, k and v have the same inputs, of which error feedback takes moments once. */
START_TEST(neighbours_change_no_start)
{
    static const eqat_init inits[] = {EQAT_INIT_GPTQ, EQAT_INIT_DESCENT};
    for (size_t i = 0; i < EQI_COUNT(inits); i++) {
        const setting start = start_of(inits[i]);
        bench all = set_up(&start), some = set_up(&start);
        eqat_block_ap_options o = fast_options();
        eqat_block_ap *with, *without;
        OK(some.ctx, eqat_quantizer_add_rule(some.quantizer, "*.k_proj", NULL));
        OK(all.ctx, eqat_block_ap_create(all.model, &with, all.quantizer, all.data, &o));
        OK(some.ctx, eqat_block_ap_create(some.model, &without, some.quantizer, some.data, &o));
        OK(all.ctx, eqat_block_ap_begin(with));
        OK(some.ctx, eqat_block_ap_begin(without));
        for (int k = 0; k < 2; k++) {
            const char *name = k ? "self_attn.v_proj.weight" : "self_attn.v_proj.scales";
            ck_assert(same_bits(eqat_block_ap_parameter(with, name),
                                eqat_block_ap_parameter(without, name)));
        }
        eqat_block_ap_free(with);
        eqat_block_ap_free(without);
        tear_down(&all);
        tear_down(&some);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("start");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_loop_test(tc, scales_come_of_the_moments_of_the_inputs, 0, 2);
    tcase_add_test(tc, rounding_weights_all_the_same);
    tcase_add_loop_test(tc, measuring_can_be_cancelled, 0, 2);
    tcase_add_test(tc, masters_and_scales_start_from_descent);
    tcase_add_test(tc, neighbours_change_no_start);
    return run_case("starts", tc, CK_NOFORK);
}
