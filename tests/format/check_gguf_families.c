/* What gemma3 and qwen3moe files have that the others do not. */
#include "each_test.h"
#include "gguf_model.h"
#include "json.h"

enum { EXPERTS = 3, EXPERT_FF = 32 };

static void experts(const char *name, uint32_t type, uint64_t n, uint64_t rows, uint64_t columns,
                    uint64_t size)
{
    const uint64_t ne[3] = {columns, rows, n};
    tensor_at(&g, name, type, 3, ne, g.data);
    g.data += (size + 31) / 32 * 32;
}

static void mixture(uint32_t declared)
{
    keys("qwen3moe");
    key_of("qwen3moe", "expert_count", declared);
    key_of("qwen3moe", "expert_used_count", 2);
    key_of("qwen3moe", "expert_feed_forward_length", EXPERT_FF);
    tensors(false, true);
    matrix("blk.0.ffn_gate_inp.weight", EXPERTS, HIDDEN);
    experts("blk.0.ffn_gate_exps.weight", G_TYPE_F32, EXPERTS, EXPERT_FF, HIDDEN,
            EXPERTS * EXPERT_FF * HIDDEN * 4);
    experts("blk.0.ffn_up_exps.weight", G_TYPE_F16, EXPERTS, EXPERT_FF, HIDDEN,
            EXPERTS * EXPERT_FF * HIDDEN * 2);
    experts("blk.0.ffn_down_exps.weight", G_TYPE_Q8_0, EXPERTS, HIDDEN, EXPERT_FF,
            EXPERTS * HIDDEN * 34);
}

/* Where the tensor begins in the file that open_model wrote. */
static const unsigned char *data_of(const eqi_source *s, const char *name)
{
    const eqi_source_entry *e = eqi_source_find(s, name);
    ck_assert_msg(e != NULL, "%s is missing", name);
    return g.file.p + e->offset;
}

START_TEST(experts_are_entries)
{
    mixture(EXPERTS);
    finish();
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    ck_assert_str_eq(string(config, "model_type"), "qwen3_moe");
    ck_assert(number(config, "num_experts") == EXPERTS &&
              number(config, "num_experts_per_tok") == 2);
    ck_assert(number(config, "moe_intermediate_size") == EXPERT_FF);
    ck_assert(number(config, "intermediate_size") == FF);
    ck_assert(json_is_true(json_object_get(config, "norm_topk_prob")));
    ck_assert(json_is_false(json_object_get(config, "use_sliding_window")));
    json_decref(config);
    const float *router = read_all(s, "model.layers.0.mlp.gate.weight");
    ck_assert(router[1] == router[0] + 1);
    float first = -1, x[EXPERT_FF * HIDDEN];
    char name[EQI_HF_NAME_MAX];
    for (int i = 0; i < EXPERTS; i++) {
        snprintf(name, sizeof name, "model.layers.0.mlp.experts.%d.gate_proj.weight", i);
        const eqi_source_entry *e = eqi_source_find(s, name);
        ck_assert(e && e->ndim == 2 && e->shape[0] == EXPERT_FF && e->shape[1] == HIDDEN);
        const float *values = read_all(s, name);
        if (i == 0) first = values[0];
        for (int k = 0; k < EXPERT_FF * HIDDEN; k++)
            ck_assert(values[k] == first + (float)(i * EXPERT_FF * HIDDEN + k));
        snprintf(name, sizeof name, "model.layers.0.mlp.experts.%d.up_proj.weight", i);
        ck_assert_ptr_eq(data_of(s, name),
                         data_of(s, "model.layers.0.mlp.experts.0.up_proj.weight") +
                             i * EXPERT_FF * HIDDEN * 2);
        /* 34 bytes a row of 32. */
        snprintf(name, sizeof name, "model.layers.0.mlp.experts.%d.down_proj.weight", i);
        e = eqi_source_find(s, name);
        ck_assert(e && e->shape[0] == HIDDEN && e->shape[1] == EXPERT_FF &&
                  e->bytes == HIDDEN * 34);
        ck_assert_ptr_eq(data_of(s, name),
                         data_of(s, "model.layers.0.mlp.experts.0.down_proj.weight") +
                             i * HIDDEN * 34);
        OK(ctx, eqi_source_read_f32(s, e, 0, e->elements, x));
    }
    ck_assert_ptr_null(eqi_source_find(s, "model.layers.0.mlp.experts.3.gate_proj.weight"));
    eqi_source_close(s);
}
END_TEST

