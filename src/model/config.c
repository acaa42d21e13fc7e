#include <math.h>
#include <string.h>

#include "format/json_text.h"
#include "model/config.h"
#include "model/config_keys.h"

/* Bounds far beyond any model, small enough that products of two stay inside int64. */
#define DIM_MAX ((int64_t)1 << 24)
#define EXPERTS_MAX 65536
#define LENGTH_MAX ((int64_t)1 << 40)
#define THETA_MAX 1e15

/* Values of one JSON object; the first failure is kept, so that a caller may read them all and look
 * once. */
typedef struct reader {
    eqi_ctx *ctx;
    const char *path, *where; /* where: "" or "rope_scaling." */
    const json_t *object;
    eqat_status st;
    eqi_keys read;
} reader;

static void fail(reader *r, const char *key, const char *expected)
{
    if (r->st != EQAT_OK) return;
    const json_t *value = json_object_get(r->object, key);
    char text[EQI_JSON_TEXT];
    r->st = eqi_fail(r->ctx, EQAT_FORMAT, "%s: %s%s: found %s, expected %s", r->path, r->where, key,
                     eqi_json_text(value, text), expected);
}

/* Missing and null are the same to config.json. */
static const json_t *member(reader *r, const char *key)
{
    eqi_keys_add(&r->read, key);
    const json_t *value = json_object_get(r->object, key);
    return json_is_null(value) ? NULL : value;
}

/* fallback below lo: the key is required. */
static int64_t integer(reader *r, const char *key, int64_t fallback, int64_t lo, int64_t hi)
{
    const json_t *value = member(r, key);
    if (!value && fallback >= lo) return fallback;
    double real = json_is_number(value) ? json_number_value(value) : NAN;
    if (real >= (double)lo && real <= (double)hi && real == floor(real))
        return json_is_integer(value) ? (int64_t)json_integer_value(value) : (int64_t)real;
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)lo,
             (long long)hi);
    fail(r, key, expected);
    return lo;
}

static double number(reader *r, const char *key, double fallback, double lo, double hi)
{
    const json_t *value = member(r, key);
    if (!value && fallback >= lo) return fallback;
    double real = json_is_number(value) ? json_number_value(value) : NAN;
    if (real >= lo && real <= hi) return real;
    char expected[96];
    snprintf(expected, sizeof expected, "a number from %g to %g", lo, hi);
    fail(r, key, expected);
    return lo;
}

static bool boolean(reader *r, const char *key, bool fallback)
{
    const json_t *value = member(r, key);
    if (!value) return fallback;
    if (!json_is_boolean(value)) fail(r, key, "true or false");
    return json_is_true(value);
}

static const char *string(reader *r, const char *key, const char *fallback)
{
    const json_t *value = member(r, key);
    if (value && !json_is_string(value)) fail(r, key, "a string");
    return json_is_string(value) ? json_string_value(value) : fallback;
}

static eqat_status unsupported(reader *r, const char *key, const char *found, const char *expected)
{
    if (r->st == EQAT_OK)
        r->st = eqi_fail(r->ctx, EQAT_UNSUPPORTED, "%s: %s%s: found %.60s, expected %s", r->path,
                         r->where, key, found, expected);
    return r->st;
}

static eqat_status read_family(reader *r, eqi_config *c)
{
    const char *supported = "llama, mistral, qwen2, qwen3, qwen3_moe or gemma3_text";
    const json_t *list = member(r, "architectures");
    const json_t *first = json_array_get(list, 0);
    const char *architecture = json_string_value(first);
    if (list && (!json_is_array(list) || (json_array_size(list) && !architecture)))
        fail(r, "architectures", "a list of names");
    const char *type = string(r, "model_type", NULL);
    if (r->st != EQAT_OK) return r->st;
    if (!type && !architecture) return fail(r, "model_type", supported), r->st;
    c->family = type ? eqi_family_find(type) : NULL;
    if (!c->family) {
        const char *name = architecture ? architecture : type;
        return r->st = eqi_fail(r->ctx, EQAT_UNSUPPORTED,
                                "%s: architecture %.60s (model_type %.60s): expected %s", r->path,
                                name, type ? type : "missing", supported);
    }
    if (architecture && strcmp(architecture, c->family->architecture) != 0)
        return unsupported(r, "architectures", architecture, c->family->architecture);
    return r->st;
}

