#include "edits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

#define MOST_BYTES ((size_t)1 << 18) /* of one tensor */

typedef struct edit {
    uint8_t what, where, part, kind;
    uint16_t value;
} edit;

static const struct {
    const char *name;
    size_t width;
} dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I32", 4},     {"I64", 8},
              {"U32", 4}, {"U8", 1},  {"I8", 1},   {"I16", 2}, {"F8_E4M3", 1}, {"BOOL", 1}};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

static const int64_t numbers[] = {-1,
                                  0,
                                  1,
                                  2,
                                  3,
                                  4,
                                  5,
                                  6,
                                  7,
                                  8,
                                  10,
                                  16,
                                  31,
                                  32,
                                  33,
                                  64,
                                  96,
                                  128,
                                  -2,
                                  1 << 24,
                                  4,
                                  2,
                                  12,
                                  24,
                                  9,
                                  255,
                                  INT32_MAX,
                                  (int64_t)1 << 32,
                                  (int64_t)1 << 53,
                                  INT64_MAX / 2,
                                  INT64_MAX,
                                  INT64_MIN};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

static const char *const words[] = {"",
                                    "gptq",
                                    "gptq_v2",
                                    "awq",
                                    "gemm",
                                    "gemv",
                                    "compressed-tensors",
                                    "pack-quantized",
                                    "auto-round",
                                    "auto_round:auto_gptq",
                                    "auto_round:gptqmodel",
                                    "auto_round",
                                    "affine",
                                    "int",
                                    "float",
                                    "group",
                                    "channel",
                                    "Linear",
                                    "model.layers.0.self_attn.q_proj",
                                    "model.layers.0.mlp.up_proj",
                                    "+:.*q_proj",
                                    "-:.*",
                                    "*",
                                    "llama3",
                                    "full_attention",
                                    "../config.json",
                                    "bfloat16",
                                    "0123456789abcdef"};
enum { WORDS = sizeof words / sizeof words[0] };

static const char *const keys[] = {"bits",
                                   "group_size",
                                   "quant_method",
                                   "checkpoint_format",
                                   "sym",
                                   "desc_act",
                                   "dynamic",
                                   "format",
                                   "config_groups",
                                   "group_1",
                                   "weights",
                                   "num_bits",
                                   "strategy",
                                   "targets",
                                   "ignore",
                                   "packing_format",
                                   "extra_config",
                                   "data_type",
                                   "quantization",
                                   "quantization_config",
                                   "mode",
                                   "zero_point",
                                   "version",
                                   "modules_in_block_to_quantize",
                                   "modules_to_not_convert",
                                   "rope_scaling",
                                   "layer_types",
                                   "num_hidden_layers",
                                   "model.layers.0.self_attn.q_proj"};
enum { KEYS = sizeof keys / sizeof keys[0] };

static const char *const suffixes[] = {
    "weight",       "qweight",     "qzeros",        "scales",       "g_idx",
    "biases",       "bias",        "weight_packed", "weight_scale", "weight_zero_point",
    "weight_shape", "weight_g_idx"};
enum { SUFFIXES = sizeof suffixes / sizeof suffixes[0] };

static void must(int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "edits: %s\n", what);
    abort();
}

/* ---- tensors ---- */

static size_t elements(const named_tensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) {
        size_t size = t->shape[i] < 0 ? 0 : (size_t)t->shape[i];
        n = size && n > MOST_BYTES / size ? MOST_BYTES : n * size;
    }
    return n;
}

/* As many bytes as the shape says, within bounds; old ones repeat. */
static void resize(named_tensor *t)
{
    size_t n = elements(t) * t->width;
    if (n > MOST_BYTES) n = MOST_BYTES;
    uint8_t *data = calloc(1, n + 1);
    must(data != NULL, "memory");
    for (size_t i = 0; i < n && t->bytes; i++) data[i] = t->data[i % t->bytes];
    free(t->data);
    t->data = data;
    t->bytes = n;
}

named_tensor *parts_find(parts *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->tensors[i].name, name)) return &p->tensors[i];
    return NULL;
}

static void remove_tensor(parts *p, named_tensor *t)
{
    free(t->name);
    free(t->data);
    memmove(t, t + 1, (size_t)(p->tensors + p->count - (t + 1)) * sizeof *t);
    p->count--;
}

static named_tensor *append(parts *p)
{
    p->tensors = realloc(p->tensors, (p->count + 1) * sizeof *p->tensors);
    must(p->tensors != NULL, "memory");
    named_tensor *t = &p->tensors[p->count++];
    *t = (named_tensor){0};
    return t;
}

