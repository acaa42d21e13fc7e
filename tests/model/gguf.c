/* A model inside a GGUF file: what it evaluates to is what is saved from it. */
#include "base/half.h"
#include "base/rng.h"
#include "cases.h"
#include "each_test.h"

/* Embeddings are more than what is read at once. */
enum { WIDTH = 64, MLP = 96, KEYS = 32, TOKENS = 1100, LAYERS = 2, ALIGN = 32 };
enum { TYPE_U32 = 4, TYPE_F32 = 6, TYPE_STRING = 8, FLOATS = 0, Q8_0 = 8 };

static void bytes(FILE *f, const void *p, size_t n) { ck_assert_uint_eq(fwrite(p, 1, n, f), n); }
static void u32(FILE *f, uint32_t v) { bytes(f, &v, 4); }
static void u64(FILE *f, uint64_t v) { bytes(f, &v, 8); }

static void string(FILE *f, const char *s)
{
    u64(f, strlen(s));
    bytes(f, s, strlen(s));
}

static void key_u32(FILE *f, const char *key, uint32_t v)
{
    string(f, key);
    u32(f, TYPE_U32);
    u32(f, v);
}

/* One list of tensors, walked for the header and for the data. */
typedef struct item {
    char name[64];
    uint64_t rows, width; /* rows 0: a vector, stored as F32; else Q8_0 */
} item;

static size_t list(item *items)
{
    static const struct {
        const char *name;
        uint64_t rows, width;
    } parts[] = {{"attn_norm", 0, WIDTH},       {"attn_q", WIDTH, WIDTH}, {"attn_k", KEYS, WIDTH},
                 {"attn_v", KEYS, WIDTH},       {"ffn_norm", 0, WIDTH},   {"ffn_gate", MLP, WIDTH},
                 {"attn_output", WIDTH, WIDTH}, {"ffn_up", MLP, WIDTH},   {"ffn_down", WIDTH, MLP}};
    size_t n = 0;
    items[n++] = (item){"token_embd.weight", TOKENS, WIDTH};
    for (int b = 0; b < LAYERS; b++)
        for (size_t i = 0; i < EQI_COUNT(parts); i++) {
            items[n] = (item){.rows = parts[i].rows, .width = parts[i].width};
            snprintf(items[n++].name, sizeof items->name, "blk.%d.%s.weight", b, parts[i].name);
        }
    items[n++] = (item){"output_norm.weight", 0, WIDTH};
    return n;
}

static uint64_t size_of(const item *t)
{
    return t->rows ? t->rows * t->width / 32 * 34 : t->width * 4;
}

/* large: its first block holds 100000 at element 3 and zeros. */
static void data(FILE *f, const item *t, uint32_t stream, bool large)
{
    for (uint64_t i = 0; !t->rows && i < t->width; i++) {
        float x = (float)(1 + 0.2 * eqi_rng_normal(5, stream, i));
        bytes(f, &x, 4);
    }
    for (uint64_t block = 0; block < t->rows * t->width / 32; block++) {
        const bool one = large && block == 0;
        const double step = 0.001 * (1 + (double)(eqi_rng_bits(6, stream, block) % 64) / 64);
        uint16_t d = eqi_f32_to_f16((float)(one ? 1000 : step));
        bytes(f, &d, 2);
        for (uint64_t i = 0; i < 32; i++) {
            int8_t q = (int8_t)eqi_rng_bits(7, stream, block * 32 + i);
            if (one) q = i == 3 ? 100 : 0;
            bytes(f, &q, 1);
        }
    }
}

/* large: the tensor with a value that fp16 does not hold, or NULL. */
static const char *write_gguf(const char *large)
{
    item items[64];
    size_t n = list(items);
    const char *path = in_dir(dir, "tiny.gguf");
    FILE *f = fopen(path, "wb");
    bytes(f, "GGUF", 4);
    u32(f, 3);
    u64(f, n);
    u64(f, 9);
    string(f, "general.architecture");
    u32(f, TYPE_STRING);
    string(f, "llama");
    key_u32(f, "llama.block_count", LAYERS);
    key_u32(f, "llama.context_length", 64);
    key_u32(f, "llama.embedding_length", WIDTH);
    key_u32(f, "llama.feed_forward_length", MLP);
    key_u32(f, "llama.attention.head_count", 4);
    key_u32(f, "llama.attention.head_count_kv", 2);
    key_u32(f, "llama.vocab_size", TOKENS);
    string(f, "llama.attention.layer_norm_rms_epsilon");
    u32(f, TYPE_F32);
    float eps = 1e-5f;
    bytes(f, &eps, 4);
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        string(f, items[i].name);
        u32(f, items[i].rows ? 2 : 1);
        u64(f, items[i].width);
        if (items[i].rows) u64(f, items[i].rows);
        u32(f, items[i].rows ? Q8_0 : FLOATS);
        u64(f, offset);
        offset += (size_of(&items[i]) + ALIGN - 1) / ALIGN * ALIGN;
    }
    for (size_t i = 0; i < n; i++) {
        while (ftell(f) % ALIGN) fputc(0, f);
        data(f, &items[i], (uint32_t)(100 + i), large && !strcmp(large, items[i].name));
    }
    fclose(f);
    return path;
}

START_TEST(gguf_round_trip)
{
    eqat_dtype compute = _i % 2 ? EQAT_F32 : EQAT_BF16;
    const char *path = write_gguf(NULL), *out = in_dir(dir, "out");
    eqat_model *m = open_model(ctx, path, compute);
    eqat_model_info info = {.struct_size = sizeof info};
    OK(ctx, eqat_model_inspect(m, &info));
    ck_assert(info.linear_bits == 8.5 && info.tied_embeddings && info.vocab_size == TOKENS &&
              !info.quantized);
    if (_i / 2) {
        eqat_quantizer *q = make_quantizer(ctx, 2, 32);
        OK(ctx, eqat_quantizer_add_rule(q, "*.v_proj", NULL));
        OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
        eqat_quantizer_free(q);
    }
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model *again = open_model(ctx, out, compute);
    same_logits(m, again, 9);
    char *text = read_text(in_dir(out, "config.json"));
    ck_assert(strstr(text, "\"torch_dtype\": \"float16\"") != NULL);
    eqat_model_free(m);
    eqat_model_free(again);
    free(text);
}
END_TEST

/* Weights become fp16, embeddings too. */
START_TEST(what_fp16_does_not_hold)
{
    eqat_model *m = open_model(ctx, write_gguf("blk.1.ffn_up.weight"), EQAT_BF16);
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    says(ctx, eqat_model_quantize_rtn(m, q, NULL), EQAT_NUMERIC,
         "tiny.gguf: tensor model.layers.1.mlp.up_proj.weight: found 100000 at element 3, expected "
         "what fp16 holds");
    eqat_quantizer_free(q);
    eqat_model_free(m);
    m = open_model(ctx, write_gguf("token_embd.weight"), EQAT_BF16);
    says(ctx, eqi_model_load_ends(m), EQAT_NUMERIC,
         "model.embed_tokens.weight: found 100000 at element 3");
    eqat_model_free(m);
}
END_TEST

TCase *case_gguf(void)
{
    TCase *tc = tcase_create("gguf");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, gguf_round_trip, 0, 4);
    tcase_add_test(tc, what_fp16_does_not_hold);
    return tc;
}
