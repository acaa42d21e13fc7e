/* Every layout that is written, decoded by a second, simpler reader: one value at a time, one bit
 * at a time. And files as other writers make them, good and bad. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "each_test.h"
#include "format/layout.h"

#define NAME "model.layers.0.mlp.up_proj"
enum { MOST = 96 };

/* Value `index` of a stream of `bits`-bit values whose words are `stride` apart. */
static unsigned field(const uint32_t *words, int64_t stride, int64_t index, int bits)
{
    unsigned value = 0;
    for (int b = 0; b < bits; b++) {
        int64_t bit = index * bits + b;
        value |= (words[bit / 32 * stride] >> (bit % 32) & 1u) << b;
    }
    return value;
}

/* What a file holds of the linear. */
typedef struct file {
    eqi_source *source;
    const eqi_layout_linear *l;
    uint32_t *words, *zeros;
    uint16_t *scales;
} file;

static void *raw(file *f, const char *suffix)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", f->l->name, suffix);
    const eqi_source_entry *e = eqi_source_find(f->source, name);
    if (!e) return NULL;
    void *data = malloc((size_t)e->bytes + 1);
    OK(ctx, eqi_source_read_raw(f->source, e, 0, (size_t)e->bytes, data));
    return data;
}

typedef double (*decoder)(file *f, int64_t n, int64_t k);

static double in_gptq(file *f, int64_t n, int64_t k, unsigned more)
{
    const eqi_layout_linear *l = f->l;
    int64_t g = k / l->q.group, columns = (l->out * l->q.bits + 31) / 32;
    unsigned q = field(f->words + n, l->out, k, l->q.bits),
             z = field(f->zeros + g * columns, 1, n, l->q.bits) + more;
    return ((double)q - (double)z) * (double)eqi_f16_to_f32(f->scales[g * l->out + n]);
}

static double by_v2(file *f, int64_t n, int64_t k) { return in_gptq(f, n, k, 0); }
static double by_classic(file *f, int64_t n, int64_t k) { return in_gptq(f, n, k, 1); }

static double by_compressed(file *f, int64_t n, int64_t k)
{
    const eqi_layout_linear *l = f->l;
    int64_t groups = l->in / l->q.group, g = k / l->q.group, words = l->in / 32 * l->q.bits;
    double q = field(f->words + n * words, 1, k, l->q.bits), middle = 1 << (l->q.bits - 1),
           z = f->zeros ? (double)field(f->zeros + g, groups, n, l->q.bits) : middle;
    /* Signed integers, both less 2^(bits-1). */
    return ((q - middle) - (z - middle)) * (double)eqi_f16_to_f32(f->scales[n * groups + g]);
}

static double by_mlx(file *f, int64_t n, int64_t k)
{
    const eqi_layout_linear *l = f->l;
    int64_t groups = l->in / l->q.group, at = n * groups + k / l->q.group,
            words = l->in / 32 * l->q.bits;
    double q = field(f->words + n * words, 1, k, l->q.bits);
    if (!l->exact_products)
        return q * (double)((float *)(void *)f->scales)[at] +
            (double)((float *)(void *)f->zeros)[at];
    return q * (double)eqi_f16_to_f32(f->scales[at]) +
        (double)eqi_f16_to_f32(((uint16_t *)(void *)f->zeros)[at]);
}

static double by_awq(file *f, int64_t n, int64_t k)
{
    static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7}; /* outputs of the nibbles of a word */
    const eqi_layout_linear *l = f->l;
    int64_t g = k / l->q.group, columns = l->out / 8, at = 0;
    while (order[at] != n % 8) at++;
    unsigned q = f->words[k * columns + n / 8] >> 4 * at & 15,
             z = f->zeros[g * columns + n / 8] >> 4 * at & 15;
    return ((double)q - (double)z) * (double)eqi_f16_to_f32(f->scales[g * l->out + n]);
}

