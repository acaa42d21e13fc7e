#include <math.h>

#include "each_test.h"
#include "gguf_model.h"
#include "json.h"

START_TEST(names)
{
    static const char *const pairs[][2] = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
        {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
        {"blk.7.ffn_norm.weight", "model.layers.7.post_attention_layernorm.weight"},
        {"blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"},
        {"blk.12.attn_k.bias", "model.layers.12.self_attn.k_proj.bias"},
        {"blk.12.attn_output.weight", "model.layers.12.self_attn.o_proj.weight"},
        {"blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"},
        {"blk.9999999.ffn_down.weight", "model.layers.9999999.mlp.down_proj.weight"},
    };
    char name[EQI_HF_NAME_MAX];
    int64_t block;
    for (size_t i = 0; i < EQI_COUNT(pairs); i++) {
        ck_assert(eqi_gguf_hf_name("llama", pairs[i][0], 0, name, &block));
        ck_assert_str_eq(name, pairs[i][1]);
    }
    ck_assert_int_eq(block, 9999999);
    ck_assert(eqi_gguf_hf_name("llama", "output.weight", 0, name, &block) && block == -1);
    static const char *const unknown[] = {"",
                                          "blk",
                                          "blk.",
                                          "blk.x.attn_q.weight",
                                          "blk.01.attn_q.weight",
                                          "blk.-1.attn_q.weight",
                                          "blk.1.attn_q",
                                          "blk.12345678.attn_q.weight",
                                          "blk.1attn_q.weight",
                                          "output.bias",
                                          "blk.0.ffn_gate_exps.weight",
                                          "blk.0.post_ffw_norm.weight",
                                          "rope_freqs.weight",
                                          "blk..attn_q.weight"};
    for (size_t i = 0; i < EQI_COUNT(unknown); i++)
        ck_assert(!eqi_gguf_hf_name("llama", unknown[i], 0, name, NULL));
}
END_TEST

/* Row r of a head in Hugging Face's order stands at 2r in the first half, at 2(r - HEAD/2) + 1 in
 * the second. */
static int64_t stored_row(int64_t row)
{
    const int64_t r = row % HEAD;
    return row - r + (r < HEAD / 2 ? 2 * r : 2 * (r - HEAD / 2) + 1);
}

START_TEST(llama_rows)
{
    keys("llama");
    tensors(true, false);
    finish();
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    json_decref(config);
    static const struct {
        const char *name;
        int64_t rows, columns;
        bool swapped;
    } cases[] = {
        {"model.layers.0.self_attn.q_proj.weight", HEADS * HEAD, HIDDEN, true},
        {"model.layers.0.self_attn.k_proj.weight", KV_HEADS * HEAD, HIDDEN, true},
        {"model.layers.0.self_attn.q_proj.bias", HEADS * HEAD, 1, true},
        {"model.layers.0.self_attn.k_proj.bias", KV_HEADS * HEAD, 1, true},
        {"model.layers.0.self_attn.v_proj.weight", KV_HEADS * HEAD, HIDDEN, false},
        {"model.layers.0.self_attn.o_proj.weight", HIDDEN, HEADS * HEAD, false},
    };
    for (size_t i = 0; i < EQI_COUNT(cases); i++) {
        const float *x = read_all(s, cases[i].name);
        float first = x[0];
        for (int64_t r = 0; r < cases[i].rows; r++)
            for (int64_t c = 0; c < cases[i].columns; c++) {
                const int64_t row = cases[i].swapped ? stored_row(r) : r;
                ck_assert_msg(x[r * cases[i].columns + c] ==
                                  first + (float)(row * cases[i].columns + c),
                              "%s row %d", cases[i].name, (int)r);
            }
    }
    /* Reads that begin and end inside rows. */
    const eqi_source_entry *e = eqi_source_find(s, "model.layers.0.self_attn.q_proj.weight");
    float whole[HEADS * HEAD * HIDDEN], part[HEADS * HEAD * HIDDEN];
    memcpy(whole, read_all(s, e->name), sizeof whole);
    for (int64_t first = 0; first < e->elements; first += 7)
        for (int64_t n = 0; n <= e->elements - first; n += 5) {
            OK(ctx, eqi_source_read_f32(s, e, first, n, part));
            ck_assert(n == 0 || !memcmp(part, whole + first, (size_t)n * 4));
        }
    OK(ctx, eqi_source_read_raw(s, e, 6, sizeof whole - 6, part));
    ck_assert_mem_eq(part, (char *)whole + 6, sizeof whole - 6);
    eqi_source_close(s);
}
END_TEST

