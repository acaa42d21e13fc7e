#include "data/data.h"

#include <stdio.h>

#include "api/options.h"
#include "base/entry.h"
#include "base/rng.h"
#include "data/sample.h"
#include "data/tokens.h"

/* The order of one epoch, kept because a loop asks for it position by position. */
typedef struct permutation {
    int64_t epoch; /* -1: none yet */
    int64_t sample[];
} permutation;

struct eqat_data {
    eqi_ctx *ctx;
    eqi_handle handle;
    int refs;
    eqat_data_options options;
    eqi_tokens *tokens; /* NULL: fill */
    eqat_sample_fn fill;
    void *user;
    int32_t fields; /* of what tokens or fill give */
    int64_t vocab, hidden;
    eqat_sample scratch;          /* one sample, for fields that nobody asked for */
    int64_t train_span;           /* random sampling: tokens for training windows */
    int64_t skipped;              /* of skip_tokens, those that the stream has */
    int64_t within, end;          /* where windows within these end, and those behind them */
    int64_t train, val;           /* of all ranks */
    int64_t train_here, val_here; /* of this rank */
    permutation *order;           /* NULL without shuffle */
};

static const char *const sampling_names[] = {"random", "consecutive", NULL};

static const eqat_field option_fields[] = {
    EQI_FIELD_I64(eqat_data_options, train_size, 4096, 0, 1e15,
                  "training samples; 0: all that consecutive sampling finds"),
    EQI_FIELD_I64(eqat_data_options, val_size, 64, 0, 1e15, "validation samples"),
    EQI_FIELD_I64(eqat_data_options, seq_len, 2048, 1, 1 << 30, "tokens of a sample"),
    EQI_FIELD_ENUM(eqat_data_options, sampling, EQAT_SAMPLING_RANDOM, sampling_names,
                   "windows of the text: random or consecutive"),
    EQI_FIELD_BOOL(eqat_data_options, shuffle, true,
                   "another order of the training samples in each epoch"),
    EQI_FIELD_I32(eqat_data_options, rank, 0, 0, 65535, "this process, of world"),
    EQI_FIELD_I32(eqat_data_options, world, 1, 1, 65536, "processes that share the samples"),
    EQI_FIELD_STRING(eqat_data_options, text_key, "text", "key of the text in .jsonl records"),
    EQI_FIELD_I64(
        eqat_data_options, skip_tokens, 0, 0, 1e18,
        "tokens that were trained on before: consecutive windows begin behind them, random "
        "ones are others"),
    EQI_FIELD_I64(
        eqat_data_options, held_tokens, 0, 0, 1e18,
        "tokens that are validated on before, in no window: the last of the skipped ones, "
        "or of the text"),
};

const eqi_struct eqi_struct_data = EQI_STRUCT(eqat_data_options, "data", option_fields);

void eqat_data_options_init(eqat_data_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_data, options, struct_size);
}

static eqat_status create(eqi_ctx *ctx, eqat_data **out, int64_t vocab,
                          const eqat_data_options *options)
{
    *out = NULL;
    eqat_data_options o;
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_data, &o, options));
    if (o.rank >= o.world)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "rank: found %d, expected 0 to %d", o.rank,
                        o.world - 1);
    eqat_data *d = eqi_calloc(ctx, 1, sizeof *d, "a data iterator");
    if (!d) return EQAT_OUT_OF_MEMORY;
    d->ctx = eqi_ctx_ref(ctx);
    d->refs = 1;
    d->options = o;
    d->fields = EQAT_SAMPLE_IDS;
    d->vocab = vocab;
    *out = d;
    return EQAT_OK;
}

eqat_data *eqi_data_ref(eqat_data *d)
{
    d->refs++;
    return d;
}

int32_t eqi_data_world(const eqat_data *d) { return d->options.world; }

static void unref(void *data)
{
    eqat_data *d = data;
    if (--d->refs) return;
    eqi_ctx *ctx = d->ctx;
    eqi_tokens_free(d->tokens);
    eqi_sample_release(ctx, &d->scratch);
    eqi_free(ctx, d->order);
    eqi_free(ctx, d);
    eqi_ctx_unref(ctx);
}

