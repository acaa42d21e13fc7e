/* An E2E-QP job, shared by its options (e2e_qp_options.c), what it trains (e2e_qp_trained.c) and
 * on which samples (e2e_qp_samples.c), its steps (e2e_qp.c), the loop over them (e2e_qp_run.c), its
 * validation (e2e_qp_validate.c) and its state (e2e_qp_state.c). */
#ifndef EQI_TRAIN_E2E_QP_H
#define EQI_TRAIN_E2E_QP_H

#include "api/options.h"
#include "eqat/train.h"
#include "train/hidden.h"
#include "train/keep.h"

typedef enum eqi_trained_kind {
    EQI_TRAINED_SCALES,
    EQI_TRAINED_ZERO_POINTS,
    EQI_TRAINED_GAIN
} eqi_trained_kind;

/* A tensor that trains, and what brings its old values back. Scales and gains train where they
 * lie; zero points are U8 there and train in an F32 tensor that stands in for them. */
typedef struct eqi_trained {
    eqi_trained_kind kind;
    eqi_tensor **place; /* in the model */
    eqi_tensor *value;  /* F32, trains; what *place is during training */
    eqi_tensor *before; /* a copy (F16 of scales on the device: it is exact); of zero points the
                           model's own tensor */
    eqi_tensor *good;   /* a copy while the last loss was finite; NULL: none yet */
    eqi_tensor *best;   /* as stored, of the least validation loss; NULL: none yet */
    eqi_tensor *held;   /* during a validation the value as it trains */
    bool was_trainable;
    int bits;          /* of zero points */
    eqi_stored stored; /* of gains */
} eqi_trained;

struct eqat_e2e_qp {
    eqi_ctx *ctx;
    eqi_handle handle;
    eqat_model *model;
    eqat_data *data;
    eqat_e2e_qp_options options;
    int64_t sequences, time, steps_per_epoch, micro_per_step;
    int64_t together; /* samples of a group, see eqi_group */
    eqi_trained *trained;
    size_t count, capacity;
    eqat_optimizer *optimizer;
    eqi_tape *tape;
    eqi_tensor
        *losses; /* F32 [steps, micro-batches of a full step] on the device; NaN: not taken */
    float *row;  /* losses of a step's micro-batches, under `ticket` on their way from there */
    uint64_t ticket;
    eqi_samples input;   /* of one micro-batch */
    int64_t *numbers;    /* [together] of a group's samples */
    eqat_model *teacher; /* or NULL: none, or it has no share */
    eqi_hidden lesson;   /* of the teacher, for samples `taught` */
    int64_t *taught;
    int64_t *labels; /* of each sequence; NULL: all have as many */
    double *shares;  /* [steps] labels of a step over all ranks, for each of them; NULL: as here */
    double *reports; /* [steps] of a run, over all ranks; NaN: not taken */
    int64_t val;     /* validation samples */
    bool validating;
    double *validations; /* [steps] losses behind them; NaN: not taken */
    double start_loss;   /* on them; NaN: not known */
    double best_loss;    /* infinite: there is no best state */
    double kept_loss;
    int64_t best_step, kept_step; /* steps that had been taken then; kept -1: there is no report */
    bool fallen;                  /* a loss was not finite: there is nothing left to train */
    bool finished;
};

/* EQAT_INVALID_ARGUMENT for options that do not fit together or to the data. */
eqat_status eqi_e2e_qp_check_options(const eqat_model *model, eqat_data *data,
                                     const eqat_e2e_qp_options *options);
/* EQAT_INVALID_ARGUMENT: no linear is quantized. */
eqat_status eqi_e2e_qp_refuse_dense(const eqat_model *model);

/* ---- what trains (e2e_qp_trained.c) ---- */
/* Fills job->trained; *bits: the fewest of a quantized linear. After a failure what is there is to
 * be undone. */
eqat_status eqi_e2e_qp_add_trained(eqat_e2e_qp *job, int *bits);
/* Rounds a value to what a file holds, leaving `before` as it is: a failure later on can still be
 * undone. */
eqat_status eqi_e2e_qp_round(eqi_trained *t);
/* End training, with the values before it; with those of now. */
void eqi_e2e_qp_undo_trained(eqat_e2e_qp *job);
void eqi_e2e_qp_keep_trained(eqat_e2e_qp *job);

/* ---- the samples of a step (e2e_qp_samples.c) ---- */
/* How many sequences there are, and how steps and micro-batches divide them. */
void eqi_e2e_qp_size(eqat_e2e_qp *job);
/* Room for the samples of a micro-batch, and the labels of each where they differ: job->labels and,
 * with other ranks, job->shares. */
eqat_status eqi_e2e_qp_make_samples(eqat_e2e_qp *job);
/* A micro-batch in its group: samples that a teacher is asked for together. Groups lie at fixed
 * places of an epoch, so that what a sample is taught does not depend on where a job goes on. */
