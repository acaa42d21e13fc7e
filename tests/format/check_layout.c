/* What every row of the table of storage layouts owes, whatever its tensors are. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "each_test.h"
#include "format/layout.h"

static const eqi_layout_linear linears[] = {
    {"model.layers.0.mlp.up_proj", 64, 96, {.bits = 4, .group = 32}},
    {"model.layers.0.mlp.down_proj", 96, 64, {.bits = 4, .group = 32}},
    {"model.layers.1.mlp.up_proj", 64, 96, {.bits = 3, .group = 96}},
    {"model.layers.1.mlp.down_proj", 96, 64, {.bits = 0}},
};

/* Arbitrary codes, zero points over the whole range or in the middle, scales that fp16 holds. */
static eqi_packed packed_of(const eqi_layout_linear *l, bool symmetric)
{
    eqi_packed p;
    OK(ctx, eqi_packed_create(ctx, &p, l));
    for (int64_t i = 0; i < l->out * eqi_packed_words(l); i++)
        p.codes[i] = (uint32_t)(i + 1) * 2654435761u ^ (uint32_t)l->in;
    for (int64_t i = 0; i < l->out * eqi_packed_groups(l); i++) {
        p.z[i] = (uint8_t)(symmetric ? 1 << (l->q.bits - 1) : (i * 7 + 3) % (1 << l->q.bits));
        p.s[i] = eqi_f16_to_f32((uint16_t)(0x1400 + 37 * i)) * (i % 3 ? 1 : -1);
    }
    return p;
}

static void same(const eqi_tensor *t, const void *expected)
{
    static unsigned char found[96 * 96 * 4];
    size_t n = (size_t)eqi_view_count(&t->v) * eqi_dtype_size(t->v.dtype);
    OK(ctx, eqi_tensor_download(t, found, n));
    ck_assert_mem_eq(found, expected, n);
}

/* Into a new folder. */
static const char *write_all(const eqi_layout *layout, eqi_layout_linear *all, size_t n,
                             bool symmetric)
{
    const char *folder = fresh_dir();
    eqi_shards *out;
    OK(ctx, eqi_shards_create(ctx, &out, folder, 0, "pt"));
    for (size_t i = 0; i < n; i++) {
        if (!all[i].q.bits) continue;
        eqi_packed p = packed_of(&all[i], symmetric);
        OK(ctx, eqi_layout_survey(ctx, layout, &all[i], &p));
        OK(ctx, eqi_layout_declare(layout, out, &all[i]));
        eqi_packed_free(ctx, &p);
    }
    for (size_t i = 0; i < n; i++) {
        if (!all[i].q.bits) continue;
        eqi_packed p = packed_of(&all[i], symmetric);
        OK(ctx, eqi_layout_write(ctx, layout, out, &all[i], &p));
        eqi_packed_free(ctx, &p);
    }
    OK(ctx, eqi_shards_close(out));
    return folder;
}

/* The values, bit for bit but for the sign of a zero: what a move may change. */
static void same_values(const eqi_layout_linear *l, const eqi_packed *a, const eqi_packed *b)
{
    uint8_t x[96], y[96];
    for (int64_t n = 0; n < l->out; n++) {
        eqi_bits_unpack(a->codes + n * eqi_packed_words(l), l->q.bits, l->in, x);
        eqi_bits_unpack(b->codes + n * eqi_packed_words(l), l->q.bits, l->in, y);
        for (int64_t k = 0; k < l->in; k++) {
            int64_t g = n * eqi_packed_groups(l) + k / l->q.group;
            ck_assert((float)(x[k] - a->z[g]) * a->s[g] == (float)(y[k] - b->z[g]) * b->s[g]);
        }
    }
}