void eqat_data_free(eqat_data *d)
{
    if (d) eqi_handle_free(d->ctx, &d->handle, unref, d);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Random windows overlap long before there are none. */
static void tell_overlap(const eqat_data *d)
{
    int64_t time = d->options.seq_len, apart = d->train_span / time;
    if (d->train <= apart) return;
    eqi_log(d->ctx, EQI_LOG_WARN,
            "%s: found room for %lld training windows of %lld tokens side by side, expected %lld: "
            "%lld that overlap are taken, with each token in %.3g of them on average",
            d->tokens->name, (long long)apart, (long long)time, (long long)d->options.train_size,
            (long long)d->train, (double)d->train * (double)time / (double)d->train_span);
}

/* ---- consecutive windows: those behind what is skipped, then those within ---- */

static int64_t windows_behind(const eqat_data *d)
{
    return (d->end - d->skipped) / d->options.seq_len;
}

static int64_t window_start(const eqat_data *d, int64_t window)
{
    const int64_t behind = windows_behind(d), time = d->options.seq_len;
    return window < behind ? d->skipped + window * time : (window - behind) * time;
}

/* ---- random windows: other draws than those of what is skipped ---- */

static int64_t skipped_draws(const eqat_data *d)
{
    const int64_t tokens = d->options.skip_tokens, time = d->options.seq_len;
    return tokens / time + (tokens % time > 0);
}

static int64_t drawn_start(const eqat_data *d, int64_t window)
{
    return (int64_t)eqi_rng_below(d->ctx->seed, EQI_RNG_WINDOW,
                                  (uint64_t)(skipped_draws(d) + window),
                                  (uint64_t)(d->train_span - d->options.seq_len + 1));
}

static void tell_skipped(const eqat_data *d)
{
    const int64_t again = d->train + d->val - windows_behind(d);
    const char *name = d->tokens->name;
    if (!d->options.skip_tokens) return;
    if (d->options.sampling == EQAT_SAMPLING_RANDOM)
        eqi_log(d->ctx, EQI_LOG_INFO, "%s: windows are those behind the first %lld draws", name,
                (long long)skipped_draws(d));
    else
        eqi_log(d->ctx, EQI_LOG_INFO,
                "%s: windows begin behind %lld tokens; %lld of %lld are of these", name,
                (long long)d->skipped, (long long)(again > 0 ? again : 0),
                (long long)(d->train + d->val));
}

/* Whoever asks for more than there is validates on the less, and trains on one window at least. */
static void hold(eqat_data *d)
{
    const eqat_data_options *o = &d->options;
    const int64_t count = d->tokens->count, held = o->held_tokens;
    d->skipped = d->within = least(o->skip_tokens, count);
    d->end = count;
    if (o->sampling == EQAT_SAMPLING_RANDOM)
        d->end -= least(held, count / 10);
    else if (o->skip_tokens)
        d->within = o->skip_tokens > held ? least(o->skip_tokens - held, count) : 0;
    else if (count > o->seq_len)
        d->end -= least(held, count - o->seq_len);
}

/* Cuts the stream into what trains and what validates. */
static eqat_status plan_windows(eqat_data *d)
{
    const eqat_data_options *o = &d->options;
    const char *name = d->tokens->name;
    int64_t time = o->seq_len;
    hold(d);
    if (o->sampling == EQAT_SAMPLING_CONSECUTIVE) {
        const int64_t windows = windows_behind(d) + d->within / time;
        int64_t wanted = o->train_size;
        if (!wanted && windows) wanted = windows - least(o->val_size, windows - 1);
        d->train = least(wanted, windows);
        d->val = least(o->val_size, windows - d->train);
    } else {
        if (!o->train_size)
            return eqi_fail(d->ctx, EQAT_INVALID_ARGUMENT,
                            "train_size: found 0, expected at least 1 with random sampling");
        d->val = least(o->val_size, d->end / 10 / time);
        d->train_span = d->end - d->val * time;
        d->train = d->train_span >= time ? o->train_size : 0;
    }
    if (d->train == 0)
        return eqi_fail(d->ctx, EQAT_FORMAT,
                        "%s: found %lld tokens, expected at least %lld: seq_len", name,
                        (long long)(d->end - d->skipped + d->within), (long long)time);
    if (o->sampling == EQAT_SAMPLING_RANDOM) tell_overlap(d);
    tell_skipped(d);
    if (d->train < o->train_size)
        eqi_log(d->ctx, EQI_LOG_WARN,
                "%s: found %lld training windows of %lld tokens, expected %lld", name,
                (long long)d->train, (long long)time, (long long)o->train_size);
    if (d->val < o->val_size)
        eqi_log(d->ctx, EQI_LOG_WARN,
                "%s: found %lld validation windows of %lld tokens, expected %lld", name,
                (long long)d->val, (long long)time, (long long)o->val_size);
    return EQAT_OK;
}

static eqat_status plan_records(eqat_data *d)
{
    const eqat_data_options *o = &d->options;
    if (!o->train_size)
        return eqi_fail(d->ctx, EQAT_INVALID_ARGUMENT,
                        "train_size: found 0, expected at least 1 with a callback");
    if (o->skip_tokens || o->held_tokens)
        return eqi_fail(d->ctx, EQAT_INVALID_ARGUMENT,
                        "%s_tokens: found %lld, expected 0 with a callback",
                        o->skip_tokens ? "skip" : "held",
                        (long long)(o->skip_tokens ? o->skip_tokens : o->held_tokens));
    d->train = o->train_size;
    d->val = o->val_size;
    return EQAT_OK;
}

/* Ranks work step by step together, so that all must have equally many samples. */
static int64_t share(const eqat_data *d, const char *kind, int64_t samples)
{
    int64_t world = d->options.world, left = samples % world;
    if (left)
        eqi_log(d->ctx, EQI_LOG_WARN,
                "world: found %lld %s samples for %lld ranks, the last %lld are left out",
                (long long)samples, kind, (long long)world, (long long)left);
    return samples / world;
}

static eqat_status plan_shares(eqat_data *d)
{
    d->train_here = share(d, "training", d->train);
    d->val_here = share(d, "validation", d->val);
    if (d->train_here) return EQAT_OK;
    return eqi_fail(d->ctx, EQAT_INVALID_ARGUMENT,
                    "world: found %d ranks, expected at most one for each of %lld training samples",
                    d->options.world, (long long)d->train);
}

static eqat_status plan(eqat_data *d)
{
    const eqat_data_options *o = &d->options;
    EQI_RETURN_IF(d->tokens ? plan_windows(d) : plan_records(d));
    EQI_RETURN_IF(plan_shares(d));
    EQI_RETURN_IF(eqi_sample_create(d->ctx, &d->scratch, d->fields, o->seq_len, d->hidden));
    if (!o->shuffle) return EQAT_OK;
    d->order =
        eqi_alloc(d->ctx, sizeof *d->order + (size_t)d->train_here * sizeof d->order->sample[0],
                  "the order of samples");
    if (!d->order) return EQAT_OUT_OF_MEMORY;
    d->order->epoch = -1;
    return EQAT_OK;
}

static eqat_status finish(eqat_data *d, eqat_status st, eqat_data **out)
{
    d->options.text_key = NULL; /* the caller's string need not outlive this call */
    if (st == EQAT_OK) st = plan(d);
    if (st == EQAT_OK)
        *out = d;
    else
        eqat_data_free(d);
    return st;
}

eqat_status eqat_data_open(eqat_context *ctx, eqat_data **out, const char *path,
                           const eqat_tokenizer *tokenizer, int64_t vocab_size,
                           const eqat_data_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out, path);
    eqat_data *d;
    EQI_RETURN_IF(create(ctx, &d, vocab_size, options));
    eqat_status st;
    if (eqi_path_ends(path, ".npy") || eqi_path_ends(path, ".u16") || eqi_path_ends(path, ".u32")) {
        st = eqi_tokens_open(ctx, &d->tokens, path, vocab_size);
    } else if (!eqi_path_ends(path, ".txt") && !eqi_path_ends(path, ".jsonl")) {
        st = eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                      "%s: found another ending, expected .txt, .jsonl, .npy, .u16 or .u32", path);
    } else if (!tokenizer) {
        st = eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                      "%s: found text but no tokenizer, expected tokens (.npy, .u16, .u32)", path);
    } else {
        st = eqi_tokens_create(ctx, &d->tokens, path, vocab_size);
        if (st == EQAT_OK) st = eqi_text_read(d->tokens, path, d->options.text_key, tokenizer);
    }
    return finish(d, st, out);
}

