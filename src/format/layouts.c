#include <stdio.h>
#include <string.h>

#include "format/json_text.h"
#include "format/layout_impl.h"

static const eqi_layout *const rows[] = {
    &eqi_layout_gptq,
    &eqi_layout_gptq_v2,
    &eqi_layout_auto_round,
    &eqi_layout_auto_round_plain,
    &eqi_layout_auto_round_gptq,
    &eqi_layout_awq,
    &eqi_layout_compressed_tensors,
    &eqi_layout_fp16,
    &eqi_layout_mlx,
    &eqi_layout_reference,
};

#define LIST_TEXT 256

size_t eqi_layout_count(void) { return EQI_COUNT(rows); }
const eqi_layout *eqi_layout_at(size_t i) { return rows[i]; }
const eqi_layout *eqi_layout_default(void) { return &eqi_layout_gptq_v2; }

static void add_word(char list[LIST_TEXT], const char *word)
{
    size_t at = strlen(list);
    snprintf(list + at, LIST_TEXT - at, "%s%s", at ? " or " : "", word);
}

const eqi_layout *eqi_layout_find(const char *name)
{
    for (size_t i = 0; i < EQI_COUNT(rows); i++)
        if (rows[i]->write && !strcmp(rows[i]->name, name)) return rows[i];
    return NULL;
}

/* The first row of the quant_method. */
static eqat_status find_method(eqi_ctx *ctx, const json_t *q, const char *path, size_t *first)
{
    const json_t *found = json_object_get(q, "quant_method");
    const char *method = json_string_value(found), *last = "";
    char methods[LIST_TEXT] = "";
    for (size_t i = 0; i < EQI_COUNT(rows); i++) {
        if (!rows[i]->method) continue;
        *first = i;
        if (method && !strcmp(rows[i]->method, method)) return EQAT_OK;
        if (strcmp(rows[i]->method, last) != 0) add_word(methods, rows[i]->method);
        last = rows[i]->method;
    }
    return eqi_layout_refuse(ctx, path, "quant_method", found, methods);
}

static eqat_status recognise(eqi_ctx *ctx, const json_t *q, const char *path,
                             const eqi_layout **out)
{
    size_t i = 0;
    EQI_RETURN_IF(find_method(ctx, q, path, &i));
    const char *method = rows[i]->method, *key = rows[i]->key;
    const json_t *found = json_object_get(q, key);
    const char *value = json_string_value(found);
    char values[LIST_TEXT] = "";
    for (; i < EQI_COUNT(rows) && rows[i]->method && !strcmp(rows[i]->method, method); i++) {
        bool missing = !found || json_is_null(found);
        *out = rows[i];
        if (missing ? rows[i]->implied : value && !strcmp(rows[i]->value, value)) return EQAT_OK;
        add_word(values, rows[i]->value);
    }
    return eqi_layout_refuse(ctx, path, key, found, values);
}

/* MLX has a key of its own and no quant_method. */
static const json_t *own_of_mlx(const json_t *json)
{
    const json_t *q = json_object_get(json, "quantization_config"),
                 *own = json_object_get(json, eqi_layout_mlx.also);
    return json_is_object(own) && !json_object_get(q, "quant_method") ? own : NULL;
}

eqat_status eqi_packing_parse(eqi_ctx *ctx, eqi_packing *out, const json_t *json, const char *path)
{
    *out = (eqi_packing){0};
    const json_t *own = own_of_mlx(json), *q = json_object_get(json, "quantization_config");
    eqi_packing packing = {.layout = own ? &eqi_layout_mlx : NULL};
    if (own) q = own;
    if (!q || json_is_null(q)) return EQAT_OK;
    if (!own) EQI_RETURN_IF(recognise(ctx, q, path, &packing.layout));
    EQI_RETURN_IF(packing.layout->parse(ctx, q, path, &packing));
    *out = packing;
    return EQAT_OK;
}

/* Without a quantization_config nothing may be packed but by the reference implementation, which
 * writes none. */
static eqat_status expect_unpacked(eqi_packing *packing, const eqi_source *source, const char *path,
                                   const eqi_layout_linear *l)
{
    if (eqi_layout_tensor_of(source, l, eqi_layout_reference.mark))
        packing->layout = &eqi_layout_reference;
    for (size_t i = 0; i < EQI_COUNT(rows) && !packing->layout; i++) {
        const eqi_source_entry *e =
            rows[i]->mark ? eqi_layout_tensor_of(source, l, rows[i]->mark) : NULL;
        if (e)
            return eqi_fail(source->ctx, EQAT_FORMAT,
                            "%s: tensor %s: expected a quantization_config in config.json", path,
                            e->name);
    }
    return EQAT_OK;
}

eqat_status eqi_packing_expect(eqi_packing *packing, const eqi_source *source, const char *path,
                               eqi_layout_linear *l)
{
    l->q = (eqi_quant_desc){0};
    if (!packing->layout) EQI_RETURN_IF(expect_unpacked(packing, source, path, l));
    const eqi_layout *layout = packing->layout;
    if (!layout || !eqi_layout_tensor_of(source, l, layout->mark)) return EQAT_OK;
    layout->describe(packing, source, l);
    if (!l->q.bits) return EQAT_OK;
    EQI_RETURN_IF(layout->check(source->ctx, l));
    if (l->in % l->q.group)
        return eqi_fail(source->ctx, EQAT_FORMAT,
                        "%s: %s: found group_size %lld, expected a divisor of %lld", path, l->name,
                        (long long)l->q.group, (long long)l->in);
    return eqi_layout_expect(layout, source, path, l);
}