static void check_partial(reader *r)
{
    double partial = number(r, "partial_rotary_factor", 1, 0, 1);
    char found[32];
    snprintf(found, sizeof found, "%g", partial);
    if (partial != 1) unsupported(r, "partial_rotary_factor", found, "1");
}

/* One set of parameters: `object` of config.json's `key`, in rope_parameters maybe of one kind of
 * layer. */
static void read_rope_object(reader *top, const char *key, const json_t *object, eqi_config *c,
                             eqi_rope *rope)
{
    static const struct {
        const char *name;
        eqi_rope_kind kind;
    } kinds[] = {{"default", EQI_ROPE_PLAIN},
                 {"linear", EQI_ROPE_LINEAR},
                 {"dynamic", EQI_ROPE_DYNAMIC},
                 {"llama3", EQI_ROPE_LLAMA3}};

    char where[64];
    snprintf(where, sizeof where, "%s.", key);
    reader r = {
        .ctx = top->ctx, .path = top->path, .where = where, .object = object, .st = top->st};
    if (member(&r, "full_attention") || member(&r, "sliding_attention"))
        unsupported(top, key, "parameters per layer type", "one set");
    const char *type = string(&r, "rope_type", string(&r, "type", "default"));
    size_t i = 0;
    while (i < EQI_COUNT(kinds) && strcmp(kinds[i].name, type) != 0) i++;
    if (i == EQI_COUNT(kinds))
        unsupported(&r, "rope_type", type, "default, linear, dynamic or llama3");
    else
        rope->kind = kinds[i].kind;
    rope->theta = number(&r, "rope_theta", rope->theta, 1, THETA_MAX);
    check_partial(&r);
    if (rope->kind != EQI_ROPE_PLAIN) rope->factor = number(&r, "factor", 0, 1, 1e6);
    if (rope->kind == EQI_ROPE_LLAMA3) {
        rope->low = number(&r, "low_freq_factor", 0, 1e-6, 1e6);
        rope->high = number(&r, "high_freq_factor", 0, 1e-6, 1e6);
        rope->original =
            integer(&r, "original_max_position_embeddings", c->max_positions, 1, LENGTH_MAX);
        if (r.st == EQAT_OK && rope->high <= rope->low)
            fail(&r, "high_freq_factor", "more than low_freq_factor");
    }
    if (r.st == EQAT_OK) r.st = eqi_keys_check_rest(r.ctx, object, &r.read, r.path, where);
    if (top->st == EQAT_OK) top->st = r.st;
}

/* An object with something in it, or NULL. */
static const json_t *filled(reader *r, const char *key)
{
    const json_t *object = member(r, key);
    if (object && !json_is_object(object)) fail(r, key, "an object");
    return json_object_size(object) ? object : NULL;
}

/* rope_parameters is what transformers 5 writes, rope_scaling what came before and may be left
 * over, empty. */
static void read_rope(reader *top, eqi_config *c)
{
    c->n_ropes = 1;
    c->ropes[0] =
        (eqi_rope){.theta = number(top, "rope_theta", c->family->theta, 1, THETA_MAX), .factor = 1};
    check_partial(top);
    const json_t *scaling = member(top, "rope_scaling");
    bool empty = !scaling || (json_is_object(scaling) && !json_object_size(scaling));
    const char *key = empty ? "rope_parameters" : "rope_scaling";
    const json_t *object = filled(top, key);
    if (object) read_rope_object(top, key, object, c, &c->ropes[0]);
}

/* Blocks with a window have a table of their own. New spelling: an object for each kind inside
 * rope_parameters; old: rope_scaling and rope_theta of whole attention, rope_local_base_freq. */
static void read_two_ropes(reader *top, eqi_config *c)
{
    static const char *const kinds[EQI_ROPES] = {"full_attention", "sliding_attention"};
    const double theta[EQI_ROPES] = {
        number(top, "rope_theta", c->family->theta, 1, THETA_MAX),
        number(top, "rope_local_base_freq", c->family->local_theta, 1, THETA_MAX)};
    const json_t *parameters = filled(top, "rope_parameters");
    const json_t *scaling = filled(top, "rope_scaling");
    c->n_ropes = EQI_ROPES;
    check_partial(top);
    for (int i = 0; i < EQI_ROPES; i++) {
        c->ropes[i] = (eqi_rope){.theta = theta[i], .factor = 1};
        const json_t *own = json_object_get(parameters, kinds[i]);
        char key[48];
        snprintf(key, sizeof key, "rope_parameters.%s", kinds[i]);
        if (json_object_size(own)) read_rope_object(top, key, own, c, &c->ropes[i]);
    }
    if (parameters && !json_object_get(parameters, kinds[0]) &&
        !json_object_get(parameters, kinds[1]))
        unsupported(top, "rope_parameters", "one set for all", "one per layer type");
    if (parameters && scaling)
        unsupported(top, "rope_scaling", "it", "none beside rope_parameters");
    if (scaling) read_rope_object(top, "rope_scaling", scaling, c, &c->ropes[0]);
}

