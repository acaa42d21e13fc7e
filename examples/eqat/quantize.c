#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "input.h"
#include "judge.h"
#include "need.h"
#include "output.h"
#include "record.h"
#include "rules.h"
#include "tool.h"
#include "trained.h"

static const char *const data_fields[] = {
    "train_size", "val_size", "seq_len", "sampling", "shuffle", "rank", "world", "text_key", NULL};
static const char *const e2e_data_fields[] = {"train_size", "val_size", "seq_len", NULL};

#define RECIPE "best"
static const char *recipes[8]; /* the library's, NULL-terminated */
static const char *const methods[] = {"rtn", "block-ap", "efficientqat", NULL};

typedef enum method { RTN, BLOCK_AP, EFFICIENTQAT } method; /* as methods */

typedef struct job {
    tool t;
    eqat_model_options model;
    eqat_quantizer_options quantizer;
    eqat_allocate_options allocate;
    eqat_quantizer *allocated; /* with the rules that it has added; NULL: none */
    eqat_data_options data, e2e_data;
    eqat_block_ap_options block_ap;
    eqat_e2e_qp_options e2e;
    eqat_save_options save;
    const char *path, *calib_file, *e2e_file, *teacher_file, *method_name, *recipe;
    const char *calib_flag, *e2e_flag; /* one given of the many about Block-AP, about E2E-QP */
    method method;
    bool quantizes; /* not e2e-qp */
    bool keep_ends;
    output out;
    checkpoint kept;
    judge judge;
    flag_values rules;
    input calib, e2e_in; /* path NULL: E2E-QP trains on the calibration data */
    eqat_block_ap *ap;   /* while it runs */
    eqat_e2e_qp *end_to_end;
    int64_t block, blocks; /* of it, in work; in all */
    double block_started, epoch_started;
} job;

/* The last one given, wherever it stands: what a recipe says comes before all other flags. */
static const char *recipe_of(int argc, char **argv)
{
    const char *recipe = RECIPE;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "--recipe=", 9)) recipe = argv[i] + 9;
        if (!strcmp(argv[i], "--recipe") && i + 1 < argc) recipe = argv[i + 1];
    }
    return recipe;
}

/* The whole of a recipe; an unknown one leaves what there is, and the flags are refused. */
static void take_recipe(job *j, const char *recipe)
{
    for (size_t i = 0; i + 1 < sizeof recipes / sizeof *recipes; i++)
        if (!(recipes[i] = eqat_recipe_name(i))) break;
    j->recipe = recipe;
    eqat_recipe_take(NULL, recipe, "quantizer", &j->quantizer);
    eqat_recipe_take(NULL, recipe, "data", &j->data);
    eqat_recipe_take(NULL, recipe, "block_ap", &j->block_ap);
    eqat_recipe_take(NULL, recipe, "e2e_data", &j->e2e_data);
    eqat_recipe_take(NULL, recipe, "e2e_qp", &j->e2e);
}

static void init(job *j, int argc, char **argv)
{
    *j = (job){.kept = {.folder = -1}};
    eqat_context_options_init(&j->t.context, sizeof j->t.context);
    eqat_model_options_init(&j->model, sizeof j->model);
    eqat_quantizer_options_init(&j->quantizer, sizeof j->quantizer);
    eqat_allocate_options_init(&j->allocate, sizeof j->allocate);
    eqat_data_options_init(&j->data, sizeof j->data);
    eqat_data_options_init(&j->e2e_data, sizeof j->e2e_data);
    eqat_block_ap_options_init(&j->block_ap, sizeof j->block_ap);
    eqat_e2e_qp_options_init(&j->e2e, sizeof j->e2e);
    eqat_save_options_init(&j->save, sizeof j->save);
    take_recipe(j, recipe_of(argc, argv));
}