static void set_dtype(named_tensor *t, const char *name)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (!strcmp(dtypes[i].name, name)) {
            t->dtype = dtypes[i].name;
            t->width = dtypes[i].width;
            return;
        }
    must(0, name);
}

named_tensor *parts_add(parts *p, const char *name, const char *dtype, int64_t rows,
                        int64_t columns)
{
    named_tensor *t = parts_find(p, name);
    if (t) remove_tensor(p, t);
    t = append(p);
    t->name = strdup(name);
    set_dtype(t, dtype);
    t->ndim = 2;
    t->shape[0] = rows;
    t->shape[1] = columns;
    resize(t);
    return t;
}

/* ---- files ---- */

static void read_tensor(parts *p, const char *name, const json_t *entry, const uint8_t *data)
{
    const json_t *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    size_t from = (size_t)json_integer_value(json_array_get(offsets, 0)),
           to = (size_t)json_integer_value(json_array_get(offsets, 1));
    named_tensor *t = append(p);
    t->name = strdup(name);
    set_dtype(t, json_string_value(json_object_get(entry, "dtype")));
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; i++)
        t->shape[i] = json_integer_value(json_array_get(shape, (size_t)i));
    t->bytes = to - from;
    t->data = malloc(t->bytes + 1);
    must(t->data != NULL, "memory");
    memcpy(t->data, data + from, t->bytes);
}

void parts_read(parts *p, const char *json_path, const char *tensors_path)
{
    *p = (parts){.metadata = !json_path};
    size_t size;
    uint64_t length;
    char *file = read_file(tensors_path, &size);
    memcpy(&length, file, sizeof length);
    json_t *header = json_loadb(file + 8, (size_t)length, 0, NULL), *entry;
    must(header != NULL, tensors_path);
    const char *name;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0)
            read_tensor(p, name, entry, (uint8_t *)file + 8 + length);
        else if (!json_path)
            p->json = json_deep_copy(entry);
    }
    json_decref(header);
    free(file);
    if (json_path) p->json = json_load_file(json_path, 0, NULL);
    must(p->json != NULL, json_path ? json_path : "metadata");
}

static json_t *header_of(const parts *p)
{
    json_t *header = json_object();
    size_t at = 0;
    if (p->metadata) json_object_set(header, "__metadata__", p->json);
    for (size_t i = 0; i < p->count; i++) {
        const named_tensor *t = &p->tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->ndim; d++)
            json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->dtype, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)(at + t->bytes)));
        at += t->bytes;
    }
    return header;
}

void parts_write(const parts *p, const char *json_path, const char *tensors_path)
{
    json_t *header = header_of(p);
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t length = strlen(text);
    FILE *f = fopen(tensors_path, "wb");
    must(f != NULL, tensors_path);
    fwrite(&length, sizeof length, 1, f);
    fwrite(text, 1, (size_t)length, f);
    for (size_t i = 0; i < p->count; i++) fwrite(p->tensors[i].data, 1, p->tensors[i].bytes, f);
    must(fclose(f) == 0, tensors_path);
    free(text);
    json_decref(header);
    if (json_path) must(json_dump_file(p->json, json_path, 0) == 0, json_path);
}

void parts_copy(parts *to, const parts *from)
{
    *to = *from;
    to->json = json_deep_copy(from->json);
    to->tensors = malloc((from->count + 1) * sizeof *to->tensors);
    must(to->json && to->tensors, "memory");
    for (size_t i = 0; i < from->count; i++) {
        named_tensor *t = &to->tensors[i];
        *t = from->tensors[i];
        t->name = strdup(t->name);
        t->data = malloc(t->bytes + 1);
        must(t->name && t->data, "memory");
        memcpy(t->data, from->tensors[i].data, t->bytes);
    }
}

void parts_free(parts *p)
{
    while (p->count) remove_tensor(p, &p->tensors[p->count - 1]);
    free(p->tensors);
    json_decref(p->json);
}

/* ---- edits of the object ---- */

static json_t *value_of(const parts *p, const edit *e)
{
    int64_t number = e->kind & 8 ? (int16_t)e->value : numbers[e->value % NUMBERS];
    if (p->metadata) {
        char text[24];
        snprintf(text, sizeof text, e->kind & 4 ? "%016llx" : "%lld", (long long)number);
        return json_string(e->kind & 1 ? words[e->value % WORDS] : text);
    }
    switch (e->kind & 7) {
    case 0:
    case 1: return json_integer((json_int_t)number);
    case 2: return json_real((double)number * 1e-3);
    case 3:
    case 4: return json_string(words[e->value % WORDS]);
    case 5: return e->value % 3 ? json_boolean(e->value % 3 - 1) : json_null();
    case 6: return json_pack("[s]", words[e->value % WORDS]);
    default: return json_pack("{s:i}", keys[e->value % KEYS], (int)number);
    }
}

