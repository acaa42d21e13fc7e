/* A run of eqat quantize or eqat e2e-qp, from its flags to its exit code. The commands
 * (quantize.c, e2e_qp.c) are their flags; the rest they share. */
#ifndef EQAT_TOOL_JOB_H
#define EQAT_TOOL_JOB_H

#include "checkpoint.h"
#include "input.h"
#include "judge.h"
#include "output.h"
#include "tool.h"

typedef enum method { RTN, BLOCK_AP, EFFICIENTQAT } method; /* as job_methods */

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
    const char *bits_given;            /* value of --bits; NULL: not given */
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

/* ---- flags (job_options.c) ---- */
#define JOB_RECIPE "best"
extern const char *job_recipes[8]; /* the library's, NULL-terminated; filled by job_init */
extern const char *const job_methods[];
extern const char *const job_e2e_data_fields[];

#define RECIPE_FLAG(j)                                                                            \
    {                                                                                             \
        .name = "recipe", .value = "WORD",                                                        \
        .help = "options that go together, before all other flags: best, or paper to the letter " \
                "(default: " JOB_RECIPE ")",                                                      \
        .text = &(j)->recipe, .words = job_recipes                                                \
    }
#define TEACHER_FLAG(j, fallback)                                                       \
    {                                                                                   \
        .name = "teacher", .value = "MODEL",                                            \
        .help = "E2E-QP learns from this model, commonly the one before quantization, " \
                "besides the text; --e2e-teacher-share tells how much; none: from the " \
                "text alone (default: " fallback ")",                                   \
        .text = &(j)->teacher_file                                                      \
    }

/* Defaults, and behind them the recipe of the flags, which are not parsed yet. */
void job_init(job *j, int argc, char **argv);
/* Of quantize: the method, and whether all flags fit to it. -1, or 2 after telling why not. */
int job_choose_method(job *j);
/* What flags say of one thing and mean of two, before job_open has them recorded. */
void job_share_sampling(job *j);
void job_choose_teacher(job *j);

/* ---- its life (job.c) ---- */
/* Takes the inputs and opens the tool, with everything recorded; 0, or an exit code. */
int job_open(job *j, const char *command, int argc, char **argv);
/* Runs, unless the result is there, then saves and judges it. */
eqat_status job_make_result(job *j, eqat_status (*run)(job *j, eqat_model *model));
/* Returns the exit code. */
int job_close(job *j, eqat_status status);
eqat_status job_open_model(job *j, eqat_model **out);

/* ---- what is done with the model (job_run.c) ---- */
eqat_status job_run_quantize(job *j, eqat_model *model);
eqat_status job_run_e2e(job *j, eqat_model *model);

/* ---- how linears are quantized (job_quantizer.c) ---- */
/* With the rules of the flags and of the allocation, if there was one; user: the job. */
eqat_status job_make_quantizer(void *user, eqat_model *model, eqat_quantizer **out);
/* From then on job_make_quantizer gives linears the bits that they have in the result. */
eqat_status job_take_allocated(job *j, eqat_model *result);
/* Replaces the quantizer by one with bits by sensitivity, when they are asked for. */
eqat_status job_allocate(job *j, eqat_model *model, eqat_data *data, eqat_quantizer **quantizer);

/* ---- what it takes (job_need.c) ---- */
/* quantizer NULL: the model is quantized, and the data is that of E2E-QP. */
eqat_status job_check_need(job *j, eqat_model *model, const eqat_quantizer *quantizer,
                           const eqat_data *data);

/* ---- phases, with their checkpoints (job_train.c) ---- */
/* Both phases tell the tool how far they are. */
void job_follow(job *j);
eqat_status job_train_blocks(job *j, eqat_model *model, const eqat_quantizer *quantizer,
                             eqat_data *data);
eqat_status job_train_end_to_end(job *j, eqat_model *model, eqat_data *data);

/* ---- what the result is worth (job_judge.c) ---- */
bool job_judges(const job *j);
/* Keeps windows of the calibration data for it. */
eqat_status job_take_windows(job *j, eqat_data *data);
/* Frees the result; the log goes on from log_bytes, or (negative) from where it was saved. */
void job_judge(job *j, eqat_model *result, long long log_bytes);
/* Tells of a result which another run of this command has put in its place, and judges it. */
eqat_status job_find_result(job *j);

#endif