static bool has_window(reader *r, eqi_window_rule rule)
{
    /* An explicit null means none; a missing key means transformers' default. */
    if (json_is_null(json_object_get(r->object, "sliding_window"))) return false;
    switch (rule) {
    case EQI_WINDOW_NONE: return false;
    case EQI_WINDOW_ALWAYS:
    case EQI_WINDOW_PATTERN: return true;
    case EQI_WINDOW_SWITCHED:
    case EQI_WINDOW_SWITCHED_FOR_ALL: return boolean(r, "use_sliding_window", false);
    }
    return false;
}

/* Which blocks see a window, where layer_types does not say. */
static void follow_rule(reader *r, eqi_config *c)
{
    eqi_window_rule rule = c->family->window;
    int64_t from =
        rule == EQI_WINDOW_SWITCHED ? integer(r, "max_window_layers", 28, 0, LENGTH_MAX) : 0;
    int64_t pattern = rule == EQI_WINDOW_PATTERN
        ? integer(r, "sliding_window_pattern", 6, 1, LENGTH_MAX)
        : LENGTH_MAX;
    for (int64_t i = from; i < c->blocks; i++)
        if ((i + 1) % pattern) eqi_block_include(&c->sliding, i);
}

static void follow_list(reader *r, eqi_config *c, const json_t *types)
{
    if (!json_is_array(types) || json_array_size(types) != (size_t)c->blocks) {
        fail(r, "layer_types", "a list with one entry a block");
        return;
    }
    for (int64_t i = 0; i < c->blocks; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (type && !strcmp(type, "sliding_attention"))
            eqi_block_include(&c->sliding, i);
        else if (!type || strcmp(type, "full_attention") != 0)
            unsupported(r, "layer_types", type ? type : "something else",
                        "full_attention or sliding_attention");
    }
}

/* A list that says something else than what the family computes is not passed over. */
static void check_list(reader *r, const eqi_config *c)
{
    const json_t *types = member(r, "layer_types");
    if (types && (!json_is_array(types) || json_array_size(types) != (size_t)c->blocks))
        fail(r, "layer_types", "a list with one entry a block");
    for (int64_t i = 0; types && r->st == EQAT_OK && i < c->blocks; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i)),
                   *own = eqi_block_in(&c->sliding, i) ? "sliding_attention" : "full_attention";
        char found[96];
        snprintf(found, sizeof found, "%.40s in block %lld", type ? type : "something else",
                 (long long)i);
        if (!type || strcmp(type, own) != 0) unsupported(r, "layer_types", found, own);
    }
}

static void read_window(reader *r, eqi_config *c)
{
    eqi_window_rule rule = c->family->window;
    member(r, "sliding_window");
    if (!has_window(r, rule)) return;
    c->window = integer(r, "sliding_window", 4096, 1, LENGTH_MAX);
    bool listed = rule == EQI_WINDOW_SWITCHED || rule == EQI_WINDOW_PATTERN;
    const json_t *types = listed ? member(r, "layer_types") : NULL;
    if (types)
        follow_list(r, c, types);
    else
        follow_rule(r, c);
}

/* Block i is a mixture when (i + 1) is a multiple of decoder_sparse_step, unless mlp_only_layers
 * lists it. */
