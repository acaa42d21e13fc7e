#include <string.h>

#include "api/options.h"
#include "base/entry.h"
#include "base/file.h"
#include "format/gguf.h"
#include "format/gguf_names.h"
#include "format/json_load.h"
#include "model/read.h"
#include "model/weights.h"

#define CONFIG_LIMIT ((size_t)16 << 20)

static const char *const compute_names[] = {"f32", "bf16", NULL};

static const eqat_field fields[] = {
    EQI_FIELD_ENUM(eqat_model_options, compute_dtype, EQAT_BF16, compute_names,
                   "activations and products: f32, or bf16 with f32 sums"),
};

const eqi_struct eqi_struct_model = EQI_STRUCT(eqat_model_options, "model", fields);

void eqat_model_options_init(eqat_model_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_model, options, struct_size);
}

static eqat_status read_json(eqi_ctx *ctx, const char *path, json_t **out)
{
    char *text;
    size_t size;
    json_error_t error;
    EQI_RETURN_IF(eqi_file_slurp_inside(ctx, path, CONFIG_LIMIT, &text, &size));
    *out = eqi_json_load(text, size, 0, &error);
    eqi_free(ctx, text);
    return *out ? EQAT_OK
                : eqi_fail(ctx, EQAT_FORMAT, "%s: line %d: %s", path, error.line, error.text);
}

static bool holds(eqat_model *m, const char *name)
{
    char *path = eqi_path_join(m->ctx, m->path, name);
    bool found = path && eqi_path_exists(path);
    eqi_free(m->ctx, path);
    return found;
}

static eqat_status refuse_folder(eqat_model *m)
{
    bool tokenizer = holds(m, "tokenizer.json") || holds(m, "vocab.json");
    return eqi_fail(m->ctx, EQAT_NOT_FOUND,
                    "%s: found %s, expected a Hugging Face folder with config.json", m->path,
                    tokenizer ? "a tokenizer without a model" : "no config.json in it");
}

static eqat_status open_folder(eqat_model *m)
{
    char *config = eqi_path_join(m->ctx, m->path, "config.json");
    if (!config) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_path_exists(config) ? EQAT_OK : refuse_folder(m);
    if (st != EQAT_OK) goto done;
    EQI_GOTO(done, read_json(m->ctx, config, &m->json));
    EQI_GOTO(done, eqi_config_parse(m->ctx, &m->config, m->json, config));
    EQI_GOTO(done, eqi_packing_parse(m->ctx, &m->packing, m->json, config));
    st = eqi_source_open_safetensors(m->ctx, &m->source, m->path);
done:
    eqi_free(m->ctx, config);
    return st;
}

/* A file of a folder in place of the folder. */
static bool is_part(const char *path)
{
    static const char *const endings[] = {".safetensors", ".json", ".bin"};
    size_t n = strlen(path);
    for (size_t i = 0; i < EQI_COUNT(endings); i++) {
        size_t k = strlen(endings[i]);
        if (n >= k && !strcmp(path + n - k, endings[i])) return true;
    }
    return false;
}

static eqat_status open_gguf(eqat_model *m)
{
    eqi_gguf *g;
    if (is_part(m->path))
        return eqi_fail(m->ctx, EQAT_FORMAT,
                        "%s: found a file of a model's folder, expected the folder that it is in, "
                        "or a GGUF file",
                        m->path);
    EQI_RETURN_IF(eqi_gguf_open(m->ctx, &g, m->path));
    eqat_status st = eqi_gguf_open_hf(g, &m->source, &m->json);
    eqi_gguf_close(g);
    m->packing = eqi_packing_of_gguf();
    return st == EQAT_OK ? eqi_config_parse(m->ctx, &m->config, m->json, m->path) : st;
}