static void read_back(const eqi_layout *layout, eqi_packing *packing, eqi_source *source,
                      const eqi_layout_linear *expected, bool symmetric)
{
    eqi_layout_linear l = {.name = expected->name, .out = expected->out, .in = expected->in};
    OK(ctx, eqi_packing_expect(packing, source, "here", &l));
    ck_assert(l.q.bits == expected->q.bits && l.q.group == expected->q.group);
    if (!l.q.bits) return;
    eqi_packed wanted = packed_of(expected, symmetric), p;
    eqi_weight found = {0};
    OK(ctx, eqi_packing_read(packing, source, &l, &found));
    ck_assert(found.q.bits == l.q.bits && found.q.group == l.q.group);
    OK(ctx, eqi_packed_take(ctx, &p, &l, &found));
    same_values(&l, &p, &wanted);
    if (layout->symmetry != EQI_SYMMETRY_GROUPS && !layout->least_zero) {
        same(found.codes, wanted.codes);
        same(found.s, wanted.s);
        same(found.z, wanted.z);
    }
    eqi_packed_free(ctx, &p);
    eqi_packed_free(ctx, &wanted);
    eqi_weight_release(&found);
    eqi_storage_trim(ctx);
}

static int64_t bytes_of(const eqi_source *source)
{
    int64_t n = 0;
    for (size_t i = 0; i < eqi_source_count(source); i++)
        n += (int64_t)eqi_source_at(source, i)->bytes;
    return n;
}

/* Those of `linears` that the layout holds. */
static size_t fitting(const eqi_layout *layout, eqi_layout_linear all[EQI_COUNT(linears)])
{
    size_t n = 0;
    for (size_t k = 0; k < EQI_COUNT(linears); k++)
        if (!linears[k].q.bits || layout->check(ctx, &linears[k]) == EQAT_OK) all[n++] = linears[k];
    ck_assert_uint_ge(n, 2);
    return n;
}

static void round_trip(const eqi_layout *layout, bool symmetric)
{
    eqi_layout_linear all[EQI_COUNT(linears)];
    size_t n = fitting(layout, all);
    int64_t size = 0;
    const char *folder = write_all(layout, all, n, symmetric);
    for (size_t k = 0; k < n; k++)
        if (all[k].q.bits) size += eqi_layout_bytes(layout, &all[k]);
    json_t *q = layout->config(all, n), *json = json_pack("{s:O}", "quantization_config", q);
    if (layout->also) json_object_set(json, layout->also, q);
    eqi_packing packing;
    OK(ctx, eqi_packing_parse(ctx, &packing, json, "config.json"));
    ck_assert_ptr_eq(packing.layout, layout);
    eqi_source *source;
    OK(ctx, eqi_source_open_safetensors(ctx, &source, folder));
    ck_assert_int_eq(bytes_of(source), size);
    for (size_t k = 0; k < n; k++) read_back(layout, &packing, source, &all[k], symmetric);
    eqi_source_close(source);
    json_decref(q);
    json_decref(json);
}

START_TEST(what_is_written_is_read)
{
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *layout = eqi_layout_at(i);
        if (!layout->write || !layout->config) continue;
        round_trip(layout, false);
        round_trip(layout, true);
    }
}
END_TEST

START_TEST(nothing_packed_without_a_config)
{
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *layout = eqi_layout_at(i);
        if (!layout->write || !layout->config || !strcmp(layout->mark, "qweight")) continue;
        eqi_layout_linear all[EQI_COUNT(linears)];
        const char *folder = write_all(layout, all, fitting(layout, all), false);
        eqi_source *source;
        OK(ctx, eqi_source_open_safetensors(ctx, &source, folder));
        eqi_layout_linear l = all[0];
        ck_assert_int_eq(eqi_packing_expect(&(eqi_packing){0}, source, "here", &l), EQAT_FORMAT);
        char line[256];
        snprintf(line, sizeof line,
                 "here: tensor %s.%s: expected a quantization_config in config.json", l.name,
                 layout->mark);
        ck_assert_str_eq(ctx->error, line);
        eqi_source_close(source);
    }
}
END_TEST