#define RECIPE_FLAG(j)                                                                            \
    {                                                                                             \
        .name = "recipe", .value = "WORD",                                                        \
        .help = "options that go together, before all other flags: best, or paper to the letter " \
                "(default: " RECIPE ")",                                                          \
        .text = &(j)->recipe, .words = recipes                                                    \
    }
#define TEACHER_FLAG(j, fallback)                                                       \
    {                                                                                   \
        .name = "teacher", .value = "MODEL",                                            \
        .help = "E2E-QP learns from this model, commonly the one before quantization, " \
                "besides the text; --e2e-teacher-share tells how much; none: from the " \
                "text alone (default: " fallback ")",                                   \
        .text = &(j)->teacher_file                                                      \
    }

static int usage_error(const char *text)
{
    fprintf(stderr, "eqat: %s\n", text);
    return 2;
}

/* The windows of E2E-QP are drawn like those of the calibration. */
static void share_sampling(job *j)
{
    j->e2e_data.sampling = j->data.sampling;
    j->e2e_data.shuffle = j->data.shuffle;
    j->e2e_data.rank = j->data.rank;
    j->e2e_data.world = j->data.world;
    j->e2e_data.text_key = j->data.text_key;
}

/* What would be ignored is told. */
static int unused_flag(const job *j, const char *flag, const char *expected)
{
    fprintf(stderr, "eqat: %.*s: found it with --method %s, expected %s\n", (int)strcspn(flag, "="),
            flag, j->method_name, expected);
    return 2;
}

/* None is one, too: it overrides the recipe. */
static void choose_teacher(job *j)
{
    const char *field, *value;
    bool source = j->quantizes && j->method == EFFICIENTQAT &&
        eqat_recipe_option(j->recipe, "run", 0, &field, &value) == EQAT_OK;
    if (!j->teacher_file && source) j->teacher_file = j->path;
    if (j->teacher_file && !strcmp(j->teacher_file, "none")) j->teacher_file = NULL;
}

static int choose_method(job *j)
{
    const char *calib = j->calib_file ? "--calib" : j->calib_flag,
               *e2e = j->e2e_file ? "--e2e"
        : j->teacher_file         ? "--teacher"
                                  : j->e2e_flag;
    const char *name = j->method_name ? j->method_name : j->e2e_file ? "efficientqat" : "block-ap";
    j->method_name = name;
    while (strcmp(methods[j->method], name)) j->method++;
    if (j->method == RTN && calib) return unused_flag(j, calib, "block-ap or efficientqat");
    if (j->method != EFFICIENTQAT && e2e) return unused_flag(j, e2e, "efficientqat");
    if (j->method != RTN && !j->calib_file)
        return usage_error("--calib: expected a file of calibration text or tokens");
    if (j->method == RTN && j->allocate.bits_per_weight > 0)
        return unused_flag(j, "bits-per-weight", "block-ap or efficientqat");
    return -1;
}

/* Those of all linears of the model, by their names. */
static eqat_status add_allocated(const job *j, eqat_model *model, eqat_quantizer *to)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    eqat_status st = EQAT_OK;
    for (int64_t b = 0; st == EQAT_OK && eqat_model_linear_count(model, b) > 0; b++)
        for (int64_t i = 0; st == EQAT_OK && i < eqat_model_linear_count(model, b); i++) {
            eqat_quantizer_options o = {.struct_size = sizeof o};
            st = eqat_model_linear(model, b, i, &l);
            if (st == EQAT_OK && eqat_quantizer_lookup(j->allocated, l.name, &o))
                st = eqat_quantizer_add_rule(to, l.name, &o);
        }
    return st;
}

static eqat_status make_quantizer(void *user, eqat_model *model, eqat_quantizer **out)
{
    job *j = user;
    eqat_status st = eqat_quantizer_create(j->t.ctx, out, &j->quantizer);
    if (st == EQAT_OK) st = rules_add(&j->t, &j->rules, &j->quantizer, model, *out);
    if (st == EQAT_OK && j->allocated) st = add_allocated(j, model, *out);
    if (st == EQAT_OK) st = eqat_model_check_save(model, *out, &j->save);
    return st;
}