START_TEST(mixture_refusals)
{
    mixture(EXPERTS + 1);
    finish();
    must_fail(EQAT_FORMAT, "the first of 3, expected 3, the first of 4");
    mixture(EXPERTS);
    matrix("blk.0.ffn_gate_exps.weight", EXPERTS, HIDDEN);
    finish();
    must_fail(EQAT_FORMAT, "ffn_gate_exps");
    keys("qwen3moe");
    tensors(false, true);
    finish();
    must_fail(EQAT_FORMAT, "qwen3moe.expert_count: missing");
    keys("qwen3moe");
    key_of("qwen3moe", "expert_count", 1 << 30);
    key_of("qwen3moe", "expert_used_count", 2);
    tensors(false, true);
    experts("blk.0.ffn_gate_exps.weight", G_TYPE_F32, 1 << 30, EXPERT_FF, 0, 0);
    finish();
    must_fail(EQAT_FORMAT, "is empty");
    keys("qwen3");
    tensors(false, true);
    matrix("blk.0.ffn_gate_inp.weight", EXPERTS, HIDDEN);
    finish();
    must_fail(EQAT_UNSUPPORTED, "not known for architecture qwen3");
}
END_TEST

static void gemma(uint32_t blocks, bool window)
{
    begin(&g, 3);
    key_string(&g, "general.architecture", "gemma3");
    key_of("gemma3", "block_count", blocks);
    key_of("gemma3", "context_length", 256);
    key_of("gemma3", "embedding_length", HIDDEN);
    key_of("gemma3", "feed_forward_length", FF);
    key_of("gemma3", "attention.head_count", HEADS);
    key_of("gemma3", "attention.head_count_kv", KV_HEADS);
    key_of("gemma3", "attention.key_length", 2 * HEAD);
    key_of("gemma3", "attention.value_length", 2 * HEAD);
    key_f32(&g, "gemma3.attention.layer_norm_rms_epsilon", 1e-6f);
    if (window) key_of("gemma3", "attention.sliding_window", 5);
}

static void gemma_tensors(int blocks)
{
    char name[64];
    tensors(false, true);
    for (int i = 0; i < blocks; i++) {
        snprintf(name, sizeof name, "blk.%d.post_attention_norm.weight", i);
        matrix(name, 0, HIDDEN);
        snprintf(name, sizeof name, "blk.%d.post_ffw_norm.weight", i);
        matrix(name, 0, HIDDEN);
    }
}

START_TEST(norms_lose_one)
{
    static const char *const norms[] = {"model.norm",
                                        "model.layers.0.input_layernorm",
                                        "model.layers.0.post_attention_layernorm",
                                        "model.layers.0.pre_feedforward_layernorm",
                                        "model.layers.0.post_feedforward_layernorm",
                                        "model.layers.0.self_attn.q_norm",
                                        "model.layers.0.self_attn.k_norm"};
    gemma(1, true);
    gemma_tensors(1);
    finish();
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    json_decref(config);
    char name[96];
    for (size_t i = 0; i < EQI_COUNT(norms); i++) {
        snprintf(name, sizeof name, "%s.weight", norms[i]);
        const eqi_source_entry *e = eqi_source_find(s, name);
        float stored[HIDDEN], part[HIDDEN];
        memcpy(stored, data_of(s, name), (size_t)e->bytes);
        const float *x = read_all(s, name);
        for (int64_t k = 0; k < e->elements; k++) ck_assert(x[k] == stored[k] - 1);
        /* Reads that begin and end inside values. */
        for (size_t first = 0; first < e->bytes; first++) {
            const size_t n = (size_t)e->bytes - first;
            OK(ctx, eqi_source_read_raw(s, e, first, n, part));
            ck_assert_mem_eq(part, (const char *)x + first, n);
            OK(ctx, eqi_source_read_raw(s, e, first, n / 3, part));
            ck_assert_mem_eq(part, (const char *)x + first, n / 3);
        }
    }
    float stored[HIDDEN];
    memcpy(stored, data_of(s, "model.layers.0.mlp.up_proj.weight"), sizeof stored);
    ck_assert(read_all(s, "model.layers.0.mlp.up_proj.weight")[3] == stored[3]);
    eqi_source_close(s);
    gemma(1, true);
    gemma_tensors(0);
    tensor(&g, "blk.0.post_ffw_norm.weight", G_TYPE_F16, 0, HIDDEN, HIDDEN * 2);
    finish();
    must_fail(EQAT_UNSUPPORTED, "found type F16, expected F32");
}
END_TEST

