#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "cases.h"
#include "each_test.h"

static eqat_status try_open(const char *path)
{
    eqat_model *m = (eqat_model *)dir;
    eqat_status st = eqat_model_open(ctx, &m, path, NULL);
    ck_assert(st == EQAT_OK || m == NULL);
    eqat_model_free(m);
    return st;
}

static void replace(const char *name, const char *text) { write_text(in_dir(dir, name), text); }

START_TEST(places_that_hold_no_model)
{
    const char *missing = in_dir(dir, "nowhere"), *file = in_dir(dir, "config.json");
    says(ctx, try_open(missing), EQAT_NOT_FOUND, "nowhere: no such file or folder");
    says(ctx, try_open(dir), EQAT_NOT_FOUND,
         "found no config.json in it, expected a Hugging Face folder with config.json");
    replace("vocab.json", "{}");
    says(ctx, try_open(dir), EQAT_NOT_FOUND, "found a tokenizer without a model, expected");
    unlink(in_dir(dir, "vocab.json"));
    replace("config.json", "{\"model_type\": ");
    says(ctx, try_open(dir), EQAT_FORMAT, "config.json: line 1: ");
    replace("config.json",
            "{\"model_type\": \"gpt_neox\", \"architectures\": [\"GPTNeoXForCausalLM\"]}");
    says(ctx, try_open(dir), EQAT_UNSUPPORTED, "config.json: architecture GPTNeoXForCausalLM");
    says(ctx, try_open(file), EQAT_FORMAT,
         "config.json: found a file of a model's folder, expected the folder that it is in");
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    replace("model.safetensors", pointer);
    replace("config.json", tiny_find("qwen2")->config);
    says(ctx, try_open(in_dir(dir, "model.safetensors")), EQAT_FORMAT, "expected the folder");
    says(ctx, try_open(dir), EQAT_FORMAT, "model.safetensors: found a Git-LFS pointer");
    unlink(in_dir(dir, "model.safetensors"));
    replace("config.json", tiny_find("qwen2")->config);
    says(ctx, try_open(dir), EQAT_NOT_FOUND,
         "found neither, expected model.safetensors or model.safetensors.index.json in it");
    replace("pytorch_model.bin", "");
    says(ctx, try_open(dir), EQAT_NOT_FOUND, "found pytorch_model.bin, expected model.safetensors");
    replace("pytorch_model.bin.index.json", "");
    says(ctx, try_open(dir), EQAT_NOT_FOUND, "found pytorch_model.bin.index.json, expected");
}
END_TEST

static const struct {
    const char *family;
    flaw flaw;
    const char *message;
} flaws[] = {
    {"llama",
     {.missing = "model.embed_tokens.weight"},
     "tensor model.embed_tokens.weight: not found, expected shape [50, 64]"},
    {"llama",
     {.missing = "model.layers.1.mlp.up_proj.weight"},
     "tensor model.layers.1.mlp.up_proj.weight: not found, expected shape [96, 64]"},
    {"llama",
     {.missing = "model.layers.0.self_attn.o_proj.bias"},
     "self_attn.o_proj.bias: not found, expected shape [64]"},
    {"llama", {.missing = "model.norm.weight"}, "model.norm.weight: not found"},
    {"qwen2",
     {.missing = "lm_head.weight"},
     "tensor lm_head.weight: not found, expected shape [50, 64]"},
    {"qwen3",
     {.missing = "model.layers.1.self_attn.k_norm.weight"},
     "k_norm.weight: not found, expected shape [32]"},
    {"llama",
     {.reshaped = "model.layers.0.self_attn.k_proj.weight"},
     "model.safetensors: tensor model.layers.0.self_attn.k_proj.weight: found shape [33, 64], "
     "expected [32, 64]"},
    {"llama",
     {.reshaped = "model.layers.1.input_layernorm.weight"},
     "input_layernorm.weight: found shape [65], expected [64]"},
    {"qwen2",
     {.reshaped = "model.embed_tokens.weight"},
     "model.embed_tokens.weight: found shape [51, 64], expected [50, 64]"},
};

START_TEST(tensors_that_do_not_fit)
{
    write_model(ctx, dir, tiny_find(flaws[_i].family)->config, EQI_STORED_F16, &flaws[_i].flaw);
    says(ctx, try_open(dir), EQAT_FORMAT, flaws[_i].message);
}
END_TEST

START_TEST(truncated_file)
{
    write_model(ctx, dir, tiny_find("llama")->config, EQI_STORED_F32, NULL);
    const char *path = in_dir(dir, "model.safetensors");
    ck_assert_int_eq(truncate(path, 100000), 0);
    says(ctx, try_open(dir), EQAT_FORMAT, "model.safetensors");
}
END_TEST

