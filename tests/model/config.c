#include "cases.h"
#include "each_test.h"

static eqat_status parse(const char *text, eqi_config *out)
{
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    ck_assert_msg(json != NULL, "%s", error.text);
    eqat_status st = eqi_config_parse(ctx, out, json, "config.json");
    json_decref(json);
    return st;
}

#define HEAD                                                                     \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 4, " \
    "\"num_attention_heads\": 4, \"vocab_size\": 50"

START_TEST(defaults_are_those_of_transformers)
{
    eqi_config c;
    OK(ctx, parse("{\"model_type\": \"llama\", " HEAD "}", &c));
    ck_assert_str_eq(c.family->name, "llama");
    ck_assert_int_eq(c.kv_heads, 4);
    ck_assert_int_eq(c.head_dim, 16);
    ck_assert(!c.tied && !c.attention_bias && !c.o_bias && !c.mlp_bias && c.window == 0);
    ck_assert(c.eps == 1e-6 && c.ropes[0].theta == 10000 && c.ropes[0].kind == EQI_ROPE_PLAIN);
    OK(ctx, parse("{\"model_type\": \"qwen3\", " HEAD "}", &c));
    ck_assert_int_eq(c.head_dim, 128);
    OK(ctx, parse("{\"model_type\": \"mistral\", " HEAD "}", &c));
    ck_assert_int_eq(c.window, 4096);
}
END_TEST

START_TEST(biases)
{
    eqi_config c;
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"attention_bias\": true, \"mlp_bias\": true, " HEAD "}",
             &c));
    ck_assert(c.attention_bias && c.o_bias && c.mlp_bias);
    OK(ctx,
       parse("{\"model_type\": \"qwen2\", \"attention_bias\": false, \"mlp_bias\": true, " HEAD "}",
             &c));
    ck_assert(c.attention_bias && !c.o_bias && !c.mlp_bias);
    OK(ctx,
       parse("{\"model_type\": \"qwen3\", \"attention_bias\": true, \"mlp_bias\": true, " HEAD "}",
             &c));
    ck_assert(c.attention_bias && c.o_bias && !c.mlp_bias);
    OK(ctx, parse("{\"model_type\": \"mistral\", \"attention_bias\": true, " HEAD "}", &c));
    ck_assert(!c.attention_bias && !c.o_bias);
}
END_TEST

START_TEST(windows)
{
    eqi_config c;
    OK(ctx, parse("{\"model_type\": \"mistral\", \"sliding_window\": null, " HEAD "}", &c));
    ck_assert_int_eq(c.window, 0);
    OK(ctx, parse("{\"model_type\": \"mistral\", \"sliding_window\": 7, " HEAD "}", &c));
    ck_assert(c.window == 7 && eqi_block_in(&c.sliding, 0));
    OK(ctx, parse("{\"model_type\": \"llama\", \"sliding_window\": 7, " HEAD "}", &c));
    ck_assert_int_eq(c.window, 0);
    OK(ctx, parse("{\"model_type\": \"qwen2\", \"sliding_window\": 7, " HEAD "}", &c));
    ck_assert_int_eq(c.window, 0);
    OK(ctx,
       parse("{\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"sliding_window\": 7, "
             "\"max_window_layers\": 3, " HEAD "}",
             &c));
    ck_assert(c.window == 7 && !eqi_block_in(&c.sliding, 2) && eqi_block_in(&c.sliding, 3));
    OK(ctx,
       parse("{\"model_type\": \"qwen3\", \"use_sliding_window\": true, \"sliding_window\": 7, "
             "\"layer_types\": "
             "[\"full_attention\", "
             "\"full_attention\", \"sliding_attention\", \"sliding_attention\"], " HEAD "}",
             &c));
    ck_assert(c.window == 7 && !eqi_block_in(&c.sliding, 1) && eqi_block_in(&c.sliding, 2));
}
END_TEST

