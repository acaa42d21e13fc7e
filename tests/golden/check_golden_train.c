/* Fifty steps of each phase against the trajectories of the PyTorch oracle; what stands in the
 * files, README.md says. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/source.h"
#include "public.h"
#include "train/block_ap.h"

enum { STEPS = 50 };

static const char *const families[] = {"llama",  "llama3",      "mistral",      "qwen2",
                                       "qwen3",  "smollm2",     "llama-linear", "llama-dynamic",
                                       "gemma3", "gemma3-full", "qwen3_moe",    "qwen3_moe-mixed"};

typedef struct golden {
    eqat_context *ctx;
    eqi_source *file;
    json_t *meta;
    char model[512];
} golden;

static golden open_golden(int family)
{
    golden g = {.ctx = make_context(2, 0)};
    char path[600];
    const char *root = getenv("EQAT_GOLDEN");
    snprintf(g.model, sizeof g.model, "%s/%s", root ? root : ".", families[family]);
    snprintf(path, sizeof path, "%s/expected.safetensors", g.model);
    OK(g.ctx, eqi_source_open_safetensors_file(g.ctx, &g.file, path));
    g.meta = json_loads(eqi_source_metadata(g.file, "meta"), 0, NULL);
    ck_assert_ptr_nonnull(g.meta);
    return g;
}

static eqat_model *open_golden_model(const golden *g)
{
    eqat_model_options o;
    eqat_model_options_init(&o, sizeof o);
    o.compute_dtype = EQAT_F32;
    eqat_model *model;
    OK(g->ctx, eqat_model_open(g->ctx, &model, g->model, &o));
    return model;
}

static void close_golden(golden *g)
{
    json_decref(g->meta);
    eqi_source_close(g->file);
    eqat_context_free(g->ctx);
}

static double number(const golden *g, const char *section, const char *key)
{
    json_t *at = section ? json_object_get(g->meta, section) : g->meta;
    ck_assert_msg(json_is_number(json_object_get(at, key)), "%s", key);
    return json_number_value(json_object_get(at, key));
}

/* The whole of "prefix" + "module" as floats; NULL when the file has none. */
static float *expected(const golden *g, const char *prefix, const char *module, int64_t *n)
{
    char name[160];
    snprintf(name, sizeof name, "%s%s", prefix, module);
    const eqi_source_entry *e = eqi_source_find(g->file, name);
    if (!e) return NULL;
    *n = e->elements;
    float *x = malloc((size_t)*n * sizeof *x);
    ck_assert_ptr_nonnull(x);
    if (e->stored == EQI_STORED_U8) {
        unsigned char *raw = malloc((size_t)*n);
        ck_assert_ptr_nonnull(raw);
        OK(g->ctx, eqi_source_read_raw(g->file, e, 0, (size_t)*n, raw));
        for (int64_t i = 0; i < *n; i++) x[i] = raw[i];
        free(raw);
    } else {
        OK(g->ctx, eqi_source_read_f32(g->file, e, 0, *n, x));
    }
    return x;
}

static eqat_data *tokens(const golden *g, const char *name)
{
    const eqi_source_entry *e = eqi_source_find(g->file, name);
    ck_assert_ptr_nonnull(e);
    int32_t *ids = malloc((size_t)e->bytes);
    ck_assert_ptr_nonnull(ids);
    OK(g->ctx, eqi_source_read_raw(g->file, e, 0, (size_t)e->bytes, ids));
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = e->shape[0];
    o.seq_len = e->shape[1];
    o.val_size = 0;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    o.shuffle = false;
    eqat_data *data;
    OK(g->ctx, eqat_data_from_tokens(g->ctx, &data, ids, (size_t)e->elements, 0, &o));
    free(ids);
    return data;
}

static double rms(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / (double)n);
}

/* rms(difference) / rms(movement) of a trained tensor. */
static void expect_moved(const golden *g, const char *what, const char *prefix, const char *module,
                         const float *start, eqat_tensor *trained, double bound)
{
    int64_t n, m;
    float *end = expected(g, prefix, module, &n), *found = read_floats(trained, &m);
    ck_assert_msg(end && n == m, "%s %s%s", what, prefix, module);
    double difference = rms(found, end, n), movement = rms(end, start, n);
    /* An expert without tokens stays where it is. */
    ck_assert(movement > 0 || strstr(module, ".experts."));
    ck_assert_msg(difference <= bound * movement, "%s %s%s: moved by %g, differs by %g", what,
                  prefix, module, movement, difference);
    free(end);
    free(found);
}

/* Exactly these values: a start. */
static float *expect_start(const golden *g, const char *prefix, const char *module, eqat_tensor *t)
{
    int64_t n, m;
    float *start = expected(g, prefix, module, &n), *found = read_floats(t, &m);
    ck_assert_msg(start && n == m && memcmp(start, found, (size_t)n * sizeof *start) == 0, "%s%s",
                  prefix, module);
    free(found);
    return start;
}