static json_t *config_of(const char *method, const char *key, json_t *value)
{
    return json_pack("{s:{s:s, s:o, s:i, s:i, s:{s:{s:{s:i, s:i, s:s}}}}}", "quantization_config",
                     "quant_method", method, key, value, "bits", 4, "group_size", 32,
                     "config_groups", "group_0", "weights", "num_bits", 4, "group_size", 32,
                     "strategy", "group");
}

START_TEST(rows_are_told_apart)
{
    eqi_packing p;
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *row = eqi_layout_at(i);
        if (!row->method) continue;
        json_t *json = config_of(row->method, row->key, json_string(row->value));
        OK(ctx, eqi_packing_parse(ctx, &p, json, "config.json"));
        ck_assert_ptr_eq(p.layout, row);
        json_decref(json);
        json = config_of(row->method, row->key, json_null());
        eqat_status st = eqi_packing_parse(ctx, &p, json, "config.json");
        if (row->implied) ck_assert_ptr_eq(p.layout, row);
        if (st != EQAT_OK) ck_assert_ptr_null(p.layout);
        json_decref(json);
        ck_assert_ptr_eq(eqi_layout_find(row->name), row->write ? row : NULL);
        ck_assert(!row->write == !row->config);
    }
    ck_assert_ptr_nonnull(eqi_layout_default()->write);
    json_t *json = config_of("gptq", "checkpoint_format", json_string("marlin"));
    ck_assert_int_eq(eqi_packing_parse(ctx, &p, json, "config.json"), EQAT_UNSUPPORTED);
    ck_assert_str_eq(ctx->error,
                     "config.json: quantization_config.checkpoint_format: found "
                     "\"marlin\", expected gptq or gptq_v2");
    json_decref(json);
}
END_TEST

/* ---- zero points less one ---- */

enum { OUT = 32, GROUPS = 2, IN = 32 * GROUPS, WORDS = OUT / 32 * 8 };

static uint8_t zero_of(int n, int g, int bits) { return (uint8_t)((n * 5 + g) % 7 % (1 << bits)); }

/* The stream of zero points of one group less one, which is taken from each of them alone or, with
 * `ones`, from the words. */
static void classic_zeros(uint32_t words[WORDS], int g, int bits, const uint32_t ones[3])
{
    memset(words, 0, WORDS * sizeof *words);
    for (int n = 0; n < OUT; n++)
        for (int b = 0; b < bits; b++) {
            unsigned z = zero_of(n, g, bits) - (ones ? 0u : 1u);
            words[(n * bits + b) / 32] |= (z >> b & 1u) << (n * bits + b) % 32;
        }
    for (int i = 0; ones && i < bits; i++) words[i] -= ones[i % 3];
}

static void write_classic(const char *folder, int bits, const uint32_t ones[3])
{
    static const uint32_t codes[WORDS * GROUPS * OUT];
    uint16_t scales[GROUPS * OUT];
    uint32_t words[WORDS];
    eqi_shards *out;
    for (int i = 0; i < GROUPS * OUT; i++) scales[i] = 0x3c00;
    OK(ctx, eqi_shards_create(ctx, &out, folder, 0, "pt"));
    OK(ctx,
       eqi_shards_declare(out, "l.qweight", EQI_STORED_I32, 2, (int64_t[]){IN / 32 * bits, OUT}));
    OK(ctx, eqi_shards_declare(out, "l.qzeros", EQI_STORED_I32, 2, (int64_t[]){GROUPS, bits}));
    OK(ctx, eqi_shards_declare(out, "l.scales", EQI_STORED_F16, 2, (int64_t[]){GROUPS, OUT}));
    OK(ctx, eqi_shards_write(out, codes, (size_t)(IN / 32 * bits * OUT) * sizeof *codes));
    for (int g = 0; g < GROUPS; g++) {
        classic_zeros(words, g, bits, ones);
        OK(ctx, eqi_shards_write(out, words, (size_t)bits * sizeof *words));
    }
    OK(ctx, eqi_shards_write(out, scales, sizeof scales));
    OK(ctx, eqi_shards_close(out));
}