eqat_status eqat_data_from_tokens(eqat_context *ctx, eqat_data **out, const int32_t *ids,
                                  size_t count, int64_t vocab_size,
                                  const eqat_data_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out);
    if (count) EQI_NEED(ctx, ids);
    eqat_data *d;
    EQI_RETURN_IF(create(ctx, &d, vocab_size, options));
    eqat_status st = eqi_tokens_create(ctx, &d->tokens, "tokens", vocab_size);
    if (st == EQAT_OK) st = eqi_tokens_append(d->tokens, ids, count);
    return finish(d, st, out);
}

static eqat_status check_fields(eqi_ctx *ctx, int32_t fields, int64_t hidden)
{
    const int32_t known = EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS | EQAT_SAMPLE_POSITIONS |
        EQAT_SAMPLE_SEGMENTS | EQAT_SAMPLE_EMBEDDINGS;
    if (fields & ~known || !(fields & (EQAT_SAMPLE_IDS | EQAT_SAMPLE_EMBEDDINGS)))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "fields: found %d, expected some of %d, ids or embeddings among them",
                        fields, known);
    bool embeddings = fields & EQAT_SAMPLE_EMBEDDINGS;
    if (hidden < 0 || hidden > INT32_MAX || (hidden > 0) != embeddings)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "hidden_size: found %lld, expected %s",
                        (long long)hidden,
                        embeddings ? "the width of embeddings" : "0 without embeddings");
    return EQAT_OK;
}

