/* A Block-AP job, shared by its steps (block_ap.c) and the loop over them (block_ap_run.c). */
#ifndef EQI_TRAIN_BLOCK_AP_H
#define EQI_TRAIN_BLOCK_AP_H

#include "eqat/train.h"
#include "train/keep.h"
#include "train/samples.h"
#include "train/streams.h"

/* Of a stage whose numbers are not finite; rates of the last try: an eighth. */
#define EQI_RETRIES 3

typedef struct eqi_epoch {
    double train_loss, val_loss; /* train_loss NaN: there is no report */
} eqi_epoch;

/* Of a stage, all F64: what eqat_stage_report tells. */
typedef struct eqi_outcome {
    double start_loss, loss; /* NaN: not known */
    double epoch;            /* NaN: there is no report */
    double retries;          /* at half the rates each; of a stage that is not done, too */
} eqi_outcome;

/* Copies of what the optimizer of the stage in work has, in its order. */
typedef struct eqi_best {
    eqi_tensor **tensors; /* NULL: none yet */
    size_t count;
    double loss; /* on the validation samples; infinite: none yet */
    int64_t epoch;
} eqi_best;

struct eqat_block_ap {
    eqi_ctx *ctx;
    eqi_handle handle;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data;
    eqat_block_ap_options options;
    int64_t train, val; /* samples of each kind, the training ones first in the streams */
    int64_t time;       /* tokens of one */
    eqi_streams *streams;
    int64_t pass;      /* samples that a pass which trains nothing takes at once */
    int64_t *numbers;  /* of the samples of a batch */
    eqi_samples input; /* of a batch, until the streams are there */
    eqi_samples marks; /* of all samples */
    int64_t length;    /* positions that the rotary tables must have */
    eqi_tape *tape;
    /* F32, on the device: of an epoch's steps, of a validation's batches, then the gradient norms
     * of those steps. */
    eqi_tensor *losses;
    eqi_epoch *epochs;     /* of all blocks, those of a block one stage after another */
    eqi_outcome *outcomes; /* of all blocks, those of a block one stage after another */
    eqi_best best;
    int64_t block; /* in work, or next to begin */
    /* The block in work, and how far it is: DENSE between two blocks, MASTERS while it trains,
     * FROZEN when the model has its weights and the quantized stream is on its way through. */
    eqi_block work;
    int64_t taken; /* steps of it, over all epochs: where run goes on */
    bool cut; /* its last step was cancelled in the middle of an update: it is to be given up */
    /* How many of its stages are frozen: the linears of these are packed, those of the next one
     * have masters, and those of later ones are dense in the compute dtype. */
    int64_t stage;
    eqat_optimizer *optimizer; /* of that next one; NULL until it trains */
};

/* Whether a block can be trained at all: it is dense, and the quantizer's groups fit. */
eqat_status eqi_block_ap_check_block(const eqat_block_ap *job, int64_t index);
/* EQAT_INVALID_ARGUMENT unless a block is in work; the streams are where its steps need them. */
eqat_status eqi_block_ap_expect_training(eqat_block_ap *job);
/* Moves both streams to where the job stands, which they are not behind after a load: each block
 * that is done is passed again. After EQAT_CANCELLED the next call goes on. */
eqat_status eqi_block_ap_catch_up(eqat_block_ap *job);
/* Puts block job->block to work as begin does, without its targets, in a stage that need not be the
 * first: linears of those before it have biases alone. */
eqat_status eqi_block_ap_take_block(eqat_block_ap *job, int64_t stage);
/* Epochs of a block over all its stages; 0 when there is no such block. */
int64_t eqi_block_ap_epochs(const eqat_block_ap *job, int64_t block);
/* Those of all blocks before this one, of which there may be one more than the model has: where its
 * own begin in job->epochs. */
int64_t eqi_block_ap_first_epoch(const eqat_block_ap *job, int64_t block);

/* The stage that a linear of any block trains in. A way to divide blocks is one more term here. */
int64_t eqi_block_ap_stage_of(const eqat_block_ap *job, const eqi_linear *linear);
/* Fills job->work, which is to go with eqi_block_drop after a failure, from stage job->stage on;
 * told: options.between is asked before every linear. */
eqat_status eqi_block_ap_take_weights(eqat_block_ap *job, bool told);
/* Masters, initial scales and zero points, and the optimizer of stage job->stage, unless they are
 * there. The streams are where its steps need them. After a failure the next call does it. */
