#include <math.h>
#include <stdio.h>
#include <string.h>

#include "format/gguf_names.h"
#include "model/gguf.h"

typedef struct keys {
    const eqat_model *m;
    const eqi_config *c;
    eqi_gguf_writer *w;
    const char *architecture;
} keys;

static void put_int(const keys *k, const char *name, int64_t value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", k->architecture, name);
    eqi_gguf_put_u32(k->w, key, (uint32_t)value);
}

static void put_real(const keys *k, const char *name, double value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", k->architecture, name);
    eqi_gguf_put_f32(k->w, key, (float)value);
}

static void put_text(const keys *k, const char *name, const char *value)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", k->architecture, name);
    eqi_gguf_put_string(k->w, key, value);
}

static bool is(const keys *k, const char *architecture)
{
    return !strcmp(k->architecture, architecture);
}

static eqat_status refuse(const keys *k, const char *key, const char *found, const char *expected)
{
    return eqi_fail(k->m->ctx, EQAT_UNSUPPORTED,
                    "%s: %s: found %s, expected %s: GGUF's %s has no "
                    "other",
                    k->m->path, key, found, expected, k->architecture);
}

static void put_sizes(const keys *k)
{
    const eqi_config *c = k->c;
    put_int(k, "block_count", c->blocks);
    put_int(k, "context_length", c->max_positions);
    put_int(k, "embedding_length", c->hidden);
    put_int(k, "feed_forward_length", c->intermediate);
    put_int(k, "attention.head_count", c->heads);
    put_int(k, "attention.head_count_kv", c->kv_heads);
    put_int(k, "attention.key_length", c->head_dim);
    put_int(k, "attention.value_length", c->head_dim);
    put_int(k, "rope.dimension_count", c->head_dim);
    put_int(k, "vocab_size", c->vocab);
    put_real(k, "attention.layer_norm_rms_epsilon", c->eps);
}

static eqat_status put_rope(const keys *k)
{
    const eqi_rope *r = &k->c->ropes[0];
    put_real(k, "rope.freq_base", r->theta);
    switch (r->kind) {
    case EQI_ROPE_PLAIN: return EQAT_OK;
    case EQI_ROPE_LINEAR:
        put_text(k, "rope.scaling.type", "linear");
        put_real(k, "rope.scaling.factor", r->factor);
        return EQAT_OK;
    case EQI_ROPE_LLAMA3:
        if (!is(k, "llama")) return refuse(k, "rope_scaling", "llama3", "linear or none");
        put_int(k, "rope.scaling.original_context_length", r->original);
        return EQAT_OK;
    case EQI_ROPE_DYNAMIC: break;
    }
    return refuse(k, "rope_scaling", "dynamic",
                  is(k, "llama") ? "linear, llama3 or none" : "linear or none");
}

bool eqi_gguf_rope_factors(const eqat_model *m, float *factors)
{
    const eqi_rope *r = &m->config.ropes[0];
    const int64_t pairs = m->config.head_dim / 2;
    if (r->kind != EQI_ROPE_LLAMA3) return false;
    for (int64_t i = 0; factors && i < pairs; i++)
        factors[i] = (float)eqi_llama3_factor(r->theta, pairs, i, r->factor, r->low, r->high,
                                              (double)r->original);
    return true;
}

static int64_t sliding_blocks(const eqi_config *c)
{
    int64_t n = 0;
    for (int64_t b = 0; b < c->blocks; b++) n += eqi_block_in(&c->sliding, b);
    return n;
}

/* Every n-th block sees everything, and the others do not; 0: there is no such n. */
static int64_t window_pattern(const eqi_config *c)
{
    int64_t n = 1;
    while (n <= c->blocks && eqi_block_in(&c->sliding, n - 1)) n++;
    for (int64_t b = 0; b < c->blocks; b++)
        if (eqi_block_in(&c->sliding, b) != ((b + 1) % n != 0)) return 0;
    return n;
}

static eqat_status put_window(const keys *k)
{
    const eqi_config *c = k->c;
    const int64_t sliding = sliding_blocks(c);
    if (!sliding) return EQAT_OK;
    put_int(k, "attention.sliding_window", c->window);
    if (is(k, "gemma3")) {
        const int64_t n = window_pattern(c);
        if (!n) return refuse(k, "layer_types", "another order", "every n-th full_attention");
        put_int(k, "attention.sliding_window_pattern", n);
        return EQAT_OK;
    }
    if (sliding != c->blocks)
        return refuse(k, "sliding_window", "it in some blocks", "it in all or none");
    eqi_log(k->m->ctx, EQI_LOG_WARN,
            "%s: llama.cpp has no sliding window for %s: beyond %lld tokens it sees more than the "
            "model does",
            k->m->path, k->architecture, (long long)c->window);
    return EQAT_OK;
}

/* Readers take the scale of the scores from the sizes: by the size of a head, but in the largest
 * model by hidden / heads. */
static eqat_status put_gemma(const keys *k)
{
    const eqi_config *c = k->c;
    const int64_t divisor = c->blocks == 62 ? c->hidden / c->heads : c->head_dim;
    if (fabs(c->score_scale * sqrt((double)divisor) - 1) > 1e-6)
        return refuse(k, "query_pre_attn_scalar", "another number", "the size of a head");
    if (!c->tied) return refuse(k, "tie_word_embeddings", "false", "true");
    if (c->n_ropes > 1) {
        if (c->ropes[1].kind != EQI_ROPE_PLAIN)
            return refuse(k, "rope_scaling", "it for windows", "it for the others alone");
        put_real(k, "rope.freq_base_swa", c->ropes[1].theta);
    }
    return EQAT_OK;
}

static eqat_status put_experts(const keys *k)
{
    const eqi_config *c = k->c;
    for (int64_t b = 0; b < c->blocks; b++)
        if (!eqi_block_in(&c->sparse, b))
            return refuse(k, "mlp_only_layers", "a block without experts", "experts in all blocks");
    if (!c->normalise_experts) return refuse(k, "norm_topk_prob", "false", "true");
    put_int(k, "expert_count", c->experts);
    put_int(k, "expert_used_count", c->experts_per_token);
    put_int(k, "expert_feed_forward_length", c->expert_mlp);
    return EQAT_OK;
}

/* The last part of the model's path, without ".gguf". */
static void put_name(const keys *k)
{
    char name[256];
    const char *path = k->m->path;
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0 && path[start - 1] != '/';) start--;
    if (end - start > 5 && !strncmp(path + end - 5, ".gguf", 5)) end -= 5;
    snprintf(name, sizeof name, "%.*s", (int)(end - start < 255 ? end - start : 255), path + start);
    eqi_gguf_put_string(k->w, "general.name", name);
}

eqat_status eqi_gguf_put_config(const eqat_model *m, eqi_gguf_writer *w)
{
    keys k = {.m = m,
              .c = &m->config,
              .w = w,
              .architecture = eqi_gguf_architecture(m->config.family->model_type)};
    if (!k.architecture)
        return eqi_fail(m->ctx, EQAT_UNSUPPORTED, "%s: model_type: found %s, which GGUF has not",
                        m->path, m->config.family->model_type);
    eqi_gguf_put_string(w, "general.architecture", k.architecture);
    eqi_gguf_put_string(w, "general.type", "model");
    put_name(&k);
    put_sizes(&k);
    EQI_RETURN_IF(put_rope(&k));
    EQI_RETURN_IF(put_window(&k));
    if (is(&k, "gemma3")) EQI_RETURN_IF(put_gemma(&k));
    return m->config.family->experts ? put_experts(&k) : EQAT_OK;
}
