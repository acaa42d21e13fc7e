#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* E2E-QP that learns from a teacher. */

enum { SEQUENCES = 7, STEPS = 4 }; /* two epochs of a whole step and a short one */

static eqat_e2e_qp_options own_options(void)
{
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = 4;
    o.micro_batch_size = 2;
    o.epochs = 2;
    o.lr = 2e-3;
    return o;
}

typedef struct lesson {
    bench b;
    eqat_model *teacher;
} lesson;

static lesson set_up_lesson(void)
{
    lesson l = {.b = {.ctx = make_context(2, 1)}};
    l.b.model = open_model(l.b.ctx, "model", EQAT_F32);
    l.teacher = open_model(l.b.ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(l.b.ctx, 2, 32);
    OK(l.b.ctx, eqat_model_quantize_rtn(l.b.model, quantizer, NULL));
    eqat_quantizer_free(quantizer);
    l.b.data = make_data(l.b.ctx, SEQUENCES, 0, true);
    return l;
}

static void tear_down_lesson(lesson *l)
{
    eqat_model_free(l->teacher);
    tear_down(&l->b);
}

/* The same divergence, of all logits. */
static eqat_status divergence(void *user, eqat_tape *tape, eqat_tensor *logits,
                              const eqat_batch *batch, eqat_tensor **loss)
{
    const lesson *l = user;
    const int64_t shape[2] = {batch->batch, batch->time};
    eqat_tensor *target, *labels;
    OK(l->b.ctx, eqat_model_forward(l->teacher, NULL, batch, &target));
    OK(l->b.ctx, eqat_tensor_create(l->b.ctx, &labels, EQAT_I32, 2, shape, batch->labels));
    OK(l->b.ctx, eqat_op_kl_divergence(tape, logits, target, labels, loss));
    eqat_tensor_free(target);
    eqat_tensor_free(labels);
    return EQAT_OK;
}

typedef enum source { PLAIN, TEACHER, CALLBACK } source;

/* Losses of all steps; the first linear's scales, freed with free. */
static float *train(source from, double share, double losses[STEPS], int64_t *n)
{
    lesson l = set_up_lesson();
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    eqat_tensor *scales;
    o.teacher = from == TEACHER ? l.teacher : NULL;
    o.teacher_share = share;
    o.loss = from == CALLBACK ? divergence : NULL;
    o.loss_user = &l;
    OK(l.b.ctx, eqat_e2e_qp_create(l.b.model, &job, l.b.data, &o));
    OK(l.b.ctx, eqat_e2e_qp_run(job));
    for (int64_t step = 0; step < STEPS; step++) losses[step] = eqat_e2e_qp_loss(job, step);
    OK(l.b.ctx, eqat_model_parameter(l.b.model, "model.layers.0.self_attn.q_proj.scales", &scales));
    float *values = read_floats(scales, n);
    eqat_e2e_qp_free(job);
    tear_down_lesson(&l);
    return values;
}

START_TEST(a_teacher_is_the_divergence_of_its_logits)
{
    double taught[STEPS], expected[STEPS];
    int64_t n;
    float *a = train(TEACHER, 1, taught, &n), *b = train(CALLBACK, 1, expected, &n);
    for (int i = 0; i < STEPS; i++) ck_assert_double_eq_tol(taught[i], expected[i], 1e-4);
    ck_assert_double_lt(taught[STEPS - 1], taught[0] - 1e-3);
    for (int64_t i = 0; i < n; i++) /* fp16 */
        ck_assert_double_eq_tol((double)a[i], (double)b[i], 0.01 * fabs((double)b[i]));
    free(a);
    free(b);
}
END_TEST

/* Step 0 has rate 0, so that step 1 sees the same model. */
START_TEST(a_share_mixes_the_two_losses)
{
    double plain[STEPS], whole[STEPS], some[STEPS], none[STEPS];
    int64_t n;
    float *a = train(PLAIN, 1, plain, &n);
    free(train(TEACHER, 1, whole, &n));
    free(train(TEACHER, 0.25, some, &n));
    float *b = train(TEACHER, 0, none, &n);
    for (int i = 0; i < 2; i++)
        ck_assert_double_eq_tol(some[i], 0.75 * plain[i] + 0.25 * whole[i], 1e-5);
    ck_assert_double_gt(fabs(plain[0] - whole[0]), 1e-3);
    ck_assert_mem_eq(none, plain, sizeof plain); /* it is not even asked */
    ck_assert_mem_eq(a, b, (size_t)n * sizeof *a);
    free(a);
    free(b);
}
END_TEST

/* Micro-batches in any order have lessons of their own. */
START_TEST(lessons_follow_the_micro_batch)
{
    lesson l = set_up_lesson();
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    double forth[2], back[2];
    o.teacher = l.teacher;
    OK(l.b.ctx, eqat_e2e_qp_create(l.b.model, &job, l.b.data, &o));
    for (int64_t i = 0; i < 2; i++) OK(l.b.ctx, eqat_e2e_qp_accumulate(job, 0, i, &forth[i]));
    for (int64_t i = 2; i-- > 0;) OK(l.b.ctx, eqat_e2e_qp_accumulate(job, 0, i, &back[i]));
    ck_assert_mem_eq(forth, back, sizeof forth);
    ck_assert_double_gt(fabs(forth[0] - forth[1]), 1e-6);
    eqat_e2e_qp_free(job);
    tear_down_lesson(&l);
}
END_TEST

static eqat_status count_and_fill(void *user, bool validation, int64_t index,
                                  const eqat_sample *sample)
{
    const int64_t time = *(const int64_t *)user;
    (void)validation;
    ((int64_t *)user)[1]++;
    for (int64_t t = 0; t < time; t++) sample->ids[t] = (int32_t)((index * 5 + t * 7) % VOCAB);
    return EQAT_OK;
}

/* So that blocks of a teacher are read once for several steps: samples of up to 4096 tokens, or of
 * a step, or of an epoch. Steps are of micro-batches of one sample, which is read for the model,
 * too. */
START_TEST(lessons_are_taken_together)
{
    static const int64_t cases[][3] = {{1024, 1, 4}, {16, 1, 6}, {2048, 3, 3}, {5000, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lesson l = set_up_lesson();
        int64_t asked[2] = {cases[i][0], 0}, together = cases[i][2];
        const eqat_data_options d = consecutive(6, 0, asked[0]);
        eqat_e2e_qp_options o = own_options();
        eqat_data *data;
        eqat_e2e_qp *job;
        OK(l.b.ctx,
           eqat_data_from_records(l.b.ctx, &data, count_and_fill, asked, EQAT_SAMPLE_IDS, VOCAB, 0,
                                  &d));
        o.teacher = l.teacher;
        o.batch_size = cases[i][1];
        o.micro_batch_size = 1;
        OK(l.b.ctx, eqat_e2e_qp_create(l.b.model, &job, data, &o));
        asked[1] = 0;
        for (int64_t k = 0; k < 6; k++) {
            const int64_t lessons = k / together + 1, taught = lessons * together;
            OK(l.b.ctx, eqat_e2e_qp_accumulate(job, k / o.batch_size, k % o.batch_size, NULL));
            ck_assert_int_eq(asked[1], k + 1 + (taught < 6 ? taught : 6));
        }
        /* Groups lie where they lie, wherever a job begins. */
        asked[1] = 0;
        OK(l.b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, NULL));
        OK(l.b.ctx, eqat_e2e_qp_accumulate(job, 5 / o.batch_size, 5 % o.batch_size, NULL));
        const int64_t last = 6 - 5 / together * together;
        ck_assert_int_eq(asked[1], together == 6 ? 2 : 2 + together + last);
        eqat_e2e_qp_free(job);
        eqat_data_free(data);
        tear_down_lesson(&l);
    }
}
END_TEST

/* Block-AP drops embeddings and head of its model. */
START_TEST(a_teacher_may_be_used_in_between)
{
    lesson l = set_up_lesson();
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    eqat_block_ap *other;
    double before, after;
    o.teacher = l.teacher;
    OK(l.b.ctx, eqat_e2e_qp_create(l.b.model, &job, l.b.data, &o));
    OK(l.b.ctx, eqat_e2e_qp_accumulate(job, 0, 1, &before));
    eqat_quantizer *quantizer = make_quantizer(l.b.ctx, 2, 32);
    OK(l.b.ctx, eqat_block_ap_create(l.teacher, &other, quantizer, l.b.data, NULL));
    OK(l.b.ctx, eqat_e2e_qp_accumulate(job, 0, 1, &after));
    ck_assert(before == after);
    eqat_block_ap_free(other);
    eqat_quantizer_free(quantizer);
    eqat_e2e_qp_free(job);
    tear_down_lesson(&l);
}
END_TEST

static void refuses(lesson *l, const eqat_e2e_qp_options *o, const char *expected)
{
    eqat_e2e_qp *job;
    ck_assert_int_eq(eqat_e2e_qp_create(l->b.model, &job, l->b.data, o), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(l->b.ctx), expected));
    ck_assert_int_eq(eqat_e2e_qp_check(l->b.model, NULL, l->b.data, o), EQAT_INVALID_ARGUMENT);
}

