#include "public.h"

#include <sys/stat.h>

#include "base/half.h"
#include "base/rng.h"
#include "model/model.h"

#define SIZES                                                                                    \
    "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 2, \"vocab_size\": " \
    "50, \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-05, "
#define COMMON SIZES "\"hidden_act\": \"silu\", "
#define MIXTURE                                                                                  \
    "{\"architectures\": [\"Qwen3MoeForCausalLM\"], \"model_type\": \"qwen3_moe\", " COMMON      \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 32, \"rope_theta\": " \
    "1000000.0, \"moe_intermediate_size\": 32, \"num_experts\": 4, \"num_experts_per_tok\": 2, "

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
    {"gemma3",
     "{\"architectures\": [\"Gemma3ForCausalLM\"], \"model_type\": \"gemma3_text\", " SIZES
     "\"hidden_activation\": \"gelu_pytorch_tanh\", \"num_attention_heads\": 4, "
     "\"num_key_value_heads\": 2, \"head_dim\": 32, \"query_pre_attn_scalar\": 32, "
     "\"sliding_window\": 4, \"sliding_window_pattern\": 2, \"rope_theta\": 1000000.0, "
     "\"rope_local_base_freq\": 5000.0, "
     "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}}"},
    {"qwen3_moe", MIXTURE "\"norm_topk_prob\": true}"},
    {"qwen3_moe-mixed", MIXTURE "\"mlp_only_layers\": [1], \"attention_bias\": true}"},
};
const size_t n_tiny_models = EQI_COUNT(tiny_models);

const tiny *tiny_find(const char *name)
{
    for (size_t i = 0; i < n_tiny_models; i++)
        if (!strcmp(tiny_models[i].name, name)) return &tiny_models[i];
    ck_abort_msg("%s", name);
    return NULL;
}

/* Two walks over the names: one declares, one writes. */
typedef struct builder {
    eqi_ctx *ctx;
    eqi_safetensors_writer *out;
    eqi_stored stored;
    const flaw *flaw;
    bool writing;
    uint32_t stream;
    double step; /* values are multiples of it; 0: anything */
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
        double value = mean + spread * eqi_rng_normal(11, b->stream, (uint64_t)i);
        float x = (float)(b->step > 0 ? rint(value / b->step) * b->step : value);
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
    tensor(b, name, out, in, 0, 1 / sqrt((double)in));
    snprintf(name, sizeof name, "model.layers.%d.%s.bias", (int)block, local);
    if (bias) tensor(b, name, 0, out, 0, 0.2);
}

/* Around 1 in all; where 1 is added later, around 0. So coarse that adding 1 loses nothing. */
static void gain(builder *b, const eqi_config *c, const char *name, int64_t size)
{
    b->step = 0x1p-12;
    tensor(b, name, 0, size, 1 - c->family->norm_offset, 0.1);
    b->step = 0;
}

static void norm(builder *b, const eqi_config *c, int64_t block, const char *local, int64_t size)
{
    char name[128];
    snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)block, local);
    gain(b, c, name, size);
}

static void mlp(builder *b, const eqi_config *c, int64_t block, const char *prefix, int64_t size)
{
    static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
    char local[64];
    for (int i = 0; i < 3; i++) {
        snprintf(local, sizeof local, "mlp.%s%s", prefix, names[i]);
        linear(b, block, local, i < 2 ? size : c->hidden, i < 2 ? c->hidden : size, c->mlp_bias);
    }
}

static void experts(builder *b, const eqi_config *c, int64_t block)
{
    char prefix[32];
    linear(b, block, "mlp.gate", c->experts, c->hidden, false);
    for (int64_t e = 0; e < c->experts; e++) {
        snprintf(prefix, sizeof prefix, "experts.%d.", (int)e);
        mlp(b, c, block, prefix, c->expert_mlp);
    }
}

