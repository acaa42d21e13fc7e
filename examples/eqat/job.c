#include <string.h>

#include "job.h"
#include "record.h"
#include "rules.h"

static void record_job(job *j, const char *command, int argc, char **argv)
{
    bool quantizes = j->quantizes = !strcmp(command, "quantize");
    job_choose_teacher(j);
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

int job_open(job *j, const char *command, int argc, char **argv)
{
    job_share_sampling(j);
    j->out.model = j->path;
    j->t.keeps = true;
    job_follow(j);
    record_job(j, command, argc, argv);
    int code = take_inputs(j) ? tool_open(&j->t) : tool_give_up(&j->t);
    if (code) release_inputs(j);
    return code;
}

int job_close(job *j, eqat_status status)
{
    release_inputs(j);
    eqat_quantizer_free(j->allocated);
    judge_release(&j->judge);
    if (status == EQAT_CANCELLED) checkpoint_tell(&j->t, &j->kept);
    checkpoint_close(&j->kept, status == EQAT_OK && !j->judge.cut && !j->out.staged);
    int code = tool_close(&j->t, status);
    return code == 0 && j->judge.worse ? 3 : code;
}

eqat_status job_open_model(job *j, eqat_model **out)
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

/* What eqat e2e-qp is told where it goes on from the result of Block-AP. */
static void flags_from_there(const job *j, char *text, size_t size)
{
    const eqat_data_options *d = &j->e2e_data;
    snprintf(text, size,
             " --data %.1024s --recipe %s%s%.1024s --skip-tokens %lld --held-tokens %lld",
             j->e2e_file ? j->e2e_file : j->calib_file, j->recipe,
             j->teacher_file ? " --teacher " : "", j->teacher_file ? j->teacher_file : "",
             (long long)d->skip_tokens, (long long)d->held_tokens);
}

eqat_status job_make_result(job *j, eqat_status (*run)(job *j, eqat_model *model))
{
    eqat_model *model = NULL;
    char flags[2200] = "";
    eqat_status st = checkpoint_open(&j->t, &j->kept, &j->out);
    bool left = !j->kept.dir && job_judges(j) && judge_is_left(&j->t, &j->out);
    if (st == EQAT_OK && (j->kept.placed || left)) return job_find_result(j);
    if (st == EQAT_OK) st = output_check(&j->t, &j->out, &j->save);
    if (st == EQAT_OK) st = job_open_model(j, &model);
    if (st == EQAT_OK) st = open_teacher(j);
    if (st == EQAT_OK) st = run(j, model);
    eqat_model_free(j->e2e.teacher);
    if (st == EQAT_OK) st = output_save(&j->t, &j->out, model, &j->save);
    if (j->out.staged) flags_from_there(j, flags, sizeof flags);
    output_end_stage(&j->t, &j->out, st, flags);
    if (st == EQAT_OK && j->judge.ids) {
        job_judge(j, model, -1);
        return st;
    }
    eqat_model_free(model);
    return st;
}