/* A model is of use without its tokenizer; a damaged one is still an error. */
static eqat_status open_tokenizer(eqat_model *m)
{
    char before[EQI_ERROR_MAX];
    memcpy(before, m->ctx->error, sizeof before);
    eqat_status st = eqat_tokenizer_open(m->ctx, &m->tokenizer, m->path);
    if (st == EQAT_UNSUPPORTED) eqi_log(m->ctx, EQI_LOG_WARN, "no tokenizer: %s", m->ctx->error);
    if (st != EQAT_NOT_FOUND && st != EQAT_UNSUPPORTED) return st;
    memcpy(m->ctx->error, before, sizeof before); /* what is no failure leaves no line */
    return EQAT_OK;
}

eqat_status eqat_model_open(eqat_context *ctx, eqat_model **out, const char *path,
                            const eqat_model_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out, path);
    eqat_model_options o;
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_model, &o, options));
    if (!eqi_path_exists(path))
        return eqi_fail(ctx, EQAT_NOT_FOUND, "%s: no such file or folder", path);
    eqat_model *m = eqi_calloc(ctx, 1, sizeof *m, "a model");
    if (!m) return EQAT_OUT_OF_MEMORY;
    m->ctx = eqi_ctx_ref(ctx);
    m->refs = 1;
    m->compute = (eqi_dtype)o.compute_dtype;
    m->path = eqi_strdup(ctx, path);
    eqat_status st = m->path ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = eqi_path_is_dir(path) ? open_folder(m) : open_gguf(m);
    if (st == EQAT_OK) st = eqi_model_layout(m);
    if (st == EQAT_OK) st = eqi_model_check_unused(m);
    if (st == EQAT_OK) st = open_tokenizer(m);
    if (st != EQAT_OK) {
        eqat_model_free(m);
        return st;
    }
    *out = m;
    return EQAT_OK;
}

eqat_status eqi_model_check_idle(const eqat_model *m)
{
    switch (m->job) {
    case EQI_JOB_NONE: break;
    case EQI_JOB_BLOCK_AP:
        return eqi_fail(
            m->ctx, EQAT_INVALID_ARGUMENT,
            "block %lld: found it in work of a Block-AP job, expected finish or abandon "
            "first",
            (long long)m->job_block);
    case EQI_JOB_E2E_QP:
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "%s: found it in training by another E2E-QP job, expected finish or free "
                        "first",
                        m->path);
    }
    return EQAT_OK;
}

eqat_model *eqi_model_ref(eqat_model *m)
{
    m->refs++;
    return m;
}

static void unref(void *model)
{
    eqat_model *m = model;
    if (--m->refs) return;
    eqi_ctx *ctx = m->ctx;
    eqi_model_drop_weights(m);
    eqi_free(ctx, m->parameters);
    for (int i = 0; i < EQI_ROPES; i++) eqi_rotary_release(&m->rotary[i]);
    eqat_tokenizer_free(m->tokenizer);
    eqi_source_close(m->source);
    json_decref(m->json);
    eqi_free(ctx, m->path);
    eqi_free(ctx, m);
    eqi_ctx_unref(ctx);
}

void eqat_model_free(eqat_model *m)
{
    if (m) eqi_handle_free(m->ctx, &m->handle, unref, m);
}

const eqat_tokenizer *eqat_model_tokenizer(const eqat_model *m)
{
    if (!m) return NULL;
    return m->tokenizer;
}

typedef struct totals {
    const eqat_model *m;
    bool quantized, changed; /* changed: no longer what the file holds */
    int64_t parameters, linear_parameters, bytes;
    double linear_bits;
} totals;

static void add_dense(totals *t, eqi_stored stored, int64_t n)
{
    t->parameters += n;
    t->bytes +=
        (int64_t)eqi_stored_bytes(t->changed ? eqi_stored_as(eqi_kept_dtype(stored)) : stored, n);
}