static const char *type_of(const json_t *config, size_t block)
{
    return json_string_value(json_array_get(json_object_get(config, "layer_types"), block));
}

START_TEST(gemma_configuration)
{
    gemma(13, true);
    key_of("gemma3", "unread", 1);
    gemma_tensors(13);
    finish();
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    eqi_source_close(s);
    ck_assert_str_eq(string(config, "model_type"), "gemma3_text");
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
                     "Gemma3ForCausalLM");
    ck_assert_str_eq(string(config, "hidden_activation"), "gelu_pytorch_tanh");
    ck_assert_ptr_null(json_object_get(config, "hidden_act"));
    ck_assert(json_is_true(json_object_get(config, "tie_word_embeddings")));
    ck_assert(number(config, "head_dim") == 2 * HEAD && number(config, "sliding_window") == 5);
    ck_assert(number(config, "query_pre_attn_scalar") == 2 * HEAD);
    ck_assert(number(config, "rope_theta") == 1e6 && number(config, "rope_local_base_freq") == 1e4);
    ck_assert_uint_eq(json_array_size(json_object_get(config, "layer_types")), 13);
    for (size_t i = 0; i < 13; i++)
        ck_assert_str_eq(type_of(config, i),
                         i == 5 || i == 11 ? "full_attention" : "sliding_attention");
    json_decref(config);

    gemma(2, true);
    key_of("gemma3", "attention.sliding_window_pattern", 2);
    key_f32(&g, "gemma3.rope.freq_base", 500000);
    key_f32(&g, "gemma3.rope.freq_base_swa", 5000);
    key_f32(&g, "gemma3.rope.scaling.factor", 8);
    key_string(&g, "gemma3.rope.scaling.type", "linear");
    gemma_tensors(2);
    finish();
    OK(ctx, open_model(&s, &config));
    eqi_source_close(s);
    ck_assert(number(config, "rope_theta") == 5e5 && number(config, "rope_local_base_freq") == 5e3);
    ck_assert(number(json_object_get(config, "rope_scaling"), "factor") == 8);
    ck_assert_str_eq(type_of(config, 0), "sliding_attention");
    ck_assert_str_eq(type_of(config, 1), "full_attention");
    json_decref(config);

    /* The largest scales its queries in its own way; a file without a window has none. */
    gemma(62, false);
    gemma_tensors(62);
    finish();
    OK(ctx, open_model(&s, &config));
    eqi_source_close(s);
    ck_assert(number(config, "query_pre_attn_scalar") == HIDDEN / HEADS);
    ck_assert(json_is_null(json_object_get(config, "sliding_window")));
    ck_assert_str_eq(type_of(config, 0), "full_attention");
    json_decref(config);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("gguf_families");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, experts_are_entries);
    tcase_add_test(c, mixture_refusals);
    tcase_add_test(c, norms_lose_one);
    tcase_add_test(c, gemma_configuration);
    const int failed = run_case("gguf_families", c, CK_FORK_GETENV);
    free(g.file.p);
    return failed;
}
