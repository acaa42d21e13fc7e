/* The gptq layouts, read by a second, simpler reader than the library's. */
#include <sys/stat.h>

#include "base/half.h"
#include "cases.h"
#include "each_test.h"

static const char *in, *out;

static void write_llama_files(void)
{
    in = in_dir(dir, "in");
    out = in_dir(dir, "out");
    mkdir(in, 0777);
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_F16, NULL);
}

static void *raw(eqi_source *s, const char *name, eqi_stored stored, int64_t rows, int64_t columns)
{
    char full[128];
    snprintf(full, sizeof full, "model.layers.1.mlp.down_proj.%s", name);
    const eqi_source_entry *e = eqi_source_find(s, full);
    ck_assert_msg(e != NULL, "%s", full);
    ck_assert(e->stored == stored && e->shape[0] == rows &&
              (columns == 0 || e->shape[1] == columns));
    void *data = malloc((size_t)e->bytes);
    OK(ctx, eqi_source_read_raw(s, e, 0, (size_t)e->bytes, data));
    return data;
}

/* Value `index` of a column of a stream of `bits`-bit values that runs down (stride columns) or
 * along (stride 1). */
static unsigned field(const uint32_t *words, int64_t stride, int64_t index, int bits)
{
    unsigned value = 0;
    for (int b = 0; b < bits; b++) {
        int64_t bit = index * bits + b;
        value |= (words[bit / 32 * stride] >> (bit % 32) & 1u) << b;
    }
    return value;
}

START_TEST(layout_is_gptq_v2)
{
    static const int widths[] = {2, 3, 4, 8};
    int bits = widths[_i];
    enum { OUT = 64, IN = 96, GROUP = 32, GROUPS = 3 };
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, bits, GROUP);
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_save(m, out, NULL));
    eqi_tensor *expected;
    OK(ctx, eqi_dequantize(&m->blocks[1].linears[EQI_DOWN].weight, EQI_F32, &expected));

    eqi_source *s;
    OK(ctx, eqi_source_open_safetensors(ctx, &s, out));
    ck_assert_str_eq(eqi_source_metadata(s, "format"), "pt");
    uint32_t *qweight = raw(s, "qweight", EQI_STORED_I32, IN * bits / 32, OUT),
             *qzeros = raw(s, "qzeros", EQI_STORED_I32, GROUPS, OUT * bits / 32);
    uint16_t *scales = raw(s, "scales", EQI_STORED_F16, GROUPS, OUT);
    int32_t *g_idx = raw(s, "g_idx", EQI_STORED_I32, IN, 0);
    for (int n = 0; n < OUT; n++)
        for (int k = 0; k < IN; k++) {
            int g = g_idx[k];
            ck_assert_int_eq(g, k / GROUP);
            int code = (int)field(qweight + n, OUT, k, bits),
                zero = (int)field(qzeros + g * (OUT * bits / 32), 1, n, bits);
            float w = (float)(code - zero) * eqi_f16_to_f32(scales[g * OUT + n]);
            ck_assert_msg(w == (float)get(expected, n * IN + k), "[%d, %d]: %g and %g", n, k, w,
                          get(expected, n * IN + k));
        }
    free(qweight);
    free(qzeros);
    free(scales);
    free(g_idx);
    eqi_source_close(s);
    eqi_tensor_unref(expected);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

typedef void (*edit_fn)(const eqi_source_entry *e, void *data, int bits);

/* Copies the weights of `out` into `in`, with config.json changed by one replacement, every tensor
 * passing through edit, which leaves the scales as F16 or makes F32 of them. */
static void rewrite(const char *from, const char *to, edit_fn edit, int bits, eqi_stored scales)
{
    const char *copy = in_dir(in, "config.json"), *weights = in_dir(in, "model.safetensors");
    char *text = read_text(in_dir(out, "config.json")), *at = strstr(text, from), changed[8192];
    ck_assert(at != NULL);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    remove(copy);
    remove(weights);
    write_text(copy, changed);
    eqi_source *s;
    OK(ctx, eqi_source_open_safetensors(ctx, &s, out));
    eqi_safetensors_writer *w;
    OK(ctx, eqi_safetensors_create(ctx, &w, weights));
    for (size_t i = 0; i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        OK(ctx,
           eqi_safetensors_declare(w, e->name, strstr(e->name, ".scales") ? scales : e->stored,
                                   e->ndim, e->shape));
    }
    for (size_t i = 0; i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        size_t size =
            (size_t)e->bytes * (strstr(e->name, ".scales") && scales == EQI_STORED_F32 ? 2 : 1);
        void *data = malloc(size);
        OK(ctx, eqi_source_read_raw(s, e, 0, (size_t)e->bytes, data));
        edit(e, data, bits);
        OK(ctx, eqi_safetensors_write(w, data, size));
        free(data);
    }
    OK(ctx, eqi_safetensors_close(w));
    eqi_source_close(s);
    free(text);
}

/* Each zero point z becomes (z - 1) mod 2^bits. */
static void less_one(const eqi_source_entry *e, void *data, int bits)
{
    if (!strstr(e->name, "qzeros")) return;
    uint32_t *words = data;
    for (int64_t g = 0; g < e->shape[0]; g++, words += e->shape[1])
        for (int64_t n = 0; n < e->shape[1] * 32 / bits; n++) {
            unsigned value = (field(words, 1, n, bits) + (1u << bits) - 1) & ((1u << bits) - 1);
            for (int b = 0; b < bits; b++) {
                int64_t bit = n * bits + b;
                words[bit / 32] =
                    (words[bit / 32] & ~(1u << (bit % 32))) | (value >> b & 1u) << (bit % 32);
            }
        }
}