static void end_block(job *j)
{
    double now = tool_seconds();
    trained_block(&j->t, j->ap, j->block, j->blocks, now - j->block_started);
    j->block_started = now;
}

/* ---- checkpoints ---- */

static eqat_status save_blocks(void *ap, const char *path) { return eqat_block_ap_save(ap, path); }
static eqat_status save_scales(void *e2e, const char *path) { return eqat_e2e_qp_save(e2e, path); }

/* Within a block an interrupt waits for the end of a step, which can be saved; from the end of a
 * block to the first step of the next one nothing is lost that was not saved. */
static bool keep_blocks(job *j, const eqat_progress *p, bool ends_epoch)
{
    bool last = ends_epoch && (p->epoch + 1 == p->epochs || j->block_ap.early_stop);
    bool due = checkpoint_due(&j->kept);
    if (!j->kept.dir) return false;
    tool_hold_interrupts(!last);
    if (last || due || tool_interrupted())
        checkpoint_save(&j->t, &j->kept, "block-ap", save_blocks, j->ap);
    return tool_interrupted();
}

/* Of a job that was just created; true when it goes on. */
static eqat_status load_blocks(job *j)
{
    char *path = checkpoint_state(&j->kept, "block-ap");
    if (!path) return EQAT_OK;
    eqat_status st = eqat_block_ap_load(j->ap, path);
    free(path);
    j->block = eqat_block_ap_block(j->ap);
    if (st == EQAT_OK) checkpoint_resumed(&j->t, &j->kept, "block-ap");
    return st;
}

static eqat_status load_scales(job *j)
{
    char *path = checkpoint_state(&j->kept, "e2e-qp");
    if (!path) return EQAT_OK;
    eqat_status st = eqat_e2e_qp_load(j->end_to_end, path);
    free(path);
    if (st == EQAT_OK) checkpoint_resumed(&j->t, &j->kept, "e2e-qp");
    return st;
}

/* E2E-QP can be cancelled within a step, and saved behind the one before. */
static int32_t e2e_progress(void *user, const eqat_progress *p)
{
    job *j = user;
    int32_t stop = tool_progress(&j->t, p);
    if (checkpoint_due(&j->kept) || p->step == p->steps)
        checkpoint_save(&j->t, &j->kept, "e2e-qp", save_scales, j->end_to_end);
    return stop;
}

static eqat_status run_end_to_end(job *j)
{
    eqat_status st = eqat_e2e_qp_run(j->end_to_end);
    if (st != EQAT_CANCELLED) return st;
    checkpoint_save(&j->t, &j->kept, "e2e-qp", save_scales, j->end_to_end);
    return tool_fail(&j->t, st, "cancelled");
}

static int32_t block_progress(void *user, const eqat_progress *p)
{
    job *j = user;
    j->blocks = p->blocks;
    if (p->block != j->block) end_block(j);
    j->block = p->block;
    int32_t stop = tool_progress(&j->t, p);
    bool ends_epoch = p->step % eqat_block_ap_steps(j->ap) == 0;
    if (ends_epoch) {
        double now = tool_seconds();
        trained_epoch(&j->t, j->ap, p, now - j->epoch_started);
        j->epoch_started = now;
    }
    return keep_blocks(j, p, ends_epoch) ? 1 : stop;
}