static void add_linear(totals *t, const eqi_linear *l)
{
    int64_t n = l->out * l->in;
    eqi_quant_desc q = eqi_linear_quantization(l);
    t->linear_parameters += n;
    if (q.bits) {
        eqi_layout_linear linear = eqi_linear_described(l, q);
        int64_t groups = l->in / q.group, bits = n * q.bits + l->out * groups * (16 + q.bits);
        t->parameters += n;
        t->linear_bits += (double)bits;
        t->bytes += t->changed || !l->file.bits
            ? eqi_layout_bytes(eqi_layout_default(), &linear)
            : eqi_packing_bytes(&t->m->packing, t->m->source, &linear);
    } else {
        int64_t before = t->bytes;
        add_dense(t, l->stored, n);
        t->linear_bits += 8.0 * (double)(t->bytes - before);
    }
    if (l->has_bias) add_dense(t, l->bias_stored, l->out);
}

static totals count(const eqat_model *m)
{
    totals t = {.m = m};
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++) {
            const eqi_linear *l = &m->blocks[b].linears[i];
            t.quantized |= eqi_linear_quantization(l).bits != 0;
            t.changed |= l->weight.codes && !l->file.bits;
        }
    int64_t table = m->config.vocab * m->config.hidden;
    add_dense(&t, m->embedding_stored, table);
    if (!m->config.tied) add_dense(&t, m->head_stored, table);
    add_dense(&t, m->final_norm.stored, m->final_norm.size);
    for (int64_t b = 0; b < m->config.blocks; b++) {
        const eqi_block *block = &m->blocks[b];
        for (int i = 0; i < block->n_linears; i++) add_linear(&t, &block->linears[i]);
        for (int i = 0; i < block->n_norms; i++)
            add_dense(&t, block->norms[i].stored, block->norms[i].size);
    }
    return t;
}

static bool slides(const eqi_config *c)
{
    bool any = false;
    for (int64_t b = 0; b < c->blocks; b++) any |= eqi_block_in(&c->sliding, b);
    return any;
}

static const eqat_field info_fields[] = {
    EQI_FIELD_PLAIN(eqat_model_info, family, EQAT_FIELD_STRING, "of architectures"),
    EQI_FIELD_PLAIN(eqat_model_info, blocks, EQAT_FIELD_I64, "decoder blocks"),
    EQI_FIELD_PLAIN(eqat_model_info, hidden_size, EQAT_FIELD_I64, "width of a token"),
    EQI_FIELD_PLAIN(eqat_model_info, intermediate_size, EQAT_FIELD_I64, "width inside the MLP"),
    EQI_FIELD_PLAIN(eqat_model_info, heads, EQAT_FIELD_I64, "of queries"),
    EQI_FIELD_PLAIN(eqat_model_info, kv_heads, EQAT_FIELD_I64, "of keys and values"),
    EQI_FIELD_PLAIN(eqat_model_info, head_dim, EQAT_FIELD_I64, "width of a head"),
    EQI_FIELD_PLAIN(eqat_model_info, vocab_size, EQAT_FIELD_I64, "token ids"),
    EQI_FIELD_PLAIN(eqat_model_info, max_positions, EQAT_FIELD_I64, "tokens of a context"),
    EQI_FIELD_PLAIN(eqat_model_info, window, EQAT_FIELD_I64, "sliding window in tokens; 0: none"),
    EQI_FIELD_PLAIN(eqat_model_info, parameters, EQAT_FIELD_I64, "all elements"),
    EQI_FIELD_PLAIN(eqat_model_info, linear_parameters, EQAT_FIELD_I64,
                    "elements of the blocks' linears"),
    EQI_FIELD_PLAIN(eqat_model_info, bytes, EQAT_FIELD_I64, "of all tensors as stored"),
    EQI_FIELD_PLAIN(eqat_model_info, linear_bits, EQAT_FIELD_F64,
                    "stored bits per parameter of the blocks' linears"),
    EQI_FIELD_PLAIN(eqat_model_info, rms_norm_eps, EQAT_FIELD_F64, "of the norms"),
    EQI_FIELD_PLAIN(eqat_model_info, rope_theta, EQAT_FIELD_F64, "base of the rotary embedding"),
    EQI_FIELD_PLAIN(eqat_model_info, tied_embeddings, EQAT_FIELD_BOOL,
                    "the head is the embedding table"),
    EQI_FIELD_PLAIN(eqat_model_info, quantized, EQAT_FIELD_BOOL, "at least one linear is packed"),
    EQI_FIELD_PLAIN(eqat_model_info, experts_per_token, EQAT_FIELD_I64,
                    "that work on a token; 0: the model has none"),
};

