#include <stdio.h>

#include "format/json_text.h"
#include "format/layout_impl.h"

#define NAME 128 /* room for the full name of a tensor */

static void full_name(const eqi_layout_linear *l, const char *suffix, char name[NAME])
{
    snprintf(name, NAME, "%s.%s", l->name, suffix);
}

const eqi_source_entry *eqi_layout_tensor_of(const eqi_source *source, const eqi_layout_linear *l,
                                             const char *suffix)
{
    char name[NAME];
    full_name(l, suffix, name);
    return eqi_source_find(source, name);
}

eqat_status eqi_layout_refuse(eqi_ctx *ctx, const char *path, const char *key, const json_t *found,
                              const char *expected)
{
    char text[EQI_JSON_TEXT];
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: quantization_config.%s: found %s, expected %s",
                    path, key, eqi_json_text(found, text), expected);
}

eqat_status eqi_layout_expect(const eqi_layout *layout, const eqi_source *source, const char *path,
                              const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list);
    for (int i = 0; i < n; i++) {
        char name[NAME];
        full_name(l, list[i].suffix, name);
        if (list[i].optional && !eqi_source_find(source, name)) continue;
        EQI_RETURN_IF(eqi_source_expect(source, path, name, list[i].types, list[i].ndim,
                                        list[i].shape, NULL));
    }
    return EQAT_OK;
}

eqat_status eqi_layout_declare(const eqi_layout *layout, eqi_safetensors_writer *writer,
                               const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list);
    for (int i = 0; i < n; i++) {
        char name[NAME];
        full_name(l, list[i].suffix, name);
        EQI_RETURN_IF(
            eqi_safetensors_declare(writer, name, list[i].stored, list[i].ndim, list[i].shape));
    }
    return EQAT_OK;
}

int64_t eqi_layout_bytes(const eqi_layout *layout, const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list);
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        int64_t elements = 1;
        for (int d = 0; d < list[i].ndim; d++) elements *= list[i].shape[d];
        bytes += (int64_t)eqi_stored_bytes(list[i].stored, elements);
    }
    return bytes;
}