static void expect_losses(const golden *g, const char *what, const char *name, const double *losses)
{
    int64_t n;
    float *end = expected(g, name, "", &n);
    ck_assert(end && n == STEPS);
    for (int i = 0; i < STEPS; i++)
        ck_assert_msg(fabs(losses[i] - (double)end[i]) <= 1e-4 * (double)end[i],
                      "%s %s, step %d: found %.8g, expected %.8g", what, name, i, losses[i],
                      (double)end[i]);
    free(end);
}

enum { SCALES, ZEROS };              /* beside a weight */
enum { MOST = 64, MOST_BLOCKS = 4 }; /* linears of a block, blocks */

/* ---- Block-AP of block 0 ---- */

START_TEST(block_ap)
{
    const char *family = families[_i];
    golden g = open_golden(_i);
    eqat_model *model = open_golden_model(&g);
    eqat_quantizer *quantizer =
        make_quantizer(g.ctx, (int)number(&g, NULL, "bits"), (int)number(&g, NULL, "group_size"));
    eqat_data *data = tokens(&g, "bap.ids");
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.epochs = (int64_t)number(&g, "bap", "epochs");
    ck_assert_int_eq(o.batch_size, (int64_t)number(&g, "bap", "batch_size"));
    ck_assert_double_eq_tol(o.min_lr_factor * number(&g, "bap", "min_lr_factor"), 1, 1e-12);
    ck_assert_double_eq(1e-4, number(&g, "bap", "quant_lr")); /* the default */
    ck_assert_double_eq(number(&g, NULL, "bits") == 2 ? 2e-5 : 1e-5,
                        number(&g, "bap", "weight_lr")); /* the default */
    eqat_block_ap *job;
    OK(g.ctx, eqat_block_ap_create(model, &job, quantizer, data, &o));
    OK(g.ctx, eqat_block_ap_begin(job));
    const eqi_block *b = &job->work;
    float *w0[MOST], *s0[MOST], *z0[MOST], *gain0[MOST];
    ck_assert(b->n_linears <= MOST && b->n_norms <= MOST);
    int64_t n;
    for (int i = 0; i < b->n_linears; i++) {
        w0[i] = read_floats(b->linears[i].weight.w, &n);
        s0[i] = z0[i] = NULL;
        if (b->linears[i].plain) continue;
        s0[i] = expect_start(&g, "bap.s0.", b->linears[i].name, b->linears[i].beside[SCALES]);
        z0[i] = expect_start(&g, "bap.z0.", b->linears[i].name, b->linears[i].beside[ZEROS]);
    }
    for (int i = 0; i < b->n_norms; i++) gain0[i] = read_floats(b->norms[i].gain, &n);
    double losses[STEPS];
    int64_t per_epoch = eqat_block_ap_steps(job);
    ck_assert_int_eq(per_epoch * o.epochs, STEPS);
    for (int64_t k = 0; k < STEPS; k++)
        OK(g.ctx, eqat_block_ap_step(job, k / per_epoch, k % per_epoch, &losses[k]));
    expect_losses(&g, family, "bap.loss", losses);
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        expect_moved(&g, family, "bap.w.", l->name, w0[i], l->weight.w, 1e-2);
        free(w0[i]);
        if (l->plain) continue;
        expect_moved(&g, family, "bap.s.", l->name, s0[i], l->beside[SCALES], 1e-2);
        expect_moved(&g, family, "bap.z.", l->name, z0[i], l->beside[ZEROS], 5e-2);
        free(s0[i]);
        free(z0[i]);
    }
    for (int i = 0; i < b->n_norms; i++) {
        char module[96];
        snprintf(module, sizeof module, "%.*s", (int)(strlen(b->norms[i].name) - strlen(".weight")),
                 b->norms[i].name);
        expect_moved(&g, family, "bap.gain.", module, gain0[i], b->norms[i].gain, 1e-2);
        free(gain0[i]);
    }
    eqat_block_ap_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    close_golden(&g);
}
END_TEST

/* ---- the freeze: codes, bit for bit, from the oracle's trained tensors ---- */

static void set_floats(const golden *g, const char *prefix, const char *module, eqat_tensor *t)
{
    int64_t n;
    float *x = expected(g, prefix, module, &n);
    ck_assert_ptr_nonnull(x);
    OK(g->ctx, eqat_tensor_write(t, x, (size_t)n * sizeof *x));
    free(x);
}

static void expect_codes(const golden *g, const char *prefix, const eqi_linear *l)
{
    int64_t n, words = l->in / 32 * l->weight.q.bits;
    float *q = expected(g, prefix, l->name, &n);
    uint32_t *packed = malloc((size_t)(l->out * words) * sizeof *packed);
    ck_assert(q && packed && n == l->out * l->in);
    OK(g->ctx,
       eqat_tensor_read(l->weight.codes, packed, (size_t)(l->out * words) * sizeof *packed));
    for (int64_t i = 0; i < n; i++) {
        int64_t bit = i % l->in * l->weight.q.bits;
        const uint32_t *word = packed + i / l->in * words + bit / 32;
        uint64_t two = word[0];
        if (bit % 32 + l->weight.q.bits > 32) two |= (uint64_t)word[1] << 32;
        uint32_t code = (uint32_t)(two >> bit % 32) & ((1u << l->weight.q.bits) - 1);
        ck_assert_msg(code == (uint32_t)q[i], "%s%s: code %d", prefix, l->name, (int)i);
    }
    free(packed);
    free(q);
}

