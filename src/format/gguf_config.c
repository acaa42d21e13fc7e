#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf_impl.h"
#include "format/gguf_names.h"

#define PI 3.14159265358979323846
#define PAIRS_MAX 4096

typedef struct family {
    const char *architecture, *model_type, *hf_architecture;
    bool with_window,
        without_window; /* whether it is this row when there is a sliding window, or none */
} family;

/* Converters write Mistral as llama; of the two only Mistral can have a window. */
static const family families[] = {
    {"llama", "llama", "LlamaForCausalLM", false, true},
    {"llama", "mistral", "MistralForCausalLM", true, false},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", true, true},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", true, true},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", true, true},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", true, true},
};

const char *eqi_gguf_architecture(const char *model_type)
{
    for (size_t i = 0; i < EQI_COUNT(families); i++)
        if (!strcmp(families[i].model_type, model_type)) return families[i].architecture;
    return NULL;
}

/* Of Gemma 3, where the file does not say: every sixth block sees everything, and the others turn
 * by a base of their own. The largest model alone scales its queries by hidden / heads. */
enum { GEMMA_PATTERN = 6, GEMMA_LOCAL_BASE = 10000, GEMMA_LARGEST_BLOCKS = 62 };

typedef struct facts {
    eqi_gguf *g;
    eqi_ctx *ctx;
    const char *path, *architecture;
    json_t *config;
    int64_t hidden, heads, kv_heads, head_dim, context, window; /* window: 0 for none */
    int64_t intermediate, blocks;
    double theta;
    bool gemma, mixture;
} facts;

static eqat_status fail_memory(facts *f)
{
    return eqi_fail(f->ctx, EQAT_OUT_OF_MEMORY, "out of memory: the configuration of %s", f->path);
}

static eqat_status set(facts *f, json_t *object, const char *key, json_t *value)
{
    return value && json_object_set_new(object, key, value) == 0 ? EQAT_OK : fail_memory(f);
}

static eqat_status set_int(facts *f, const char *key, int64_t n)
{
    return set(f, f->config, key, json_integer(n));
}
static eqat_status set_bool(facts *f, const char *key, bool b)
{
    return set(f, f->config, key, json_boolean(b));
}

/* The shortest decimal number that is the same float: 1e-05, not 9.999999747378752e-06. By
 * arithmetic, because text conversion depends on the locale. */
static double shortest(double value)
{
    if (value == 0 || !isfinite(value)) return value;
    const int exponent = (int)floor(log10(fabs(value)));
    for (int digits = 1; digits <= 9; digits++) {
        const int shift = digits - 1 - exponent;
        const double scale = pow(10, abs(shift));
        const double candidate =
            shift >= 0 ? rint(value * scale) / scale : rint(value / scale) * scale;
        if ((float)candidate == (float)value) return candidate;
    }
    return value;
}

static void make_key(const facts *f, const char *name, char key[128])
{
    snprintf(key, 128, "%s.%s", f->architecture, name);
}

/* An integer of at least `least`, or an array that gives it once per block. *out keeps its value
 * when the key is missing and not `required`. */
static eqat_status get_int(facts *f, const char *name, bool required, int64_t least, int64_t *out)
{
    char key[128];
    make_key(f, name, key);
    int64_t n = 0;
    if (!eqi_gguf_has(f->g, key)) {
        if (!required) return EQAT_OK;
        return eqi_fail(f->ctx, EQAT_FORMAT, "%s: %s: missing, expected an integer", f->path, key);
    }
    const int64_t count = eqi_gguf_array_count(f->g, key);
    bool ok = count < 0 ? eqi_gguf_int(f->g, key, &n) : eqi_gguf_array_int(f->g, key, 0, &n);
    for (int64_t i = 1; ok && i < count; i++) {
        int64_t other;
        ok = eqi_gguf_array_int(f->g, key, i, &other);
        if (ok && other != n)
            return eqi_fail(
                f->ctx, EQAT_UNSUPPORTED,
                "%s: %s: found %lld for block 0 and %lld for block %lld, expected one value",
                f->path, key, (long long)n, (long long)other, (long long)i);
    }
    if (!ok)
        return eqi_fail(f->ctx, EQAT_FORMAT,
                        "%s: %s: found another kind of value, expected an integer", f->path, key);
    if (n < least || n > INT32_MAX)
        return eqi_fail(f->ctx, EQAT_FORMAT, "%s: %s: found %lld, expected %lld to %d", f->path,
                        key, (long long)n, (long long)least, INT32_MAX);
    *out = n;
    return EQAT_OK;
}