static eqat_status train_blocks(job *j, eqat_model *model, const eqat_quantizer *quantizer,
                                eqat_data *data)
{
    j->block_ap.progress_user = j;
    j->block_ap.between_user = &j->t;
    j->block_started = j->epoch_started = tool_seconds();
    tool_begin_phase(&j->t, "block-ap");
    eqat_status st = eqat_block_ap_create(model, &j->ap, quantizer, data, &j->block_ap);
    if (st == EQAT_OK) st = load_blocks(j);
    bool trained = st == EQAT_OK && !eqat_block_ap_stages(j->ap, eqat_block_ap_block(j->ap));
    if (st == EQAT_OK && !trained) st = eqat_block_ap_run(j->ap);
    tool_hold_interrupts(false);
    if (st == EQAT_OK && !trained) {
        end_block(j);
        tool_end_phase(&j->t);
        checkpoint_save(&j->t, &j->kept, "block-ap", save_blocks, j->ap);
    }
    if (st == EQAT_OK) trained_blocks(&j->t, j->ap, j->block_ap.epochs);
    eqat_block_ap_free(j->ap);
    j->ap = NULL;
    return st;
}

static eqat_status check_need(job *j, eqat_model *model, const eqat_quantizer *quantizer,
                              const eqat_data *data)
{
    need n = {.model = model,
              .quantizer = quantizer,
              .model_options = &j->model,
              .block_ap = &j->block_ap,
              .e2e = &j->e2e,
              .checkpoint_dir = j->kept.dir,
              .out = j->out.path,
              .format = j->save.format,
              .keep_ends = j->keep_ends};
    if (quantizer && data) {
        n.data = &j->data;
        n.train = eqat_data_train_size(data);
        n.val = eqat_data_val_size(data);
    }
    if (n.data && !j->judge.off) n.judged = judge_windows(n.train, j->block_ap.epochs, n.val);
    if (j->method == EFFICIENTQAT) n.e2e_data = &j->e2e_data;
    n.stages = j->quantizes && j->method == EFFICIENTQAT;
    if (!quantizer) n.e2e_train = eqat_data_train_size(data);
    n.e2e_val = j->e2e_data.val_size;
    return need_check(&j->t, &n);
}

static eqat_status train_end_to_end(job *j, eqat_model *model, eqat_data *data)
{
    tool_begin_phase(&j->t, "e2e-qp");
    eqat_status st = eqat_e2e_qp_create(model, &j->end_to_end, data, &j->e2e);
    const eqat_e2e_qp *e2e = j->end_to_end;
    if (st == EQAT_OK) st = load_scales(j);
    if (st == EQAT_OK) st = run_end_to_end(j);
    if (st == EQAT_OK) {
        trained_end_to_end(&j->t, e2e);
        tool_end_phase(&j->t);
    }
    eqat_e2e_qp_free(j->end_to_end);
    j->end_to_end = NULL;
    return st;
}

static eqat_status open_e2e_data(job *j, eqat_model *model, eqat_data **out)
{
    return input_open(&j->t, j->e2e_in.path ? &j->e2e_in : &j->calib, model, &j->e2e_data, out);
}

/* Whether the format takes whatever bits may be chosen. */
static eqat_status check_bits(job *j, eqat_model *model)
{
    const int32_t bits = j->quantizer.bits;
    eqat_status st = EQAT_OK;
    for (j->quantizer.bits = 2; j->quantizer.bits <= 4 && st == EQAT_OK; j->quantizer.bits++) {
        eqat_quantizer *any = NULL;
        st = make_quantizer(j, model, &any);
        eqat_quantizer_free(any);
    }
    j->quantizer.bits = bits;
    return st;
}

/* Sensitivity is measured anew by a run that goes on, to the same end. */
static eqat_status allocate(job *j, eqat_model *model, eqat_data *data, eqat_quantizer **quantizer)
{
    if (!(j->allocate.bits_per_weight > 0)) return EQAT_OK;
    j->allocate.progress = tool_between;
    j->allocate.progress_user = &j->t;
    eqat_status st = check_bits(j, model);
    if (st != EQAT_OK) return st;
    tool_begin_phase(&j->t, "allocate");
    j->allocated = *quantizer;
    st = eqat_quantizer_allocate(j->allocated, model, data, &j->allocate);
    if (st == EQAT_OK) st = make_quantizer(j, model, quantizer);
    if (st == EQAT_OK) tool_end_phase(&j->t);
    if (*quantizer == j->allocated) *quantizer = NULL;
    return st;
}