START_TEST(rotary_scaling)
{
    eqi_config c;
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"rope_theta\": 5e5, \"rope_scaling\": null, " HEAD "}",
             &c));
    ck_assert(c.ropes[0].kind == EQI_ROPE_PLAIN && c.ropes[0].theta == 5e5);
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"rope_scaling\": {\"type\": \"linear\", \"factor\": "
             "4}, " HEAD "}",
             &c));
    ck_assert(c.ropes[0].kind == EQI_ROPE_LINEAR && c.ropes[0].factor == 4);
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"rope_parameters\": {\"rope_type\": \"dynamic\", "
             "\"factor\": 2.5, "
             "\"rope_theta\": 1e6}, " HEAD "}",
             &c));
    ck_assert(c.ropes[0].kind == EQI_ROPE_DYNAMIC && c.ropes[0].factor == 2.5 &&
              c.ropes[0].theta == 1e6);
    static const char *const nothing[] = {"null", "{}"};
    for (size_t i = 0; i < EQI_COUNT(nothing); i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"model_type\": \"llama\", \"rope_scaling\": %s, \"rope_parameters\": "
                 "{\"rope_type\": \"linear\", \"factor\": 8, \"rope_theta\": 5e5}, " HEAD "}",
                 nothing[i]);
        OK(ctx, parse(text, &c));
        ck_assert_msg(c.ropes[0].kind == EQI_ROPE_LINEAR && c.ropes[0].factor == 8 &&
                          c.ropes[0].theta == 5e5,
                      "rope_scaling %s", nothing[i]);
    }
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"rope_scaling\": {}, \"rope_parameters\": {}, " HEAD "}",
             &c));
    ck_assert(c.ropes[0].kind == EQI_ROPE_PLAIN && c.ropes[0].theta == 10000);
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"llama3\", "
             "\"factor\": 32, \"low_freq_factor\": 1, "
             "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 8192}, " HEAD "}",
             &c));
    ck_assert(c.ropes[0].kind == EQI_ROPE_LLAMA3 && c.ropes[0].low == 1 && c.ropes[0].high == 4 &&
              c.ropes[0].original == 8192);
}
END_TEST

#define GEMMA "{\"model_type\": \"gemma3_text\", "
#define MIXTURE "{\"model_type\": \"qwen3_moe\", "

START_TEST(gemma_defaults)
{
    eqi_config c;
    OK(ctx, parse(GEMMA HEAD "}", &c));
    ck_assert(c.head_dim == 256 && c.tied && c.activation == EQI_GELU_TANH && c.window == 4096);
    ck_assert(c.max_positions == 131072 && c.score_scale == 1.0 / 16 && c.n_ropes == 2);
    ck_assert(c.ropes[0].theta == 1e6 && c.ropes[1].theta == 1e4);
    ck_assert(c.ropes[0].kind == EQI_ROPE_PLAIN && c.ropes[1].kind == EQI_ROPE_PLAIN);
    OK(ctx,
       parse(GEMMA "\"query_pre_attn_scalar\": 64, \"tie_word_embeddings\": false, "
                   "\"hidden_activation\": \"silu\", " HEAD "}",
             &c));
    ck_assert(c.score_scale == 1.0 / 8 && !c.tied && c.activation == EQI_SILU);
}
END_TEST

/* One character a block: s for a window. */
static void windows_of(const char *keys, const char *expected)
{
    char text[1024];
    eqi_config c;
    snprintf(text, sizeof text, GEMMA "%s" HEAD "}", keys);
    OK(ctx, parse(text, &c));
    for (int64_t i = 0; expected[i]; i++)
        ck_assert_msg(eqi_block_in(&c.sliding, i) == (expected[i] == 's'), "%s: block %d", keys,
                      (int)i);
}

START_TEST(gemma_windows)
{
    windows_of("", "ssss");
    windows_of("\"sliding_window_pattern\": 2, ", "sfsf");
    windows_of("\"sliding_window_pattern\": 3, ", "ssfs");
    windows_of("\"sliding_window_pattern\": 1, ", "ffff");
    windows_of("\"sliding_window\": null, ", "ffff");
    windows_of("\"layer_types\": null, \"sliding_window_pattern\": 4, ", "sssf");
    windows_of("\"sliding_window_pattern\": 2, \"layer_types\": [\"full_attention\", "
               "\"sliding_attention\", \"sliding_attention\", \"full_attention\"], ",
               "fssf");
}
END_TEST