typedef struct eqi_group {
    int64_t count, at, n; /* samples; the first of the micro-batch, and how many it has */
} eqi_group;
/* Puts the numbers of its samples into job->numbers. */
eqi_group eqi_e2e_qp_group(eqat_e2e_qp *job, int64_t step, int64_t micro);
/* The same of n validation samples from `first` on. */
eqi_group eqi_e2e_qp_validation_group(eqat_e2e_qp *job, int64_t first, int64_t n);
/* Labels that count, of a micro-batch and of a step. */
int64_t eqi_e2e_qp_labels_of(const eqat_e2e_qp *job, int64_t step, int64_t micro);
int64_t eqi_e2e_qp_labels_of_step(const eqat_e2e_qp *job, int64_t step);

/* ---- losses and gradients (e2e_qp.c) ---- */
/* Loss of a micro-batch, whose group's numbers the job holds; of validation samples while
 * job->validating. */
eqat_status eqi_e2e_qp_forward(eqat_e2e_qp *job, const eqi_group *group, eqi_tensor **loss);
/* EQAT_NUMERIC unless it is finite; of a step, in job->reports, over all ranks. */
eqat_status eqi_e2e_qp_check_loss(const eqat_e2e_qp *job, int64_t step, double loss);
eqat_status eqi_e2e_qp_report_loss(eqat_e2e_qp *job, int64_t step);
/* eqat_e2e_qp_accumulate without a check of the loss. That of a step's last micro-batch asks for
 * the losses of all, which report_loss is to wait for: the device has the way back to do then. */
eqat_status eqi_e2e_qp_accumulate(eqat_e2e_qp *job, int64_t step, int64_t micro);

/* What the loop tells: a step, of which `done` are done. */
eqat_progress eqi_e2e_qp_progress(const eqat_e2e_qp *job, int64_t step, int64_t done);
/* Likewise, of what is no step, to `between`. */
eqat_status eqi_e2e_qp_tell(const eqat_e2e_qp *job, const char *work, int64_t done, int64_t batch,
                            int64_t batches);

/* ---- validation (e2e_qp_validate.c) ---- */
/* Loss of the start, before the first step, when it matters; behind a step, when it is due and not
 * there. EQAT_NUMERIC when it is not finite. */
eqat_status eqi_e2e_qp_measure_start(eqat_e2e_qp *job);
eqat_status eqi_e2e_qp_measure(eqat_e2e_qp *job, int64_t step);

/* ---- which state is kept (e2e_qp_keep.c) ---- */
/* Of a job of so many steps: no losses, no state that is kept. */
eqat_status eqi_e2e_qp_make_validation(eqat_e2e_qp *job, int64_t steps);
/* Behind so many steps, with values as they are stored: copies them when they are the best so far.
 */
eqat_status eqi_e2e_qp_note(eqat_e2e_qp *job, int64_t steps, double loss);
/* Room for the best state, with the present values. */
eqat_status eqi_e2e_qp_make_best(eqat_e2e_qp *job);
/* Behind so many steps, of a last validation loss, or NaN: leaves the job in the state that is
 * kept.
 */
eqat_status eqi_e2e_qp_keep(eqat_e2e_qp *job, int64_t steps, double loss);
eqat_status eqi_e2e_qp_back_to_best(eqat_e2e_qp *job);

/* *out = an F32 copy of what trains, where the job keeps copies. */
eqat_status eqi_e2e_qp_copy(const eqat_e2e_qp *job, const eqi_tensor *value, eqi_tensor **out);
/* Copies what trains, when its loss is finite; whether there is such a copy; back to it. */
eqat_status eqi_e2e_qp_keep_good(eqat_e2e_qp *job);
bool eqi_e2e_qp_has_good(const eqat_e2e_qp *job);
eqat_status eqi_e2e_qp_back_to_good(eqat_e2e_qp *job);
/* Warns when all values, rounded, are what they were: rates that are too low for what is stored. */
eqat_status eqi_e2e_qp_tell_unchanged(const eqat_e2e_qp *job);
/* Gives up what was accumulated. */
void eqi_e2e_qp_drop_gradients(eqat_e2e_qp *job);
/* EQAT_INVALID_ARGUMENT unless the teacher, if there is one, fits model, data and options. */
eqat_status eqi_e2e_qp_check_teacher(const eqat_model *model, eqat_data *data,
                                     const eqat_e2e_qp_options *options);
eqat_status eqi_e2e_qp_make_teacher(eqat_e2e_qp *job);
void eqi_e2e_qp_drop_teacher(eqat_e2e_qp *job);
/* What the samples of a micro-batch are taught; out->x is the caller's. */
eqat_status eqi_e2e_qp_lesson(eqat_e2e_qp *job, const eqi_group *group, eqi_distill *out);
/* EQAT_INVALID_ARGUMENT when it is finished or there is no such step. */
eqat_status eqi_e2e_qp_check_step(const eqat_e2e_qp *job, int64_t step);

#endif