/* What E2E-QP would refuse after Block-AP is refused before it; the result of Block-AP outlives
 * whatever happens to E2E-QP. */
static eqat_status run_both(job *j, eqat_model *model, eqat_quantizer **quantizer, eqat_data *data)
{
    eqat_data *e2e_data = NULL;
    eqat_status st = output_check_stage(&j->t, &j->out, &j->save);
    if (st == EQAT_OK) st = open_e2e_data(j, model, &e2e_data);
    if (st == EQAT_OK) st = eqat_e2e_qp_check(model, *quantizer, e2e_data, &j->e2e);
    if (st == EQAT_OK) st = allocate(j, model, data, quantizer);
    if (st == EQAT_OK) st = check_need(j, model, *quantizer, data);
    if (st == EQAT_OK) st = train_blocks(j, model, *quantizer, data);
    if (st == EQAT_OK) st = output_save_stage(&j->t, &j->out, model, &j->save);
    if (st == EQAT_OK) st = train_end_to_end(j, model, e2e_data);
    eqat_data_free(e2e_data);
    return st;
}

static eqat_status take_windows(job *j, eqat_data *data)
{
    int64_t n =
        judge_windows(eqat_data_train_size(data), j->block_ap.epochs, eqat_data_val_size(data));
    return judge_take(&j->t, &j->judge, data, n);
}

static eqat_status run_trained(job *j, eqat_model *model, eqat_quantizer **quantizer)
{
    eqat_data *data = NULL;
    eqat_status st = input_open(&j->t, &j->calib, model, &j->data, &data);
    if (st == EQAT_OK && j->method == EFFICIENTQAT) {
        st = run_both(j, model, quantizer, data);
    } else if (st == EQAT_OK) {
        st = allocate(j, model, data, quantizer);
        if (st == EQAT_OK) st = check_need(j, model, *quantizer, data);
        if (st == EQAT_OK) st = train_blocks(j, model, *quantizer, data);
    }
    if (st == EQAT_OK) st = take_windows(j, data);
    eqat_data_free(data);
    return st;
}

static eqat_status run_quantize(job *j, eqat_model *model)
{
    eqat_quantizer *quantizer = NULL;
    eqat_status st = make_quantizer(j, model, &quantizer);
    if (st == EQAT_OK && j->method == RTN) {
        eqat_rtn_options rounding = tool_rtn_options(&j->t);
        st = check_need(j, model, quantizer, NULL);
        if (st == EQAT_OK) st = eqat_model_quantize_rtn(model, quantizer, &rounding);
    } else if (st == EQAT_OK) {
        st = run_trained(j, model, &quantizer);
    }
    eqat_quantizer_free(quantizer);
    return st;
}

static eqat_status run_e2e(job *j, eqat_model *model)
{
    eqat_data *data = NULL;
    eqat_status st = eqat_model_check_save(model, NULL, &j->save);
    if (st == EQAT_OK) st = open_e2e_data(j, model, &data);
    if (st == EQAT_OK) st = eqat_e2e_qp_check(model, NULL, data, &j->e2e);
    if (st == EQAT_OK) st = check_need(j, model, NULL, data);
    if (st == EQAT_OK) st = train_end_to_end(j, model, data);
    eqat_data_free(data);
    return st;
}

/* ---- both commands ---- */