START_TEST(a_teacher_fits_or_is_refused)
{
    lesson l = set_up_lesson();
    eqat_e2e_qp_options o = own_options();
    llama_shape other = small_shape;
    other.vocab = VOCAB + 32;
    write_llama("wider", &other, NULL);
    eqat_context *apart = make_context(1, 1);
    eqat_model *stranger = open_model(apart, "model", EQAT_F32),
               *wider = open_model(l.b.ctx, "wider", EQAT_F32),
               *coarse = open_model(l.b.ctx, "model", EQAT_BF16);
    o.teacher = l.b.model;
    refuses(&l, &o, "teacher: found the model that trains");
    o.teacher = stranger;
    refuses(&l, &o, "teacher: found a model of another context");
    o.teacher = wider;
    refuses(&l, &o, "teacher: found a vocabulary of 128, expected the model's 96");
    o.teacher = coarse;
    refuses(&l, &o, "teacher: found it computing in bf16, expected f32");
    o.teacher = l.teacher;
    o.loss = divergence;
    refuses(&l, &o, "teacher: found a loss beside it");
    o.loss = NULL;
    o.teacher_share = 1.5;
    refuses(&l, &o, "teacher_share");
    eqat_model_free(stranger);
    eqat_model_free(wider);
    eqat_model_free(coarse);
    eqat_context_free(apart);
    tear_down_lesson(&l);
}
END_TEST