static void read_classic(const char *folder, int bits, json_t *quantizer)
{
    json_t *json = json_pack("{s:{s:s, s:s, s:i, s:i, s:{s:o}}}", "quantization_config",
                             "quant_method", "gptq", "checkpoint_format", "gptq", "bits", bits,
                             "group_size", IN / GROUPS, "meta", "quantizer", quantizer);
    eqi_packing packing;
    OK(ctx, eqi_packing_parse(ctx, &packing, json, "config.json"));
    eqi_source *source;
    OK(ctx, eqi_source_open_safetensors(ctx, &source, folder));
    eqi_layout_linear l = {.name = "l", .out = OUT, .in = IN};
    OK(ctx, eqi_packing_expect(&packing, source, "here", &l));
    eqi_weight w = {0};
    OK(ctx, eqi_packing_read(&packing, source, &l, &w));
    uint8_t expected[OUT * GROUPS];
    for (int i = 0; i < OUT * GROUPS; i++) expected[i] = zero_of(i / GROUPS, i % GROUPS, bits);
    same(w.z, expected);
    eqi_weight_release(&w);
    eqi_source_close(source);
    json_decref(json);
}

/* GPTQModel takes the one from whole words, a zero point of 0 borrowing from the next: at 3 bits
 * before version 7 alone, by numbers that are not ones there. */
START_TEST(zeros_less_one_by_writer)
{
    static const struct {
        int bits;
        uint32_t ones[3];
    } by_words[] = {{2, {0x55555555, 0x55555555, 0x55555555}},
                    {4, {0x11111111, 0x11111111, 0x11111111}},
                    {8, {0x01010101, 0x01010101, 0x01010101}},
                    {3, {0x24924924, 0x92492492, 0x49249249}}};
    int bits = by_words[_i].bits;
    const uint32_t *ones = by_words[_i].ones;
    const char *folder = fresh_dir();
    write_classic(folder, bits, NULL);
    read_classic(folder, bits, json_pack("[s]", "libeqat:0.1.0"));
    read_classic(folder, bits, json_null());
    if (bits == 3) read_classic(folder, bits, json_pack("[s]", "gptqmodel:7.7.0"));
    folder = fresh_dir();
    write_classic(folder, bits, ones);
    read_classic(folder, bits, json_string("gptqmodel:0.9.0"));
    read_classic(folder, bits, json_pack("[s, s]", "optimum:1.24.0", "gptqmodel:6.0.3"));
    if (bits != 3) read_classic(folder, bits, json_pack("[s]", "gptqmodel:7.7.0"));
}
END_TEST

/* A linear of one group a row is said to have groups where others of that length have several: the
 * engines take the scales of all linears of one entry in the same way. */
START_TEST(rows_that_are_one_group)
{
    static const eqi_layout_linear own[] = {{"a", 32, 64, {.bits = 4, .group = 64}},
                                            {"b", 32, 192, {.bits = 4, .group = 64}},
                                            {"c", 32, 96, {.bits = 4, .group = 96}},
                                            {"d", 32, 64, {.bits = 0}}};
    const eqi_layout *layout = eqi_layout_find("compressed-tensors");
    json_t *config = layout->config(own, 4), *groups = json_object_get(config, "config_groups");
    char *text = json_dumps(groups, JSON_COMPACT | JSON_SORT_KEYS);
#define SCHEME(targets, more)                                                       \
    "{\"input_activations\":null,\"output_activations\":null,\"targets\":[" targets \
    "],\"weights\":{\"dynamic\":false," more ",\"symmetric\":false,\"type\":\"int\"}}"
    ck_assert_str_eq(
        text,
        "{\"group_0\":" SCHEME("\"b\",\"a\"",
                               "\"group_size\":64,\"num_bits\":4,\"strategy\":"
                               "\"group\"") ","
                                            "\"group_1\":" SCHEME("\"c\"",
                                                                  "\"num_bits\":4,\"strategy\":"
                                                                  "\"channel\"") "}");
    free(text);
    json_decref(config);
    config = layout->config(&own[2], 2);
    groups = json_object_get(config, "config_groups");
    ck_assert_int_eq((int)json_object_size(groups), 1);
    json_t *targets = json_object_get(json_object_get(groups, "group_0"), "targets");
    ck_assert_str_eq(json_string_value(json_array_get(targets, 0)), "Linear");
    json_decref(config);
}
END_TEST