START_TEST(gemma_ropes_in_both_spellings)
{
    static const char *const spellings[] = {
        "\"rope_theta\": 5e5, \"rope_local_base_freq\": 3e4, \"rope_scaling\": {\"rope_type\": "
        "\"linear\", \"factor\": 8}, ",
        "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 8, "
        "\"rope_theta\": 5e5}, \"sliding_attention\": {\"rope_type\": \"default\", "
        "\"rope_theta\": 3e4}}, "};
    char text[1024];
    eqi_config c;
    for (size_t i = 0; i < EQI_COUNT(spellings); i++) {
        snprintf(text, sizeof text, GEMMA "%s" HEAD "}", spellings[i]);
        OK(ctx, parse(text, &c));
        ck_assert_int_eq(c.n_ropes, 2);
        ck_assert(c.ropes[0].kind == EQI_ROPE_LINEAR && c.ropes[0].factor == 8 &&
                  c.ropes[0].theta == 5e5);
        ck_assert(c.ropes[1].kind == EQI_ROPE_PLAIN && c.ropes[1].theta == 3e4);
    }
    OK(ctx,
       parse(GEMMA "\"rope_parameters\": {\"sliding_attention\": {\"rope_theta\": 7e3}}, " HEAD "}",
             &c));
    ck_assert(c.ropes[0].theta == 1e6 && c.ropes[1].theta == 7e3);
}
END_TEST

/* One character a block: m for a mixture. */
static void mixtures_of(const char *keys, const char *expected)
{
    char text[1024];
    eqi_config c;
    snprintf(text, sizeof text, MIXTURE "%s" HEAD "}", keys);
    OK(ctx, parse(text, &c));
    for (int64_t i = 0; expected[i]; i++)
        ck_assert_msg(eqi_block_in(&c.sparse, i) == (expected[i] == 'm'), "%s: block %d", keys,
                      (int)i);
}

START_TEST(mixtures)
{
    eqi_config c;
    OK(ctx, parse(MIXTURE HEAD "}", &c));
    ck_assert(c.experts == 128 && c.experts_per_token == 8 && c.expert_mlp == 768 &&
              !c.normalise_experts);
    OK(ctx,
       parse(MIXTURE "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": "
                     "32, \"norm_topk_prob\": true, " HEAD "}",
             &c));
    ck_assert(c.experts == 4 && c.experts_per_token == 2 && c.expert_mlp == 32 &&
              c.normalise_experts);
    OK(ctx, parse(MIXTURE "\"num_local_experts\": 16, " HEAD "}", &c));
    ck_assert_int_eq(c.experts, 16);
    mixtures_of("", "mmmm");
    mixtures_of("\"decoder_sparse_step\": 2, ", "dmdm");
    mixtures_of("\"decoder_sparse_step\": 3, ", "ddmd");
    mixtures_of("\"mlp_only_layers\": [0, 3], ", "dmmd");
    mixtures_of("\"mlp_only_layers\": [], ", "mmmm");
    mixtures_of("\"decoder_sparse_step\": 2, \"mlp_only_layers\": [3], ", "dmdd");
    OK(ctx,
       parse("{\"model_type\": \"qwen3\", \"num_experts\": 4, \"decoder_sparse_step\": 1, " HEAD
             "}",
             &c));
    ck_assert(!eqi_block_in(&c.sparse, 0));
    OK(ctx,
       parse(MIXTURE "\"use_sliding_window\": true, \"sliding_window\": 7, "
                     "\"max_window_layers\": 3, " HEAD "}",
             &c));
    ck_assert(c.window == 7 && eqi_block_in(&c.sliding, 0) && eqi_block_in(&c.sliding, 3));
}
END_TEST

