/* Records of the caller's in Block-AP, E2E-QP and perplexity: what labels, positions, segments and
 * embeddings mean there. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "public.h"

enum {
    TRAIN = 5,
    VAL = 2,
    SAMPLES = TRAIN + VAL,
    HALF = TIME / 2,
    TOKENS = SAMPLES * TIME,
    MARKS = EQAT_SAMPLE_POSITIONS | EQAT_SAMPLE_SEGMENTS
};

/* Training samples first. */
typedef struct source {
    int32_t ids[TOKENS], labels[TOKENS], positions[TOKENS], segments[TOKENS];
    float *embeddings; /* [TOKENS, HIDDEN] */
} source;

static eqat_status fill(void *user, bool validation, int64_t index, const eqat_sample *to)
{
    const source *s = user;
    int64_t first = (validation ? TRAIN + index : index) * TIME;
    size_t bytes = TIME * sizeof(int32_t);
    if (to->ids) memcpy(to->ids, s->ids + first, bytes);
    if (to->labels) memcpy(to->labels, s->labels + first, bytes);
    if (to->positions) memcpy(to->positions, s->positions + first, bytes);
    if (to->segments) memcpy(to->segments, s->segments + first, bytes);
    if (to->embeddings)
        memcpy(to->embeddings, s->embeddings + first * HIDDEN, TIME * HIDDEN * sizeof(float));
    return EQAT_OK;
}

static eqat_data *records(eqat_context *ctx, source *s, int32_t fields)
{
    const eqat_data_options o = consecutive(TRAIN, VAL, TIME);
    eqat_data *data;
    OK(ctx,
       eqat_data_from_records(ctx, &data, fill, s, fields, 0,
                              fields & EQAT_SAMPLE_EMBEDDINGS ? HIDDEN : 0, &o));
    return data;
}

/* The same tokens without marks, `time` of them a sample. */
static eqat_data *plain(eqat_context *ctx, const source *s, int64_t time)
{
    const eqat_data_options o = consecutive(TRAIN * TIME / time, VAL * TIME / time, time);
    eqat_data *data;
    OK(ctx, eqat_data_from_tokens(ctx, &data, s->ids, TOKENS, VOCAB, &o));
    return data;
}

/* Two sequences a sample; every third label masked, sample 1 wholly. */
static source make_source(void)
{
    source s = {.embeddings = NULL};
    for (int i = 0; i < TOKENS; i++) {
        int t = i % TIME;
        s.ids[i] = (int32_t)eqi_rng_below(5, EQI_RNG_USER, (uint64_t)i, VOCAB);
        s.labels[i] = (int32_t)eqi_rng_below(6, EQI_RNG_USER, (uint64_t)i, VOCAB);
        if (i % 3 == 0 || i / TIME == 1) s.labels[i] = -1 - t;
        s.positions[i] = t % HALF;
        s.segments[i] = t / HALF;
    }
    return s;
}

/* Rows of the embedding table, which the model ties to its head. */
static void add_embeddings(source *s)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_tensor *t;
    int64_t n;
    OK(ctx, eqat_model_parameter(model, "model.embed_tokens.weight", &t));
    float *table = read_floats(t, &n);
    ck_assert_int_eq(n, VOCAB * HIDDEN);
    s->embeddings = malloc(TOKENS * HIDDEN * sizeof(float));
    ck_assert_ptr_nonnull(s->embeddings);
    for (int i = 0; i < TOKENS; i++)
        memcpy(s->embeddings + i * HIDDEN, table + s->ids[i] * HIDDEN, HIDDEN * sizeof(float));
    free(table);
    eqat_model_free(model);
    eqat_context_free(ctx);
}

/* The small model with positions divided by two. */
static void write_stretched_model(void)
{
    char config[1024];
    write_llama("stretched", &small_shape, NULL);
    snprintf(config, sizeof config, "%s/config.json", scratch("stretched"));
    FILE *f = fopen(config, "r+");
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fseek(f, -2, SEEK_END), 0); /* before the brace and the newline */
    fprintf(f, ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2.0}}\n");
    fclose(f);
}