/* Engines look at the one or the other. */
START_TEST(awq_names_dense_linears_twice)
{
    static const eqi_layout_linear own[] = {{"a.b", 32, 64, {.bits = 4, .group = 32}},
                                            {"a.c", 32, 64, {.bits = 0}}};
    const eqi_layout *layout = eqi_layout_find("awq");
    json_t *config = layout->config(own, 2),
           *expected = json_pack("{s:[s], s:{s:{}}}", "modules_to_not_convert", "a.c", "dynamic",
                                 "-:^a\\.c$");
    const char *key;
    json_t *value;
    json_object_foreach(expected, key, value)
    {
        char *found = json_dumps(json_object_get(config, key), JSON_COMPACT | JSON_ENCODE_ANY),
             *wanted = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        ck_assert_pstr_eq(found, wanted);
        free(found);
        free(wanted);
    }
    json_decref(config);
    config = layout->config(own, 1);
    ck_assert_ptr_null(json_object_get(config, "dynamic"));
    json_decref(config);
    json_decref(expected);
}
END_TEST

/* ---- moves ---- */

static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Whether any of all moves, tried one by one, brings z into the range. */
static bool can_move(const uint8_t *codes, int n, int z, int top, eqi_zeros zeros)
{
    for (int flip = 0; flip < 2; flip++)
        for (int to = zeros.least; to <= zeros.most; to++) {
            bool fits = true;
            for (int i = 0; i < n; i++) {
                int value = flip ? z - codes[i] : codes[i] - z;
                fits &= value + to >= 0 && value + to <= top;
            }
            if (fits) return true;
        }
    return false;
}

START_TEST(moves_change_no_value)
{
    enum { N = 8 };
    uint64_t state = 1;
    int bits = 2 + _i, top = (1 << bits) - 1, middle = 1 << (bits - 1), moved = 0, kept = 0;
    for (int round = 0; round < 4000; round++) {
        uint8_t codes[N], before[N], z = (uint8_t)(next(&state) % (uint64_t)(top + 1)), was = z;
        int spread = (int)(next(&state) % (uint64_t)(top + 1)), low = (int)(next(&state) % 4);
        for (int i = 0; i < N; i++) {
            int code = low + (int)(next(&state) % (uint64_t)(spread + 1));
            before[i] = codes[i] = (uint8_t)(round % 50 == 0 ? z : code > top ? top : code);
        }
        float s = 0.25f;
        eqi_zeros zeros = round % 2 ? (eqi_zeros){middle, middle} : (eqi_zeros){1, top};
        bool expected = can_move(codes, N, z, top, zeros);
        ck_assert_int_eq(eqi_move_group(codes, N, &z, &s, bits, zeros), expected);
        if (expected) ck_assert(z >= zeros.least && z <= zeros.most);
        for (int i = 0; i < N; i++) {
            ck_assert_int_le(codes[i], top);
            ck_assert((float)(codes[i] - z) * s == (float)(before[i] - was) * 0.25f);
        }
        moved += expected && z != was;
        kept += !expected;
        if (round % 50 == 0) ck_assert(expected);
    }
    ck_assert_int_gt(moved, 100);
    ck_assert_int_gt(kept, 10);
}
END_TEST

