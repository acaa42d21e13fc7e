/* Trains a two-layer Llama from nothing with libeqat's tape, on sentences of a small grammar, and
 * writes it as a Hugging Face folder with token files for training and validation:
 *
 *     train_tiny DIR        writes DIR/model, DIR/train.u16, DIR/valid.u16
 *     eqat quantize DIR/model --out DIR/w2 --bits 2 --group-size 32 --calib DIR/train.u16 ...
 *
 * It is also the shortest custom training driver: build a graph with eqat_op_..., call backward,
 * step the optimizer. */
#include <eqat/eqat.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    HIDDEN = 64,
    INTERMEDIATE = 192,
    LAYERS = 2,
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 16,
    TIME = 64,
    BATCH = 16,
    STEPS = 500
};
enum { TRAIN_TOKENS = 262144, VALID_TOKENS = 16384 };
static const double LEARNING_RATE = 3e-3, EPS = 1e-5, THETA = 10000.0;

static eqat_context *ctx;

/* Every failure ends the program with the library's own line. */
static void ok(eqat_status status)
{
    if (status == EQAT_OK) return;
    fprintf(stderr, "train_tiny: %s\n", eqat_context_error(ctx));
    exit(1);
}

static void die(const char *path)
{
    fprintf(stderr, "train_tiny: %s: %s\n", path, strerror(errno));
    exit(1);
}

/* ---- the grammar: number agreement, a relative clause that separates subject and verb, and a name
 * to be remembered ---- */

enum {
    DOT,
    COMMA,
    THAT,
    WHO,
    SAYS,
    AND,
    NAMES = 8,
    N_NAMES = 12,
    DETS = 20,
    N_DETS = 3,
    ADJECTIVES = 26,
    N_ADJECTIVES = 16,
    NOUNS = 42,
    N_NOUNS = 18,
    VERBS = 78,
    N_VERBS = 14,
    HERSELF = 106,
    VOCABULARY = 128
};

static uint64_t state = 1;

static unsigned below(unsigned n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((state >> 33) % n);
}

typedef struct sentence {
    uint16_t word[64];
    int length;
} sentence;

static void say(sentence *s, int word) { s->word[s->length++] = (uint16_t)word; }

/* Nouns, determiners and verbs come in pairs: singular, plural. A noun prefers its own adjectives
 * and verbs. */
static int noun_phrase(sentence *s, int *noun)
{
    int plural = (int)below(2);
    *noun = (int)below(N_NOUNS);
    say(s, DETS + 2 * (int)below(N_DETS) + plural);
    if (below(2)) say(s, ADJECTIVES + (*noun * 5 + (int)below(3)) % N_ADJECTIVES);
    say(s, NOUNS + 2 * *noun + plural);
    return plural;
}

static int verb_of(int noun, int plural)
{
    return VERBS + 2 * ((noun * 3 + (int)below(3)) % N_VERBS) + plural;
}

static void clause(sentence *s)
{
    int noun, other, plural = noun_phrase(s, &noun);
    if (below(3) == 0) {
        say(s, WHO);
        int inner = noun_phrase(s, &other);
        say(s, verb_of(other, inner));
        say(s, COMMA);
    }
    say(s, verb_of(noun, plural));
    if (below(2)) noun_phrase(s, &other);
}

static void sentence_make(sentence *s)
{
    s->length = 0;
    if (below(3) == 0) {
        int name = NAMES + (int)below(N_NAMES);
        say(s, name);
        say(s, SAYS);
        say(s, THAT);
        clause(s);
        say(s, AND);
        say(s, name); /* the name comes back: attention has to find it */
        say(s, VERBS + 2 * (int)below(N_VERBS));
        say(s, HERSELF);
    } else {
        clause(s);
    }
    say(s, DOT);
}

static uint16_t *text_make(size_t n, const char *path)
{
    uint16_t *text = malloc((n + 64) * sizeof *text);
    if (!text) die("text");
    size_t used = 0;
    while (used < n) {
        sentence s;
        sentence_make(&s);
        memcpy(text + used, s.word, (size_t)s.length * sizeof *text);
        used += (size_t)s.length;
    }
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(text, sizeof *text, n, f) != n || fclose(f)) die(path);
    return text;
}

