/* What the suites of training share: contexts, a small random model in a temporary folder, tokens,
 * comparisons of folders. */
#ifndef TESTS_TRAIN_FIXTURE_H
#define TESTS_TRAIN_FIXTURE_H

#include "eqat/eqat.h"
#include "run_suite.h"

#define ck_ok(ctx, expr)                                                                \
    do {                                                                                \
        eqat_status ck_st_ = (expr);                                                    \
        ck_assert_msg(ck_st_ == EQAT_OK, "%s: %s: %s", #expr, eqat_status_name(ck_st_), \
                      eqat_context_error(ctx));                                         \
    } while (0)

/* Fails with this status and a message that holds `text`. */
#define ck_fails(ctx, expr, expected, text)                                                   \
    do {                                                                                      \
        eqat_status ck_st_ = (expr);                                                          \
        ck_assert_msg(ck_st_ == (expected), "%s: found %s", #expr, eqat_status_name(ck_st_)); \
        ck_assert_msg(strstr(eqat_context_error(ctx), text), "%s: found \"%s\"", #expr,       \
                      eqat_context_error(ctx));                                               \
    } while (0)

enum { VOCAB = 96, HIDDEN = 64, BLOCKS = 3, TIME = 24 };

typedef struct shape {
    int64_t vocab, hidden, intermediate, blocks, heads, kv_heads;
    bool bf16; /* stored so; else f32 */
} shape;

extern const shape small_shape;

/* A folder under $TMPDIR; everything in it goes with fixture_clean. */
const char *fixture_dir(void);
void fixture_clean(void);
/* "<folder>/name", in one of a few static buffers. */
const char *fixture_path(const char *name);

eqat_context *make_context(int threads, uint64_t seed);
/* Writes <folder>/name with random weights; nan_at: tensor to spoil, or NULL. */
void write_model(const char *name, const shape *s, const char *nan_at);
/* <folder>/model of the small shape; a fixture of Check. */
void write_small_model(void);
eqat_model *open_model(eqat_context *ctx, const char *name, eqat_dtype compute);
eqat_quantizer *make_quantizer(eqat_context *ctx, int bits, int group_size);
/* Tokens of a noisy cycle, so that there is something to learn. */
eqat_data *make_data(eqat_context *ctx, int64_t train, int64_t val, bool shuffle);
/* Same names and bytes in both folders. */
bool same_folders(const char *a, const char *b);
/* Saves under <folder>/name and returns its path. */
const char *save_as(eqat_context *ctx, eqat_model *model, const char *name);
/* Values of a tensor on the host; freed with free(). */
float *read_floats(eqat_tensor *t, int64_t *count);

#endif