static double by_fp16(file *f, int64_t n, int64_t k)
{
    return (double)eqi_f16_to_f32(((uint16_t *)(void *)f->words)[n * f->l->in + k]);
}

static const struct written {
    const char *name, *words, *zeros, *scales;
    decoder value;
} writers[] = {
    {"gptq_v2", "qweight", "qzeros", "scales", by_v2},
    {"gptq", "qweight", "qzeros", "scales", by_classic},
    {"auto-round", "qweight", "qzeros", "scales", by_v2},
    {"compressed-tensors", "weight_packed", "weight_zero_point", "weight_scale", by_compressed},
    {"mlx", "weight", "biases", "scales", by_mlx},
    {"awq", "qweight", "qzeros", "scales", by_awq},
    {"fp16", "weight", "-", "-", by_fp16},
};

typedef enum zeros_kind { ANY, MIDDLE, LEFT_OF_MIDDLE, LOWEST, KINDS } zeros_kind;

static eqi_packed packed_of(const eqi_layout_linear *l, zeros_kind kind)
{
    eqi_packed p;
    int middle = 1 << (l->q.bits - 1), top = 2 * middle;
    OK(ctx, eqi_packed_create(ctx, &p, l));
    for (int64_t i = 0; i < l->out * eqi_packed_words(l); i++)
        p.codes[i] = (uint32_t)(i + 7) * 2654435761u ^ (uint32_t)(i << 11);
    for (int64_t i = 0; i < l->out * eqi_packed_groups(l); i++) {
        int any = (int)(i * 5 + 1) % top;
        p.z[i] = (uint8_t)(kind == ANY          ? any
                               : kind == MIDDLE ? middle
                               : kind == LOWEST ? 0
                                                : middle - 1);
        p.s[i] = eqi_f16_to_f32((uint16_t)(0x2001 + 29 * i)) * (i % 2 ? 1 : -1);
    }
    return p;
}

static double value_of(const eqi_packed *p, const eqi_layout_linear *l, int64_t n, int64_t k)
{
    int64_t at = n * eqi_packed_groups(l) + k / l->q.group;
    int q = (int)field(p->codes + n * eqi_packed_words(l), 1, k, l->q.bits);
    return (double)(q - p->z[at]) * (double)p->s[at];
}

static void write_one(const eqi_layout *layout, eqi_layout_linear *l, zeros_kind kind,
                      const char *folder)
{
    eqi_shards *out;
    eqi_packed p = packed_of(l, kind);
    OK(ctx, eqi_layout_survey(ctx, layout, l, &p));
    eqi_packed_free(ctx, &p);
    OK(ctx, eqi_shards_create(ctx, &out, folder, 0, "pt"));
    OK(ctx, eqi_layout_declare(layout, out, l));
    p = packed_of(l, kind);
    OK(ctx, eqi_layout_write(ctx, layout, out, l, &p));
    OK(ctx, eqi_shards_close(out));
    eqi_packed_free(ctx, &p);
}

static void check_one(const struct written *w, const eqi_layout *layout, eqi_layout_linear l,
                      zeros_kind kind)
{
    const char *folder = fresh_dir();
    write_one(layout, &l, kind, folder);
    bool can = kind == MIDDLE || kind == LEFT_OF_MIDDLE;
    if (layout->symmetry > EQI_SYMMETRY_GROUPS) ck_assert_int_eq(l.symmetric, can);
    file f = {.l = &l};
    OK(ctx, eqi_source_open_safetensors(ctx, &f.source, folder));
    f.words = raw(&f, w->words);
    f.zeros = raw(&f, w->zeros);
    f.scales = raw(&f, w->scales);
    eqi_packed p = packed_of(&l, kind);
    for (int64_t n = 0; n < l.out; n++)
        for (int64_t k = 0; k < l.in; k++) {
            double want = value_of(&p, &l, n, k);
            if (w->value == by_fp16) want = (double)eqi_f16_to_f32(eqi_f32_to_f16((float)want));
            ck_assert_msg(w->value(&f, n, k) == want,
                          "%s: %d bits: [%d, %d]: found %g, expected %g", w->name, l.q.bits, (int)n,
                          (int)k, w->value(&f, n, k), want);
        }
    eqi_packed_free(ctx, &p);
    free(f.words);
    free(f.zeros);
    free(f.scales);
    eqi_source_close(f.source);
}