/* ---- the model: parameters by their Hugging Face names ---- */

typedef struct parameter {
    char name[80];
    eqat_tensor *tensor;
    int64_t rows, columns; /* columns 0: a vector */
} parameter;

static parameter parameters[2 + 9 * LAYERS];
static int n_parameters;

static double normal(void)
{
    double u = (below(1u << 30) + 1.0) / (1u << 30), v = below(1u << 30) / (double)(1u << 30);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static eqat_tensor *parameter_make(eqat_optimizer *adamw, const char *name, int64_t rows,
                                   int64_t columns)
{
    parameter *p = &parameters[n_parameters++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->rows = rows;
    p->columns = columns;
    int64_t shape[2] = {rows, columns}, count = columns ? rows * columns : rows;
    float *init = malloc((size_t)count * sizeof *init);
    if (!init) die("parameters");
    for (int64_t i = 0; i < count; i++)
        init[i] = columns ? (float)(normal() / sqrt((double)columns)) : 1.0f;
    ok(eqat_tensor_create(ctx, &p->tensor, EQAT_F32, columns ? 2 : 1, shape, init));
    free(init);
    ok(eqat_tensor_set_requires_grad(p->tensor, true));
    ok(eqat_optimizer_add(adamw, 0, p->tensor));
    return p->tensor;
}

typedef struct layer {
    eqat_tensor *norm1, *q, *k, *v, *o, *norm2, *gate, *up, *down;
} layer;

typedef struct tiny {
    eqat_tensor *embedding, *norm, *cos, *sin;
    layer layers[LAYERS];
} tiny;

static eqat_tensor *layer_parameter(eqat_optimizer *adamw, int i, const char *name, int64_t rows,
                                    int64_t columns)
{
    char full[80];
    snprintf(full, sizeof full, "model.layers.%d.%s.weight", i, name);
    return parameter_make(adamw, full, rows, columns);
}

static void tiny_make(tiny *m, eqat_optimizer *adamw)
{
    m->embedding = parameter_make(adamw, "model.embed_tokens.weight", VOCABULARY, HIDDEN);
    m->norm = parameter_make(adamw, "model.norm.weight", HIDDEN, 0);
    for (int i = 0; i < LAYERS; i++)
        m->layers[i] = (layer){
            .norm1 = layer_parameter(adamw, i, "input_layernorm", HIDDEN, 0),
            .q = layer_parameter(adamw, i, "self_attn.q_proj", HEADS * HEAD_DIM, HIDDEN),
            .k = layer_parameter(adamw, i, "self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            .v = layer_parameter(adamw, i, "self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN),
            .o = layer_parameter(adamw, i, "self_attn.o_proj", HIDDEN, HEADS * HEAD_DIM),
            .norm2 = layer_parameter(adamw, i, "post_attention_layernorm", HIDDEN, 0),
            .gate = layer_parameter(adamw, i, "mlp.gate_proj", INTERMEDIATE, HIDDEN),
            .up = layer_parameter(adamw, i, "mlp.up_proj", INTERMEDIATE, HIDDEN),
            .down = layer_parameter(adamw, i, "mlp.down_proj", HIDDEN, INTERMEDIATE),
        };
    float cosines[TIME * HEAD_DIM / 2], sines[TIME * HEAD_DIM / 2];
    for (int t = 0; t < TIME; t++)
        for (int c = 0; c < HEAD_DIM / 2; c++) {
            double angle = t * pow(THETA, -2.0 * c / HEAD_DIM);
            cosines[t * HEAD_DIM / 2 + c] = (float)cos(angle);
            sines[t * HEAD_DIM / 2 + c] = (float)sin(angle);
        }
    int64_t shape[2] = {TIME, HEAD_DIM / 2};
    ok(eqat_tensor_create(ctx, &m->cos, EQAT_F32, 2, shape, cosines));
    ok(eqat_tensor_create(ctx, &m->sin, EQAT_F32, 2, shape, sines));
}

/* ---- the graph: each op's result is released once it was used; the tape keeps what backward needs
 * ---- */

static eqat_tensor *norm(eqat_tape *tape, eqat_tensor *x, eqat_tensor *gain)
{
    eqat_tensor *y;
    ok(eqat_op_rmsnorm(tape, x, gain, EPS, 0, &y));
    return y;
}

static eqat_tensor *linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w)
{
    eqat_tensor *y;
    ok(eqat_op_linear(tape, x, w, NULL, &y));
    return y;
}

static eqat_tensor *heads(eqat_tape *tape, const tiny *m, eqat_tensor *x, eqat_tensor *w, int64_t n,
                          bool rotate)
{
    int64_t shape[4] = {BATCH, TIME, n, HEAD_DIM};
    eqat_tensor *flat = linear(tape, x, w), *split, *turned;
    ok(eqat_op_reshape(tape, flat, 4, shape, &split));
    eqat_tensor_free(flat);
    if (!rotate) return split;
    ok(eqat_op_rope(tape, split, m->cos, m->sin, NULL, &turned));
    eqat_tensor_free(split);
    return turned;
}

/* x + f, and frees both */
static eqat_tensor *residual(eqat_tape *tape, eqat_tensor *x, eqat_tensor *f)
{
    eqat_tensor *y;
    ok(eqat_op_add(tape, x, f, &y));
    eqat_tensor_free(x);
    eqat_tensor_free(f);
    return y;
}

static eqat_tensor *block(eqat_tape *tape, const tiny *m, const layer *l, eqat_tensor *x)
{
    int64_t flat[3] = {BATCH, TIME, HEADS * HEAD_DIM};
    eqat_tensor *h = norm(tape, x, l->norm1), *mixed, *joined, *gated;
    eqat_tensor *q = heads(tape, m, h, l->q, HEADS, true),
                *k = heads(tape, m, h, l->k, KV_HEADS, true);
    eqat_tensor *v = heads(tape, m, h, l->v, KV_HEADS, false);
    ok(eqat_op_attention(tape, q, k, v, NULL, NULL, &mixed));
    ok(eqat_op_reshape(tape, mixed, 3, flat, &joined));
    x = residual(tape, x, linear(tape, joined, l->o));
    eqat_tensor *h2 = norm(tape, x, l->norm2), *gate = linear(tape, h2, l->gate),
                *up = linear(tape, h2, l->up);
    ok(eqat_op_gated(tape, gate, up, EQAT_SILU, &gated));
    x = residual(tape, x, linear(tape, gated, l->down));
    eqat_tensor *used[] = {h, q, k, v, mixed, joined, h2, gate, up, gated};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) eqat_tensor_free(used[i]);
    return x;
}

