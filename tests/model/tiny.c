#include "tiny.h"

#include <dirent.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "base/rng.h"

#define COMMON                                                                                   \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"vocab_size\": " \
    "50, "                                                                                       \
    "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\", "

const tiny tiny_models[] = {
    {"llama",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", " COMMON
     "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"attention_bias\": true, "
     "\"mlp_bias\": true, "
     "\"rope_theta\": 10000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, "
     "\"low_freq_factor\": 1.0, "
     "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 16}, "
     "\"tie_word_embeddings\": true}"},
    {"llama-dynamic",
     "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", " COMMON
     "\"num_attention_heads\": 4, \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}}"},
    {"mistral",
     "{\"architectures\": [\"MistralForCausalLM\"], \"model_type\": \"mistral\", " COMMON
     "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"sliding_window\": 5}"},
    {"qwen2",
     "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", " COMMON
     "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"use_sliding_window\": true, "
     "\"sliding_window\": 4, "
     "\"max_window_layers\": 1, \"rope_theta\": 1000000.0}"},
    {"qwen3",
     "{\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", " COMMON
     "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 32, "
     "\"attention_bias\": true, "
     "\"rope_parameters\": {\"rope_type\": \"linear\", \"factor\": 2.0, \"rope_theta\": "
     "1000000.0}, "
     "\"tie_word_embeddings\": true}"},
};
const size_t n_tiny_models = EQI_COUNT(tiny_models);

const tiny *tiny_find(const char *name)
{
    for (size_t i = 0; i < n_tiny_models; i++)
        if (!strcmp(tiny_models[i].name, name)) return &tiny_models[i];
    ck_abort_msg("%s", name);
    return NULL;
}

char *fresh_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *dir = in_dir(base ? base : "/tmp", "eqat-model-XXXXXX");
    ck_assert_msg(mkdtemp(dir) != NULL, "%s", dir);
    return dir;
}

void remove_dir(char *dir)
{
    DIR *list = opendir(dir);
    ck_assert(list != NULL);
    for (struct dirent *e; (e = readdir(list));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *path = in_dir(dir, e->d_name);
        if (eqi_path_is_dir(path)) {
            remove_dir(path);
        } else {
            unlink(path);
            free(path);
        }
    }
    closedir(list);
    ck_assert_int_eq(rmdir(dir), 0);
    free(dir);
}

char *in_dir(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    snprintf(path, n, "%s/%s", dir, name);
    return path;
}

int entries(const char *dir)
{
    DIR *list = opendir(dir);
    ck_assert(list != NULL);
    int n = 0;
    for (struct dirent *e; (e = readdir(list));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(list);
    return n;
}

void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    ck_assert(f != NULL);
    ck_assert_uint_eq(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    char *text = calloc(1, 1 << 16);
    ck_assert_uint_gt(fread(text, 1, (1 << 16) - 1, f), 0);
    fclose(f);
    return text;
}

/* Two walks over the names: one declares, one writes. */
typedef struct builder {
    eqi_ctx *ctx;
    eqi_safetensors_writer *out;
    eqi_stored stored;
    const flaw *flaw;
    bool writing;
    uint32_t stream;
} builder;

static bool is(const char *name, const char *other) { return other && !strcmp(name, other); }

static void tensor(builder *b, const char *name, int64_t rows, int64_t width, double mean,
                   double spread)
{
    b->stream++;
    if (is(name, b->flaw->missing)) return;
    int ndim = rows ? 2 : 1;
    int64_t shape[2] = {rows ? rows : width, width}, n = rows ? rows * width : width;
    if (is(name, b->flaw->reshaped)) shape[0]++, n += rows ? width : 1;
    if (!b->writing) {
        OK(b->ctx, eqi_safetensors_declare(b->out, name, b->stored, ndim, shape));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float x = (float)(mean + spread * eqi_rng_normal(11, b->stream, (uint64_t)i));
        if (is(name, b->flaw->nan) && i == 3) x = NAN;
        uint16_t h = b->stored == EQI_STORED_BF16 ? eqi_f32_to_bf16(x) : eqi_f32_to_f16(x);
        if (b->stored == EQI_STORED_F32)
            OK(b->ctx, eqi_safetensors_write(b->out, &x, sizeof x));
        else
            OK(b->ctx, eqi_safetensors_write(b->out, &h, sizeof h));
    }
}

static void linear(builder *b, int64_t block, const char *local, int64_t out, int64_t in, bool bias)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)block, local);
    tensor(b, name, out, in, 0, 1.5 / sqrt((double)in));
    snprintf(name, sizeof name, "model.layers.%d.%s.bias", (int)block, local);
    if (bias) tensor(b, name, 0, out, 0, 0.2);
}

static void norm(builder *b, int64_t block, const char *local, int64_t size)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)block, local);
    tensor(b, name, 0, size, 1, 0.2);
}