START_TEST(qwen_rows_stay)
{
    const char *arch = _i ? "qwen3" : "qwen2";
    keys(arch);
    tensors(!_i, _i);
    matrix("output.weight", VOCAB, HIDDEN);
    finish();
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    static const char *const which[] = {
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_norm.weight"};
    for (int i = 0; i < 4; i++) {
        const eqi_source_entry *e = eqi_source_find(s, which[i]);
        ck_assert((e != NULL) == (i < 2 || i == 2 + _i));
        if (!e) continue;
        const float *x = read_all(s, which[i]);
        for (int64_t k = 1; k < e->elements; k++) ck_assert(x[k] == x[0] + (float)k);
    }
    ck_assert_str_eq(string(config, "model_type"), arch);
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
                     _i ? "Qwen3ForCausalLM" : "Qwen2ForCausalLM");
    ck_assert(json_is_false(json_object_get(config, "tie_word_embeddings")));
    ck_assert(json_is_false(json_object_get(config, "use_sliding_window")));
    ck_assert(json_boolean_value(json_object_get(config, "attention_bias")) == !_i);
    json_decref(config);
    eqi_source_close(s);
}
END_TEST

START_TEST(configuration)
{
    keys("llama");
    key_f32(&g, "llama.rope.freq_base", 500000);
    key_of("llama", "rope.dimension_count", HEAD);
    tensors(false, false);
    finish();
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    ck_assert_str_eq(string(config, "model_type"), "llama");
    ck_assert_str_eq(string(config, "hidden_act"), "silu");
    ck_assert_str_eq(string(config, "torch_dtype"), "float32");
    static const struct {
        const char *name;
        double value;
    } numbers[] = {{"hidden_size", HIDDEN},
                   {"intermediate_size", FF},
                   {"num_hidden_layers", 1},
                   {"num_attention_heads", HEADS},
                   {"num_key_value_heads", KV_HEADS},
                   {"head_dim", HEAD},
                   {"rms_norm_eps", 1e-5},
                   {"rope_theta", 500000},
                   {"max_position_embeddings", 256},
                   {"vocab_size", VOCAB},
                   {"bos_token_id", 1}};
    for (size_t i = 0; i < EQI_COUNT(numbers); i++)
        ck_assert_msg(number(config, numbers[i].name) == numbers[i].value, "%s: %.17g",
                      numbers[i].name, number(config, numbers[i].name));
    ck_assert(json_is_true(json_object_get(config, "tie_word_embeddings")));
    ck_assert(json_is_false(json_object_get(config, "attention_bias")));
    ck_assert(json_is_null(json_object_get(config, "rope_scaling")));
    ck_assert(json_is_null(json_object_get(config, "sliding_window")));
    /* No such token. */
    ck_assert_ptr_null(json_object_get(config, "eos_token_id"));
    json_decref(config);
    eqi_source_close(s);

    keys("llama");
    key_of("llama", "attention.sliding_window", 64);
    key_f32(&g, "llama.rope.scaling.factor", 4);
    key_string(&g, "llama.rope.scaling.type", "linear");
    tensors(false, false);
    finish();
    OK(ctx, open_model(&s, &config));
    ck_assert_str_eq(string(config, "model_type"), "mistral");
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(config, "architectures"), 0)),
                     "MistralForCausalLM");
    ck_assert(number(config, "sliding_window") == 64);
    const json_t *scaling = json_object_get(config, "rope_scaling");
    ck_assert_str_eq(string(scaling, "rope_type"), "linear");
    ck_assert(number(scaling, "factor") == 4);
    json_decref(config);
    eqi_source_close(s);
}
END_TEST

static void factors_model(const float *factors, int pairs, float theta)
{
    keys("llama");
    key_of("llama", "attention.key_length", (uint32_t)(2 * pairs));
    key_of("llama", "attention.value_length", (uint32_t)(2 * pairs));
    key_f32(&g, "llama.rope.freq_base", theta);
    matrix("token_embd.weight", VOCAB, HIDDEN);
    matrix("rope_freqs.weight", 0, (uint64_t)pairs);
    finish();
    memcpy(g.file.p + g.file.n - g.data + VOCAB * HIDDEN * 4, factors, (size_t)pairs * 4);
}

static json_t *scaling_of(const float *factors, int pairs, float theta)
{
    factors_model(factors, pairs, theta);
    eqi_source *s;
    json_t *config;
    OK(ctx, open_model(&s, &config));
    ck_assert_uint_eq(eqi_source_count(s), 1);
    eqi_source_close(s);
    json_t *scaling = json_incref(json_object_get(config, "rope_scaling"));
    json_decref(config);
    return scaling;
}

