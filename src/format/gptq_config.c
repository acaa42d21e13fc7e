#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eqat/context.h"
#include "format/gptq.h"

bool eqi_gptq_bits(int64_t bits) { return bits == 2 || bits == 3 || bits == 4 || bits == 8; }

eqat_status eqi_gptq_parse_v2(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    const json_t *bits = json_object_get(q, "bits"), *group = json_object_get(q, "group_size");
    const json_t *pack = json_object_get(q, "pack_dtype");
    if (!json_is_integer(bits) || !eqi_gptq_bits(json_integer_value(bits)))
        return eqi_layout_refuse(ctx, path, "bits", bits, "2, 3, 4 or 8");
    if (!json_is_integer(group) ||
        (json_integer_value(group) < 1 && json_integer_value(group) != -1))
        return eqi_layout_refuse(ctx, path, "group_size", group, "a positive number or -1");
    if (json_is_true(json_object_get(q, "desc_act")))
        return eqi_layout_refuse(ctx, path, "desc_act", json_object_get(q, "desc_act"), "false");
    if (json_is_true(json_object_get(q, "lm_head")))
        return eqi_layout_refuse(ctx, path, "lm_head", json_object_get(q, "lm_head"), "false");
    if (json_is_string(pack) && strcmp(json_string_value(pack), "int32") != 0)
        return eqi_layout_refuse(ctx, path, "pack_dtype", pack, "int32");
    out->bits = (int)json_integer_value(bits);
    out->group = json_integer_value(group);
    out->varies = json_object_size(json_object_get(q, "dynamic")) > 0;
    return EQAT_OK;
}

/* The major version of the GPTQModel that wrote the file; -1: another program did. */
static long gptqmodel_version(const json_t *q)
{
    static const char name[] = "gptqmodel:";
    const json_t *list = json_object_get(json_object_get(q, "meta"), "quantizer");
    for (size_t i = 0; i == 0 || i < json_array_size(list); i++) {
        const char *text = json_string_value(json_is_array(list) ? json_array_get(list, i) : list);
        if (text && !strncmp(text, name, strlen(name)))
            return strtol(text + strlen(name), NULL, 10);
    }
    return -1;
}

eqat_status eqi_gptq_parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    long version = gptqmodel_version(q);
    out->less_one = true;
    if (version >= 0) out->borrows = 1u << 2 | 1u << 4 | 1u << 8;
    if (version >= 0 && version < 7) out->borrows |= 1u << 3;
    return eqi_gptq_parse_v2(ctx, q, path, out);
}

/* group_size as config.json says it: -1 can stand for any row. */
bool eqi_covers(int bits, int64_t group, const eqi_layout_linear *l)
{
    return l->q.bits == bits && (group == -1 ? l->q.group == l->in : l->q.group == group);
}

/* bits and group_size of most of them; `dynamic` lists the others. */
void eqi_choose_common(const eqi_layout_linear *linears, size_t n, int *bits, int64_t *group)
{
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        if (!linears[i].q.bits) continue;
        const eqi_quant_desc *q = &linears[i].q;
        int64_t candidates[2] = {q->group, q->group == linears[i].in ? -1 : q->group};
        for (int c = 0; c < 2; c++) {
            size_t count = 0;
            for (size_t j = 0; j < n; j++) count += eqi_covers(q->bits, candidates[c], &linears[j]);
            if (count <= best) continue;
            best = count;
            *bits = q->bits;
            *group = candidates[c];
        }
        if (best == n) break;
    }
}

/* "+:^model\.layers\.0\.self_attn\.q_proj$", the regular expression of exactly this linear. */
static void pattern(char sign, const char *name, char *buffer, size_t size)
{
    size_t at = (size_t)snprintf(buffer, size, "%c:^", sign);
    for (; *name && at + 4 < size; name++) {
        if (*name == '.') buffer[at++] = '\\';
        buffer[at++] = *name;
    }
    snprintf(buffer + at, size - at, "$");
}

static json_t *exception(const eqi_layout_linear *l)
{
    if (!l->q.bits) return json_object();
    int64_t group = l->q.group == l->in ? -1 : l->q.group;
    return json_pack("{s:i, s:I}", "bits", l->q.bits, "group_size", (json_int_t)group);
}

