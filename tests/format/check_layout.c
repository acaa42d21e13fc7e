/* What every row of the table of storage layouts owes, whatever its tensors are. */
#include <jansson.h>
#include <math.h>

#include "base/half.h"
#include "each_test.h"
#include "format/layout.h"

static const eqi_layout_linear linears[] = {
    {"model.layers.0.mlp.up_proj", 64, 96, {.bits = 4, .group = 32}},
    {"model.layers.0.mlp.down_proj", 96, 64, {.bits = 4, .group = 32}},
    {"model.layers.1.mlp.up_proj", 64, 96, {.bits = 3, .group = 96}},
    {"model.layers.1.mlp.down_proj", 96, 64, {.bits = 0}},
};

static eqi_tensor *filled(eqi_dtype dtype, int64_t rows, int64_t columns, const void *data)
{
    eqi_tensor *t;
    OK(ctx, eqi_tensor_create(ctx, &t, dtype, 2, (int64_t[]){rows, columns}));
    OK(ctx, eqi_tensor_upload(t, data, (size_t)(rows * columns) * eqi_dtype_size(dtype)));
    return t;
}

/* Arbitrary codes, zero points over the whole range, scales that fp16 holds. */
static eqi_weight weight_of(const eqi_layout_linear *l)
{
    static uint32_t codes[96 * 96];
    static uint8_t z[96 * 96];
    static float s[96 * 96];
    int64_t words = l->in / 32 * l->q.bits, groups = l->in / l->q.group;
    for (int64_t i = 0; i < l->out * words; i++)
        codes[i] = (uint32_t)(i + 1) * 2654435761u ^ (uint32_t)l->in;
    for (int64_t i = 0; i < l->out * groups; i++) {
        z[i] = (uint8_t)((i * 7 + 3) % (1 << l->q.bits));
        s[i] = eqi_f16_to_f32((uint16_t)(0x1400 + 37 * i));
    }
    return (eqi_weight){.codes = filled(EQI_U32, l->out, words, codes),
                        .s = filled(EQI_F32, l->out, groups, s),
                        .z = filled(EQI_U8, l->out, groups, z),
                        .q = l->q};
}

static void release(eqi_weight *w)
{
    eqi_tensor_unref(w->codes);
    eqi_tensor_unref(w->s);
    eqi_tensor_unref(w->z);
    eqi_storage_trim(ctx);
}

static void same(const eqi_tensor *a, const eqi_tensor *b)
{
    static unsigned char x[96 * 96 * 4], y[96 * 96 * 4];
    ck_assert(a->v.dtype == b->v.dtype && eqi_view_same_shape(&a->v, &b->v));
    size_t n = (size_t)eqi_view_count(&a->v) * eqi_dtype_size(a->v.dtype);
    OK(ctx, eqi_tensor_download(a, x, n));
    OK(ctx, eqi_tensor_download(b, y, n));
    ck_assert_mem_eq(x, y, n);
}

static void write_all(const eqi_layout *layout, const char *path)
{
    eqi_safetensors_writer *writer;
    OK(ctx, eqi_safetensors_create(ctx, &writer, path));
    for (size_t i = 0; i < EQI_COUNT(linears); i++)
        if (linears[i].q.bits) OK(ctx, eqi_layout_declare(layout, writer, &linears[i]));
    for (size_t i = 0; i < EQI_COUNT(linears); i++) {
        if (!linears[i].q.bits) continue;
        eqi_weight w = weight_of(&linears[i]);
        OK(ctx, layout->write(ctx, writer, &linears[i], &w));
        release(&w);
    }
    OK(ctx, eqi_safetensors_close(writer));
}

static void read_back(const eqi_packing *packing, eqi_source *source,
                      const eqi_layout_linear *expected)
{
    eqi_layout_linear l = {.name = expected->name, .out = expected->out, .in = expected->in};
    OK(ctx, eqi_packing_expect(packing, source, "here", &l));
    ck_assert(l.q.bits == expected->q.bits && l.q.group == expected->q.group);
    if (!l.q.bits) return;
    eqi_weight w = weight_of(expected), found = {0};
    OK(ctx, packing->layout->read(packing, source, &l, &found));
    ck_assert(found.q.bits == l.q.bits && found.q.group == l.q.group);
    same(found.codes, w.codes);
    same(found.s, w.s);
    same(found.z, w.z);
    release(&w);
    release(&found);
}

static int64_t bytes_of(const eqi_source *source)
{
    int64_t n = 0;
    for (size_t i = 0; i < eqi_source_count(source); i++)
        n += (int64_t)eqi_source_at(source, i)->bytes;
    return n;
}

START_TEST(what_is_written_is_read)
{
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *layout = eqi_layout_at(i);
        if (!layout->write) continue;
        int64_t size = 0;
        for (size_t k = 0; k < EQI_COUNT(linears); k++)
            if (linears[k].q.bits) {
                OK(ctx, layout->check(ctx, &linears[k]));
                size += eqi_layout_bytes(layout, &linears[k]);
            }
        const char *path = scratch("model.safetensors");
        write_all(layout, path);
        json_t *json =
            json_pack("{s:o}", "quantization_config", layout->config(linears, EQI_COUNT(linears)));
        eqi_packing packing;
        OK(ctx, eqi_packing_parse(ctx, &packing, json, "config.json"));
        ck_assert_ptr_eq(packing.layout, layout);
        eqi_source *source;
        OK(ctx, eqi_source_open_safetensors_file(ctx, &source, path));
        ck_assert_int_eq(bytes_of(source), size);
        for (size_t k = 0; k < EQI_COUNT(linears); k++) read_back(&packing, source, &linears[k]);
        eqi_source_close(source);
        json_decref(json);
    }
}
END_TEST

START_TEST(nothing_packed_without_a_config)
{
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *layout = eqi_layout_at(i);
        if (!layout->write) continue;
        const char *path = scratch("model.safetensors");
        write_all(layout, path);
        eqi_source *source;
        OK(ctx, eqi_source_open_safetensors_file(ctx, &source, path));
        eqi_layout_linear l = linears[0];
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
    return json_pack("{s:{s:s, s:o, s:i, s:i}}", "quantization_config", "quant_method", method, key,
                     value, "bits", 4, "group_size", 32);
}

START_TEST(rows_are_told_apart)
{
    eqi_packing p;
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *row = eqi_layout_at(i);
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

START_TEST(steps_that_are_not_finite)
{
    for (size_t i = 0; i < eqi_layout_count(); i++) {
        const eqi_layout *layout = eqi_layout_at(i);
        if (!layout->write) continue;
        eqi_safetensors_writer *writer;
        OK(ctx, eqi_safetensors_create(ctx, &writer, scratch("model.safetensors")));
        OK(ctx, eqi_layout_declare(layout, writer, &linears[0]));
        eqi_weight w = weight_of(&linears[0]);
        OK(ctx, eqi_tensor_fill(w.s, (double)NAN));
        ck_assert_int_eq(layout->write(ctx, writer, &linears[0], &w), EQAT_NUMERIC);
        ck_assert_str_eq(ctx->error,
                         "model.layers.0.mlp.up_proj: found NaN, expected finite numbers");
        release(&w);
        eqi_safetensors_discard(writer);
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
    tcase_add_test(c, steps_that_are_not_finite);
    return run_case("layout", c, CK_FORK_GETENV);
}