static void norms(builder *b, const eqi_config *c, int64_t block)
{
    static const char *const with_norms_of_heads[] = {"qwen3", "qwen3_moe", "gemma3"};
    norm(b, c, block, "input_layernorm", c->hidden);
    norm(b, c, block, "post_attention_layernorm", c->hidden);
    if (is(c->family->name, "gemma3")) {
        norm(b, c, block, "pre_feedforward_layernorm", c->hidden);
        norm(b, c, block, "post_feedforward_layernorm", c->hidden);
    }
    for (size_t i = 0; i < EQI_COUNT(with_norms_of_heads); i++) {
        if (!is(c->family->name, with_norms_of_heads[i])) continue;
        norm(b, c, block, "self_attn.q_norm", c->head_dim);
        norm(b, c, block, "self_attn.k_norm", c->head_dim);
    }
}

static void all_tensors(builder *b, const eqi_config *c)
{
    int64_t queries = c->heads * c->head_dim, keys = c->kv_heads * c->head_dim;
    b->stream = 0;
    tensor(b, "model.embed_tokens.weight", c->vocab, c->hidden, 0, 1);
    for (int64_t i = 0; i < c->blocks; i++) {
        linear(b, i, "self_attn.q_proj", queries, c->hidden, c->attention_bias);
        linear(b, i, "self_attn.k_proj", keys, c->hidden, c->attention_bias);
        linear(b, i, "self_attn.v_proj", keys, c->hidden, c->attention_bias);
        linear(b, i, "self_attn.o_proj", c->hidden, queries, c->o_bias);
        if (eqi_block_in(&c->sparse, i))
            experts(b, c, i);
        else
            mlp(b, c, i, "", c->intermediate);
        norms(b, c, i);
    }
    gain(b, c, "model.norm.weight", c->hidden);
    if (!c->tied) tensor(b, "lm_head.weight", c->vocab, c->hidden, 0, 0.2);
    const char *extra = b->flaw->extra;
    b->stream = 0;
    if (extra)
        tensor(b, extra, is(extra, "lm_head.weight") ? c->vocab : 0, c->hidden, 0, b->flaw->spread);
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
    write_text(in_dir(dir, "config.json"), config);
    builder b = {.ctx = ctx, .stored = stored, .flaw = flawed ? flawed : &none};
    OK(ctx, eqi_safetensors_create(ctx, &b.out, in_dir(dir, "model.safetensors")));
    all_tensors(&b, &c);
    b.writing = true;
    all_tensors(&b, &c);
    OK(ctx, eqi_safetensors_close(b.out));
}

const llama_shape small_shape = {VOCAB, HIDDEN, 96, BLOCKS, 4, 2, false};

void write_llama(const char *name, const llama_shape *s, const char *nan_at)
{
    char config[1024];
    snprintf(config, sizeof config,
             "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
             "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d, "
             "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"vocab_size\": %d, "
             "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
             "\"hidden_act\": \"silu\", \"tie_word_embeddings\": true}\n",
             (int)s->hidden, (int)s->intermediate, (int)s->blocks, (int)s->heads, (int)s->kv_heads,
             (int)s->vocab);
    const char *dir = scratch(name);
    ck_assert_int_eq(mkdir(dir, 0777), 0);
    eqat_context *ctx = make_context(1, 0);
    write_model(ctx, dir, config, s->bf16 ? EQI_STORED_BF16 : EQI_STORED_F32,
                &(flaw){.nan = nan_at});
    eqat_context_free(ctx);
}

void write_small_model(void) { write_llama("model", &small_shape, NULL); }

eqat_context *make_context(int threads, uint64_t seed)
{
    eqat_context_options o;
    eqat_context_options_init(&o, sizeof o);
    const char *device = getenv("EQAT_TEST_DEVICE");
    if (device) o.device = device;
    o.threads = threads;
    o.seed = seed;
    eqat_context *ctx;
    char error[256];
    eqat_status st = eqat_context_create(&ctx, &o, error, sizeof error);
    ck_assert_msg(st == EQAT_OK, "%s", error);
    return ctx;
}

eqat_model *open_model(eqat_context *ctx, const char *name, eqat_dtype compute)
{
    eqat_model_options o;
    eqat_model_options_init(&o, sizeof o);
    o.compute_dtype = compute;
    eqat_model *model;
    OK(ctx, eqat_model_open(ctx, &model, name[0] == '/' ? name : scratch(name), &o));
    return model;
}

static eqat_quantizer_options rule(int bits, int group_size)
{
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = bits;
    o.group_size = group_size;
    return o;
}