static const struct {
    const char *text;
    eqat_status status;
    const char *message;
} refused[] = {
    {"[]", EQAT_FORMAT, "expected a JSON object"},
    {"{}", EQAT_FORMAT, "model_type: found nothing"},
    {"{\"model_type\": \"gemma3\", \"architectures\": [\"Gemma3ForCausalLM\"], " HEAD "}",
     EQAT_UNSUPPORTED,
     "architecture Gemma3ForCausalLM (model_type gemma3): expected llama, mistral, qwen2, qwen3, "
     "qwen3_moe or gemma3_text"},
    {"{\"model_type\": \"llama\", \"architectures\": [\"LlamaForSequenceClassification\"], " HEAD
     "}",
     EQAT_UNSUPPORTED,
     "architectures: found LlamaForSequenceClassification, expected LlamaForCausalLM"},
    {"{\"model_type\": \"llama\", \"architectures\": \"LlamaForCausalLM\", " HEAD "}", EQAT_FORMAT,
     "architectures: found \"Llama"},
    {"{\"model_type\": \"llama\", \"hidden_size\": 64}", EQAT_FORMAT,
     "intermediate_size: found nothing, expected an integer"},
    {"{\"model_type\": \"llama\", \"head_dim\": 15, " HEAD "}", EQAT_FORMAT,
     "head_dim: found 15, expected an even number"},
    {"{\"model_type\": \"llama\", \"num_key_value_heads\": 3, " HEAD "}", EQAT_FORMAT,
     "num_key_value_heads: found 3, expected a divisor of num_attention_heads"},
    {"{\"model_type\": \"llama\", " HEAD ", \"num_attention_heads\": 7}", EQAT_FORMAT,
     "num_attention_heads: found 7, expected a divisor of hidden_size"},
    {"{\"model_type\": \"llama\", \"num_key_value_heads\": 0, " HEAD "}", EQAT_FORMAT,
     "num_key_value_heads: found 0"},
    {"{\"model_type\": \"llama\", \"num_key_value_heads\": 1e300, " HEAD "}", EQAT_FORMAT,
     "num_key_value_heads: found 1"},
    {"{\"model_type\": \"llama\", \"num_key_value_heads\": 2.5, " HEAD "}", EQAT_FORMAT,
     "num_key_value_heads: found 2.5"},
    {"{\"model_type\": \"llama\", \"head_dim\": 16777216, " HEAD "}", EQAT_FORMAT,
     "num_attention_heads: found 4"},
    {"{\"model_type\": \"llama\", \"hidden_act\": \"gelu\", " HEAD "}", EQAT_UNSUPPORTED,
     "hidden_act: found gelu, expected silu"},
    {"{\"model_type\": \"llama\", \"tie_word_embeddings\": 1, " HEAD "}", EQAT_FORMAT,
     "tie_word_embeddings: found 1, expected true or false"},
    {"{\"model_type\": \"llama\", \"rms_norm_eps\": -1, " HEAD "}", EQAT_FORMAT,
     "rms_norm_eps: found -1, expected a number from 0 to 1"},
    {"{\"model_type\": \"llama\", \"partial_rotary_factor\": 0.5, " HEAD "}", EQAT_UNSUPPORTED,
     "partial_rotary_factor: found 0.5"},
    {"{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}, " HEAD
     "}",
     EQAT_UNSUPPORTED,
     "rope_scaling.rope_type: found yarn, expected default, linear, dynamic or llama3"},
    {"{\"model_type\": \"llama\", \"rope_scaling\": {\"type\": \"longrope\"}, " HEAD "}",
     EQAT_UNSUPPORTED, "found longrope"},
    {"{\"model_type\": \"llama\", \"rope_scaling\": {\"type\": \"linear\"}, " HEAD "}", EQAT_FORMAT,
     "rope_scaling.factor: found nothing"},
    {"{\"model_type\": \"llama\", \"rope_scaling\": [1], " HEAD "}", EQAT_FORMAT,
     "rope_scaling: found [1], expected an object"},
    {"{\"model_type\": \"llama\", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 2, "
     "\"low_freq_factor\": 4, "
     "\"high_freq_factor\": 4}, " HEAD "}",
     EQAT_FORMAT, "high_freq_factor: found 4, expected more than low_freq_factor"},
    {"{\"model_type\": \"qwen3\", \"rope_parameters\": {\"full_attention\": {}, "
     "\"sliding_attention\": {}}, " HEAD "}",
     EQAT_UNSUPPORTED, "rope_parameters: found parameters per layer type"},
    {"{\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"layer_types\": "
     "[\"full_attention\"], " HEAD "}",
     EQAT_FORMAT, "layer_types: found"},
    {"{\"model_type\": \"qwen2\", \"use_sliding_window\": true, \"layer_types\": "
     "[\"full_attention\", \"full_attention\", 3, "
     "\"chunked_attention\"], " HEAD "}",
     EQAT_UNSUPPORTED, "layer_types: found something else"},
    {"{\"model_type\": \"mistral\", \"sliding_window\": 8, \"layer_types\": "
     "[\"sliding_attention\", \"full_attention\", \"sliding_attention\", \"full_attention\"], " HEAD
     "}",
     EQAT_UNSUPPORTED, "layer_types: found full_attention in block 1, expected sliding_attention"},
    {"{\"model_type\": \"llama\", \"layer_types\": [\"full_attention\", \"full_attention\", "
     "\"full_attention\", \"sliding_attention\"], " HEAD "}",
     EQAT_UNSUPPORTED, "layer_types: found sliding_attention in block 3, expected full_attention"},
    {"{\"model_type\": \"qwen3\", \"use_sliding_window\": false, \"layer_types\": "
     "[\"full_attention\", \"full_attention\", \"full_attention\", \"sliding_attention\"], " HEAD
     "}",
     EQAT_UNSUPPORTED, "layer_types: found sliding_attention in block 3"},
    {"{\"model_type\": \"mistral\", \"layer_types\": \"all\", " HEAD "}", EQAT_FORMAT,
     "layer_types: found \"all\", expected a list with one entry a block"},
    {"{\"model_type\": \"llama\", \"rope_interleaved\": true, " HEAD "}", EQAT_UNSUPPORTED,
     "rope_interleaved: found true, expected null"},
    {"{\"model_type\": \"llama\", \"residual_multiplier\": 0.22, " HEAD "}", EQAT_UNSUPPORTED,
     "residual_multiplier: found 0.22"},
    {GEMMA "\"final_logit_softcapping\": 30.0, " HEAD "}", EQAT_UNSUPPORTED,
     "final_logit_softcapping: found 30.0, expected null"},
    {GEMMA "\"attn_logit_softcapping\": 50.0, " HEAD "}", EQAT_UNSUPPORTED,
     "attn_logit_softcapping: found 50.0, expected null"},
    {GEMMA "\"use_bidirectional_attention\": true, " HEAD "}", EQAT_UNSUPPORTED,
     "use_bidirectional_attention: found true, expected null"},
    {GEMMA "\"hidden_activation\": \"gelu\", " HEAD "}", EQAT_UNSUPPORTED,
     "hidden_activation: found gelu, expected silu or gelu_pytorch_tanh"},
    {GEMMA "\"sliding_window_pattern\": 0, " HEAD "}", EQAT_FORMAT,
     "sliding_window_pattern: found 0"},
    {GEMMA "\"query_pre_attn_scalar\": 0, " HEAD "}", EQAT_FORMAT,
     "query_pre_attn_scalar: found 0"},
    {GEMMA "\"rope_parameters\": {\"rope_theta\": 1e6}, " HEAD "}", EQAT_UNSUPPORTED,
     "rope_parameters: found one set for all, expected one per layer type"},
    {GEMMA "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1e6}}, \"rope_scaling\": "
           "{\"rope_type\": \"linear\", \"factor\": 8}, " HEAD "}",
     EQAT_UNSUPPORTED, "rope_scaling: found it, expected none beside rope_parameters"},
    {GEMMA "\"rope_parameters\": {\"sliding_attention\": {\"rope_type\": \"yarn\"}}, " HEAD "}",
     EQAT_UNSUPPORTED, "rope_parameters.sliding_attention.rope_type: found yarn"},
    {MIXTURE "\"num_experts\": 4, \"num_experts_per_tok\": 5, " HEAD "}", EQAT_FORMAT,
     "num_experts_per_tok: found 5, expected at most num_experts"},
    {MIXTURE "\"num_experts\": 0, " HEAD "}", EQAT_FORMAT, "num_experts: found 0"},
    {MIXTURE "\"mlp_only_layers\": 3, " HEAD "}", EQAT_FORMAT,
     "mlp_only_layers: found 3, expected a list of blocks"},
    {MIXTURE "\"decoder_sparse_step\": 0, " HEAD "}", EQAT_FORMAT, "decoder_sparse_step: found 0"},
};