START_TEST(scales_that_are_not_finite)
{
    const eqi_layout_linear *l = &linears[0];
    eqi_packed p = packed_of(l, false), again;
    eqi_weight w = {0};
    OK(ctx, eqi_packed_give(ctx, &p, l, &w));
    OK(ctx, eqi_tensor_fill(w.s, (double)NAN));
    ck_assert_int_eq(eqi_packed_take(ctx, &again, l, &w), EQAT_NUMERIC);
    ck_assert_str_eq(ctx->error, "model.layers.0.mlp.up_proj: found NaN, expected finite numbers");
    /* Weights that are 0 stay so with a scale that engines can divide by. */
    OK(ctx, eqi_tensor_fill(w.s, 0));
    OK(ctx, eqi_packed_take(ctx, &again, l, &w));
    uint8_t row[96];
    for (int64_t n = 0; n < l->out; n++) {
        eqi_bits_unpack(again.codes + n * eqi_packed_words(l), l->q.bits, l->in, row);
        for (int64_t k = 0; k < l->in; k++) {
            int64_t g = n * eqi_packed_groups(l) + k / l->q.group;
            ck_assert(row[k] == again.z[g] && again.z[g] == p.z[g] && again.s[g] > 0);
        }
    }
    eqi_weight_release(&w);
    eqi_packed_free(ctx, &p);
    eqi_packed_free(ctx, &again);
}
END_TEST

/* ---- shards ---- */

START_TEST(shards_hold_what_fits)
{
    static const int64_t counts[] = {100, 60, 40, 300, 0, 10};
    static const int files[] = {0, 1, 1, 2, 3, 3};
    eqi_shards *out;
    OK(ctx, eqi_shards_create(ctx, &out, dir, 400, "pt"));
    char name[16];
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "t%d", i);
        OK(ctx, eqi_shards_declare(out, name, EQI_STORED_I32, 1, &counts[i]));
    }
    int32_t data[510];
    for (int i = 0; i < 510; i++) data[i] = i;
    for (int at = 0; at < 510; at += 170) /* pieces that know nothing of tensors */
        OK(ctx, eqi_shards_write(out, data + at, 170 * sizeof *data));
    OK(ctx, eqi_shards_close(out));
    eqi_source *source;
    OK(ctx, eqi_source_open_safetensors(ctx, &source, dir));
    ck_assert_uint_eq(eqi_source_count(source), 6);
    for (int i = 0, at = 0; i < 6; at += (int)counts[i++]) {
        int32_t found[300];
        snprintf(name, sizeof name, "t%d", i);
        const eqi_source_entry *e = eqi_source_find(source, name);
        char file[64];
        snprintf(file, sizeof file, "model-%05d-of-00004.safetensors", files[i] + 1);
        ck_assert_ptr_nonnull(strstr(eqi_source_path(source, e->file), file));
        OK(ctx, eqi_source_read_raw(source, e, 0, (size_t)e->bytes, found));
        ck_assert_mem_eq(found, data + at, (size_t)e->bytes);
    }
    eqi_source_close(source);
}
END_TEST

START_TEST(shards_refuse_other_sizes)
{
    int64_t n = 4;
    for (int more = -1; more < 2; more += 2) {
        eqi_shards *out;
        int32_t data[8] = {0};
        OK(ctx, eqi_shards_create(ctx, &out, fresh_dir(), 0, "pt"));
        OK(ctx, eqi_shards_declare(out, "t", EQI_STORED_I32, 1, &n));
        eqat_status st = eqi_shards_write(out, data, (size_t)(n + more) * sizeof *data);
        if (st == EQAT_OK)
            st = eqi_shards_close(out);
        else
            eqi_shards_discard(out);
        ck_assert_int_eq(st, EQAT_INVALID_ARGUMENT);
    }
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("layout");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, what_is_written_is_read);
    tcase_add_test(c, nothing_packed_without_a_config);
    tcase_add_test(c, rows_are_told_apart);
    tcase_add_loop_test(c, zeros_less_one_by_writer, 0, 4);
    tcase_add_test(c, rows_that_are_one_group);
    tcase_add_test(c, awq_names_dense_linears_twice);
    tcase_add_loop_test(c, moves_change_no_value, 0, 7);
    tcase_add_test(c, scales_that_are_not_finite);
    tcase_add_test(c, shards_hold_what_fits);
    tcase_add_test(c, shards_refuse_other_sizes);
    return run_case("layout", c, CK_FORK_GETENV);
}