START_TEST(decoded_by_others)
{
    static const int64_t shapes[][3] = {{32, 32, 32}, {96, 64, 32},  {32, 96, 96},
                                        {8, 64, 16},  {40, 160, 32}, {64, 64, 64}};
    const struct written *w = &writers[_i];
    const eqi_layout *layout = eqi_layout_find(w->name);
    ck_assert_ptr_nonnull(layout);
    int checked = 0;
    for (int bits = 2; bits <= 8; bits++)
        for (size_t i = 0; i < EQI_COUNT(shapes); i++)
            for (int kind = 0; kind < KINDS; kind++) {
                eqi_layout_linear l = {
                    NAME, shapes[i][0], shapes[i][1], {.bits = bits, .group = shapes[i][2]}};
                if (layout->check(ctx, &l) != EQAT_OK) continue;
                /* A zero point of 0 under the classic layout is refused beforehand. */
                if (w->value == by_classic && (kind == ANY || kind == LOWEST)) continue;
                check_one(w, layout, l, (zeros_kind)kind);
                checked++;
            }
    ck_assert_int_ge(checked, 2 * (int)EQI_COUNT(shapes));
}
END_TEST

/* ---- files of other writers ---- */

typedef struct tensor {
    const char *suffix;
    eqi_stored stored;
    int64_t rows, columns; /* columns 0: of one dimension */
    const void *data;
} tensor;

/* A folder of one linear [out, in]; config as text. */
static eqat_status read_linear(const char *config, const tensor *tensors, size_t n, int64_t out,
                               int64_t in, eqi_weight *found)
{
    const char *folder = fresh_dir();
    eqi_shards *w;
    char name[128];
    OK(ctx, eqi_shards_create(ctx, &w, folder, 0, "pt"));
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, NAME ".%s", tensors[i].suffix);
        OK(ctx,
           eqi_shards_declare(w, name, tensors[i].stored, tensors[i].columns ? 2 : 1,
                              (int64_t[]){tensors[i].rows, tensors[i].columns}));
    }
    for (size_t i = 0; i < n; i++) {
        int64_t count = tensors[i].rows * (tensors[i].columns ? tensors[i].columns : 1);
        OK(ctx,
           eqi_shards_write(w, tensors[i].data,
                            (size_t)eqi_stored_bytes(tensors[i].stored, count)));
    }
    OK(ctx, eqi_shards_close(w));
    eqi_source *source;
    OK(ctx, eqi_source_open_safetensors(ctx, &source, folder));
    json_t *json = json_loads(config, 0, NULL);
    eqi_packing packing;
    eqi_layout_linear l = {.name = NAME, .out = out, .in = in};
    *found = (eqi_weight){0};
    eqat_status st = eqi_packing_parse(ctx, &packing, json, "config.json");
    if (st == EQAT_OK) st = eqi_packing_expect(&packing, source, "here", &l);
    if (st == EQAT_OK) st = eqi_packing_read(&packing, source, &l, found);
    if (st != EQAT_OK) eqi_weight_release(found);
    json_decref(json);
    eqi_source_close(source);
    return st;
}

/* Code (n + 3 k) and zero point (n + g), mod 2^bits, and the scale of each output and group. */
static unsigned code_at(int64_t n, int64_t k, int bits)
{
    return (unsigned)(n + 3 * k) & ((1u << bits) - 1);
}
static unsigned zero_at(int64_t n, int64_t g, int bits)
{
    return (unsigned)(n + g) & ((1u << bits) - 1);
}
static float scale_at(int64_t n, int64_t g) { return 0.5f + (float)n / 64 + (float)g; }