eqat_quantizer *make_quantizer(eqat_context *ctx, int bits, int group_size)
{
    const eqat_quantizer_options o = rule(bits, group_size);
    eqat_quantizer *quantizer;
    OK(ctx, eqat_quantizer_create(ctx, &quantizer, &o));
    return quantizer;
}

eqat_status add_rule(eqat_quantizer *quantizer, const char *pattern, int bits, int group_size)
{
    const eqat_quantizer_options o = rule(bits, group_size);
    return eqat_quantizer_add_rule(quantizer, pattern, bits ? &o : NULL);
}

eqat_data_options consecutive(int64_t train, int64_t val, int64_t time)
{
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = train;
    o.val_size = val;
    o.seq_len = time;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    o.shuffle = false;
    return o;
}

eqat_data *make_data(eqat_context *ctx, int64_t train, int64_t val, bool shuffle)
{
    eqat_data_options o = consecutive(train, val, TIME);
    o.shuffle = shuffle;
    size_t n = (size_t)((train + val) * TIME);
    int32_t *ids = malloc(n * sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (size_t i = 0; i < n; i++) {
        int noise = (int)eqi_rng_below(5, EQI_RNG_USER, i, 4);
        ids[i] = i == 0 ? 1 : (ids[i - 1] * 5 + 7 + noise) % VOCAB;
    }
    eqat_data *data;
    OK(ctx, eqat_data_from_tokens(ctx, &data, ids, n, VOCAB, &o));
    free(ids);
    return data;
}

void read_ids(eqat_context *ctx, eqat_data *data, bool validation, int64_t index, int32_t *ids)
{
    const eqat_sample sample = {.struct_size = sizeof sample, .ids = ids};
    OK(ctx, eqat_data_sample(data, validation, index, &sample));
}

const char *save_as(eqat_context *ctx, eqat_model *model, const char *name)
{
    const char *path = scratch(name);
    OK(ctx, eqat_model_save(model, path, NULL));
    return path;
}

float *read_floats(eqat_tensor *t, int64_t *count)
{
    *count = eqat_tensor_count(t);
    float *x = malloc((size_t)*count * sizeof *x);
    ck_assert_ptr_nonnull(x);
    ck_assert_int_eq(eqat_tensor_read(t, x, (size_t)*count * sizeof *x), EQAT_OK);
    return x;
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
    OK(m->ctx, eqat_model_forward(m, NULL, &b, &t));
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

/* ---- jobs on the small model ---- */

eqat_block_ap_options fast_options(void)
{
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.quant_lr = 1e-3;
    o.weight_lr = 1e-3;
    return o;
}

eqat_e2e_qp_options fast_e2e_options(void)
{
    eqat_e2e_qp_options e;
    eqat_e2e_qp_options_init(&e, sizeof e);
    e.batch_size = 4;
    e.micro_batch_size = 2;
    e.lr = 1e-3;
    return e;
}

const setting usual = {.threads = 2, .seed = 3, .shuffle = true, .compute = EQAT_F32, .bits = 2};

const char *make_family(eqi_stored stored, const char *name, const char *family, const char *from,
                        const char *to)
{
    char config[2048], changed[2048];
    const char *path = scratch(name), *text = tiny_find(family)->config,
               *at = strstr(text, "\"vocab_size\": 50");
    snprintf(config, sizeof config, "%.*s\"vocab_size\": %d%s", (int)(at - text), text, VOCAB,
             at + strlen("\"vocab_size\": 50"));
    at = strstr(config, from);
    ck_assert_msg(at != NULL, "%s", from);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - config), config, to,
             at + strlen(from));
    ck_assert_int_eq(mkdir(path, 0777), 0);
    eqat_context *ctx = make_context(1, 0);
    write_model(ctx, path, changed, stored, NULL);
    eqat_context_free(ctx);
    return path;
}

bench set_up(const setting *s)
{
    bench b = {.ctx = make_context(s->threads, s->seed)};
    b.model = open_model(b.ctx, s->model ? s->model : "model", s->compute);
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = s->bits;
    o.group_size = 32;
    o.init = s->init;
    o.zero_point = (int32_t)s->zero_point;
    OK(b.ctx, eqat_quantizer_create(b.ctx, &b.quantizer, &o));
    b.data = make_data(b.ctx, 7, 3, s->shuffle);
    return b;
}