const eqi_struct eqi_struct_model_info = EQI_STRUCT(eqat_model_info, "model_info", info_fields);

static const eqat_field linear_fields[] = {
    EQI_FIELD_PLAIN(eqat_linear_info, name, EQAT_FIELD_STRING, "of the linear"),
    EQI_FIELD_PLAIN(eqat_linear_info, out_features, EQAT_FIELD_I64, "rows of the weight"),
    EQI_FIELD_PLAIN(eqat_linear_info, in_features, EQAT_FIELD_I64, "columns of the weight"),
    EQI_FIELD_PLAIN(eqat_linear_info, bits, EQAT_FIELD_I32, "of a code; 0: not quantized"),
    EQI_FIELD_PLAIN(eqat_linear_info, group_size, EQAT_FIELD_I32, "inputs that share a scale"),
    EQI_FIELD_PLAIN(eqat_linear_info, input, EQAT_FIELD_I64,
                    "number of the first linear with the same inputs"),
};

const eqi_struct eqi_struct_linear_info =
    EQI_STRUCT(eqat_linear_info, "linear_info", linear_fields);

eqat_status eqat_model_inspect(eqat_model *m, eqat_model_info *info)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, info);
    const eqi_config *c = &m->config;
    totals t = count(m);
    eqat_model_info full = {
        .family = c->family->name,
        .blocks = c->blocks,
        .hidden_size = c->hidden,
        .intermediate_size = c->intermediate,
        .heads = c->heads,
        .kv_heads = c->kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab,
        .max_positions = c->max_positions,
        .window = slides(c) ? c->window : 0,
        .parameters = t.parameters,
        .linear_parameters = t.linear_parameters,
        .bytes = t.bytes,
        .linear_bits = t.linear_bits / (double)t.linear_parameters,
        .rms_norm_eps = c->eps,
        .rope_theta = c->ropes[0].theta,
        .tied_embeddings = c->tied,
        .quantized = t.quantized,
        .experts_per_token = c->experts_per_token,
    };
    return eqi_options_give(m->ctx, "eqat_model_info", info, &full, sizeof full);
}

int64_t eqat_model_linear_count(eqat_model *m, int64_t block)
{
    if (!m) return 0;
    return block >= 0 && block < m->config.blocks ? m->blocks[block].n_linears : 0;
}

eqat_status eqi_model_find_linear(eqat_model *m, int64_t block, int64_t index,
                                  const eqi_linear **linear)
{
    int64_t blocks = m->config.blocks, linears = eqat_model_linear_count(m, block);
    *linear = NULL;
    if (index < 0 || index >= linears)
        return eqi_fail(
            m->ctx, EQAT_INVALID_ARGUMENT,
            "model: found linear %lld of block %lld, expected one of %lld in one of %lld blocks",
            (long long)index, (long long)block, (long long)linears, (long long)blocks);
    *linear = &m->blocks[block].linears[index];
    return EQAT_OK;
}

eqat_status eqat_model_linear(eqat_model *m, int64_t block, int64_t index, eqat_linear_info *info)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, info);
    const eqi_linear *l;
    EQI_RETURN_IF(eqi_model_find_linear(m, block, index, &l));
    eqi_quant_desc q = eqi_linear_quantization(l);
    int64_t input = 0;
    while (!eqi_linear_shares_input(&m->blocks[block].linears[input], l)) input++;
    eqat_linear_info full = {.name = l->name,
                             .out_features = l->out,
                             .in_features = l->in,
                             .bits = q.bits,
                             .group_size = (int32_t)q.group,
                             .input = input};
    return eqi_options_give(m->ctx, "eqat_linear_info", info, &full, sizeof full);
}