eqat_status eqat_data_from_records(eqat_context *ctx, eqat_data **out, eqat_sample_fn fill,
                                   void *user, int32_t fields, int64_t vocab_size,
                                   int64_t hidden_size, const eqat_data_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out, fill);
    EQI_RETURN_IF(check_fields(ctx, fields, hidden_size));
    eqat_data *d;
    EQI_RETURN_IF(create(ctx, &d, vocab_size, options));
    d->fill = fill;
    d->user = user;
    d->fields = fields;
    d->hidden = hidden_size;
    return finish(d, EQAT_OK, out);
}

int64_t eqat_data_train_size(const eqat_data *d) { return d ? d->train_here : 0; }
int64_t eqat_data_val_size(const eqat_data *d) { return d ? d->val_here : 0; }
int64_t eqat_data_seq_len(const eqat_data *d) { return d ? d->options.seq_len : 0; }
int64_t eqat_data_token_count(const eqat_data *d) { return d && d->tokens ? d->tokens->count : 0; }
int32_t eqat_data_fields(const eqat_data *d) { return d ? d->fields : 0; }
int64_t eqat_data_hidden_size(const eqat_data *d) { return d ? d->hidden : 0; }

/* ---- samples ---- */

static const char *kind_name(bool validation) { return validation ? "validation" : "training"; }

static eqat_status call_back(eqat_data *d, bool validation, int64_t index, const eqat_sample *full)
{
    char where[64];
    snprintf(where, sizeof where, "callback, %s sample %lld", kind_name(validation),
             (long long)index);
    d->ctx->error[0] = 0;
    eqat_status st = d->fill(d->user, validation, index, full);
    if (st != EQAT_OK && d->ctx->error[0]) return eqi_fail_in(d->ctx, st, "%s", where);
    if (st != EQAT_OK) return eqi_fail(d->ctx, st, "%s: failed: %s", where, eqat_status_name(st));
    return eqi_sample_check(d->ctx, full, d->options.seq_len, d->vocab, where);
}