static void read_experts(reader *r, eqi_config *c)
{
    const char *key = member(r, "num_experts") ? "num_experts" : "num_local_experts";
    c->experts = integer(r, key, 128, 1, EXPERTS_MAX);
    c->experts_per_token = integer(r, "num_experts_per_tok", 8, 1, EXPERTS_MAX);
    c->expert_mlp = integer(r, "moe_intermediate_size", 768, 1, DIM_MAX);
    c->normalise_experts = boolean(r, "norm_topk_prob", false);
    if (c->experts_per_token > c->experts) fail(r, "num_experts_per_tok", "at most num_experts");
    int64_t step = integer(r, "decoder_sparse_step", 1, 1, LENGTH_MAX);
    const json_t *dense = member(r, "mlp_only_layers");
    if (dense && !json_is_array(dense)) fail(r, "mlp_only_layers", "a list of blocks");
    for (int64_t i = 0; i < c->blocks; i++) {
        bool sparse = (i + 1) % step == 0;
        for (size_t k = 0; k < json_array_size(dense); k++)
            if (json_integer_value(json_array_get(dense, k)) == i) sparse = false;
        if (sparse) eqi_block_include(&c->sparse, i);
    }
}

static void read_activation(reader *r, eqi_config *c)
{
    static const struct {
        const char *name;
        eqi_activation activation;
    } known[] = {{"silu", EQI_SILU}, {"gelu_pytorch_tanh", EQI_GELU_TANH}};
    const char *name = string(r, c->family->activation_key, c->family->activation);
    for (size_t i = 0; i < EQI_COUNT(known); i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        c->activation = known[i].activation;
        return;
    }
    unsupported(r, c->family->activation_key, name, "silu or gelu_pytorch_tanh");
}

eqat_status eqi_config_parse(eqi_ctx *ctx, eqi_config *out, const json_t *json, const char *path)
{
    eqi_config c = {0};
    reader r = {.ctx = ctx, .path = path, .where = "", .object = json};
    if (!json_is_object(json))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: found something else, expected a JSON object", path);
    EQI_RETURN_IF(read_family(&r, &c));
    c.hidden = integer(&r, "hidden_size", 0, 1, DIM_MAX);
    c.intermediate = integer(&r, "intermediate_size", 0, 1, DIM_MAX);
    c.blocks = integer(&r, "num_hidden_layers", 0, 1, EQI_BLOCKS_MAX);
    c.heads = integer(&r, "num_attention_heads", 0, 1, DIM_MAX);
    c.kv_heads = integer(&r, "num_key_value_heads", c.heads, 1, DIM_MAX);
    c.vocab = integer(&r, "vocab_size", 0, 1, INT32_MAX);
    c.max_positions =
        integer(&r, "max_position_embeddings", c.family->max_positions, 1, LENGTH_MAX);
    c.eps = number(&r, "rms_norm_eps", 1e-6, 0, 1);
    c.tied = boolean(&r, "tie_word_embeddings", c.family->tied);
    bool attention_bias = c.family->attention_bias_key && boolean(&r, "attention_bias", false);
    c.attention_bias = c.family->qkv_bias || attention_bias;
    c.o_bias = attention_bias;
    c.mlp_bias = c.family->mlp_bias_key && boolean(&r, "mlp_bias", false);
    read_activation(&r, &c);
    EQI_RETURN_IF(r.st);

    int64_t head_dim = c.family->head_dim ? c.family->head_dim
        : c.heads <= c.hidden             ? c.hidden / c.heads
                                          : 0;
    c.head_dim = integer(&r, "head_dim", head_dim, 1, DIM_MAX);
    if (r.st == EQAT_OK && !member(&r, "head_dim") && !c.family->head_dim && c.hidden % c.heads)
        fail(&r, "num_attention_heads", "a divisor of hidden_size");
    if (r.st == EQAT_OK && c.head_dim % 2)
        fail(&r, "head_dim", "an even number (rotary embedding works on pairs)");
    if (r.st == EQAT_OK && c.heads % c.kv_heads)
        fail(&r, "num_key_value_heads", "a divisor of num_attention_heads");
    if (r.st == EQAT_OK && c.heads > DIM_MAX / c.head_dim)
        fail(&r, "num_attention_heads", "fewer heads of this head_dim");
    read_window(&r, &c);
    check_list(&r, &c);
    if (c.family->local_theta > 0)
        read_two_ropes(&r, &c);
    else
        read_rope(&r, &c);
    if (c.family->experts) read_experts(&r, &c);
    double scalar = c.family->query_scalar > 0
        ? number(&r, "query_pre_attn_scalar", c.family->query_scalar, 1e-6, 1e9)
        : (double)c.head_dim;
    c.score_scale = 1 / sqrt(scalar);
    EQI_RETURN_IF(r.st);
    EQI_RETURN_IF(eqi_keys_check_rest(ctx, json, &r.read, path, ""));
    *out = c;
    return EQAT_OK;
}
