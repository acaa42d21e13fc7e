/* Folders of one storage layout (READER) that are nearly right: opened, and every block of them
 * dequantized on the way to logits. The first byte of an input chooses the bits, the rest edits the
 * folder. */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "edits.h"
#include "fuzz.h"
#include "public.h"

#define BLOCK "model.layers.0."
enum { WIDE = 96 };

static const char config[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 64, "
    "\"intermediate_size\": 96, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
    "\"num_key_value_heads\": 2, \"vocab_size\": 8, \"max_position_embeddings\": 16, "
    "\"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"hidden_act\": \"silu\", "
    "\"tie_word_embeddings\": true}";

static const struct {
    const char *name;
    int64_t out, in;
} linears[] = {{"self_attn.q_proj", 64, 64}, {"self_attn.k_proj", 64, 64},
               {"self_attn.v_proj", 64, 64}, {"self_attn.o_proj", 64, 64},
               {"mlp.gate_proj", WIDE, 64},  {"mlp.up_proj", WIDE, 64},
               {"mlp.down_proj", 64, WIDE}};

static void need(eqi_ctx *ctx, eqat_status st)
{
    if (st == EQAT_OK) return;
    fprintf(stderr, "fuzz_reader: %s\n", ctx->error);
    abort();
}

/* The layouts that are only read, and what is written in their place. */
static bool is(const char *name) { return !strcmp(READER, name); }
static const char *written(void)
{
    return is("reference")                ? "gptq_v2"
        : is("compressed-tensors-padded") ? "compressed-tensors"
                                          : READER;
}

static void save(const char *folder, int bits)
{
    const char *model_dir = scratch("dense");
    eqat_context *ctx = make_context(1, 0);
    eqat_save_options o;
    eqat_save_options_init(&o, sizeof o);
    o.format = written();
    o.allow_asymmetric = true;
    ck_assert_int_eq(mkdir(model_dir, 0777), 0);
    write_model(ctx, model_dir, config, EQI_STORED_F16, NULL);
    eqat_model *model = open_model(ctx, model_dir, EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, bits, 32);
    OK(ctx, eqat_model_quantize_rtn(model, quantizer, NULL));
    OK(ctx, eqat_model_save(model, folder, &o));
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
    remove_dir(model_dir);
}

/* Words of 32 / bits values each in [rows, columns], rows or columns of which are words. */
static void put_padded(parts *p, const char *linear, const char *suffix, int bits, int64_t rows,
                       int64_t columns, int64_t values, bool down)
{
    char name[96];
    int64_t a_word = 32 / bits, words = (values + a_word - 1) / a_word;
    snprintf(name, sizeof name, BLOCK "%s.%s", linear, suffix);
    named_tensor *t = parts_add(p, name, "I32", down ? words : rows, down ? columns : words);
    uint32_t *data = (uint32_t *)(void *)t->data;
    for (int64_t i = 0; i < (int64_t)(t->bytes / 4); i++) {
        int64_t word = down ? i / columns : i % words, here = values - word * a_word;
        if (here > a_word) here = a_word;
        data[i] = (uint32_t)eqi_rng_below(1, EQI_RNG_USER, (uint64_t)i, (uint64_t)1 << here * bits);
    }
}

static void make_padded(parts *p, int bits)
{
    bool reference = is("reference");
    if (reference) json_object_del(p->json, "quantization_config");
    for (size_t i = 0; i < EQI_COUNT(linears); i++) {
        int64_t out = linears[i].out, in = linears[i].in, groups = in / 32;
        const char *name = linears[i].name;
        if (reference) {
            put_padded(p, name, "qweight", bits, 0, out, in, true);
            put_padded(p, name, "qzeros", bits, groups, 0, out, false);
        } else {
            put_padded(p, name, "weight_packed", bits, out, 0, in, false);
            put_padded(p, name, "weight_zero_point", bits, 0, groups, out, true);
        }
    }
}

static const parts *base(uint8_t choice)
{
    static const int widths[] = {2, 3, 4, 8};
    static parts made[EQI_COUNT(widths)];
    size_t at = is("awq") ? 2 : choice % EQI_COUNT(widths);
    if (made[at].json) return &made[at];
    const char *folder = scratch("base");
    save(folder, widths[at]);
    parts_read(&made[at], in_dir(folder, "config.json"), in_dir(folder, "model.safetensors"));
    remove_dir(folder);
    if (strcmp(written(), READER) != 0) make_padded(&made[at], widths[at]);
    return &made[at];
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    static const char *folder, *json, *tensors;
    (void)path;
    if (!folder) {
        folder = fresh_dir();
        json = in_dir(folder, "config.json");
        tensors = in_dir(folder, "model.safetensors");
        atexit(scratch_clean);
    }
    parts p;
    parts_copy(&p, base(size ? data[0] : 0));
    if (size) parts_edit(&p, data + 1, size - 1);
    parts_write(&p, json, tensors);
    parts_free(&p);
    eqat_status st = eqat_fuzz_use(ctx, folder);
    if (size < 7) need(ctx, st); /* what is not changed is read */
    return st;
}