static void write_models(void)
{
    write_small_model();
    write_stretched_model();
}

static eqat_perplexity judge(eqat_context *ctx, eqat_model *model, eqat_data *data)
{
    eqat_perplexity p = {.struct_size = sizeof p};
    eqat_eval_options o;
    eqat_eval_options_init(&o, sizeof o);
    o.batch_size = 2;
    OK(ctx, eqat_eval_perplexity(model, data, &o, &p));
    return p;
}

/* Sum of -ln p(label) over the labels of the training samples, from logits. */
static double nll_of_logits(eqat_context *ctx, eqat_model *model, const source *s, int64_t *count)
{
    eqat_batch b;
    eqat_tensor *logits;
    double nll = 0;
    int64_t n;
    eqat_batch_init(&b, sizeof b);
    b.batch = TRAIN;
    b.time = TIME;
    b.ids = s->ids;
    b.positions = s->positions;
    b.segments = s->segments;
    OK(ctx, eqat_model_forward(model, NULL, &b, &logits));
    float *x = read_floats(logits, &n);
    *count = 0;
    for (int64_t i = 0; i < TRAIN * TIME; i++) {
        double sum = 0;
        if (s->labels[i] < 0) continue;
        for (int64_t v = 0; v < VOCAB; v++) sum += exp((double)x[i * VOCAB + v]);
        nll += log(sum) - (double)x[i * VOCAB + s->labels[i]];
        ++*count;
    }
    free(x);
    eqat_tensor_free(logits);
    return nll;
}

/* ---- perplexity ---- */