START_TEST(refusals_name_the_key)
{
    eqi_config c;
    says(ctx, parse(refused[_i].text, &c), refused[_i].status, refused[_i].message);
}
END_TEST

START_TEST(quantization_config)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"quant_method\": \"hqq\", \"bits\": 4, \"group_size\": 128}",
         "quant_method: found \"hqq\", expected gptq or auto-round or awq or compressed-"
         "tensors"},
        {"{\"quant_method\": \"gptq\", \"checkpoint_format\": \"marlin\", \"bits\": 4, "
         "\"group_size\": 128}",
         "found \"marlin\""},
        {"{\"quant_method\": \"gptq\", \"bits\": 5, \"group_size\": 128}",
         "bits: found 5, expected 2, 3, 4 or 8"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}", "group_size: found 0"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"desc_act\": true}",
         "desc_act: found true, expected false"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"lm_head\": true}",
         "lm_head: found true"},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 128, \"pack_dtype\": \"int8\"}",
         "pack_dtype: found \"int8\""},
        {"7", "quant_method: found nothing"},
    };
    eqi_packing c;
    for (size_t i = 0; i < EQI_COUNT(cases); i++) {
        json_t *json = json_pack("{s:o}", "quantization_config",
                                 json_loads(cases[i].text, JSON_DECODE_ANY, NULL));
        says(ctx, eqi_packing_parse(ctx, &c, json, "config.json"), EQAT_UNSUPPORTED,
             cases[i].message);
        json_decref(json);
    }
    /* null is what is missing */
    json_t *json = json_pack("{s:{s:s, s:n, s:i, s:i}}", "quantization_config", "quant_method",
                             "gptq", "checkpoint_format", "bits", 3, "group_size", -1);
    OK(ctx, eqi_packing_parse(ctx, &c, json, "config.json"));
    ck_assert(c.bits == 3 && c.group == -1 && !c.varies && !strcmp(c.layout->name, "gptq"));
    json_decref(json);
}
END_TEST