START_TEST(llama3_factors)
{
    /* The last parameters differ from the published ones by a scale that cannot be told apart. */
    static const struct {
        int pairs;
        double theta, factor, low, high, original;
        bool exact;
    } cases[] = {{64, 500000, 8, 1, 4, 8192, true},  {32, 500000, 32, 1, 4, 8192, true},
                 {64, 500000, 32, 1, 4, 8192, true}, {64, 500000, 8, 2, 6, 8192, true},
                 {64, 10000, 4, 1, 4, 4096, false},  {32, 500000, 16, 1.5, 3, 16384, false},
                 {8, 10000, 8, 1, 4, 4096, false}};
    float factors[64];
    for (size_t i = 0; i < EQI_COUNT(cases); i++) {
        for (int k = 0; k < cases[i].pairs; k++) {
            /* As a converter computes them, in single precision throughout. */
            const float freq = 1 / powf((float)cases[i].theta, (float)k / (float)cases[i].pairs),
                        wave = 6.2831853f / freq;
            const float turns = (float)cases[i].original / wave;
            const float smooth =
                (turns - (float)cases[i].low) / (float)(cases[i].high - cases[i].low);
            factors[k] = turns > cases[i].high ? 1
                : turns < cases[i].low         ? (float)cases[i].factor
                                       : 1 / ((1 - smooth) / (float)cases[i].factor + smooth);
        }
        json_t *scaling = scaling_of(factors, cases[i].pairs, (float)cases[i].theta);
        ck_assert_str_eq(string(scaling, "rope_type"), "llama3");
        const double factor = number(scaling, "factor"), low = number(scaling, "low_freq_factor"),
                     high = number(scaling, "high_freq_factor"),
                     original = number(scaling, "original_max_position_embeddings");
        if (cases[i].exact)
            ck_assert_msg(factor == cases[i].factor && low == cases[i].low &&
                              high == cases[i].high && original == cases[i].original,
                          "case %zu: %g %g %g %g", i, factor, low, high, original);
        for (int k = 0; k < cases[i].pairs; k++) {
            const double want =
                eqi_llama3_factor(cases[i].theta, cases[i].pairs, k, cases[i].factor, cases[i].low,
                                  cases[i].high, cases[i].original);
            const double have =
                eqi_llama3_factor(cases[i].theta, cases[i].pairs, k, factor, low, high, original);
            ck_assert_msg(fabs(have - want) < 2e-4 * want, "case %zu pair %d: %g for %g", i, k,
                          have, want);
        }
        json_decref(scaling);
    }
}
END_TEST