START_TEST(classic_gptq_is_read)
{
    static const int widths[] = {2, 3, 4, 8};
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, widths[_i], 16);
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_save(m, out, NULL));
    rewrite("\"gptq_v2\"", "\"gptq\"", less_one, widths[_i], EQI_STORED_F16);
    eqat_model *classic = open_model(ctx, in, EQAT_F32);
    same_logits(m, classic, 5);
    /* Not yet loaded or loaded, it is saved as gptq_v2. */
    const char *again = in_dir(dir, "again");
    char command[4096];
    eqat_model *fresh = open_model(ctx, in, EQAT_F32);
    OK(ctx, eqat_model_save(_i % 2 ? fresh : classic, again, NULL));
    snprintf(command, sizeof command, "cmp '%s/model.safetensors' '%s/model.safetensors'", out,
             again);
    ck_assert_int_eq(system(command), 0);
    eqat_model_free(fresh);
    eqat_model_free(classic);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

static void shuffle_groups(const eqi_source_entry *e, void *data, int bits)
{
    (void)bits;
    if (strstr(e->name, "layers.1.mlp.up_proj.g_idx")) ((int32_t *)data)[5] = 1;
}

static void break_scale(const eqi_source_entry *e, void *data, int bits)
{
    (void)bits;
    if (strstr(e->name, "layers.1.mlp.up_proj.scales")) ((uint16_t *)data)[5] = 0x7e00;
}

START_TEST(other_orders_are_refused)
{
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 4, 16);
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model_free(m);
    eqat_quantizer_free(q);
    eqi_block *block;
    rewrite("\"gptq_v2\"", "\"gptq_v2\"", shuffle_groups, 4, EQI_STORED_F16);
    m = open_model(ctx, in, EQAT_F32);
    OK(ctx, eqi_block_keep(m, 0, EQI_F32, &block));
    says(ctx, eqi_block_keep(m, 1, EQI_F32, &block), EQAT_UNSUPPORTED,
         "model.layers.1.mlp.up_proj.g_idx: found group 1 for input 5, expected 0");
    eqat_model_free(m);
    rewrite("\"gptq_v2\"", "\"gptq_v2\"", break_scale, 4, EQI_STORED_F16);
    m = open_model(ctx, in, EQAT_F32);
    says(ctx, eqi_block_keep(m, 1, EQI_F32, &block), EQAT_NUMERIC,
         "model.layers.1.mlp.up_proj.scales: found NaN for group 0 of output 5, expected finite");
    eqat_model_free(m);
}
END_TEST

/* Ties, a value beside one, and two below the normal numbers of F16. */
static const float steps[] = {0x1.002p0f, 0x1.00201p0f, 0x1.006p0f, 0x1.804p-15f, 0x1.7fp-20f};
static float largest;

static void to_f32(const eqi_source_entry *e, void *data, int bits)
{
    (void)bits;
    if (!strstr(e->name, ".scales")) return;
    const uint16_t *half = data;
    float *wide = malloc((size_t)e->elements * sizeof *wide);
    for (int64_t i = 0; i < e->elements; i++) wide[i] = eqi_f16_to_f32(half[i]);
    memcpy(wide, steps, sizeof steps);
    wide[EQI_COUNT(steps)] = largest;
    memcpy(data, wide, (size_t)e->elements * sizeof *wide);
    free(wide);
}

/* What is evaluated is what a file of ours will hold. */
START_TEST(scales_of_other_types_are_rounded_to_f16)
{
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 4, 32);
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model_free(m);
    eqat_quantizer_free(q);
    largest = 65519;
    rewrite("\"gptq_v2\"", "\"gptq_v2\"", to_f32, 4, EQI_STORED_F32);
    eqat_tensor *s;
    m = open_model(ctx, in, EQAT_F32);
    OK(ctx, eqat_model_parameter(m, "model.layers.1.mlp.up_proj.scales", &s));
    for (size_t i = 0; i < EQI_COUNT(steps); i++)
        ck_assert_double_eq(get(s, (int64_t)i * s->v.shape[1]),
                            (double)eqi_f16_to_f32(eqi_f32_to_f16(steps[i])));
    ck_assert_double_eq(get(s, (int64_t)EQI_COUNT(steps) * s->v.shape[1]), 65504);
    eqat_model_free(m);
    largest = 65520;
    eqi_block *block;
    rewrite("\"gptq_v2\"", "\"gptq_v2\"", to_f32, 4, EQI_STORED_F32);
    m = open_model(ctx, in, EQAT_F32);
    says(ctx, eqi_block_keep(m, 0, EQI_F32, &block), EQAT_NUMERIC,
         "scales: found infinity for group 0 of output 5, expected finite");
    eqat_model_free(m);
}
END_TEST

TCase *case_layout(void)
{
    TCase *tc = tcase_create("gptq layout");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, write_llama_files, NULL);
    tcase_add_loop_test(tc, layout_is_gptq_v2, 0, 4);
    tcase_add_loop_test(tc, classic_gptq_is_read, 0, 4);
    tcase_add_test(tc, other_orders_are_refused);
    tcase_add_test(tc, scales_of_other_types_are_rounded_to_f16);
    return tc;
}