static eqat_tensor *loss_of(eqat_tape *tape, const tiny *m, eqat_tensor *ids, eqat_tensor *labels)
{
    eqat_tensor *x, *loss;
    ok(eqat_op_embedding(tape, ids, m->embedding, EQAT_F32, &x));
    for (int i = 0; i < LAYERS; i++) x = block(tape, m, &m->layers[i], x);
    eqat_tensor *h = norm(tape, x, m->norm);
    ok(eqat_op_linear_cross_entropy(tape, h, m->embedding, labels, &loss, NULL));
    eqat_tensor_free(h);
    eqat_tensor_free(x);
    return loss;
}

static void batch_make(const uint16_t *text, eqat_tensor *ids, eqat_tensor *labels)
{
    int32_t x[BATCH * TIME], y[BATCH * TIME];
    for (int b = 0; b < BATCH; b++) {
        size_t start = below(TRAIN_TOKENS - TIME - 1);
        for (int t = 0; t < TIME; t++) {
            x[b * TIME + t] = text[start + (size_t)t];
            y[b * TIME + t] = text[start + (size_t)t + 1];
        }
    }
    ok(eqat_tensor_write(ids, x, sizeof x));
    ok(eqat_tensor_write(labels, y, sizeof y));
}

/* ---- the folder ---- */

static void save_config(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f) die(path);
    fprintf(f,
            "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
            "\"hidden_size\": %d, \"intermediate_size\": %d,\n"
            " \"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
            "\"vocab_size\": %d,\n"
            " \"max_position_embeddings\": 2048, \"rms_norm_eps\": %g, \"rope_theta\": %.1f, "
            "\"hidden_act\": \"silu\",\n"
            " \"tie_word_embeddings\": true, \"torch_dtype\": \"float32\"}\n",
            HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCABULARY, EPS, THETA);
    if (fclose(f)) die(path);
}