START_TEST(freeze)
{
    golden g = open_golden(_i);
    eqat_model *model = open_golden_model(&g);
    eqat_quantizer *quantizer =
        make_quantizer(g.ctx, (int)number(&g, NULL, "bits"), (int)number(&g, NULL, "group_size"));
    eqat_data *data = tokens(&g, "bap.ids");
    eqat_block_ap *job;
    OK(g.ctx, eqat_block_ap_create(model, &job, quantizer, data, NULL));
    OK(g.ctx, eqat_block_ap_begin(job));
    for (int i = 0; i < job->work.n_linears; i++) {
        const eqi_linear *l = &job->work.linears[i];
        set_floats(&g, "bap.w.", l->name, l->weight.w);
        if (l->plain) continue;
        set_floats(&g, "bap.s.", l->name, l->beside[SCALES]);
        set_floats(&g, "bap.z.", l->name, l->beside[ZEROS]);
    }
    OK(g.ctx, eqat_block_ap_finish(job));
    const eqi_block *b = &model->blocks[0];
    for (int i = 0; i < b->n_linears; i++) {
        if (b->linears[i].plain) continue;
        free(expect_start(&g, "bap.s16.", b->linears[i].name, b->linears[i].weight.s));
        expect_codes(&g, "bap.q.", &b->linears[i]);
    }
    eqat_block_ap_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    close_golden(&g);
}
END_TEST

/* ---- E2E-QP of the whole model ---- */

START_TEST(e2e_qp)
{
    const char *family = families[_i];
    golden g = open_golden(_i);
    eqat_model *model = open_golden_model(&g);
    eqat_quantizer *quantizer =
        make_quantizer(g.ctx, (int)number(&g, NULL, "bits"), (int)number(&g, NULL, "group_size"));
    OK(g.ctx, eqat_model_quantize_rtn(model, quantizer, NULL));
    eqat_data *data = tokens(&g, "e2e.ids");
    bool z_trains =
        !strcmp(json_string_value(json_object_get(json_object_get(g.meta, "e2e"), "params")), "sz");
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = (int64_t)number(&g, "e2e", "batch_size");
    o.micro_batch_size = (int64_t)number(&g, "e2e", "micro_batch");
    o.epochs = (int64_t)number(&g, "e2e", "epochs");
    o.params = z_trains ? EQAT_E2E_SZ : EQAT_E2E_S;
    ck_assert_double_eq(o.max_grad_norm, number(&g, "e2e", "clip_norm"));
    ck_assert_double_eq(o.warmup_ratio, number(&g, "e2e", "warmup_ratio"));
    ck_assert_double_eq(number(&g, NULL, "bits") == 2 ? 2e-5 : 1e-5,
                        number(&g, "e2e", "lr")); /* the default */
    const eqi_linear *linears[MOST_BLOCKS * MOST];
    float *s0[MOST_BLOCKS * MOST], *z0[MOST_BLOCKS * MOST];
    int count = 0;
    for (int64_t b = 0; b < model->config.blocks; b++)
        for (int i = 0; i < model->blocks[b].n_linears; i++) {
            if (model->blocks[b].linears[i].plain) continue;
            ck_assert_int_lt(count, MOST_BLOCKS * MOST);
            linears[count++] = &model->blocks[b].linears[i];
        }
    eqat_e2e_qp *job;
    OK(g.ctx, eqat_e2e_qp_create(model, &job, data, &o));
    ck_assert_int_eq(eqat_e2e_qp_steps(job), STEPS);
    for (int i = 0; i < count; i++) {
        const eqi_linear *l = linears[i];
        int64_t n;
        expect_codes(&g, "e2e.q.", l);
        s0[i] = expect_start(&g, "e2e.s0.", l->name, l->weight.s);
        z0[i] = z_trains ? expect_start(&g, "e2e.z.", l->name, l->weight.z)
                         : expected(&g, "e2e.z.", l->name, &n);
    }
    double losses[STEPS];
    for (int64_t step = 0; step < STEPS; step++) {
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++)
            OK(g.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        OK(g.ctx, eqat_e2e_qp_step(job));
        losses[step] = eqat_e2e_qp_loss(job, step);
    }
    expect_losses(&g, family, "e2e.loss", losses);
    for (int i = 0; i < count; i++) {
        const eqi_linear *l = linears[i];
        expect_moved(&g, family, "e2e.s.", l->name, s0[i], l->weight.s, 1e-2);
        if (z_trains) expect_moved(&g, family, "e2e.z_end.", l->name, z0[i], l->weight.z, 5e-2);
        free(s0[i]);
        free(z0[i]);
    }
    eqat_e2e_qp_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    close_golden(&g);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_loop_test(tc, block_ap, 0, EQI_COUNT(families));
    tcase_add_loop_test(tc, freeze, 0, EQI_COUNT(families));
    tcase_add_loop_test(tc, e2e_qp, 0, EQI_COUNT(families));
    return run_case("golden trajectories", tc, CK_NOFORK);
}