eqat_status eqi_block_ap_begin_stage(eqat_block_ap *job);
/* The same for values that a state replaces, without the streams. */
eqat_status eqi_block_ap_make_stage(eqat_block_ap *job);
/* Gives the linears of stage job->stage whose start asks for them the second moments of their
 * inputs: of the block in work, in the present form of its weights, on the training samples of the
 * quantized stream, of all ranks. After a failure there are none. */
eqat_status eqi_block_ap_measure(eqat_block_ap *job);
/* Those of linears [first, end) go. */
void eqi_block_ap_drop_moments(eqat_block_ap *job, int first, int end);
/* Masters of the stage's linears and the tensors beside them, as the quantizer says; without
 * `values` any. May be called again after a failure. */
eqat_status eqi_block_ap_start(eqat_block_ap *job, bool values);
/* How the linear is quantized is forgotten, and its tensors go. */
void eqi_block_ap_drop_tensors(eqi_linear *linear);
/* Tells options.between of a linear of the block in work. */
eqat_status eqi_block_ap_tell_linear(eqat_block_ap *job, const char *work, int linear);
/* Freezes all stages before this one; those that have not begun get their initial rounding. After a
 * failure the next call goes on. */
eqat_status eqi_block_ap_freeze_before(eqat_block_ap *job, int64_t stage);
void eqi_block_ap_drop_optimizer(eqat_block_ap *job);
/* Tells options.between of batch `batch` of so many. */
eqat_status eqi_block_ap_tell(eqat_block_ap *job, const char *work, int64_t block, int64_t batch,
                              int64_t batches);
/* The same of the batch that begins with this sample of a pass over so many. */
eqat_status eqi_block_ap_between(eqat_block_ap *job, const char *work, int64_t block,
                                 int64_t sample, int64_t samples);
/* To the stage of an epoch, which must not lie behind. Epochs beyond the last are the last stage's.
 */
eqat_status eqi_block_ap_enter_stage(eqat_block_ap *job, int64_t epoch);
/* Stage job->stage as it was begun, at the rates of its retries. After a failure the block is to be
 * given up. */
eqat_status eqi_block_ap_restart_stage(eqat_block_ap *job);
/* No reports of the stage's epochs; of the block's. */
void eqi_block_ap_forget_epochs(eqat_block_ap *job);

/* ---- what becomes of stages (block_ap_outcome.c) ---- */
/* How many outcomes there are; that of the stage in work; none of the block in work. */
int64_t eqi_block_ap_outcomes(const eqat_block_ap *job);
eqi_outcome *eqi_block_ap_outcome(const eqat_block_ap *job);
void eqi_block_ap_forget_outcomes(eqat_block_ap *job);
/* Room for a best state, with the present one. */
eqat_status eqi_block_ap_make_best(eqat_block_ap *job);
void eqi_block_ap_drop_best(eqat_block_ap *job);

/* ---- which state is kept (block_ap_keep.c) ---- */
/* Loss of the stage's start on the validation samples, before its first step, when it matters. */
eqat_status eqi_block_ap_measure_start(eqat_block_ap *job);
/* Behind an epoch: copies its state when it is to be kept so far. */
eqat_status eqi_block_ap_note(eqat_block_ap *job, int64_t epoch, double val_loss);
/* Behind the last epoch: leaves the stage in the state that is kept. */
eqat_status eqi_block_ap_keep(eqat_block_ap *job, int64_t epoch, double val_loss);
/* After EQAT_NUMERIC: back to the best state, or to the start of the stage, for all epochs at half
 * the rates, or, not *again, to the state that is kept. */
eqat_status eqi_block_ap_try_again(eqat_block_ap *job, bool *again);

/* A step whose loss nobody has checked; loss may be NULL. */
eqat_status eqi_block_ap_take_step(eqat_block_ap *job, int64_t epoch, int64_t step, double *loss);
/* Mean over the samples of all ranks of the losses that the steps of this epoch, or (-1) the
 * batches of a validation, left on the device; NaN without samples. All ranks learn of one that is
 * not finite: EQAT_NUMERIC. */
eqat_status eqi_block_ap_mean_loss(eqat_block_ap *job, int64_t epoch, double *mean);
/* EQAT_NUMERIC when the loss of a step is not finite. */
eqat_status eqi_block_ap_check_loss(const eqat_block_ap *job, int64_t epoch, int64_t step,
                                    double loss);

#endif