static eqat_status read_window(eqat_data *d, bool validation, int64_t index, int32_t *ids)
{
    const eqat_data_options *o = &d->options;
    int64_t first;
    if (o->sampling == EQAT_SAMPLING_CONSECUTIVE)
        first = window_start(d, validation ? d->train + index : index);
    else if (validation)
        first = d->train_span + index * o->seq_len;
    else
        first = drawn_start(d, index);
    return eqi_tokens_read(d->tokens, first, o->seq_len, ids);
}

static eqat_status check_wanted(const eqat_data *d, const eqat_sample *wanted)
{
    const char *missing = NULL;
    if (wanted->ids && !(d->fields & EQAT_SAMPLE_IDS)) missing = "ids";
    if (wanted->embeddings && !(d->fields & EQAT_SAMPLE_EMBEDDINGS)) missing = "embeddings";
    if (wanted->labels && !(d->fields & (EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS))) missing = "labels";
    if (!missing) return EQAT_OK;
    return eqi_fail(d->ctx, EQAT_INVALID_ARGUMENT, "sample: found records without %s", missing);
}

/* What was asked for and the records lack. */
static void make_up(const eqat_data *d, const eqat_sample *full, const eqat_sample *wanted)
{
    int32_t missing = eqi_sample_fields(wanted) & ~d->fields;
    int64_t time = d->options.seq_len;
    if (missing & EQAT_SAMPLE_LABELS)
        eqi_sample_shift(full->ids, full->segments, time, wanted->labels);
    for (int64_t t = 0; t < time && missing & EQAT_SAMPLE_POSITIONS; t++)
        wanted->positions[t] = (int32_t)t;
    for (int64_t t = 0; t < time && missing & EQAT_SAMPLE_SEGMENTS; t++) wanted->segments[t] = 0;
}

eqat_status eqat_data_sample(eqat_data *d, bool validation, int64_t index,
                             const eqat_sample *sample)
{
    EQI_ENTER_OF(d);
    EQI_NEED(d->ctx, sample);
    int64_t here = validation ? d->val_here : d->train_here;
    if (index < 0 || index >= here)
        return eqi_fail(d->ctx, EQAT_INVALID_ARGUMENT, "%s sample: found %lld, expected 0 to %lld",
                        kind_name(validation), (long long)index, (long long)here - 1);
    eqat_sample wanted, full = d->scratch;
    EQI_RETURN_IF(eqi_sample_given(d->ctx, sample, &wanted));
    EQI_RETURN_IF(check_wanted(d, &wanted));
    eqi_sample_replace(&full, &wanted);
    index = index * d->options.world + d->options.rank;
    EQI_RETURN_IF(d->fill ? call_back(d, validation, index, &full)
                          : read_window(d, validation, index, full.ids));
    make_up(d, &full, &wanted);
    return EQAT_OK;
}

/* Fisher and Yates's shuffle, draw i of epoch e at index e * n + i. */
static void shuffle(const eqat_data *d, int64_t epoch)
{
    permutation *order = d->order;
    int64_t n = d->train_here;
    for (int64_t i = 0; i < n; i++) order->sample[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        uint64_t draw = (uint64_t)epoch * (uint64_t)n + (uint64_t)i;
        int64_t j = (int64_t)eqi_rng_below(d->ctx->seed, EQI_RNG_SHUFFLE, draw, (uint64_t)i + 1),
                swap = order->sample[i];
        order->sample[i] = order->sample[j];
        order->sample[j] = swap;
    }
    order->epoch = epoch;
}

int64_t eqat_data_order(const eqat_data *d, int64_t epoch, int64_t position)
{
    if (!d) return -1;
    EQI_GUARD(d->ctx);
    if (position < 0 || position >= d->train_here || epoch < 0) return -1;
    if (!d->order) return position;
    if (d->order->epoch != epoch) shuffle(d, epoch);
    return d->order->sample[position];
}