/* safetensors: the length of a JSON header, the header, the bytes of the tensors one after another.
 */
static void save_weights(const char *path)
{
    static char header[16384];
    size_t n = 0, offset = 0;
    for (int i = 0; i < n_parameters; i++) {
        const parameter *p = &parameters[i];
        size_t bytes = (size_t)eqat_tensor_count(p->tensor) * sizeof(float);
        char shape[48];
        snprintf(shape, sizeof shape, p->columns ? "%lld,%lld" : "%lld", (long long)p->rows,
                 (long long)p->columns);
        n += (size_t)snprintf(
            header + n, sizeof header - n,
            "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", i ? "," : "{",
            p->name, shape, offset, offset + bytes);
        offset += bytes;
    }
    n += (size_t)snprintf(header + n, sizeof header - n, "}");
    while (n % 8) header[n++] = ' ';
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)n >> (8 * i));
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(length, 1, 8, f) != 8 || fwrite(header, 1, n, f) != n) die(path);
    for (int i = 0; i < n_parameters; i++) {
        size_t count = (size_t)eqat_tensor_count(parameters[i].tensor);
        float *host = malloc(count * sizeof *host);
        if (!host) die(path);
        ok(eqat_tensor_read(parameters[i].tensor, host, count * sizeof *host));
        if (fwrite(host, sizeof *host, count, f) != count) die(path);
        free(host);
    }
    if (fclose(f)) die(path);
}

static const char *inside(char *buffer, size_t size, const char *dir, const char *name)
{
    snprintf(buffer, size, "%s/%s", dir, name);
    return buffer;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: train_tiny DIR\n");
        return 2;
    }
    char path[4096];
    if (mkdir(argv[1], 0777) && errno != EEXIST) die(argv[1]);
    if (mkdir(inside(path, sizeof path, argv[1], "model"), 0777) && errno != EEXIST) die(path);
    uint16_t *text = text_make(TRAIN_TOKENS, inside(path, sizeof path, argv[1], "train.u16"));
    free(text_make(VALID_TOKENS, inside(path, sizeof path, argv[1], "valid.u16")));

    char error[256];
    if (eqat_context_create(&ctx, NULL, error, sizeof error) != EQAT_OK) {
        fprintf(stderr, "train_tiny: %s\n", error);
        return 1;
    }
    eqat_optimizer_options options;
    eqat_optimizer_options_init(&options, sizeof options);
    options.total_steps = STEPS;
    options.warmup_steps = STEPS / 20;
    options.max_grad_norm = 1.0;
    eqat_optimizer *adamw;
    ok(eqat_optimizer_create(ctx, &adamw, &options));
    ok(eqat_optimizer_add_group(adamw, LEARNING_RATE, NULL));
    tiny model;
    tiny_make(&model, adamw);
    int64_t shape[2] = {BATCH, TIME};
    eqat_tensor *ids, *labels, *loss;
    ok(eqat_tensor_create(ctx, &ids, EQAT_I32, 2, shape, NULL));
    ok(eqat_tensor_create(ctx, &labels, EQAT_I32, 2, shape, NULL));
    eqat_tape *tape;
    ok(eqat_tape_create(ctx, &tape));

    for (int step = 1; step <= STEPS; step++) {
        batch_make(text, ids, labels);
        loss = loss_of(tape, &model, ids, labels);
        ok(eqat_optimizer_backward(adamw, tape, loss));
        if (step % 100 == 0) {
            float value;
            ok(eqat_tensor_read(loss, &value, sizeof value));
            printf("step %d: loss %.4f\n", step, value);
        }
        eqat_tensor_free(loss);
    }
    save_config(inside(path, sizeof path, argv[1], "model/config.json"));
    save_weights(inside(path, sizeof path, argv[1], "model/model.safetensors"));

    for (int i = 0; i < n_parameters; i++) eqat_tensor_free(parameters[i].tensor);
    eqat_tensor_free(model.cos);
    eqat_tensor_free(model.sin);
    eqat_tensor_free(ids);
    eqat_tensor_free(labels);
    eqat_tape_free(tape);
    eqat_optimizer_free(adamw);
    eqat_context_free(ctx);
    free(text);
    return 0;
}