/* From the beginning, or from a state behind the second step. */
static const char *finish(const char *name, const char *state, bool from)
{
    lesson l = set_up_lesson();
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    o.teacher = l.teacher;
    OK(l.b.ctx, eqat_e2e_qp_create(l.b.model, &job, l.b.data, &o));
    if (from) OK(l.b.ctx, eqat_e2e_qp_load(job, state));
    for (int64_t step = 0; step < 2 && !from; step++) {
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++)
            OK(l.b.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        OK(l.b.ctx, eqat_e2e_qp_step(job));
    }
    if (!from) OK(l.b.ctx, eqat_e2e_qp_save(job, state));
    OK(l.b.ctx, eqat_e2e_qp_run(job));
    eqat_e2e_qp_free(job);
    const char *path = save_as(l.b.ctx, l.b.model, name);
    tear_down_lesson(&l);
    return path;
}

START_TEST(a_state_goes_on_with_the_same_teacher_alone)
{
    char state[512];
    snprintf(state, sizeof state, "%s", scratch("state.safetensors"));
    const char *straight = finish("straight", state, false);
    ck_assert(same_folders(finish("resumed", state, true), straight));
    lesson l = set_up_lesson();
    llama_shape other = small_shape;
    other.intermediate *= 2;
    write_llama("other", &other, NULL);
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    o.teacher = open_model(l.b.ctx, "other", EQAT_F32);
    OK(l.b.ctx, eqat_e2e_qp_create(l.b.model, &job, l.b.data, &o));
    ck_assert_int_eq(eqat_e2e_qp_load(job, state), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(l.b.ctx), "teacher"));
    eqat_e2e_qp_free(job);
    eqat_model_free(o.teacher);
    tear_down_lesson(&l);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, a_teacher_is_the_divergence_of_its_logits);
    tcase_add_test(tc, a_share_mixes_the_two_losses);
    tcase_add_test(tc, lessons_follow_the_micro_batch);
    tcase_add_test(tc, lessons_are_taken_together);
    tcase_add_test(tc, a_teacher_may_be_used_in_between);
    tcase_add_test(tc, a_teacher_fits_or_is_refused);
    tcase_add_test(tc, a_state_goes_on_with_the_same_teacher_alone);
    return run_case("teacher", tc, CK_NOFORK);
}
