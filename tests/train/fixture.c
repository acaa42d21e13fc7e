#include "fixture.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "base/rng.h"
#include "format/source.h"

const shape small_shape = {VOCAB, HIDDEN, 96, BLOCKS, 4, 2, false};

static char root[256];

const char *fixture_dir(void)
{
    if (!root[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(root, sizeof root, "%s/eqat-train-XXXXXX", tmp ? tmp : "/tmp");
        ck_assert_ptr_nonnull(mkdtemp(root));
    }
    return root;
}

const char *fixture_path(const char *name)
{
    static char buffers[8][512];
    static int next;
    char *b = buffers[next++ % 8];
    snprintf(b, sizeof buffers[0], "%s/%s", fixture_dir(), name);
    return b;
}

static void remove_all(const char *path)
{
    struct stat sb;
    if (lstat(path, &sb) != 0) return;
    if (S_ISDIR(sb.st_mode)) {
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d));) {
            char inner[1024];
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
            snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
            remove_all(inner);
        }
        if (d) closedir(d);
    }
    remove(path);
}

void fixture_clean(void)
{
    if (root[0]) remove_all(root);
    root[0] = 0;
}

eqat_context *make_context(int threads, uint64_t seed)
{
    eqat_context_options o;
    eqat_context_options_init(&o, sizeof o);
    o.threads = threads;
    o.seed = seed;
    eqat_context *ctx;
    char error[256];
    eqat_status st = eqat_context_create(&ctx, &o, error, sizeof error);
    ck_assert_msg(st == EQAT_OK, "%s", error);
    return ctx;
}

typedef struct writer {
    eqat_context *ctx;
    eqi_safetensors_writer *file;
    const char *nan_at;
    bool declaring, bf16;
    uint64_t index;
} writer;