START_TEST(other_factors)
{
    float factors[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    json_t *scaling = scaling_of(factors, 8, 10000);
    ck_assert(json_is_null(scaling));
    json_decref(scaling);
    for (int i = 0; i < 8; i++) factors[i] = 1 + 0.1f * (float)i;
    scaling = scaling_of(factors, 8, 10000);
    ck_assert_str_eq(string(scaling, "rope_type"), "longrope");
    const json_t *list = json_object_get(scaling, "short_factor");
    ck_assert_uint_eq(json_array_size(list), 8);
    for (size_t i = 0; i < 8; i++)
        ck_assert((float)json_real_value(json_array_get(list, i)) == factors[i]);
    json_decref(scaling);
    factors[3] = NAN;
    factors_model(factors, 8, 10000);
    must_fail(EQAT_NUMERIC, "rope_freqs.weight': element 3");
    factors[3] = 0;
    factors_model(factors, 8, 10000);
    must_fail(EQAT_NUMERIC, "rope_freqs.weight': element 3");
    keys("llama");
    matrix("token_embd.weight", VOCAB, HIDDEN);
    matrix("rope_freqs.weight", 0, 7);
    finish();
    must_fail(EQAT_FORMAT, "found 7 factors, expected 2");
}
END_TEST

START_TEST(refusals)
{
#define MODEL(arch, status, message, ...) \
    do {                                  \
        keys(arch);                       \
        __VA_ARGS__;                      \
        tensors(false, false);            \
        finish();                         \
        must_fail(status, message);       \
    } while (0)
#define WITH(arch, status, message, ...) \
    do {                                 \
        keys(arch);                      \
        tensors(false, false);           \
        __VA_ARGS__;                     \
        finish();                        \
        must_fail(status, message);      \
    } while (0)
    MODEL("gemma2", EQAT_UNSUPPORTED, "'gemma2'", (void)0);
    MODEL("", EQAT_UNSUPPORTED, "architecture ''", (void)0);
    MODEL("llama", EQAT_UNSUPPORTED, "one of 3 parts", key_u32(&g, "split.count", 3));
    MODEL("llama", EQAT_UNSUPPORTED, "without experts", key_u32(&g, "llama.expert_count", 8));
    MODEL("llama", EQAT_UNSUPPORTED, "2 rotary dimensions",
          key_u32(&g, "llama.rope.dimension_count", 2));
    MODEL("llama", EQAT_UNSUPPORTED, "value heads of 8",
          key_u32(&g, "llama.attention.value_length", 8));
    MODEL("llama", EQAT_UNSUPPORTED, "'yarn'", key_string(&g, "llama.rope.scaling.type", "yarn"));
    MODEL("llama", EQAT_FORMAT, "llama.rope.freq_base", key_f32(&g, "llama.rope.freq_base", NAN));
    MODEL("llama", EQAT_FORMAT, "llama.rope.freq_base",
          key_string(&g, "llama.rope.freq_base", "1"));
    MODEL("llama", EQAT_FORMAT, "found 0, expected 1",
          key_u32(&g, "llama.attention.key_length", 0));
    MODEL("llama", EQAT_FORMAT, "expected an even size",
          key_u32(&g, "llama.attention.key_length", 3));
    WITH("llama", EQAT_UNSUPPORTED,
         "'blk.0.attn_sub_norm.weight': not known for architecture llama",
         matrix("blk.0.attn_sub_norm.weight", 0, HIDDEN));
    WITH("llama", EQAT_FORMAT, "found block 1, expected fewer than the 1",
         matrix("blk.1.attn_norm.weight", 0, HIDDEN));
    WITH("llama", EQAT_FORMAT, "expected heads of 4", matrix("blk.0.attn_k.bias", 0, 6));
    keys("llama");
    finish();
    must_fail(EQAT_FORMAT, "at most one per tensor");
    keys("llama");
    matrix("token_embd.weight", VOCAB, HIDDEN + 1);
    finish();
    must_fail(EQAT_FORMAT, "rows of 17, expected 2 with rows of 16");
    keys("llama");
    matrix("output_norm.weight", 0, HIDDEN);
    finish();
    must_fail(EQAT_FORMAT, "'token_embd.weight': missing");
    begin(&g, 3);
    finish();
    must_fail(EQAT_FORMAT, "general.architecture: missing");
    begin(&g, 3);
    key_string(&g, "general.architecture", "llama");
    finish();
    must_fail(EQAT_FORMAT, "llama.embedding_length: missing");
}
END_TEST

START_TEST(values_per_block)
{
    begin(&g, 3);
    key_string(&g, "general.architecture", "llama");
    key_of("llama", "block_count", 2);
    key_of("llama", "context_length", 256);
    key_of("llama", "embedding_length", HIDDEN);
    key_of("llama", "attention.head_count", HEADS);
    key_f32(&g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    const gguf_bytes common = g;
    for (uint32_t second = FF; second <= FF + 1; second++) {
        g.file.n = common.file.n;
        g.values = common.values;
        g.tensors = g.data = 0;
        key_array(&g, "llama.feed_forward_length", G_U32, 2), put_u32(&g.file, FF),
            put_u32(&g.file, second);
        tensors(false, false);
        finish();
        if (second == FF) {
            eqi_source *s;
            json_t *config;
            OK(ctx, open_model(&s, &config));
            ck_assert(number(config, "intermediate_size") == FF &&
                      number(config, "num_key_value_heads") == HEADS);
            json_decref(config);
            eqi_source_close(s);
        } else {
            must_fail(EQAT_UNSUPPORTED, "found 24 for block 0 and 25 for block 1");
        }
    }
}
END_TEST

START_TEST(allocation_failures)
{
    const float factors[2] = {1, 1.7f};
    factors_model(factors, 2, 10000);
    write_file(scratch("model.gguf"), g.file.p, g.file.n);
    size_t live = memory.live;
    for (int i = 0; i < 2; i++) {
        count_json(i ? &memory : NULL);
        eqat_status st = EQAT_OUT_OF_MEMORY;
        for (long n = 0; st != EQAT_OK; n++) {
            ck_assert_int_lt(n, 1000);
            eqi_source *s;
            json_t *config;
            refuse_after(n);
            st = open_model(&s, &config);
            refuse_after(-1);
            ck_assert_msg(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY, "%s", ctx->error);
            ck_assert((s != NULL) == (st == EQAT_OK) && (config != NULL) == (st == EQAT_OK));
            json_decref(config);
            eqi_source_close(s);
            ck_assert_uint_eq(memory.live, live);
        }
    }
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("gguf_hf");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, names);
    tcase_add_test(c, llama_rows);
    tcase_add_loop_test(c, qwen_rows_stay, 0, 2);
    tcase_add_test(c, configuration);
    tcase_add_test(c, llama3_factors);
    tcase_add_test(c, other_factors);
    tcase_add_test(c, refusals);
    tcase_add_test(c, values_per_block);
    tcase_add_test(c, allocation_failures);
    const int failed = run_case("gguf_hf", c, CK_FORK_GETENV);
    free(g.file.p);
    return failed;
}