START_TEST(perplexity_of_masked_labels)
{
    source s = make_source();
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_data *data = records(ctx, &s, EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS | MARKS);
    int64_t count;
    for (int i = 0; i < TOKENS; i++) { /* each sample has others, which changes what it says */
        s.positions[i] *= 2 + i / TIME;
        s.segments[i] = i % TIME < 7 + 2 * (i / TIME);
    }
    double nll = nll_of_logits(ctx, model, &s, &count);
    eqat_perplexity p = judge(ctx, model, data);
    ck_assert_int_eq(p.tokens, count);
    ck_assert_int_lt(p.tokens, TRAIN * TIME * 2 / 3);
    ck_assert_double_eq_tol(p.nll, nll, 1e-5 * nll);
    ck_assert_double_eq_tol(p.perplexity, exp(nll / (double)count), 1e-4 * p.perplexity);
    for (int i = 0; i < TOKENS; i++) s.labels[i] = -1;
    says(ctx, eqat_eval_perplexity(model, data, NULL, &p), EQAT_INVALID_ARGUMENT,
         "labels: found all masked");
    eqat_data_free(data);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(perplexity_of_packed_sequences_is_that_of_sequences_apart)
{
    source s = make_source();
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_data *packed = records(ctx, &s, EQAT_SAMPLE_IDS | MARKS), *apart = plain(ctx, &s, HALF),
              *whole = plain(ctx, &s, TIME);
    eqat_perplexity p = judge(ctx, model, packed), expected = judge(ctx, model, apart),
                    other = judge(ctx, model, whole);
    ck_assert_int_eq(p.tokens, expected.tokens);
    ck_assert_int_eq(p.tokens, TRAIN * (TIME - 2));
    ck_assert_double_eq_tol(p.nll, expected.nll, 1e-6 * p.nll);
    ck_assert_double_ge(fabs(p.perplexity - other.perplexity), 1e-3 * p.perplexity);
    eqat_data_free(packed);
    eqat_data_free(apart);
    eqat_data_free(whole);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

/* ---- Block-AP ---- */

enum { LOSSES = BLOCKS * (1 + TRAIN) };

/* Losses of validation and of every sample, block by block, of a job that trains nothing. */
static void block_losses(const char *model_name, source *s, int32_t fields, int64_t time,
                         double *losses)
{
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, model_name, EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data *data = fields ? records(ctx, s, fields) : plain(ctx, s, time);
    eqat_block_ap_options o;
    eqat_block_ap *job;
    eqat_block_ap_options_init(&o, sizeof o);
    o.batch_size = TIME / time;
    o.quant_lr = -1;
    o.weight_lr = -1;
    OK(ctx, eqat_block_ap_create(model, &job, quantizer, data, &o));
    for (int64_t block = 0; block < BLOCKS; block++) {
        OK(ctx, eqat_block_ap_begin(job));
        OK(ctx, eqat_block_ap_validate(job, losses++));
        ck_assert_int_eq(eqat_block_ap_steps(job), TRAIN);
        for (int64_t i = 0; i < TRAIN; i++) OK(ctx, eqat_block_ap_step(job, 0, i, losses++));
        OK(ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
}

/* Of each block the losses from `first` on, every `step`-th. */
static void expect_close(const double *losses, const double *expected, int first, int step)
{
    for (int i = 0; i < LOSSES; i++)
        if (i % (1 + TRAIN) >= first && (i % (1 + TRAIN) - first) % step == 0)
            ck_assert_double_eq_tol(losses[i], expected[i], 1e-5 * expected[i]);
}

static void expect_different(const double *losses, const double *others)
{
    for (int i = 0; i < LOSSES; i++)
        ck_assert_double_ge(fabs(losses[i] - others[i]), 1e-4 * others[i]);
}

/* Training samples 1 and 3 are one sequence, the others two. */
static source make_mixed_source(void)
{
    source s = make_source();
    for (int k = 1; k < TRAIN; k += 2)
        for (int t = 0; t < TIME; t++) {
            s.segments[k * TIME + t] = 0;
            s.positions[k * TIME + t] = t;
        }
    return s;
}

START_TEST(blocks_see_segments)
{
    source s = make_mixed_source();
    double packed[LOSSES], apart[LOSSES], whole[LOSSES];
    block_losses("model", &s, EQAT_SAMPLE_IDS | MARKS, TIME, packed);
    block_losses("model", &s, 0, HALF, apart);
    block_losses("model", &s, 0, TIME, whole);
    expect_different(whole, apart);
    expect_close(packed, apart, 0, TRAIN + 1); /* validation */
    expect_close(packed, apart, 1, 2);
    expect_close(packed, whole, 2, 2);
}
END_TEST

START_TEST(samples_of_a_shuffled_batch_keep_their_segments)
{
    source s = make_mixed_source();
    double each[LOSSES], loss;
    block_losses("model", &s, EQAT_SAMPLE_IDS | MARKS, TIME, each);
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data_options d = consecutive(TRAIN, VAL, TIME);
    eqat_data *data;
    eqat_block_ap_options o;
    eqat_block_ap *job;
    d.shuffle = true;
    OK(ctx, eqat_data_from_records(ctx, &data, fill, &s, EQAT_SAMPLE_IDS | MARKS, VOCAB, 0, &d));
    eqat_block_ap_options_init(&o, sizeof o);
    o.quant_lr = -1;
    o.weight_lr = -1;
    o.epochs = 8;
    OK(ctx, eqat_block_ap_create(model, &job, quantizer, data, &o));
    OK(ctx, eqat_block_ap_begin(job));
    for (int64_t epoch = 0; epoch < o.epochs; epoch++)
        for (int64_t step = 0; step < 2; step++) {
            double expected = 0;
            for (int64_t i = 0; i < 2; i++)
                expected += each[1 + eqat_data_order(data, epoch, 2 * step + i)] / 2;
            OK(ctx, eqat_block_ap_step(job, epoch, step, &loss));
            ck_assert_double_eq_tol(loss, expected, 1e-5 * expected);
        }
    eqat_block_ap_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(blocks_see_positions)
{
    source s = make_source();
    double stretched[LOSSES], expected[LOSSES], ignored[LOSSES];
    for (int i = 0; i < TOKENS; i++) s.positions[i] = 2 * (i % TIME);
    block_losses("stretched", &s, EQAT_SAMPLE_IDS | EQAT_SAMPLE_POSITIONS, TIME, stretched);
    block_losses("model", &s, 0, TIME, expected);
    block_losses("stretched", &s, 0, TIME, ignored);
    expect_close(stretched, expected, 0, 1);
    expect_different(ignored, expected);
}
END_TEST

/* ---- embeddings ---- */

/* Block-AP and E2E-QP of samples that say their input as `input`, saved under `name`. */
static const char *trained_on(source *s, int32_t input, const char *name)
{
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data *data = records(ctx, s, input | EQAT_SAMPLE_LABELS | MARKS);
    eqat_block_ap_options o;
    eqat_e2e_qp_options e;
    eqat_block_ap_options_init(&o, sizeof o);
    eqat_e2e_qp_options_init(&e, sizeof e);
    o.quant_lr = o.weight_lr = e.lr = 1e-3;
    e.batch_size = 3;
    OK(ctx, eqat_block_ap_quantize(model, quantizer, data, &o));
    OK(ctx, eqat_e2e_qp_train(model, data, &e));
    const char *path = save_as(ctx, model, name);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    return path;
}

START_TEST(embeddings_in_place_of_ids_give_the_same_bytes)
{
    source s = make_source();
    add_embeddings(&s);
    const char *ids = trained_on(&s, EQAT_SAMPLE_IDS, "by_ids"),
               *embeddings = trained_on(&s, EQAT_SAMPLE_EMBEDDINGS, "by_embeddings");
    ck_assert(same_folders(ids, embeddings));
    s.embeddings[3] += 0.5f;
    embeddings = trained_on(&s, EQAT_SAMPLE_EMBEDDINGS | EQAT_SAMPLE_IDS, "by_others");
    ck_assert(!same_folders(ids, embeddings)); /* they were looked at */
    free(s.embeddings);
}
END_TEST

START_TEST(embeddings_that_cannot_be_used)
{
    source s = make_source();
    add_embeddings(&s);
    eqat_context *ctx = make_context(1, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data *data = records(ctx, &s, EQAT_SAMPLE_EMBEDDINGS);
    eqat_perplexity p = {.struct_size = sizeof p};
    eqat_data_options o = consecutive(1, 0, TIME);
    eqat_block_ap *block_ap;
    eqat_e2e_qp *e2e_qp;
    says(ctx, eqat_eval_perplexity(model, data, NULL, &p), EQAT_INVALID_ARGUMENT,
         "found embeddings alone, expected labels");
    OK(ctx, eqat_model_quantize_rtn(model, quantizer, NULL));
    says(ctx, eqat_e2e_qp_create(model, &e2e_qp, data, NULL), EQAT_INVALID_ARGUMENT,
         "found embeddings alone, expected labels");
    eqat_data_free(data);
    eqat_model_free(model);
    model = open_model(ctx, "model", EQAT_F32);
    OK(ctx,
       eqat_data_from_records(ctx, &data, fill, &s, EQAT_SAMPLE_EMBEDDINGS, 0, HIDDEN + 1, &o));
    says(ctx, eqat_block_ap_create(model, &block_ap, quantizer, data, NULL), EQAT_INVALID_ARGUMENT,
         "embeddings: found hidden_size 65, expected 64");
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    free(s.embeddings);
}
END_TEST

/* ---- E2E-QP ---- */

#define Q0 "model.layers.0.self_attn.q_proj.scales"

/* The gradient of the first step, of all training samples, taken `micro` at a time; and its
 * loss. */
static float *step_gradient(source *s, int32_t fields, int64_t micro, double *loss, int64_t *n)
{
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data *data = records(ctx, s, fields);
    eqat_e2e_qp_options o;
    eqat_e2e_qp *job;
    eqat_tensor *scales;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = 4 * micro;
    o.micro_batch_size = micro;
    OK(ctx, eqat_model_quantize_rtn(model, quantizer, NULL));
    OK(ctx, eqat_e2e_qp_create(model, &job, data, &o));
    for (int64_t i = 0; i < eqat_e2e_qp_micro_steps(job, 0); i++)
        OK(ctx, eqat_e2e_qp_accumulate(job, 0, i, NULL));
    *loss = eqat_e2e_qp_loss(job, 0);
    OK(ctx, eqat_model_parameter(model, Q0, &scales));
    float *gradient = read_floats(eqat_tensor_grad(scales), n);
    eqat_e2e_qp_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    return gradient;
}

static void expect_gradient(const float *x, const float *expected, int64_t n)
{
    double size = 0;
    for (int64_t i = 0; i < n; i++) size = fmax(size, fabs((double)expected[i]));
    ck_assert_double_gt(size, 0);
    for (int64_t i = 0; i < n; i++)
        ck_assert_double_le(fabs((double)x[i] - (double)expected[i]), 1e-5 * size);
}

/* Samples with 16 labels and with none: a micro-batch weighs what it has. The first step of one
 * sample a micro-batch has samples 0 to 3, and of four all five. */
START_TEST(a_step_is_the_mean_over_its_labels)
{
    source s = make_source();
    const int32_t fields = EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS | MARKS;
    /* sample 4 like sample 1, without labels: the steps see the same */
    for (int t = 0; t < TIME; t++) s.labels[4 * TIME + t] = -1;
    for (int t = 8; t < TIME; t++) s.labels[2 * TIME + t] = -1;
    double loss[2];
    int64_t n;
    float *one = step_gradient(&s, fields, 1, &loss[0], &n),
          *four = step_gradient(&s, fields, 4, &loss[1], &n);
    expect_gradient(one, four, n);
    ck_assert_double_eq_tol(loss[0], loss[1], 1e-5);
    free(one);
    free(four);
    /* and a step without labels moves nothing */
    for (int i = 0; i < TOKENS; i++) s.labels[i] = -1;
    one = step_gradient(&s, fields, 2, &loss[0], &n);
    ck_assert_double_eq(loss[0], 0);
    for (int64_t i = 0; i < n; i++) ck_assert_float_eq(one[i], 0);
    free(one);
}
END_TEST

/* Loss of the quantized model on those labels. */
START_TEST(the_loss_is_that_of_the_labels)
{
    source s = make_source();
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    double loss;
    int64_t n, count;
    for (int i = 0; i < TOKENS; i++) s.positions[i] *= 3;
    OK(ctx, eqat_model_quantize_rtn(model, quantizer, NULL));
    double nll = nll_of_logits(ctx, model, &s, &count);
    free(step_gradient(&s, EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS | MARKS, 2, &loss, &n));
    ck_assert_double_eq_tol(loss, nll / (double)count, 1e-5);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

/* ---- what a model cannot take ---- */

START_TEST(labels_and_positions_beyond_the_model)
{
    source s = make_source();
    eqat_context *ctx = make_context(1, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data *data = records(ctx, &s, EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS | MARKS);
    eqat_perplexity p = {.struct_size = sizeof p};
    eqat_block_ap *job;
    s.labels[TIME + 2] = VOCAB;
    says(ctx, eqat_eval_perplexity(model, data, NULL, &p), EQAT_INVALID_ARGUMENT,
         "labels: found 96 at position 2");
    s.positions[5] = 512;
    says(ctx, eqat_block_ap_create(model, &job, quantizer, data, NULL), EQAT_INVALID_ARGUMENT,
         "positions: found 512 at 5, expected 0 to 511");
    ck_assert_ptr_null(job);
    says(ctx, eqat_eval_perplexity(model, data, NULL, &p), EQAT_INVALID_ARGUMENT,
         "positions: found 512 at 5");
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_models, scratch_clean);
    tcase_add_test(tc, perplexity_of_masked_labels);
    tcase_add_test(tc, perplexity_of_packed_sequences_is_that_of_sequences_apart);
    tcase_add_test(tc, blocks_see_segments);
    tcase_add_test(tc, samples_of_a_shuffled_batch_keep_their_segments);
    tcase_add_test(tc, blocks_see_positions);
    tcase_add_test(tc, embeddings_in_place_of_ids_give_the_same_bytes);
    tcase_add_test(tc, embeddings_that_cannot_be_used);
    tcase_add_test(tc, a_step_is_the_mean_over_its_labels);
    tcase_add_test(tc, the_loss_is_that_of_the_labels);
    tcase_add_test(tc, labels_and_positions_beyond_the_model);
    return run_case("samples", tc, CK_NOFORK);
}