/* Called twice for every tensor: all are declared before the first is written. */
static void put(writer *w, const char *name, int64_t rows, int64_t columns, double center,
                double spread)
{
    const int64_t dims[2] = {rows, columns};
    int64_t n = columns ? rows * columns : rows;
    if (w->declaring) {
        ck_ok(w->ctx,
              eqi_safetensors_declare(w->file, name, w->bf16 ? EQI_STORED_BF16 : EQI_STORED_F32,
                                      columns ? 2 : 1, dims));
        return;
    }
    float *x = malloc((size_t)n * sizeof *x);
    ck_assert_ptr_nonnull(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(center + spread * eqi_rng_normal(11, EQI_RNG_USER, w->index++));
    if (w->nan_at && !strcmp(name, w->nan_at)) x[n / 2] = NAN;
    for (int64_t i = 0; i < n && w->bf16;
         i++) { /* in place: element i is written after it was read */
        uint16_t half = eqi_f32_to_bf16(x[i]);
        memcpy((char *)x + 2 * i, &half, sizeof half);
    }
    ck_ok(w->ctx, eqi_safetensors_write(w->file, x, (size_t)n * (w->bf16 ? 2 : 4)));
    free(x);
}

static void put_all(writer *w, const shape *s)
{
    static const char *const names[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                        "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                        "mlp.down_proj"};
    int64_t h = s->hidden, kv = h / s->heads * s->kv_heads, m = s->intermediate;
    const int64_t outs[] = {h, kv, kv, h, m, m, h}, ins[] = {h, h, h, h, h, h, m};
    char name[96];
    put(w, "model.embed_tokens.weight", s->vocab, h, 0, 1);
    put(w, "model.norm.weight", h, 0, 1, 0.1);
    for (int64_t b = 0; b < s->blocks; b++) {
        for (int i = 0; i < 7; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", (int)b, names[i]);
            put(w, name, outs[i], ins[i], 0, 1 / sqrt((double)ins[i]));
        }
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", (int)b);
        put(w, name, h, 0, 1, 0.1);
        snprintf(name, sizeof name, "model.layers.%d.post_attention_layernorm.weight", (int)b);
        put(w, name, h, 0, 1, 0.1);
    }
}

void write_model(const char *name, const shape *s, const char *nan_at)
{
    char dir[512], path[600];
    snprintf(dir, sizeof dir, "%s", fixture_path(name));
    ck_assert_int_eq(mkdir(dir, 0777), 0);
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fprintf(f,
            "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
            "\"hidden_size\": %d, \"intermediate_size\": %d, "
            "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": %d, "
            "\"vocab_size\": %d, "
            "\"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
            "\"hidden_act\": \"silu\", "
            "\"tie_word_embeddings\": true}\n",
            (int)s->hidden, (int)s->intermediate, (int)s->blocks, (int)s->heads, (int)s->kv_heads,
            (int)s->vocab);
    fclose(f);
    writer w = {.ctx = make_context(1, 0), .nan_at = nan_at, .bf16 = s->bf16};
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    ck_ok(w.ctx, eqi_safetensors_create(w.ctx, &w.file, path));
    w.declaring = true;
    put_all(&w, s);
    w.declaring = false;
    put_all(&w, s);
    ck_ok(w.ctx, eqi_safetensors_close(w.file));
    eqat_context_free(w.ctx);
}

void write_small_model(void) { write_model("model", &small_shape, NULL); }

eqat_model *open_model(eqat_context *ctx, const char *name, eqat_dtype compute)
{
    eqat_model_options o;
    eqat_model_options_init(&o, sizeof o);
    o.compute_dtype = compute;
    eqat_model *model;
    ck_ok(ctx, eqat_model_open(ctx, &model, name[0] == '/' ? name : fixture_path(name), &o));
    return model;
}

eqat_quantizer *make_quantizer(eqat_context *ctx, int bits, int group_size)
{
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = bits;
    o.group_size = group_size;
    eqat_quantizer *quantizer;
    ck_ok(ctx, eqat_quantizer_create(ctx, &quantizer, &o));
    return quantizer;
}

eqat_data *make_data(eqat_context *ctx, int64_t train, int64_t val, bool shuffle)
{
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = train;
    o.val_size = val;
    o.seq_len = TIME;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    o.shuffle = shuffle;
    size_t n = (size_t)((train + val) * TIME);
    int32_t *ids = malloc(n * sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (size_t i = 0; i < n; i++) {
        int noise = (int)eqi_rng_below(5, EQI_RNG_USER, i, 4);
        ids[i] = i == 0 ? 1 : (ids[i - 1] * 5 + 7 + noise) % VOCAB;
    }
    eqat_data *data;
    ck_ok(ctx, eqat_data_from_tokens(ctx, &data, ids, n, VOCAB, &o));
    free(ids);
    return data;
}

static int count_entries(const char *dir)
{
    DIR *d = opendir(dir);
    ck_assert_ptr_nonnull(d);
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static bool same_file(eqat_context *ctx, const char *a, const char *b)
{
    char *x = NULL, *y = NULL;
    size_t n, m;
    if (!eqi_path_exists(a) || !eqi_path_exists(b)) return false;
    ck_ok(ctx, eqi_file_slurp(ctx, a, SIZE_MAX / 2, &x, &n));
    ck_ok(ctx, eqi_file_slurp(ctx, b, SIZE_MAX / 2, &y, &m));
    bool same = n == m && memcmp(x, y, n) == 0;
    eqi_free(ctx, x);
    eqi_free(ctx, y);
    return same;
}

bool same_folders(const char *a, const char *b)
{
    eqat_context *ctx = make_context(1, 0);
    bool same = count_entries(a) == count_entries(b);
    DIR *d = opendir(a);
    for (struct dirent *e; same && (e = readdir(d));) {
        char left[1024], right[1024];
        if (e->d_name[0] == '.') continue;
        snprintf(left, sizeof left, "%s/%s", a, e->d_name);
        snprintf(right, sizeof right, "%s/%s", b, e->d_name);
        same = same_file(ctx, left, right);
    }
    closedir(d);
    eqat_context_free(ctx);
    return same;
}

const char *save_as(eqat_context *ctx, eqat_model *model, const char *name)
{
    const char *path = fixture_path(name);
    ck_ok(ctx, eqat_model_save(model, path));
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
