#include "data/sample.h"

#include <stddef.h>

#include "api/options.h"

static const eqat_field sample_fields[] = {
    EQI_FIELD_PLAIN(eqat_sample, ids, EQAT_FIELD_POINTER, "int32_t [T]"),
    EQI_FIELD_PLAIN(eqat_sample, labels, EQAT_FIELD_POINTER, "int32_t [T]"),
    EQI_FIELD_PLAIN(eqat_sample, positions, EQAT_FIELD_POINTER, "int32_t [T]"),
    EQI_FIELD_PLAIN(eqat_sample, segments, EQAT_FIELD_POINTER, "int32_t [T]"),
    EQI_FIELD_PLAIN(eqat_sample, embeddings, EQAT_FIELD_POINTER, "float [T, H]"),
};

const eqi_struct eqi_struct_sample = EQI_STRUCT(eqat_sample, "sample", sample_fields);

/* The arrays of whole numbers. */
static const struct {
    int32_t field;
    size_t offset;
    const char *name;
    int64_t least;
    bool in_vocab;
} whole[] = {
    {EQAT_SAMPLE_IDS, offsetof(eqat_sample, ids), "id", 0, true},
    {EQAT_SAMPLE_LABELS, offsetof(eqat_sample, labels), "label", INT32_MIN, true},
    {EQAT_SAMPLE_POSITIONS, offsetof(eqat_sample, positions), "position", 0, false},
    {EQAT_SAMPLE_SEGMENTS, offsetof(eqat_sample, segments), "segment", INT32_MIN, false},
};

static int32_t **array(const eqat_sample *s, size_t i)
{
    return (int32_t **)((char *)s + whole[i].offset);
}

eqat_status eqi_sample_create(eqi_ctx *ctx, eqat_sample *out, int32_t fields, int64_t tokens,
                              int64_t hidden)
{
    *out = (eqat_sample){.struct_size = sizeof *out};
    bool failed = false;
    for (size_t i = 0; i < EQI_COUNT(whole); i++) {
        if (!(fields & whole[i].field)) continue;
        *array(out, i) = eqi_calloc(ctx, (size_t)tokens, sizeof(int32_t), "samples");
        failed |= !*array(out, i);
    }
    if (fields & EQAT_SAMPLE_EMBEDDINGS) {
        out->embeddings =
            eqi_calloc(ctx, (size_t)tokens, (size_t)hidden * sizeof(float), "embeddings");
        failed |= !out->embeddings;
    }
    if (!failed) return EQAT_OK;
    eqi_sample_release(ctx, out);
    return EQAT_OUT_OF_MEMORY;
}

void eqi_sample_release(eqi_ctx *ctx, eqat_sample *s)
{
    for (size_t i = 0; i < EQI_COUNT(whole); i++) eqi_free(ctx, *array(s, i));
    eqi_free(ctx, s->embeddings);
    *s = (eqat_sample){.struct_size = sizeof *s};
}

eqat_status eqi_sample_given(eqi_ctx *ctx, const eqat_sample *given, eqat_sample *out)
{
    return eqi_options_take(ctx, &eqi_struct_sample, out, given);
}

int32_t eqi_sample_fields(const eqat_sample *s)
{
    int32_t fields = s->embeddings ? EQAT_SAMPLE_EMBEDDINGS : 0;
    for (size_t i = 0; i < EQI_COUNT(whole); i++)
        if (*array(s, i)) fields |= whole[i].field;
    return fields;
}

eqat_sample eqi_sample_from(const eqat_sample *s, int64_t first, int64_t hidden)
{
    eqat_sample from = *s;
    for (size_t i = 0; i < EQI_COUNT(whole); i++)
        if (*array(s, i)) *array(&from, i) = *array(s, i) + first;
    if (s->embeddings) from.embeddings = s->embeddings + first * hidden;
    return from;
}

void eqi_sample_replace(eqat_sample *s, const eqat_sample *other)
{
    for (size_t i = 0; i < EQI_COUNT(whole); i++)
        if (*array(s, i) && *array(other, i)) *array(s, i) = *array(other, i);
    if (s->embeddings && other->embeddings) s->embeddings = other->embeddings;
}

void eqi_sample_shift(const int32_t *ids, const int32_t *segments, int64_t time, int32_t *labels)
{
    for (int64_t t = 0; t < time; t++) {
        bool last = t + 1 == time || (segments && segments[t] != segments[t + 1]);
        labels[t] = last ? -1 : ids[t + 1];
    }
}

static eqat_status check(eqi_ctx *ctx, const int32_t *values, size_t i, int64_t time, int64_t vocab,
                         const char *where)
{
    int64_t end = whole[i].in_vocab && vocab > 0 ? vocab : (int64_t)INT32_MAX + 1;
    for (int64_t t = 0; t < time; t++)
        if (values[t] < whole[i].least || values[t] >= end)
            return eqi_fail(ctx, EQAT_FORMAT, "%s, token %lld: found %s %d, expected %lld to %lld",
                            where, (long long)t, whole[i].name, values[t],
                            (long long)whole[i].least, (long long)end - 1);
    return EQAT_OK;
}

eqat_status eqi_sample_check(eqi_ctx *ctx, const eqat_sample *s, int64_t time, int64_t vocab,
                             const char *where)
{
    for (size_t i = 0; i < EQI_COUNT(whole); i++)
        if (*array(s, i)) EQI_RETURN_IF(check(ctx, *array(s, i), i, time, vocab, where));
    return EQAT_OK;
}
