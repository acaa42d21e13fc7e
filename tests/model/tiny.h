/* Random models of a few thousand parameters in temporary folders. */
#ifndef TESTS_MODEL_TINY_H
#define TESTS_MODEL_TINY_H

#include "engine.h"
#include "model/weights.h"

/* The families with everything random and every twist on: biases, norms of q and k, windows, rotary
 * scaling. */
typedef struct tiny {
    const char *name, *config;
} tiny;
extern const tiny tiny_models[];
extern const size_t n_tiny_models;
const tiny *tiny_find(const char *name);

/* What is wrong with a model, by tensor name; NULL: nothing. */
typedef struct flaw {
    const char *missing, *reshaped, *nan;
} flaw;

/* A fresh folder under TMPDIR; remove_dir removes it with what is inside. */
char *fresh_dir(void);
void remove_dir(char *dir);
/* dir/name; freed with free. */
char *in_dir(const char *dir, const char *name);
/* Names in a folder, hidden ones too. */
int entries(const char *dir);
void write_text(const char *path, const char *text);
char *read_text(const char *path);

/* Writes config.json and model.safetensors into dir. */
void write_model(eqi_ctx *ctx, const char *dir, const char *config, eqi_stored stored,
                 const flaw *flaw);
eqat_model *open_model(eqi_ctx *ctx, const char *dir, eqi_dtype compute);
/* Logits of two fixed sequences of `time` tokens; freed with free. */
float *logits_of(eqat_model *model, int64_t time, size_t *bytes);
/* Both models give the same logits, bit for bit. */
void same_logits(eqat_model *a, eqat_model *b, int64_t time);
eqat_quantizer *make_quantizer(eqi_ctx *ctx, int bits, int group);

/* The last call failed with this status, and its one line holds this text. */
void says(eqi_ctx *ctx, eqat_status found, eqat_status expected, const char *text);

TCase *case_api(void);
TCase *case_config(void);
TCase *case_rope(void);
TCase *case_forward(void);
TCase *case_parameters(void);
TCase *case_bad_input(void);
TCase *case_save(void);
TCase *case_layout(void);
TCase *case_gguf(void);
TCase *case_memory(void);
TCase *case_quantizer(void);

#endif
