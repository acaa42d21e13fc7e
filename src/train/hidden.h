/* Residual streams of several samples through all blocks of a model, block after block, so that a
 * full-precision block is read from its file once for all of them. */
#ifndef EQI_TRAIN_HIDDEN_H
#define EQI_TRAIN_HIDDEN_H

#include "train/samples.h"

typedef struct eqi_hidden {
    eqi_ctx *ctx; /* all four borrowed */
    eqat_model *model;
    eqat_data *data;
    bool validation;        /* samples are validation samples */
    const int64_t *samples; /* in hand */
    int64_t count, room;    /* how many there are, and may be */
    int64_t batch, time;
    eqi_tape *tape;
    eqi_tensor *streams; /* [room, T, H]: after a run what the final norm takes */
    eqi_samples input;   /* of one batch */
    eqi_samples marks;   /* labels if wanted, positions and segments of those in hand */
    int64_t length;      /* positions that the rotary tables must have */
    int64_t *numbers;    /* of a batch, among those in hand */
    eqat_status (*tell)(void *user, int64_t samples); /* behind a batch of a block; may be NULL */
    void *user;
} eqi_hidden;

/* Room for `most` samples, or for as many as 256 MB of streams hold, a batch at least. To be
 * released also after a failure. */
eqat_status eqi_hidden_create(eqi_hidden *h, eqat_model *model, eqat_data *data, bool labels,
                              int64_t most, int64_t batch);
void eqi_hidden_release(eqi_hidden *h);
/* `count` samples, at most room, by their numbers, which are borrowed. */
eqat_status eqi_hidden_run(eqi_hidden *h, const int64_t *samples, int64_t count);
/* The same in pieces: the streams are what enters the first block; they pass a block. */
eqat_status eqi_hidden_begin(eqi_hidden *h, const int64_t *samples, int64_t count);
eqat_status eqi_hidden_pass(eqi_hidden *h, const eqi_block *block);

#endif