static eqat_status get_float(facts *f, const char *name, bool required, double *out)
{
    char key[128];
    make_key(f, name, key);
    double x;
    if (!required && !eqi_gguf_has(f->g, key)) return EQAT_OK;
    if (!eqi_gguf_float(f->g, key, &x) || !isfinite(x) || x <= 0)
        return eqi_fail(f->ctx, EQAT_FORMAT,
                        "%s: %s: missing or damaged, expected a positive number", f->path, key);
    *out = shortest(x);
    return EQAT_OK;
}

static eqat_status read_family(facts *f)
{
    size_t length = 0, row = 0;
    f->architecture = eqi_gguf_string(f->g, "general.architecture", &length);
    if (!f->architecture)
        return eqi_fail(f->ctx, EQAT_FORMAT, "%s: general.architecture: missing, expected a string",
                        f->path);
    while (row < EQI_COUNT(families) && strcmp(f->architecture, families[row].architecture)) row++;
    if (row == EQI_COUNT(families) || strlen(f->architecture) != length)
        return eqi_fail(f->ctx, EQAT_UNSUPPORTED,
                        "%s: architecture '%.40s' is not supported, expected llama, qwen2, qwen3, "
                        "qwen3moe or gemma3",
                        f->path, f->architecture);
    f->gemma = !strcmp(f->architecture, "gemma3");
    f->mixture = !strcmp(f->architecture, "qwen3moe");
    EQI_RETURN_IF(get_int(f, "attention.sliding_window", false, 0, &f->window));
    while (!(f->window ? families[row].with_window : families[row].without_window)) row++;
    json_t *list = json_array();
    EQI_RETURN_IF(set(f, f->config, "architectures", list));
    if (json_array_append_new(list, json_string(families[row].hf_architecture)) != 0)
        return fail_memory(f);
    EQI_RETURN_IF(set(f, f->config, "model_type", json_string(families[row].model_type)));
    return f->gemma ? set(f, f->config, "hidden_activation", json_string("gelu_pytorch_tanh"))
                    : set(f, f->config, "hidden_act", json_string("silu"));
}

static eqat_status refuse_parts(facts *f)
{
    int64_t parts = 1, experts = 0;
    char key[128];
    if (eqi_gguf_int(f->g, "split.count", &parts) && parts > 1)
        return eqi_fail(f->ctx, EQAT_UNSUPPORTED,
                        "%s: found one of %lld parts, expected a whole model: merge them first",
                        f->path, (long long)parts);
    make_key(f, "expert_count", key);
    if (!f->mixture && eqi_gguf_int(f->g, key, &experts) && experts > 0)
        return eqi_fail(f->ctx, EQAT_UNSUPPORTED,
                        "%s: %s: found %lld, expected a model without experts", f->path, key,
                        (long long)experts);
    return EQAT_OK;
}

