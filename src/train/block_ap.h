/* A Block-AP job, shared by its steps (block_ap.c) and the loop over them (block_ap_run.c). */
#ifndef EQI_TRAIN_BLOCK_AP_H
#define EQI_TRAIN_BLOCK_AP_H

#include "eqat/train.h"
#include "model/model.h"
#include "train/streams.h"

#define EQI_BLOCK_TRAINED (3 * EQI_ROLE_COUNT + EQI_NORM_COUNT)

typedef enum eqi_block_phase {
    EQI_BLOCK_IDLE,     /* next to begin */
    EQI_BLOCK_TRAINING, /* between begin and finish */
    EQI_BLOCK_FROZEN    /* packed; the quantized stream is on its way through */
} eqi_block_phase;

typedef struct eqi_epoch {
    bool done;
    double train_loss, val_loss;
} eqi_epoch;

struct eqat_block_ap {
    eqi_ctx *ctx;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data;
    eqat_block_ap_options options;
    int64_t train, val,
        time; /* samples of each kind, the training ones first in the streams; tokens of one */
    eqi_streams *streams;
    int64_t *numbers; /* of the samples of a batch */
    eqi_tape *tape;
    eqi_tensor
        *losses; /* F32, of the steps of an epoch or the batches of a validation; on the device */
    eqi_epoch *epochs; /* [blocks, epochs] */
    int64_t block;
    eqi_block_phase phase;
    eqat_optimizer *optimizer;
    eqi_tensor *trained[EQI_BLOCK_TRAINED]; /* borrowed from the block in work */
    int n_trained;
    bool pinned; /* the block was in memory before begin: its own tensors wait here */
    eqi_weight pinned_weights[EQI_ROLE_COUNT];
    eqi_tensor *pinned_gains[EQI_NORM_COUNT];
};

/* EQAT_NUMERIC when the loss of a step is not finite. */
eqat_status eqi_block_ap_check_loss(const eqat_block_ap *job, int64_t epoch, int64_t step,
                                    double loss);

#endif