static void record_job(job *j, const char *command, int argc, char **argv)
{
    bool quantizes = j->quantizes = !strcmp(command, "quantize");
    choose_teacher(j);
    j->t.run = record_new(command, argc, argv);
    json_object_set_new(j->t.run, "model", tool_text(j->path));
    json_object_set_new(j->t.run, "out", tool_text(j->out.path));
    json_object_set_new(j->t.run, "recipe", json_string(j->recipe));
    if (j->teacher_file) json_object_set_new(j->t.run, "teacher", tool_text(j->teacher_file));
    if (quantizes) {
        json_object_set_new(j->t.run, "method", json_string(j->method_name));
        json_object_set_new(j->t.run, "rules", rules_json(&j->rules, &j->quantizer));
        record_options(j->t.run, "quantizer", "quantizer", &j->quantizer);
        if (j->allocate.bits_per_weight > 0)
            record_options(j->t.run, "allocate", "allocate", &j->allocate);
    }
    if (quantizes && j->method != RTN) {
        record_options(j->t.run, "data", "data", &j->data);
        record_options(j->t.run, "block_ap", "block_ap", &j->block_ap);
    }
    if (j->method == EFFICIENTQAT) {
        record_options(j->t.run, "e2e_data", "data", &j->e2e_data);
        record_options(j->t.run, "e2e_qp", "e2e_qp", &j->e2e);
    }
    record_options(j->t.run, "save", "save", &j->save);
    record_options(j->t.run, "model", "model", &j->model);
}

static bool take_inputs(job *j)
{
    const char *use = j->calib_file ? "e2e" : "data";
    bool same = j->calib_file && j->e2e_file && !strcmp(j->calib_file, j->e2e_file);
    if (j->calib_file && !input_take(&j->t, &j->calib, "calib", j->calib_file)) return false;
    if (!j->e2e_file || same) return true;
    return input_take(&j->t, &j->e2e_in, use, j->e2e_file);
}

static void release_inputs(job *j)
{
    input_release(&j->calib);
    input_release(&j->e2e_in);
}

static int open_job(job *j, const char *command, int argc, char **argv)
{
    share_sampling(j);
    j->out.model = j->path;
    j->t.keeps = true;
    j->block_ap.progress = block_progress;
    j->block_ap.between = j->e2e.between = tool_between;
    j->e2e.progress = e2e_progress;
    j->e2e.progress_user = j;
    j->e2e.between_user = &j->t;
    record_job(j, command, argc, argv);
    int code = take_inputs(j) ? tool_open(&j->t) : tool_give_up(&j->t);
    if (code) release_inputs(j);
    return code;
}

static int close_job(job *j, eqat_status status)
{
    release_inputs(j);
    eqat_quantizer_free(j->allocated);
    judge_release(&j->judge);
    checkpoint_close(&j->kept, status == EQAT_OK && !j->judge.cut && !j->out.staged);
    int code = tool_close(&j->t, status);
    return code == 0 && j->judge.worse ? 3 : code;
}

static eqat_status open_model(job *j, eqat_model **out)
{
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_status st = eqat_model_open(j->t.ctx, out, j->path, &j->model);
    if (st == EQAT_OK) st = eqat_model_inspect(*out, &info);
    j->t.input_bytes = info.bytes;
    return st;
}

/* With the model's options, so that both compute alike. */
static eqat_status open_teacher(job *j)
{
    if (!j->teacher_file) return EQAT_OK;
    return eqat_model_open(j->t.ctx, &j->e2e.teacher, j->teacher_file, &j->model);
}

static void judge_model(job *j, eqat_model *result, long long log_bytes)
{
    judge_result(&j->t, &j->judge, result, j->path, &j->model, make_quantizer, j);
    output_log_on(&j->t, &j->out, &j->save, log_bytes);
}

static bool judges(const job *j) { return j->quantizes && j->method != RTN && !j->judge.off; }

/* Which another run of this command has put in its place; a checkpoint is still there when that one
 * was ended before it had judged it. */
