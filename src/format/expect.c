#include <stdio.h>
#include <string.h>

#include "format/source_impl.h"
#include "tensor/tensor.h"

static const char *shape_text(int ndim, const int64_t *shape, char *buffer, size_t size)
{
    size_t at = (size_t)snprintf(buffer, size, "[");
    for (int i = 0; i < ndim && at < size; i++)
        at +=
            (size_t)snprintf(buffer + at, size - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (at < size) snprintf(buffer + at, size - at, "]");
    return buffer;
}

static bool fits(eqi_stored stored, eqi_accepted types)
{
    switch (types) {
    case EQI_ACCEPT_FLOATS: return eqi_stored_is_float(stored) && stored != EQI_STORED_F64;
    case EQI_ACCEPT_STEPS:
        return stored == EQI_STORED_F16 || stored == EQI_STORED_BF16 || stored == EQI_STORED_F32;
    case EQI_ACCEPT_WORDS: return stored == EQI_STORED_I32;
    case EQI_ACCEPT_UNSIGNED: return stored == EQI_STORED_U32;
    case EQI_ACCEPT_INTEGERS: return stored == EQI_STORED_I32 || stored == EQI_STORED_I64;
    }
    return false;
}

/* What writers of such files store. */
static const char *const usual[] = {[EQI_ACCEPT_FLOATS] = "F32, F16 or BF16",
                                    [EQI_ACCEPT_STEPS] = "F16",
                                    [EQI_ACCEPT_WORDS] = "I32",
                                    [EQI_ACCEPT_UNSIGNED] = "U32",
                                    [EQI_ACCEPT_INTEGERS] = "I32"};

eqat_status eqi_source_expect(const eqi_source *source, const char *path, const char *name,
                              eqi_accepted types, int ndim, const int64_t *shape,
                              eqi_stored *stored)
{
    const eqi_source_entry *e = eqi_source_find(source, name);
    char found[EQI_SHAPE_TEXT], expected[EQI_SHAPE_TEXT];
    shape_text(ndim, shape, expected, sizeof expected);
    if (!e)
        return eqi_fail(source->ctx, EQAT_FORMAT, "%s: tensor %s: not found, expected shape %s",
                        path, name, expected);
    const char *file = eqi_source_path(source, e->file);
    if (e->ndim != ndim || memcmp(e->shape, shape, (size_t)ndim * sizeof *shape) != 0)
        return eqi_fail(source->ctx, EQAT_FORMAT, "%s: tensor %s: found shape %s, expected %s",
                        file, name, shape_text(e->ndim, e->shape, found, sizeof found), expected);
    if (!fits(e->stored, types))
        return eqi_fail(source->ctx, EQAT_FORMAT, "%s: tensor %s: found type %s, expected %s", file,
                        name, eqi_stored_name(e->stored), usual[types]);
    if (stored) *stored = e->stored;
    ((eqi_source_item *)e)->expected = true;
    return EQAT_OK;
}

bool eqi_source_was_expected(const eqi_source *source, size_t i)
{
    return i < source->count && source->items[i].expected;
}
