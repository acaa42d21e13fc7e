/* Small models in GGUF files, every value of whose tensors is its place in the data section. */
#ifndef TESTS_FORMAT_GGUF_MODEL_H
#define TESTS_FORMAT_GGUF_MODEL_H

#include <jansson.h>

#include "each_test.h"
#include "gguf_bytes.h"

#include "format/gguf_names.h"

enum { HIDDEN = 16, HEADS = 4, KV_HEADS = 2, HEAD = 4, FF = 24, VOCAB = 10 };

static gguf_bytes g;

static inline void key_of(const char *arch, const char *name, uint32_t value)
{
    char text[128];
    snprintf(text, sizeof text, "%s.%s", arch, name);
    key_u32(&g, text, value);
}

static inline void keys(const char *arch)
{
    char text[128];
    begin(&g, 3);
    key_string(&g, "general.architecture", arch);
    key_of(arch, "block_count", 1);
    key_of(arch, "context_length", 256);
    key_of(arch, "embedding_length", HIDDEN);
    key_of(arch, "feed_forward_length", FF);
    key_of(arch, "attention.head_count", HEADS);
    key_of(arch, "attention.head_count_kv", KV_HEADS);
    snprintf(text, sizeof text, "%s.attention.layer_norm_rms_epsilon", arch);
    key_f32(&g, text, 1e-5f);
    key_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    key_u32(&g, "tokenizer.ggml.eos_token_id", 99);
}

static inline void matrix(const char *name, uint64_t rows, uint64_t columns)
{
    tensor(&g, name, G_TYPE_F32, rows, columns, (rows ? rows : 1) * columns * 4);
}

static inline void tensors(bool biases, bool norms)
{
    matrix("token_embd.weight", VOCAB, HIDDEN);
    matrix("blk.0.attn_norm.weight", 0, HIDDEN);
    matrix("blk.0.attn_q.weight", HEADS * HEAD, HIDDEN);
    matrix("blk.0.attn_k.weight", KV_HEADS * HEAD, HIDDEN);
    matrix("blk.0.attn_v.weight", KV_HEADS * HEAD, HIDDEN);
    matrix("blk.0.attn_output.weight", HIDDEN, HEADS * HEAD);
    if (biases) {
        matrix("blk.0.attn_q.bias", 0, HEADS * HEAD);
        matrix("blk.0.attn_k.bias", 0, KV_HEADS * HEAD);
        matrix("blk.0.attn_v.bias", 0, KV_HEADS * HEAD);
    }
    if (norms) {
        matrix("blk.0.attn_q_norm.weight", 0, HEAD);
        matrix("blk.0.attn_k_norm.weight", 0, HEAD);
    }
    matrix("blk.0.ffn_norm.weight", 0, HIDDEN);
    matrix("blk.0.ffn_gate.weight", FF, HIDDEN);
    matrix("blk.0.ffn_up.weight", FF, HIDDEN);
    matrix("blk.0.ffn_down.weight", HIDDEN, FF);
    matrix("output_norm.weight", 0, HIDDEN);
}

/* Every value of the data section is its index. */
static inline void finish(void)
{
    end_header(&g, 32);
    for (uint64_t i = 0; i < g.data / 4; i++) {
        const float x = (float)i;
        put(&g.file, &x, 4);
    }
}

static inline eqat_status open_model(eqi_source **s, json_t **config)
{
    const char *path = scratch("model.gguf");
    eqi_gguf *f;
    *s = NULL;
    *config = NULL;
    write_file(path, g.file.p, g.file.n);
    EQI_RETURN_IF(eqi_gguf_open(ctx, &f, path));
    eqat_status st = eqi_gguf_open_hf(f, s, config);
    eqi_gguf_close(f);
    return st;
}

static inline void must_fail(eqat_status status, const char *message)
{
    eqi_source *s;
    json_t *config;
    says(ctx, open_model(&s, &config), status, message);
    ck_assert(!s && !config);
    ck_assert_ptr_nonnull(strstr(ctx->error, "model.gguf"));
}

static inline double number(const json_t *config, const char *name)
{
    return json_number_value(json_object_get(config, name));
}
static inline const char *string(const json_t *config, const char *name)
{
    return json_string_value(json_object_get(config, name));
}

static inline float *read_all(eqi_source *s, const char *name)
{
    static float values[VOCAB * FF * HIDDEN];
    const eqi_source_entry *e = eqi_source_find(s, name);
    ck_assert_msg(e != NULL, "%s is missing", name);
    OK(ctx, eqi_source_read_f32(s, e, 0, e->elements, values));
    return values;
}

#endif