json_t *eqi_gptq_dynamic(const eqi_layout_linear *linears, size_t n, int bits, int64_t group)
{
    json_t *dynamic = json_object();
    bool failed = !dynamic;
    for (size_t i = 0; i < n && !failed; i++) {
        if (eqi_covers(bits, group, &linears[i])) continue;
        char key[256];
        pattern(linears[i].q.bits ? '+' : '-', linears[i].name, key, sizeof key);
        failed = json_object_set_new(dynamic, key, exception(&linears[i])) != 0;
    }
    if (!failed) return dynamic;
    json_decref(dynamic);
    return NULL;
}

/* For transformers, which ignores `dynamic`: the linears that are packed, in a list of lists. */
static json_t *make_modules(const eqi_layout_linear *linears, size_t n)
{
    json_t *names = json_array();
    bool failed = !names;
    for (size_t i = 0; i < n && !failed; i++)
        if (linears[i].q.bits)
            failed = json_array_append_new(names, json_string(linears[i].name)) != 0;
    json_t *out = failed ? NULL : json_pack("[O]", names);
    json_decref(names);
    return out;
}

bool eqi_all_symmetric(const eqi_layout_linear *linears, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (linears[i].q.bits && !linears[i].symmetric) return false;
    return true;
}

json_t *eqi_dense_names(const eqi_layout_linear *linears, size_t n)
{
    json_t *names = json_array();
    for (size_t i = 0; i < n && names; i++)
        if (!linears[i].q.bits && json_array_append_new(names, json_string(linears[i].name)) != 0) {
            json_decref(names);
            return NULL;
        }
    return names;
}

static bool any_dense(const eqi_layout_linear *linears, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!linears[i].q.bits) return true;
    return false;
}

static json_t *make_config(const eqi_layout_linear *linears, size_t n, const char *checkpoint)
{
    int bits = 0;
    int64_t group = 0;
    eqi_choose_common(linears, n, &bits, &group);
    json_t *dynamic = eqi_gptq_dynamic(linears, n, bits, group),
           *modules = make_modules(linears, n);
    json_t *out = !dynamic || !modules
        ? NULL
        : json_pack("{s:i, s:I, s:s, s:s, s:b, s:b, s:b, s:s, s:{s:[s+]}}", "bits", bits,
                    "group_size", (json_int_t)group, "quant_method", "gptq", "checkpoint_format",
                    checkpoint, "desc_act", 0, "sym", (int)eqi_all_symmetric(linears, n), "lm_head",
                    0, "pack_dtype", "int32", "meta", "quantizer", "libeqat:", eqat_version());
    bool failed = !out;
    if (out && json_object_size(dynamic)) failed |= json_object_set(out, "dynamic", dynamic) != 0;
    if (out && any_dense(linears, n))
        failed |= json_object_set(out, "modules_in_block_to_quantize", modules) != 0;
    json_decref(dynamic);
    json_decref(modules);
    if (!failed) return out;
    json_decref(out);
    return NULL;
}

json_t *eqi_gptq_config(const eqi_layout_linear *linears, size_t n)
{
    return make_config(linears, n, "gptq");
}

json_t *eqi_gptq_config_v2(const eqi_layout_linear *linears, size_t n)
{
    return make_config(linears, n, "gptq_v2");
}

void eqi_gptq_warn(eqi_ctx *ctx, const eqi_layout_linear *linears, size_t n)
{
    int bits = 0;
    int64_t group = 0;
    eqi_choose_common(linears, n, &bits, &group);
    for (size_t i = 0; i < n; i++)
        if (linears[i].q.bits && !eqi_covers(bits, group, &linears[i])) {
            eqi_log(ctx, EQI_LOG_WARN,
                    "%s: %d bits in groups of %lld, where most have %d in groups of %lld: "
                    "transformers cannot load such a model; of the formats, auto-round is for it",
                    linears[i].name, linears[i].q.bits, (long long)linears[i].q.group, bits,
                    (long long)group);
            return;
        }
}