/* The object, or the one inside it, that holds member `*left` of all in order, and its key. */
static json_t *holder(json_t *in, size_t *left, const char **key)
{
    json_t *value, *found = NULL;
    const char *name;
    json_object_foreach(in, name, value)
    {
        if (!(*left)--) {
            *key = name;
            return in;
        }
        if (json_is_object(value) && (found = holder(value, left, key))) return found;
    }
    return NULL;
}

static size_t members(const json_t *in)
{
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)in, name, value) n += 1 + members(value);
    return n;
}

static json_t *pick(const parts *p, const edit *e, const char **key)
{
    size_t n = members(p->json), at = n ? e->where % n : 0;
    return n ? holder(p->json, &at, key) : NULL;
}

static void change_member(parts *p, const edit *e)
{
    const char *key;
    json_t *in = pick(p, e, &key);
    if (in) json_object_set_new(in, key, value_of(p, e));
}

static void remove_member(parts *p, const edit *e)
{
    const char *key;
    json_t *in = pick(p, e, &key);
    if (in) json_object_del(in, key);
}

static void add_member(parts *p, const edit *e)
{
    const char *key;
    json_t *in = pick(p, e, &key);
    if (in) json_object_set_new(in, keys[e->part % KEYS], value_of(p, e));
}

/* ---- edits of a tensor ---- */

static named_tensor *at(parts *p, const edit *e)
{
    return p->count ? &p->tensors[e->where % p->count] : NULL;
}

static void change_shape(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    if (!t || !t->ndim) return;
    t->shape[e->part % t->ndim] = e->kind & 1 ? numbers[e->value % NUMBERS] : e->value;
    resize(t);
}

static void change_dims(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    if (!t) return;
    t->ndim = e->part % (EDIT_DIMS + 1);
    for (int i = 0; i < t->ndim; i++)
        if (!t->shape[i]) t->shape[i] = 1 + e->value % 40;
    resize(t);
}

static void change_dtype(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    if (!t) return;
    set_dtype(t, dtypes[e->part % DTYPES].name);
    resize(t);
}

static void drop_tensor(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    if (t) remove_tensor(p, t);
}

static void rename_tensor(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    if (!t) return;
    const char *dot = strrchr(t->name, '.'), *suffix = suffixes[e->part % SUFFIXES];
    size_t stem = dot ? (size_t)(dot - t->name) : strlen(t->name);
    char *name = malloc(stem + strlen(suffix) + 2);
    must(name != NULL, "memory");
    sprintf(name, "%.*s.%s", (int)stem, t->name, suffix);
    free(t->name);
    t->name = name;
}

static void change_data(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    if (t && t->bytes) t->data[e->value % t->bytes] = e->part;
}

/* Widths that numbers of all kinds have. */
static void fill_data(parts *p, const edit *e)
{
    static const double special[] = {0, -0.0, 1, -1, 1e30, 6e-8, 65504};
    named_tensor *t = at(p, e);
    if (!t) return;
    if (e->kind & 1 && t->width == 4) {
        float x = e->kind & 2 ? strtof("nan", NULL) : (float)special[e->value % 7];
        for (size_t i = 0; i + 4 <= t->bytes; i += 4) memcpy(t->data + i, &x, 4);
    } else {
        memset(t->data, e->part, t->bytes);
    }
}

static void twist_data(parts *p, const edit *e)
{
    named_tensor *t = at(p, e);
    for (size_t i = 0; t && i + 1 < t->bytes; i += 2)
        t->data[i] ^= (uint8_t)(e->part * (i / 2 + 1) >> (e->value & 7));
}

void parts_edit(parts *p, const uint8_t *script, size_t n)
{
    static void (*const edits[])(parts *, const edit *) = {
        change_member, remove_member, add_member,  change_shape, change_dims, change_dtype,
        drop_tensor,   rename_tensor, change_data, fill_data,    twist_data,
    };
    for (; n >= 6; n -= 6, script += 6) {
        const edit e = {script[0], script[1], script[2], script[5],
                        (uint16_t)(script[3] | script[4] << 8)};
        edits[e.what % (sizeof edits / sizeof edits[0])](p, &e);
    }
}