static eqat_status read_shapes(facts *f)
{
    int64_t value_dim, rotary;
    EQI_RETURN_IF(get_int(f, "embedding_length", true, 1, &f->hidden));
    EQI_RETURN_IF(get_int(f, "feed_forward_length", true, 1, &f->intermediate));
    EQI_RETURN_IF(get_int(f, "block_count", true, 1, &f->blocks));
    EQI_RETURN_IF(get_int(f, "attention.head_count", true, 1, &f->heads));
    EQI_RETURN_IF(get_int(f, "context_length", true, 1, &f->context));
    f->kv_heads = f->heads;
    EQI_RETURN_IF(get_int(f, "attention.head_count_kv", false, 1, &f->kv_heads));
    f->head_dim = f->hidden / f->heads;
    EQI_RETURN_IF(get_int(f, "attention.key_length", false, 1, &f->head_dim));
    value_dim = rotary = f->head_dim;
    EQI_RETURN_IF(get_int(f, "attention.value_length", false, 1, &value_dim));
    EQI_RETURN_IF(get_int(f, "rope.dimension_count", false, 1, &rotary));
    if (f->head_dim < 2 || f->head_dim % 2 || f->heads % f->kv_heads)
        return eqi_fail(f->ctx, EQAT_FORMAT,
                        "%s: found %lld heads of %lld over %lld key heads, expected an even size "
                        "and a whole multiple",
                        f->path, (long long)f->heads, (long long)f->head_dim,
                        (long long)f->kv_heads);
    if (value_dim != f->head_dim || rotary != f->head_dim)
        return eqi_fail(
            f->ctx, EQAT_UNSUPPORTED,
            "%s: found value heads of %lld and %lld rotary dimensions, expected both to be %lld",
            f->path, (long long)value_dim, (long long)rotary, (long long)f->head_dim);
    /* Nothing above should loop over more blocks than there can be. */
    if ((uint64_t)f->blocks > eqi_source_count(eqi_gguf_tensors(f->g)))
        return eqi_fail(f->ctx, EQAT_FORMAT,
                        "%s: found %lld blocks, expected at most one per tensor (%zu)", f->path,
                        (long long)f->blocks, eqi_source_count(eqi_gguf_tensors(f->g)));
    EQI_RETURN_IF(set_int(f, "hidden_size", f->hidden));
    EQI_RETURN_IF(set_int(f, "intermediate_size", f->intermediate));
    EQI_RETURN_IF(set_int(f, "num_hidden_layers", f->blocks));
    EQI_RETURN_IF(set_int(f, "num_attention_heads", f->heads));
    EQI_RETURN_IF(set_int(f, "num_key_value_heads", f->kv_heads));
    EQI_RETURN_IF(set_int(f, "head_dim", f->head_dim));
    return set_int(f, "max_position_embeddings", f->context);
}

static eqat_status set_id(facts *f, const char *key, const char *gguf_key, int64_t vocab)
{
    int64_t id;
    return eqi_gguf_int(f->g, gguf_key, &id) && id >= 0 && id < vocab ? set_int(f, key, id)
                                                                      : EQAT_OK;
}

static eqat_status read_vocabulary(facts *f)
{
    const eqi_source *tensors = eqi_gguf_tensors(f->g);
    const eqi_source_entry *e = eqi_source_find(tensors, "token_embd.weight");
    if (!e)
        return eqi_fail(f->ctx, EQAT_FORMAT, "%s: tensor 'token_embd.weight': missing", f->path);
    if (e->ndim != 2 || e->shape[1] != f->hidden)
        return eqi_fail(f->ctx, EQAT_FORMAT,
                        "%s: tensor 'token_embd.weight': found %d dimensions with rows of %lld, "
                        "expected 2 with rows of %lld",
                        f->path, e->ndim, (long long)(e->ndim ? e->shape[e->ndim - 1] : 1),
                        (long long)f->hidden);
    EQI_RETURN_IF(set_int(f, "vocab_size", e->shape[0]));
    EQI_RETURN_IF(set_bool(f, "tie_word_embeddings", !eqi_source_find(tensors, "output.weight")));
    EQI_RETURN_IF(set_id(f, "bos_token_id", "tokenizer.ggml.bos_token_id", e->shape[0]));
    EQI_RETURN_IF(set_id(f, "eos_token_id", "tokenizer.ggml.eos_token_id", e->shape[0]));
    EQI_RETURN_IF(set_id(f, "pad_token_id", "tokenizer.ggml.padding_token_id", e->shape[0]));
    /* Of a block-quantized file the original type is not known; f16 keeps most of what the blocks
     * hold. */
    const char *dtype = e->stored == EQI_STORED_F32 ? "float32"
        : e->stored == EQI_STORED_BF16              ? "bfloat16"
                                                    : "float16";
    return set(f, f->config, "torch_dtype", json_string(dtype));
}

