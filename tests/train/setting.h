/* Block-AP jobs on the small model of public.h. */
#ifndef TESTS_TRAIN_SETTING_H
#define TESTS_TRAIN_SETTING_H

#include "public.h"

typedef struct setting {
    int threads;
    uint64_t seed;
    const char *offload_dir;
    bool shuffle;
    eqat_dtype compute;
    int bits;
    eqat_init init;
    eqat_zero_point zero_point;
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

/* Rates at which a few steps do something. */
eqat_block_ap_options fast_options(void);
eqat_e2e_qp_options fast_e2e_options(void);
/* Block-AP in one call, then E2E-QP in one call, saved under `name`. */
const char *one_call(const setting *s, const char *name);
/* The usual one, made once. */
const char *reference(void);

float *parameter(eqat_context *ctx, eqat_model *model, const char *name, int64_t *n);
bool equal(const float *a, const float *b, int64_t n);
double perplexity(eqat_context *ctx, eqat_model *model, eqat_data *data);

/* A progress callback that checks what it is told, and cancels at a call. */
typedef struct seen {
    int64_t calls, cancel_at, validated;
    double first_loss, last_loss, first_lr, last_lr;
    int64_t block, step, steps;
} seen;
int32_t watch(void *user, const eqat_progress *p);

#endif