static char lines[1024];

static void keep_line(void *user, int level, const char *line)
{
    (void)user;
    snprintf(lines, sizeof lines, "%d %s", level, line);
}

/* What files of real models say besides gives no line; what is only spelt like something does. */
START_TEST(keys_without_a_meaning_are_listed)
{
    eqi_config c;
    ctx->log = keep_line;
    ctx->log_level = EQI_LOG_INFO;
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
             "\"attention_bias\": false, \"attention_dropout\": 0.0, \"bos_token_id\": 1, "
             "\"eos_token_id\": [2, 3], \"hidden_act\": \"silu\", \"initializer_range\": 0.02, "
             "\"is_llama_config\": true, \"mlp_bias\": false, \"pad_token_id\": 2, "
             "\"pretraining_tp\": 1, \"rope_interleaved\": false, \"rope_scaling\": null, "
             "\"head_dim\": 16, \"rope_theta\": 100000, \"tie_word_embeddings\": true, "
             "\"torch_dtype\": \"bfloat16\", \"transformers.js_config\": {\"dtype\": \"q4\"}, "
             "\"transformers_version\": \"4.42.3\", \"use_cache\": true, "
             "\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\", "
             "\"full_attention\"], " HEAD "}",
             &c));
    ck_assert_str_eq(lines, "");
    OK(ctx,
       parse("{\"model_type\": \"llama\", \"sliding_windows\": 7, \"rope_scaling\": {\"type\": "
             "\"linear\", \"factor\": 2, \"beta\": 1}, \"colour\": 3, " HEAD "}",
             &c));
    ck_assert_str_eq(lines, "2 config.json: keys without a meaning here: sliding_windows, colour");
}
END_TEST

TCase *case_config(void)
{
    TCase *tc = tcase_create("config");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, defaults_are_those_of_transformers);
    tcase_add_test(tc, biases);
    tcase_add_test(tc, windows);
    tcase_add_test(tc, rotary_scaling);
    tcase_add_test(tc, gemma_defaults);
    tcase_add_test(tc, gemma_windows);
    tcase_add_test(tc, gemma_ropes_in_both_spellings);
    tcase_add_test(tc, mixtures);
    tcase_add_loop_test(tc, refusals_name_the_key, 0, (int)EQI_COUNT(refused));
    tcase_add_test(tc, keys_without_a_meaning_are_listed);
    tcase_add_test(tc, quantization_config);
    return tc;
}