static void expect(eqi_weight *w, int64_t out, int64_t in, int bits, int64_t group)
{
    static uint32_t codes[MOST * MOST];
    static uint8_t z[MOST * MOST];
    static float s[MOST * MOST];
    int64_t words = in / 32 * bits, groups = in / group;
    ck_assert(w->q.bits == bits && w->q.group == group);
    OK(ctx, eqi_tensor_download(w->codes, codes, (size_t)(out * words) * sizeof *codes));
    OK(ctx, eqi_tensor_download(w->z, z, (size_t)(out * groups)));
    OK(ctx, eqi_tensor_download(w->s, s, (size_t)(out * groups) * sizeof *s));
    for (int64_t n = 0; n < out; n++)
        for (int64_t k = 0; k < in; k++) {
            int64_t g = k / group;
            ck_assert_uint_eq(field(codes + n * words, 1, k, bits), code_at(n, k, bits));
            ck_assert_uint_eq(z[n * groups + g], zero_at(n, g, bits));
            ck_assert(s[n * groups + g] == scale_at(n, g));
        }
    eqi_weight_release(w);
}

/* The reference implementation's tensors: 32 / bits values in a word, true zero points. */
typedef struct reference {
    uint32_t qweight[MOST * MOST], qzeros[MOST * MOST];
    float scales[MOST * MOST];
    int32_t g_idx[MOST];
    tensor tensors[4];
} reference;

static reference *make_reference(int64_t out, int64_t in, int bits, int64_t group)
{
    static reference r;
    int64_t word = 32 / bits, groups = in / group, columns = (out + word - 1) / word;
    memset(&r, 0, sizeof r);
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++)
            r.qweight[k / word * out + n] |= code_at(n, k, bits) << k % word * bits;
        for (int64_t g = 0; g < groups; g++) {
            r.qzeros[g * columns + n / word] |= zero_at(n, g, bits) << n % word * bits;
            r.scales[g * out + n] = scale_at(n, g);
        }
    }
    for (int64_t k = 0; k < in; k++) r.g_idx[k] = (int32_t)(k / group);
    r.tensors[0] = (tensor){"qweight", EQI_STORED_I32, (in + word - 1) / word, out, r.qweight};
    r.tensors[1] = (tensor){"qzeros", EQI_STORED_I32, groups, columns, r.qzeros};
    r.tensors[2] = (tensor){"scales", EQI_STORED_F32, groups, out, r.scales};
    r.tensors[3] = (tensor){"g_idx", EQI_STORED_I32, in, 0, r.g_idx};
    return &r;
}

START_TEST(reference_checkpoints)
{
    static const int widths[] = {2, 3, 4, 8};
    int bits = widths[_i];
    eqi_weight w;
    reference *r = make_reference(32, 96, bits, 32);
    OK(ctx, read_linear("{}", r->tensors, 4, 32, 96, &w));
    expect(&w, 32, 96, bits, 32);
    OK(ctx, read_linear("{}", r->tensors, 3, 32, 96, &w)); /* g_idx may be left out */
    expect(&w, 32, 96, bits, 32);
}
END_TEST

#define REFUSED(st, says_, ...)                                             \
    do {                                                                    \
        eqi_weight none;                                                    \
        ck_assert_int_eq(read_linear(__VA_ARGS__, &none), st);              \
        ck_assert_msg(strstr(ctx->error, says_) != NULL, "%s", ctx->error); \
    } while (0)