static eqat_status read_attention(facts *f)
{
    const eqi_source *tensors = eqi_gguf_tensors(f->g);
    EQI_RETURN_IF(
        set_bool(f, "attention_bias", eqi_source_find(tensors, "blk.0.attn_q.bias") != NULL));
    EQI_RETURN_IF(set_bool(f, "mlp_bias", eqi_source_find(tensors, "blk.0.ffn_gate.bias") != NULL));
    EQI_RETURN_IF(
        set(f, f->config, "sliding_window", f->window ? json_integer(f->window) : json_null()));
    return !strncmp(f->architecture, "qwen", 4) ? set_bool(f, "use_sliding_window", f->window > 0)
                                                : EQAT_OK;
}

static eqat_status read_experts(facts *f)
{
    int64_t experts = 0, used = 0;
    EQI_RETURN_IF(get_int(f, "expert_count", true, 1, &experts));
    EQI_RETURN_IF(get_int(f, "expert_used_count", true, 1, &used));
    int64_t size = f->intermediate / used;
    EQI_RETURN_IF(get_int(f, "expert_feed_forward_length", false, 1, &size));
    EQI_RETURN_IF(set_int(f, "num_experts", experts));
    EQI_RETURN_IF(set_int(f, "num_experts_per_tok", used));
    EQI_RETURN_IF(set_int(f, "moe_intermediate_size", size));
    EQI_RETURN_IF(set_int(f, "decoder_sparse_step", 1));
    EQI_RETURN_IF(set(f, f->config, "mlp_only_layers", json_array()));
    return set_bool(f, "norm_topk_prob", true);
}

static eqat_status read_gemma(facts *f)
{
    const int64_t largest = GEMMA_LARGEST_BLOCKS;
    EQI_RETURN_IF(set_int(f, "query_pre_attn_scalar",
                          f->blocks == largest ? f->hidden / f->heads : f->head_dim));
    int64_t pattern = GEMMA_PATTERN;
    EQI_RETURN_IF(get_int(f, "attention.sliding_window_pattern", false, 1, &pattern));
    json_t *types = json_array();
    EQI_RETURN_IF(set(f, f->config, "layer_types", types));
    for (int64_t i = 0; i < f->blocks; i++) {
        const bool full = !f->window || (i + 1) % pattern == 0;
        const char *type = full ? "full_attention" : "sliding_attention";
        if (json_array_append_new(types, json_string(type)) != 0) return fail_memory(f);
    }
    double base = GEMMA_LOCAL_BASE;
    EQI_RETURN_IF(get_float(f, "rope.local.freq_base", false, &base));
    EQI_RETURN_IF(get_float(f, "rope.freq_base_swa", false, &base));
    return set(f, f->config, "rope_local_base_freq", json_real(base));
}