static eqat_status find_result(job *j)
{
    eqat_model *model = NULL;
    eqat_data *data = NULL;
    long long log_bytes = tool_log_bytes(&j->t);
    bool left = judges(j) && (j->kept.manifest || !j->kept.dir);
    eqat_status st = output_found(&j->t, &j->out);
    if (st != EQAT_OK || !left) return st;
    st = open_model(j, &model);
    if (st == EQAT_OK) st = input_open(&j->t, &j->calib, model, &j->data, &data);
    if (st == EQAT_OK) st = take_windows(j, data);
    eqat_data_free(data);
    eqat_model_free(model);
    if (st != EQAT_OK || !j->judge.ids) return st;
    st = eqat_model_open(j->t.ctx, &model, j->out.path, &j->model);
    if (st == EQAT_OK) judge_model(j, model, log_bytes);
    return st;
}

static eqat_status make_result(job *j, eqat_status (*run)(job *j, eqat_model *model))
{
    eqat_model *model = NULL;
    eqat_status st = checkpoint_open(&j->t, &j->kept, &j->out);
    bool left = !j->kept.dir && judges(j) && judge_is_left(&j->t, &j->out);
    if (st == EQAT_OK && (j->kept.placed || left)) return find_result(j);
    if (st == EQAT_OK) st = output_check(&j->t, &j->out, &j->save);
    if (st == EQAT_OK) st = open_model(j, &model);
    if (st == EQAT_OK) st = open_teacher(j);
    if (st == EQAT_OK) st = run(j, model);
    eqat_model_free(j->e2e.teacher);
    if (st == EQAT_OK) st = output_save(&j->t, &j->out, model, &j->save);
    output_end_stage(&j->t, &j->out, st);
    if (st == EQAT_OK && j->judge.ids) {
        judge_model(j, model, -1);
        return st;
    }
    eqat_model_free(model);
    return st;
}

int command_quantize(int argc, char **argv)
{
    job j;
    init(&j, argc, argv);
    const flag_own own[] = {
        {.name = "out",
         .value = "DIR",
         .help = "where the quantized model goes: a new or empty folder, or a new file",
         .text = &j.out.path},
        FORCE_FLAG(&j.out),
        {.name = "calib",
         .value = "FILE",
         .help = "Block-AP trains on it: .txt .jsonl .npy .u16 .u32; - for text on standard input",
         .text = &j.calib_file},
        {.name = "e2e",
         .value = "FILE",
         .help = "E2E-QP trains on it (default: the one of --calib)",
         .text = &j.e2e_file},
        {.name = "method",
         .value = "WORD",
         .help = "rtn, block-ap or efficientqat (default: efficientqat with --e2e, else block-ap)",
         .text = &j.method_name,
         .words = methods},
        {.name = "rule",
         .value = "PATTERN=BITS[,GROUP]",
         .help = "other bits and groups for linears whose name matches: '*.down_proj=4,32'; may be "
                 "repeated, the last match counts",
         .list = &j.rules},
        {.name = "skip",
         .value = "PATTERN",
         .help = "linears that stay as they are: '*.layers.0.*'; a rule, too",
         .list = &j.rules},
        {.name = "keep-ends",
         .help = "embeddings and head keep the source's type: refuse a format that has only wider "
                 "ones",
         .on = &j.keep_ends},
        RECIPE_FLAG(&j),
        TEACHER_FLAG(&j, "the MODEL itself, where the recipe is best"),
        CHECKPOINT_FLAGS(&j.kept),
        {.name = "no-judge",
         .help = "do not end with the perplexities of input, round to nearest and result on "
                 "validation samples",
         .on = &j.judge.off},
        TOOL_FLAGS(&j.t),
    };
    const flag_group groups[] = {
        {"Quantization", "quantizer", "", &j.quantizer, NULL},
        {"Bits by sensitivity", "allocate", "", &j.allocate, NULL, &j.calib_flag},
        {"Calibration data", "data", "", &j.data, data_fields, &j.calib_flag},
        {"Block-AP", "block_ap", "", &j.block_ap, NULL, &j.calib_flag},
        {"E2E-QP data", "data", "e2e-", &j.e2e_data, e2e_data_fields, &j.e2e_flag},
        {"E2E-QP", "e2e_qp", "e2e-", &j.e2e, NULL, &j.e2e_flag},
        {"Saving", "save", "", &j.save, NULL},
        {"Computing", "model", "", &j.model, NULL},
        {"Context", "context", "", &j.t.context, tool_context_fields},
    };
    const flag_set set = {
        "quantize MODEL --out DIR [--bits N] [--group-size N] [--calib FILE] "
        "[--e2e FILE] [--method WORD] ...",
        "Quantizes a Hugging Face folder or a GGUF file and writes a Hugging "
        "Face folder, by default in the gptq_v2 layout. Embeddings, head and norms keep their "
        "type; those that a GGUF file has in fewer than 16 bits become F16, for "
        "such a folder holds no others; with --format gguf they stay as they are.",
        own,
        sizeof own / sizeof *own,
        groups,
        sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &j.path);
    if (code >= 0) return code;
    if (!j.path) return usage_error("quantize: expected a MODEL");
    if (!j.out.path || !*j.out.path)
        return usage_error("quantize: --out: expected a folder for the result");
    code = choose_method(&j);
    if (code < 0) code = rules_check(&j.rules);
    if (code < 0) code = checkpoint_check(&j.kept);
    if (code >= 0) return code;
    code = open_job(&j, "quantize", argc, argv);
    if (code) return code;
    tool_set(&j.t, "method", json_string(j.method_name));
    tool_set(&j.t, "bits", json_integer(j.quantizer.bits));
    tool_set(&j.t, "group_size", json_integer(j.quantizer.group_size));
    return close_job(&j, make_result(&j, run_quantize));
}