START_TEST(bad_reference_checkpoints)
{
    reference *r = make_reference(32, 96, 3, 32);
    r->qweight[5 * 32 + 7] |= 1u << 30;
    REFUSED(EQAT_FORMAT, "tensor " NAME ".qweight: found padding bits set in word 167, expected 0",
            "{}", r->tensors, 4, 32, 96);
    r = make_reference(32, 96, 3, 32);
    r->qzeros[3] |= 1u << 31; /* the last word of a row holds 2 values */
    REFUSED(EQAT_FORMAT, "tensor " NAME ".qzeros: found padding bits set in word 3", "{}",
            r->tensors, 4, 32, 96);
    r = make_reference(32, 96, 3, 32);
    r->g_idx[40] = 2;
    REFUSED(EQAT_UNSUPPORTED, "tensor " NAME ".g_idx: found group 2 for input 40, expected 1", "{}",
            r->tensors, 4, 32, 96);
    r = make_reference(32, 96, 3, 32);
    r->scales[33] = 0;
    REFUSED(EQAT_NUMERIC, "tensor " NAME ".scales: found 0 for group 1 of output 1", "{}",
            r->tensors, 4, 32, 96);
    r->scales[33] = (float)INFINITY;
    REFUSED(EQAT_NUMERIC, "found infinity for group 1 of output 1, expected finite numbers other",
            "{}", r->tensors, 4, 32, 96);
    r = make_reference(32, 96, 3, 32);
    r->tensors[1].columns--;
    REFUSED(EQAT_FORMAT, "tensor " NAME ".qzeros: found shape [3, 3], expected [3, 4]", "{}",
            r->tensors, 4, 32, 96);
    r->tensors[0].rows--;
    REFUSED(EQAT_FORMAT, "tensor " NAME ".qweight: found shape [9, 32], expected", "{}", r->tensors,
            4, 32, 96);
}
END_TEST

/* compressed-tensors before 0.18: 10 values of 3 bits in a word. */
START_TEST(padded_compressed_tensors)
{
    enum { OUT = 32, IN = 64, BITS = 3, GROUPS = 2 };
    static const char config[] =
        "{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
        "\"pack-quantized\", \"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], "
        "\"weights\": {\"num_bits\": 3, \"type\": \"int\", \"symmetric\": false, \"strategy\": "
        "\"group\", \"group_size\": 32}}}}}";
    uint32_t words[OUT * 7] = {0}, zeros[4 * GROUPS] = {0};
    float scales[OUT * GROUPS];
    int64_t shape[2] = {OUT, IN};
    for (int n = 0; n < OUT; n++) {
        for (int k = 0; k < IN; k++) words[n * 7 + k / 10] |= code_at(n, k, BITS) << k % 10 * BITS;
        for (int g = 0; g < GROUPS; g++) {
            zeros[n / 10 * GROUPS + g] |= zero_at(n, g, BITS) << n % 10 * BITS;
            scales[n * GROUPS + g] = scale_at(n, g);
        }
    }
    tensor tensors[] = {{"weight_shape", EQI_STORED_I64, 2, 0, shape},
                        {"weight_packed", EQI_STORED_I32, OUT, 7, words},
                        {"weight_zero_point", EQI_STORED_I32, 4, GROUPS, zeros},
                        {"weight_scale", EQI_STORED_F32, OUT, GROUPS, scales}};
    eqi_weight w;
    OK(ctx, read_linear(config, tensors, 4, OUT, IN, &w));
    expect(&w, OUT, IN, BITS, 32);
    shape[1] = IN + 1;
    REFUSED(EQAT_FORMAT, "tensor " NAME ".weight_shape: found [32, 65], expected [32, 64]", config,
            tensors, 4, OUT, IN);
}
END_TEST