void tear_down(bench *b)
{
    eqat_data_free(b->data);
    eqat_quantizer_free(b->quantizer);
    eqat_model_free(b->model);
    eqat_context_free(b->ctx);
}

const char *one_call(const setting *s, const char *name)
{
    bench b = set_up(s);
    eqat_block_ap_options o = fast_options();
    o.offload_dir = s->offload_dir;
    o.offload_memory = s->offload_memory;
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    eqat_e2e_qp_options e = fast_e2e_options();
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &e));
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

const char *reference_folder(void)
{
    static char path[512];
    if (!path[0]) snprintf(path, sizeof path, "%s", one_call(&usual, "reference"));
    return path;
}

float *parameter_floats(eqat_context *ctx, eqat_model *model, const char *name, int64_t *n)
{
    eqat_tensor *t;
    OK(ctx, eqat_model_parameter(model, name, &t));
    return read_floats(t, n);
}

bool same_floats(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

double perplexity_of(eqat_context *ctx, eqat_model *model, eqat_data *data)
{
    eqat_perplexity p = {.struct_size = sizeof p};
    OK(ctx, eqat_eval_perplexity(model, data, NULL, &p));
    return p.perplexity;
}

int32_t watch_block_ap(void *user, const eqat_progress *p)
{
    watched *s = user;
    ck_assert_str_eq(p->phase, "block-ap");
    ck_assert_int_eq(p->step, s->calls + 1);
    ck_assert(isnan(p->grad_norm));
    ck_assert(isfinite(p->loss));
    if (s->calls++ == 0) {
        s->first_loss = p->loss;
        s->first_lr = p->lr;
    }
    if (isfinite(p->val_loss)) s->validated++;
    s->last_loss = p->loss;
    s->last_lr = p->lr;
    s->block = p->block;
    s->step = p->step;
    s->steps = p->steps;
    return s->calls == s->cancel_at;
}

double logits_distance(eqat_model *a, eqat_model *b)
{
    size_t bytes;
    float *x = logits_of(a, TIME, &bytes), *y = logits_of(b, TIME, &bytes);
    double sum = 0;
    for (size_t i = 0; i < bytes / sizeof *x; i++) sum += pow((double)x[i] - (double)y[i], 2);
    free(x);
    free(y);
    return sum / (double)(bytes / sizeof *x);
}

bool same_parameter(bench *a, bench *b, const char *name)
{
    eqat_tensor *x, *y;
    OK(a->ctx, eqat_model_parameter(a->model, name, &x));
    OK(b->ctx, eqat_model_parameter(b->model, name, &y));
    size_t n = (size_t)eqat_tensor_count(x) * (eqat_tensor_dtype(x) == EQAT_U8 ? 1 : 4);
    char *p = malloc(n), *q = malloc(n);
    OK(a->ctx, eqat_tensor_read(x, p, n));
    OK(b->ctx, eqat_tensor_read(y, q, n));
    bool same = !memcmp(p, q, n);
    free(p);
    free(q);
    return same;
}

int32_t save_and_cancel(void *user, const eqat_progress *p)
{
    saver *s = user;
    (void)p;
    if (++s->calls != s->at) return 0;
    if (s->block_ap)
        OK(s->ctx, eqat_block_ap_save(s->block_ap, s->path));
    else
        OK(s->ctx, eqat_e2e_qp_save(s->e2e_qp, s->path));
    return 1;
}

eqat_status spoil_gradients(void *user, eqat_tensor *const *parameters, size_t count)
{
    spoiler *s = user;
    int64_t call = s->calls++;
    for (size_t i = 0; i < count && call >= s->first && call < s->last; i++) {
        eqat_tensor *g = eqat_tensor_grad(parameters[i]);
        int64_t n;
        float *x = read_floats(g, &n);
        for (int64_t k = 0; k < n; k++) x[k] *= s->factor;
        ck_assert_int_eq(eqat_tensor_write(g, x, (size_t)n * sizeof *x), EQAT_OK);
        free(x);
    }
    return EQAT_OK;
}