int command_e2e_qp(int argc, char **argv)
{
    static const char *const sampling_fields[] = {"sampling", "shuffle",  "rank",
                                                  "world",    "text_key", NULL};
    job j;
    init(&j, argc, argv);
    j.method = EFFICIENTQAT;
    const flag_own own[] = {
        {.name = "out",
         .value = "DIR",
         .help = "where the trained model goes: a new or empty folder, or a new file",
         .text = &j.out.path},
        FORCE_FLAG(&j.out),
        {.name = "data",
         .value = "FILE",
         .help = "training data: .txt .jsonl .npy .u16 .u32; - for text on standard input",
         .text = &j.e2e_file},
        RECIPE_FLAG(&j),
        TEACHER_FLAG(&j, "none"),
        CHECKPOINT_FLAGS(&j.kept),
        TOOL_FLAGS(&j.t),
    };
    const flag_group groups[] = {
        {"Data", "data", "e2e-", &j.e2e_data, e2e_data_fields},
        {"Sampling", "data", "", &j.data, sampling_fields},
        {"E2E-QP", "e2e_qp", "e2e-", &j.e2e, NULL},
        {NULL, "data", "", &j.e2e_data, e2e_data_fields},
        {NULL, "e2e_qp", "", &j.e2e, NULL},
        {"Saving", "save", "", &j.save, NULL},
        {"Computing", "model", "", &j.model, NULL},
        {"Context", "context", "", &j.t.context, tool_context_fields},
    };
    const flag_set set = {"e2e-qp QUANTIZED --out DIR --data FILE ...",
                          "Trains the scales of a quantized model end to end. The e2e- in a "
                          "flag may be left out.",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          sizeof groups / sizeof *groups};
    int code = flags_parse(&set, argc, argv, &j.path);
    if (code >= 0) return code;
    if (!j.path) return usage_error("e2e-qp: expected a quantized MODEL");
    if (!j.out.path || !*j.out.path)
        return usage_error("e2e-qp: --out: expected a folder for the result");
    if (!j.e2e_file)
        return usage_error("e2e-qp: --data: expected a file of training text or tokens");
    code = checkpoint_check(&j.kept);
    if (code >= 0) return code;
    code = open_job(&j, "e2e-qp", argc, argv);
    if (code) return code;
    return close_job(&j, make_result(&j, run_e2e));
}