static void all_tensors(builder *b, const eqi_config *c)
{
    int64_t queries = c->heads * c->head_dim, keys = c->kv_heads * c->head_dim;
    b->stream = 0;
    tensor(b, "model.embed_tokens.weight", c->vocab, c->hidden, 0, 0.5);
    for (int64_t i = 0; i < c->blocks; i++) {
        linear(b, i, "self_attn.q_proj", queries, c->hidden, c->attention_bias);
        linear(b, i, "self_attn.k_proj", keys, c->hidden, c->attention_bias);
        linear(b, i, "self_attn.v_proj", keys, c->hidden, c->attention_bias);
        linear(b, i, "self_attn.o_proj", c->hidden, queries, c->o_bias);
        linear(b, i, "mlp.gate_proj", c->intermediate, c->hidden, c->mlp_bias);
        linear(b, i, "mlp.up_proj", c->intermediate, c->hidden, c->mlp_bias);
        linear(b, i, "mlp.down_proj", c->hidden, c->intermediate, c->mlp_bias);
        norm(b, i, "input_layernorm", c->hidden);
        norm(b, i, "post_attention_layernorm", c->hidden);
        if (strcmp(c->family->name, "qwen3") != 0) continue;
        norm(b, i, "self_attn.q_norm", c->head_dim);
        norm(b, i, "self_attn.k_norm", c->head_dim);
    }
    tensor(b, "model.norm.weight", 0, c->hidden, 1, 0.2);
    if (!c->tied) tensor(b, "lm_head.weight", c->vocab, c->hidden, 0, 0.2);
}

void write_model(eqi_ctx *ctx, const char *dir, const char *config, eqi_stored stored,
                 const flaw *flawed)
{
    static const flaw none;
    json_error_t error;
    json_t *json = json_loads(config, 0, &error);
    ck_assert_msg(json != NULL, "%s", error.text);
    eqi_config c;
    OK(ctx, eqi_config_parse(ctx, &c, json, "config.json"));
    json_decref(json);
    char *path = in_dir(dir, "config.json");
    write_text(path, config);
    free(path);
    path = in_dir(dir, "model.safetensors");
    builder b = {.ctx = ctx, .stored = stored, .flaw = flawed ? flawed : &none};
    OK(ctx, eqi_safetensors_create(ctx, &b.out, path));
    all_tensors(&b, &c);
    b.writing = true;
    all_tensors(&b, &c);
    OK(ctx, eqi_safetensors_close(b.out));
    free(path);
}

eqat_model *open_model(eqi_ctx *ctx, const char *dir, eqi_dtype compute)
{
    eqat_model_options o;
    eqat_model_options_init(&o, sizeof o);
    o.compute_dtype = (int32_t)compute;
    eqat_model *m;
    OK(ctx, eqat_model_open(ctx, &m, dir, &o));
    return m;
}

float *logits_of(eqat_model *m, int64_t time, size_t *bytes)
{
    int32_t *ids = calloc((size_t)(2 * time), sizeof *ids);
    for (int64_t i = 0; i < 2 * time; i++)
        ids[i] = (int32_t)eqi_rng_below(3, EQI_RNG_USER, (uint64_t)i, (uint64_t)m->config.vocab);
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = 2;
    b.time = time;
    b.ids = ids;
    eqat_tensor *t;
    OK(m->ctx, eqat_model_forward(m, &b, &t));
    *bytes = (size_t)(2 * time * m->config.vocab) * sizeof(float);
    float *out = malloc(*bytes);
    OK(m->ctx, eqi_tensor_download(t, out, *bytes));
    for (size_t i = 0; i < *bytes / sizeof *out; i++) ck_assert(isfinite(out[i]));
    eqi_tensor_unref(t);
    free(ids);
    return out;
}

void same_logits(eqat_model *a, eqat_model *b, int64_t time)
{
    size_t na, nb;
    float *x = logits_of(a, time, &na), *y = logits_of(b, time, &nb);
    ck_assert_uint_eq(na, nb);
    for (size_t i = 0; i < na / sizeof *x; i++)
        ck_assert_msg(memcmp(&x[i], &y[i], sizeof *x) == 0, "logit %zu: %.9g and %.9g", i, x[i],
                      y[i]);
    free(x);
    free(y);
}

eqat_quantizer *make_quantizer(eqi_ctx *ctx, int bits, int group)
{
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = bits;
    o.group_size = group;
    eqat_quantizer *q;
    OK(ctx, eqat_quantizer_create(ctx, &q, &o));
    return q;
}

void says(eqi_ctx *ctx, eqat_status found, eqat_status expected, const char *text)
{
    ck_assert_msg(found == expected, "found %s (%s), expected %s: %s", eqat_status_name(found),
                  ctx->error, eqat_status_name(expected), text);
    ck_assert_msg(strstr(ctx->error, text) != NULL, "found \"%s\", expected \"%s\"", ctx->error,
                  text);
    ck_assert_msg(strchr(ctx->error, '\n') == NULL, "%s", ctx->error);
}