double eqi_llama3_factor(double theta, int64_t pairs, int64_t i, double factor, double low,
                         double high, double original)
{
    const double turns = original / (2 * PI * pow(theta, (double)i / (double)pairs));
    if (turns > high) return 1;
    if (turns < low) return factor;
    const double smooth = (turns - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
}

typedef struct llama3 {
    double factor, low, high, original;
} llama3;

static bool explains(const facts *f, const llama3 *p, const float *factors, int64_t pairs)
{
    if (!(p->low > 0) || !(p->high > p->low) || !(p->factor >= 1) || !isfinite(p->high))
        return false;
    for (int64_t i = 0; i < pairs; i++) {
        const double want =
            eqi_llama3_factor(f->theta, pairs, i, p->factor, p->low, p->high, p->original);
        if (!(fabs(want - factors[i]) <= 1e-4 * want)) return false;
    }
    return true;
}

static double snap(double x) { return fabs(x * 64 - rint(x * 64)) < 1e-2 ? rint(x * 64) / 64 : x; }

/* Between its two ends the inverse factor is a straight line over the number of turns t that a pair
 * makes in the original context: (1/f - 1/F) / (1 - 1/F) = (t - low) / (high - low). Two points
 * determine it. The context's length cannot be told from a scale of low and high, so it is given.
 */
static bool fit_llama3(const facts *f, const float *factors, int64_t pairs, double original,
                       llama3 *p)
{
    double largest = 0, n = 0, st = 0, ss = 0, stt = 0, sts = 0;
    for (int64_t i = 0; i < pairs; i++) {
        if (!(factors[i] >= 0.999f) || !isfinite(factors[i])) return false;
        if (factors[i] > largest) largest = factors[i];
    }
    *p = (llama3){.factor = shortest(largest), .low = 1, .high = 4, .original = original};
    if (explains(f, p, factors, pairs)) return true;
    for (int64_t i = 0; i < pairs; i++) {
        if (factors[i] < 1.001 || factors[i] > largest * 0.999) continue;
        const double t = original / (2 * PI * pow(f->theta, (double)i / (double)pairs));
        const double s = (1 / (double)factors[i] - 1 / largest) / (1 - 1 / largest);
        n += 1;
        st += t;
        ss += s;
        stt += t * t;
        sts += t * s;
    }
    double slope, low, high;
    if (n >= 2) {
        slope = (n * sts - st * ss) / (n * stt - st * st);
        low = (st - ss / slope) / n;
        high = low + 1 / slope;
    } else if (n == 1) { /* the published ratio of the two */
        low = st / (3 * ss + 1);
        high = 4 * low;
    } else {
        return false;
    }
    p->low = snap(low);
    p->high = snap(high);
    if (explains(f, p, factors, pairs)) return true;
    p->low = low;
    p->high = high;
    return explains(f, p, factors, pairs);
}

static eqat_status set_llama3(facts *f, json_t *scaling, const llama3 *p)
{
    EQI_RETURN_IF(set(f, scaling, "rope_type", json_string("llama3")));
    EQI_RETURN_IF(set(f, scaling, "factor", json_real(p->factor)));
    EQI_RETURN_IF(set(f, scaling, "low_freq_factor", json_real(p->low)));
    EQI_RETURN_IF(set(f, scaling, "high_freq_factor", json_real(p->high)));
    return set(f, scaling, "original_max_position_embeddings",
               json_integer((json_int_t)p->original));
}

/* Factors that llama3 does not explain, one by one in the form that says so. */
static eqat_status set_table(facts *f, json_t *scaling, const float *factors, int64_t pairs)
{
    EQI_RETURN_IF(set(f, scaling, "rope_type", json_string("longrope")));
    EQI_RETURN_IF(set(f, scaling, "attention_factor", json_real(1)));
    EQI_RETURN_IF(set(f, scaling, "original_max_position_embeddings", json_integer(f->context)));
    static const char *const keys[] = {"short_factor", "long_factor"};
    for (size_t k = 0; k < EQI_COUNT(keys); k++) {
        json_t *list = json_array();
        EQI_RETURN_IF(set(f, scaling, keys[k], list));
        for (int64_t i = 0; i < pairs; i++)
            if (json_array_append_new(list, json_real(shortest(factors[i]))) != 0)
                return fail_memory(f);
    }
    return EQAT_OK;
}

static eqat_status read_factors(facts *f, json_t *scaling)
{
    const int64_t pairs = f->head_dim / 2;
    eqi_source *s;
    EQI_RETURN_IF(eqi_gguf_source(f->g, &s));
    const eqi_source_entry *e = eqi_source_find(s, "rope_freqs.weight");
    float factors[PAIRS_MAX];
    eqat_status st;
    if (e->elements != pairs || pairs > PAIRS_MAX)
        st = eqi_fail(f->ctx, EQAT_FORMAT,
                      "%s: tensor 'rope_freqs.weight': found %lld factors, expected %lld", f->path,
                      (long long)e->elements, (long long)pairs);
    else
        st = eqi_source_read_f32(s, e, 0, pairs, factors);
    eqi_source_close(s);
    EQI_RETURN_IF(st);
    bool plain = true;
    for (int64_t i = 0; i < pairs; i++) {
        if (!(factors[i] > 0) || !isfinite(factors[i]))
            return eqi_fail(f->ctx, EQAT_NUMERIC,
                            "%s: tensor 'rope_freqs.weight': element %lld is not a positive number",
                            f->path, (long long)i);
        plain = plain && factors[i] == 1;
    }
    if (plain) return EQAT_OK;
    int64_t original = 8192;
    EQI_RETURN_IF(get_int(f, "rope.scaling.original_context_length", false, 1, &original));
    llama3 p;
    return fit_llama3(f, factors, pairs, (double)original, &p)
        ? set_llama3(f, scaling, &p)
        : set_table(f, scaling, factors, pairs);
}

static eqat_status read_scaling(facts *f, json_t *scaling)
{
    char key[128];
    make_key(f, "rope.scaling.type", key);
    const char *type = eqi_gguf_string(f->g, key, NULL);
    double factor = 1;
    EQI_RETURN_IF(
        get_float(f, "rope.scale_linear", false, &factor)); /* of files older than rope.scaling.* */
    EQI_RETURN_IF(get_float(f, "rope.scaling.factor", false, &factor));
    if (type && strcmp(type, "none") && strcmp(type, "linear"))
        return eqi_fail(f->ctx, EQAT_UNSUPPORTED,
                        "%s: %s: '%.40s' is not supported, expected none or linear", f->path, key,
                        type);
    const bool linear = factor != 1 && !(type && !strcmp(type, "none"));
    const bool table = eqi_source_find(eqi_gguf_tensors(f->g), "rope_freqs.weight") != NULL;
    if (linear && table)
        return eqi_fail(
            f->ctx, EQAT_UNSUPPORTED,
            "%s: found linear rope scaling by %g and rope_freqs.weight, expected one of them",
            f->path, factor);
    if (table) return read_factors(f, scaling);
    if (!linear) return EQAT_OK;
    EQI_RETURN_IF(set(f, scaling, "rope_type", json_string("linear")));
    return set(f, scaling, "factor", json_real(factor));
}

static eqat_status read_rope(facts *f)
{
    f->theta = f->gemma ? 1000000 : 10000;
    if (f->gemma) EQI_RETURN_IF(get_float(f, "rope.global.freq_base", false, &f->theta));
    EQI_RETURN_IF(get_float(f, "rope.freq_base", false, &f->theta));
    EQI_RETURN_IF(set(f, f->config, "rope_theta", json_real(f->theta)));
    json_t *scaling = json_object();
    EQI_RETURN_IF(set(f, f->config, "rope_scaling", scaling));
    EQI_RETURN_IF(read_scaling(f, scaling));
    return json_object_size(scaling) ? EQAT_OK : set(f, f->config, "rope_scaling", json_null());
}

static eqat_status read_facts(facts *f)
{
    double eps = 0;
    EQI_RETURN_IF(read_family(f));
    EQI_RETURN_IF(refuse_parts(f));
    EQI_RETURN_IF(read_shapes(f));
    EQI_RETURN_IF(get_float(f, "attention.layer_norm_rms_epsilon", true, &eps));
    EQI_RETURN_IF(set(f, f->config, "rms_norm_eps", json_real(eps)));
    EQI_RETURN_IF(read_vocabulary(f));
    EQI_RETURN_IF(read_attention(f));
    if (f->mixture) EQI_RETURN_IF(read_experts(f));
    if (f->gemma) EQI_RETURN_IF(read_gemma(f));
    return read_rope(f);
}

eqat_status eqi_gguf_config(eqi_gguf *g, json_t **config)
{
    *config = NULL;
    facts f = {
        .g = g, .ctx = eqi_gguf_context(g), .path = eqi_gguf_path(g), .config = json_object()};
    eqat_status st = f.config ? read_facts(&f) : fail_memory(&f);
    if (st != EQAT_OK) {
        json_decref(f.config);
        return st;
    }
    *config = f.config;
    return EQAT_OK;
}