/* A file that shrinks while the model is open is an error at the next read, not a signal. */
START_TEST(file_cut_while_open)
{
    write_model(ctx, dir, tiny_find("llama")->config, EQI_STORED_F32, NULL);
    eqat_model *m = open_model(ctx, dir, EQAT_F32);
    const char *path = in_dir(dir, "model.safetensors");
    ck_assert_int_eq(truncate(path, 100000), 0);
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = b.time = 2;
    b.ids = (int32_t[]){1, 2, 3, 4};
    eqat_tensor *t;
    says(ctx, eqat_model_forward(m, NULL, &b, &t), EQAT_FORMAT, "model.safetensors: truncated");
    eqat_model_free(m);
}
END_TEST

START_TEST(values_that_are_not_finite)
{
    static const char *const names[] = {"model.layers.1.mlp.gate_proj.weight",
                                        "model.layers.1.post_attention_layernorm.weight",
                                        "model.layers.0.self_attn.v_proj.bias"};
    static const eqi_stored stored[] = {EQI_STORED_F32, EQI_STORED_BF16, EQI_STORED_F16};
    char expected[256];
    write_model(ctx, dir, tiny_find("llama")->config, stored[_i], &(flaw){.nan = names[_i]});
    eqat_model *m = open_model(ctx, dir, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    snprintf(expected, sizeof expected,
             "model.safetensors: tensor %s: found NaN at element 3, expected finite numbers",
             names[_i]);
    says(ctx, eqat_model_quantize_rtn(m, q, NULL), EQAT_NUMERIC, expected);
    eqat_quantizer_free(q);
    eqat_model_free(m);

    dir = fresh_dir();
    write_model(ctx, dir, tiny_find("llama")->config, stored[_i],
                &(flaw){.nan = "model.embed_tokens.weight"});
    m = open_model(ctx, dir, EQAT_F32);
    says(ctx, eqi_model_load_ends(m), EQAT_NUMERIC,
         "model.embed_tokens.weight: found NaN at element 3");
    eqat_model_free(m);
}
END_TEST

START_TEST(group_that_does_not_divide)
{
    write_model(ctx, dir, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, dir, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 2, 64);
    says(ctx, eqat_model_quantize_rtn(m, q, NULL), EQAT_INVALID_ARGUMENT,
         "model.layers.0.mlp.down_proj");
    /* Nothing was touched: the first block's other linears are as they were. */
    eqat_model_info info = {.struct_size = sizeof info};
    OK(ctx, eqat_model_inspect(m, &info));
    ck_assert(!info.quantized);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

/* Packed codes come in blocks of 32; the block that does not fit is not the first. */
START_TEST(rows_that_cannot_be_packed)
{
    const char *config =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": "
        "64, \"intermediate_size\": 80, "
        "\"num_hidden_layers\": 2, \"vocab_size\": 50, \"num_attention_heads\": 4}";
    write_model(ctx, dir, config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, dir, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 2, 16);
    OK(ctx, eqat_quantizer_add_rule(q, "model.layers.0.mlp.down_proj", NULL));
    says(ctx, eqat_model_quantize_rtn(m, q, NULL), EQAT_INVALID_ARGUMENT,
         "model.layers.1.mlp.down_proj: found rows of 80, expected a multiple of 32");
    eqat_model_info info = {.struct_size = sizeof info};
    OK(ctx, eqat_model_inspect(m, &info));
    ck_assert(!info.quantized);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

/* A saved quantized model, then damaged. */
static void damaged(const char *config_from, const char *config_to, eqat_status status,
                    const char *message)
{
    const char *out = in_dir(dir, "out"), *config = in_dir(out, "config.json");
    char *text = read_text(config), *at = strstr(text, config_from),
         *changed = calloc(1, strlen(text) + 256);
    ck_assert_msg(at != NULL, "%s: %s", config_from, text);
    memcpy(changed, text, (size_t)(at - text));
    strcat(changed, config_to);
    strcat(changed, at + strlen(config_from));
    write_text(config, changed);
    says(ctx, try_open(out), status, message);
    write_text(config, text);
    OK(ctx, try_open(out));
    free(changed);
    free(text);
}

START_TEST(quantized_models_that_contradict_themselves)
{
    write_model(ctx, dir, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, dir, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 4, 32);
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    const char *out = in_dir(dir, "out");
    OK(ctx, eqat_model_save(m, out, NULL));
    damaged("\"bits\": 4", "\"bits\": 2", EQAT_FORMAT,
            "q_proj.qweight: found shape [8, 64], expected [4, 64]");
    damaged("\"bits\": 4", "\"bits\": 5", EQAT_UNSUPPORTED, "bits: found 5");
    damaged("\"group_size\": 32", "\"group_size\": 16", EQAT_FORMAT,
            "q_proj.qzeros: found shape [2, 8], expected [4, 8]");
    damaged("\"group_size\": 32", "\"group_size\": 24", EQAT_FORMAT,
            "found group_size 24, expected a divisor of 64");
    damaged("\"quant_method\": \"gptq\"", "\"quant_method\": \"hqq\"", EQAT_UNSUPPORTED,
            "found \"hqq\", expected gptq");
    damaged("\"desc_act\": false", "\"desc_act\": true", EQAT_UNSUPPORTED, "desc_act: found true");
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

/* ---- tensors that the configuration knows nothing of ---- */

static char lines[4096];

static void keep_line(void *user, int level, const char *line)
{
    size_t at = strlen(lines);
    (void)user;
    snprintf(lines + at, sizeof lines - at, "%d %s\n", level, line);
}

static eqat_model *open_with(const char *family, const char *extra, double spread)
{
    eqat_model *m;
    unlink(in_dir(dir, "model.safetensors"));
    write_model(ctx, dir, tiny_find(family)->config, EQI_STORED_F32,
                &(flaw){.extra = extra, .spread = spread});
    lines[0] = 0;
    ctx->log = keep_line;
    ctx->log_level = EQI_LOG_INFO;
    eqat_status st = eqat_model_open(ctx, &m, dir, NULL);
    ck_assert((st == EQAT_OK) == (m != NULL));
    return m;
}

/* A model without a tokenizer is no failure; a file beside shards is told. */
START_TEST(an_opening_that_went_well_leaves_no_line)
{
    eqat_model *m = open_with("mistral", NULL, 0);
    ck_assert(m && !eqat_model_tokenizer(m));
    ck_assert_str_eq(ctx->error, "");
    ck_assert_str_eq(lines, "");
    eqat_model_free(m);
    replace("model.safetensors.index.json", "{}");
    m = open_with("mistral", NULL, 0);
    ck_assert_msg(strstr(lines, "found model.safetensors and model.safetensors.index.json"), "%s",
                  lines);
    eqat_model_free(m);
}
END_TEST

static const struct {
    const char *family, *name;
    double spread;
    const char *refusal, *line; /* one of them */
} extras[] = {
    {"mistral", "model.layers.0.self_attn.q_proj.bias", 1,
     "model.safetensors: tensor model.layers.0.self_attn.q_proj.bias: found it, expected none", ""},
    {"mistral", "model.layers.1.self_attn.q_proj.bias", 0, NULL,
     "2 %s: tensors that the model does not use: model.layers.*.self_attn.q_proj.bias (1)"},
    {"mistral", "model.layers.3.input_layernorm.weight", 0,
     "tensor model.layers.3.input_layernorm.weight: found a block beyond the 2 of "
     "num_hidden_layers",
     ""},
    {"mistral", "model.layers.0.self_attn.q_norm.weight", 1, "expected none of that name", ""},
    {"mistral", "model.norm.bias", 1, "model.norm.bias: found it", ""},
    {"mistral", "model.layers.2.self_attn.rotary_emb.inv_freq", 1, NULL,
     "2 %s: tensors that the model does not use: model.layers.*.self_attn.rotary_emb.inv_freq"},
    {"mistral", "mtp.0.norm.weight", 1, NULL,
     "1 %s: tensors that the model does not use: mtp.*.norm.weight (1)"},
    {"mistral", "visual.merger.ln_q.weight", 1, NULL, "1 %s: tensors"},
    {"llama", "lm_head.weight", 1, NULL, ""},
    {"llama", "lm_head.weight", 0.2, NULL,
     "1 %s: tensor lm_head.weight: found another one than the embeddings"},
    {"llama", "lm_head.bias", 0.2, "lm_head.bias: found it, expected none", ""},
};

START_TEST(tensors_that_nobody_uses)
{
    char expected[4096];
    eqat_model *m = open_with(extras[_i].family, extras[_i].name, extras[_i].spread);
    if (extras[_i].refusal) {
        ck_assert(!m);
        ck_assert_msg(strstr(ctx->error, extras[_i].refusal), "%s", ctx->error);
        return;
    }
    ck_assert_msg(m != NULL, "%s", ctx->error);
    snprintf(expected, sizeof expected, extras[_i].line, dir);
    ck_assert_msg(*expected ? strstr(lines, expected) != NULL : !strstr(lines, "tensor"), "%s",
                  lines);
    eqat_model_free(m);
}
END_TEST

/* The function is the one of the head in the file, in memory and when it is saved. */
START_TEST(a_head_beside_tied_embeddings)
{
    const char *out = in_dir(dir, "out");
    char untied[4096], *config;
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_model *m = open_with("llama", "lm_head.weight", 0.2);
    OK(ctx, eqat_model_inspect(m, &info));
    ck_assert(!info.tied_embeddings);
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model *saved = open_model(ctx, out, EQAT_F32), *opened = open_model(ctx, dir, EQAT_F32);
    same_logits(saved, opened, 5);
    config = read_text(in_dir(dir, "config.json"));
    char *tied = strstr(config, "true}");
    snprintf(untied, sizeof untied, "%.*sfalse}", (int)(tied - config), config);
    write_text(in_dir(dir, "config.json"), untied);
    eqat_model *told = open_model(ctx, dir, EQAT_F32);
    same_logits(told, opened, 5);
    free(config);
    eqat_model_free(m);
    eqat_model_free(saved);
    eqat_model_free(opened);
    eqat_model_free(told);
}
END_TEST

static void move_out(const char *from, const char *to, const char *name)
{
    char old[4096];
    snprintf(old, sizeof old, "%s", in_dir(from, name));
    ck_assert_int_eq(rename(old, in_dir(to, name)), 0);
    ck_assert_int_eq(symlink(in_dir(to, name), old), 0);
}

/* Nothing outside the folder is read, or copied into the result. */
START_TEST(links_that_lead_out)
{
    static const char *const read[] = {"config.json", "model.safetensors", "tokenizer.json"},
                             *const copied[] = {"generation_config.json", "tokenizer_config.json",
                                                "chat_template.jinja"};
    const char *out = in_dir(dir, "out"), *other = in_dir(dir, "other");
    char model[4096];
    eqat_model *m;
    mkdir(other, 0777);
    for (size_t i = 0; i < EQI_COUNT(read) + EQI_COUNT(copied); i++) {
        bool opens = i >= EQI_COUNT(read);
        const char *name = opens ? copied[i - EQI_COUNT(read)] : read[i];
        snprintf(model, sizeof model, "%s-%zu", in_dir(dir, "model"), i);
        mkdir(model, 0777);
        write_model(ctx, model, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
        if (!eqi_path_exists(in_dir(model, name))) write_text(in_dir(model, name), "{}");
        move_out(model, other, name);
        if (!opens) {
            says(ctx, try_open(model), EQAT_FORMAT, "symbolic link");
            continue;
        }
        m = open_model(ctx, model, EQAT_F32);
        says(ctx, eqat_model_save(m, out, NULL), EQAT_FORMAT, "symbolic link");
        ck_assert(!eqi_path_exists(out));
        eqat_model_free(m);
    }
}
END_TEST

/* Hugging Face's cache is made of links. */
START_TEST(links_into_the_blobs_of_a_cache)
{
    static const char *const names[] = {"config.json", "model.safetensors",
                                        "generation_config.json", "tokenizer.model"};
    const char *blobs = in_dir(dir, "blobs"), *snapshot = in_dir(dir, "snapshots/r"),
               *out = in_dir(dir, "out");
    mkdir(blobs, 0777);
    mkdir(in_dir(dir, "snapshots"), 0777);
    mkdir(snapshot, 0777);
    write_model(ctx, snapshot, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
    write_text(in_dir(snapshot, "generation_config.json"), "{\"top_k\": 5}");
    write_text(in_dir(snapshot, "tokenizer.model"), "sentences");
    for (size_t i = 0; i < EQI_COUNT(names); i++) move_out(snapshot, blobs, names[i]);
    eqat_model *m = open_model(ctx, snapshot, EQAT_F32);
    OK(ctx, eqat_model_save(m, out, NULL));
    for (size_t i = 2; i < EQI_COUNT(names); i++) {
        char *before = read_text(in_dir(blobs, names[i])),
             *after = read_text(in_dir(out, names[i]));
        ck_assert_str_eq(before, after);
        free(before);
        free(after);
    }
    eqat_model_free(m);
}
END_TEST

TCase *case_bad_input(void)
{
    TCase *tc = tcase_create("bad input");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, places_that_hold_no_model);
    tcase_add_loop_test(tc, tensors_that_do_not_fit, 0, (int)EQI_COUNT(flaws));
    tcase_add_test(tc, truncated_file);
    tcase_add_test(tc, an_opening_that_went_well_leaves_no_line);
    tcase_add_loop_test(tc, tensors_that_nobody_uses, 0, (int)EQI_COUNT(extras));
    tcase_add_test(tc, a_head_beside_tied_embeddings);
    tcase_add_test(tc, links_that_lead_out);
    tcase_add_test(tc, links_into_the_blobs_of_a_cache);
    tcase_add_test(tc, file_cut_while_open);
    tcase_add_loop_test(tc, values_that_are_not_finite, 0, 3);
    tcase_add_test(tc, group_that_does_not_divide);
    tcase_add_test(tc, rows_that_cannot_be_packed);
    tcase_add_test(tc, quantized_models_that_contradict_themselves);
    return tc;
}