START_TEST(biases_of_mlx)
{
    enum { OUT = 4, IN = 64, BITS = 4, GROUPS = 2 };
    static const char config[] =
        "{\"quantization\": {\"bits\": 4, \"group_size\": 32, \"mode\": \"affine\"}}";
    uint32_t words[OUT * IN / 8] = {0};
    float scales[OUT * GROUPS], biases[OUT * GROUPS];
    for (int n = 0; n < OUT; n++) {
        for (int k = 0; k < IN; k++) words[(n * IN + k) / 8] |= code_at(n, k, BITS) << k % 8 * 4;
        for (int g = 0; g < GROUPS; g++) {
            scales[n * GROUPS + g] = scale_at(n, g);
            biases[n * GROUPS + g] = -scale_at(n, g) * (float)zero_at(n, g, BITS);
        }
    }
    tensor tensors[] = {{"weight", EQI_STORED_U32, OUT, IN / 8, words},
                        {"scales", EQI_STORED_F32, OUT, GROUPS, scales},
                        {"biases", EQI_STORED_F32, OUT, GROUPS, biases}};
    eqi_weight w;
    OK(ctx, read_linear(config, tensors, 3, OUT, IN, &w));
    expect(&w, OUT, IN, BITS, 32);
    biases[3] += 0.125f;
    REFUSED(EQAT_UNSUPPORTED, "tensor " NAME ".biases: found ", config, tensors, 3, OUT, IN);
    ck_assert_ptr_nonnull(strstr(ctx->error, "for group 1 of output 1, expected minus its scale"));
    biases[3] = scales[3] * 2; /* a zero point of -2 */
    REFUSED(EQAT_UNSUPPORTED, "times a whole number from 0 to 15", config, tensors, 3, OUT, IN);
    biases[3] = -scales[3] * 16;
    REFUSED(EQAT_UNSUPPORTED, "times a whole number from 0 to 15", config, tensors, 3, OUT, IN);
    REFUSED(EQAT_UNSUPPORTED, "quantization_config.mode: found \"mxfp4\", expected affine",
            "{\"quantization\": {\"bits\": 4, \"group_size\": 32, \"mode\": \"mxfp4\"}}", tensors,
            3, OUT, IN);
}
END_TEST

/* What a configuration says that would be read wrongly. */
START_TEST(configurations_that_are_refused)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"\"quant_method\": \"awq\", \"bits\": 8", "bits: found 8, expected 4"},
        {"\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 0", "group_size: found 0"},
        {"\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 32, \"zero_point\": false",
         "zero_point: found false, expected true"},
        {"\"quant_method\": \"awq\", \"version\": \"gemv\"",
         "version: found \"gemv\", expected gemm"},
        {"\"quant_method\": \"compressed-tensors\", \"format\": \"float-quantized\"",
         "format: found \"float-quantized\", expected pack-quantized"},
        {"\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\"",
         "config_groups: found nothing"},
        {"\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "
         "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, \"strategy\": "
         "\"tensor\"}}}",
         "strategy: found \"tensor\", expected group or channel"},
        {"\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "
         "\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, \"strategy\": "
         "\"group\", "
         "\"group_size\": 32}, \"input_activations\": {\"num_bits\": 8}}}",
         "input_activations: found"},
        {"\"quant_method\": \"auto-round\", \"packing_format\": \"auto_round:fp8\"",
         "packing_format: found \"auto_round:fp8\", expected auto_round:gptqmodel"},
        {"\"quant_method\": \"auto-round\", \"packing_format\": \"auto_round\", \"data_type\": "
         "\"mx_fp\"",
         "data_type: found \"mx_fp\", expected int"},
    };
    char text[512];
    snprintf(text, sizeof text, "{\"quantization_config\": {%s}}", cases[_i].text);
    json_t *json = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(json);
    eqi_packing packing;
    ck_assert_int_eq(eqi_packing_parse(ctx, &packing, json, "config.json"), EQAT_UNSUPPORTED);
    ck_assert_msg(strstr(ctx->error, cases[_i].says) != NULL, "%s", ctx->error);
    json_decref(json);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("writers");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, decoded_by_others, 0, (int)EQI_COUNT(writers));
    tcase_add_loop_test(c, reference_checkpoints, 0, 4);
    tcase_add_test(c, bad_reference_checkpoints);
    tcase_add_test(c, padded_compressed_tensors);
    tcase_add_test(c, biases_of_mlx);
    tcase_add_loop_test(c, configurations_that_are_refused, 0, 10);
    return run_case("writers", c, CK_FORK_GETENV);
}
