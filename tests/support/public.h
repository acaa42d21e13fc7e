/* What tests of the public interface share: random models of a few thousand parameters, tokens,
 * comparisons. */
#ifndef TESTS_SUPPORT_PUBLIC_H
#define TESTS_SUPPORT_PUBLIC_H

#include "context.h"
#include "eqat/eqat.h"
#include "files.h"
#include "format/source.h"

/* Public structs behind calls that write them: defaults at first. */
/* On the device that EQAT_TEST_DEVICE names, else on the CPU. */
eqat_context *make_context(int threads, uint64_t seed);
eqat_quantizer *make_quantizer(eqat_context *ctx, int bits, int group_size);
/* bits 0: left as it is. */
eqat_status add_rule(eqat_quantizer *quantizer, const char *pattern, int bits, int group_size);
/* path: absolute, or in the scratch folder. */
eqat_model *open_model(eqat_context *ctx, const char *path, eqat_dtype compute);
/* Saves as scratch(name) and returns that path. */
const char *save_as(eqat_context *ctx, eqat_model *model, const char *name);

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
    const char *extra; /* a tensor of `hidden` values, or lm_head.weight */
    double spread;     /* of it; 1 gives a head with the values of the embeddings */
} flaw;

/* Writes config.json and model.safetensors into the folder dir. */
void write_model(eqat_context *ctx, const char *dir, const char *config, eqi_stored stored,
                 const flaw *flaw);

/* The model in the folder dir as a GGUF file of F32: gemma3, or qwen3_moe with experts in every
 * block. */
void convert_to_gguf(eqat_context *ctx, const char *dir, const char *path);

/* A Llama with tied embeddings, in scratch(name), which is made; nan_at: tensor to spoil, or NULL.
 */
typedef struct llama_shape {
    int64_t vocab, hidden, intermediate, blocks, heads, kv_heads;
    bool bf16; /* stored so; else f32 */
} llama_shape;
void write_llama(const char *name, const llama_shape *s, const char *nan_at);

enum { VOCAB = 96, HIDDEN = 64, BLOCKS = 3, TIME = 24 };
extern const llama_shape small_shape;
/* scratch("model") of the small shape; a fixture of Check. */
void write_small_model(void);
/* Windows one after another, in that order. */
eqat_data_options consecutive(int64_t train, int64_t val, int64_t time);
/* TIME tokens a sample of a noisy cycle, so that there is something to learn. */
eqat_data *make_data(eqat_context *ctx, int64_t train, int64_t val, bool shuffle);
/* The ids of a sample. */
void read_ids(eqat_context *ctx, eqat_data *data, bool validation, int64_t index, int32_t *ids);

/* Logits of two fixed sequences of `time` tokens; freed with free. */
float *logits_of(eqat_model *model, int64_t time, size_t *bytes);
/* Both models give the same logits, bit for bit. */
void same_logits(eqat_model *a, eqat_model *b, int64_t time);
/* Mean squared difference of such logits of TIME tokens. */
double logits_distance(eqat_model *a, eqat_model *b);
/* Values of an F32 tensor on the host; freed with free. */
float *read_floats(eqat_tensor *t, int64_t *count);

/* ---- jobs on the small model ---- */

typedef struct setting {
    int threads;
    uint64_t seed;
    const char *offload_dir;
    uint64_t offload_memory;
    bool shuffle;
    eqat_dtype compute;
    int bits;
    eqat_init init;
    eqat_zero_point zero_point;
    const char *model; /* NULL: "model" */
} setting;

extern const setting usual;

typedef struct bench {
    eqat_context *ctx;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data; /* 7 samples, 3 for validation */
} bench;

bench set_up(const setting *s);
void tear_down(bench *b);

/* The family's small model with as many tokens as there are in the data, changed in one place, as
 * scratch(name). */
const char *make_family(eqi_stored stored, const char *name, const char *family, const char *from,
                        const char *to);

/* Rates at which a few steps do something. */
eqat_block_ap_options fast_options(void);
eqat_e2e_qp_options fast_e2e_options(void);
/* Block-AP in one call, then E2E-QP in one call, saved under `name`. */
const char *one_call(const setting *s, const char *name);
/* The usual one, made once. */
const char *reference_folder(void);

float *parameter_floats(eqat_context *ctx, eqat_model *model, const char *name, int64_t *n);
bool same_floats(const float *a, const float *b, int64_t n);
/* The same bytes in both models; F32, U32 or U8. */
bool same_parameter(bench *a, bench *b, const char *name);
double perplexity_of(eqat_context *ctx, eqat_model *model, eqat_data *data);

/* A progress callback that checks what it is told, and cancels at a call. */
typedef struct watched {
    int64_t calls, cancel_at, validated;
    double first_loss, last_loss, first_lr, last_lr;
    int64_t block, step, steps;
} watched;
int32_t watch_block_ap(void *user, const eqat_progress *p);

/* One that saves the job it has at a call, and cancels there. */
typedef struct saver {
    eqat_context *ctx;
    eqat_block_ap *block_ap; /* or NULL: the other one */
    eqat_e2e_qp *e2e_qp;
    const char *path;
    int64_t calls, at;
} saver;
int32_t save_and_cancel(void *user, const eqat_progress *p);

/* A gradient callback that multiplies all gradients by a factor, in some of its calls. */
typedef struct spoiler {
    int64_t calls, first, last; /* from the call `first` on, before the call `last` */
    float factor;
} spoiler;
eqat_status spoil_gradients(void *user, eqat_tensor *const *parameters, size_t count);

#endif
