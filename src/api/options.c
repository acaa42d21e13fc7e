#include "api/options.h"

#include <stdio.h>
#include <string.h>

size_t eqi_field_size(const eqat_field *f)
{
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_BOOL: return sizeof(bool);
    case EQAT_FIELD_I32:
    case EQAT_FIELD_ENUM: return sizeof(int32_t);
    case EQAT_FIELD_I64: return sizeof(int64_t);
    case EQAT_FIELD_U64: return sizeof(uint64_t);
    case EQAT_FIELD_F64: return sizeof(double);
    case EQAT_FIELD_STRING: return sizeof(const char *);
    case EQAT_FIELD_POINTER:
        return sizeof(void *); /* function pointers have this size on every supported system */
    }
    return 0;
}

void eqi_field_write(const eqat_field *f, void *member, double value)
{
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_BOOL: *(bool *)member = value != 0; break;
    case EQAT_FIELD_I32:
    case EQAT_FIELD_ENUM: *(int32_t *)member = (int32_t)value; break;
    case EQAT_FIELD_I64: *(int64_t *)member = (int64_t)value; break;
    case EQAT_FIELD_U64: *(uint64_t *)member = (uint64_t)value; break;
    case EQAT_FIELD_F64: *(double *)member = value; break;
    default: break;
    }
}

static void write_default(const eqat_field *f, void *member)
{
    if (f->type == EQAT_FIELD_STRING)
        *(const char **)member = f->default_string;
    else if (f->type == EQAT_FIELD_POINTER)
        memset(member, 0, sizeof(void *));
    else
        eqi_field_write(f, member, f->default_number);
}

void eqi_options_defaults(const eqi_struct *table, void *options, size_t struct_size)
{
    if (!options || struct_size < sizeof(size_t)) return;
    memset(options, 0, struct_size);
    *(size_t *)options = struct_size;
    for (size_t i = 0; i < table->count; i++) {
        const eqat_field *f = &table->fields[i];
        if (f->offset + eqi_field_size(f) <= struct_size)
            write_default(f, (char *)options + f->offset);
    }
}

static double read_number(const eqat_field *f, const void *member)
{
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_I32:
    case EQAT_FIELD_ENUM: return *(const int32_t *)member;
    case EQAT_FIELD_I64: return (double)*(const int64_t *)member;
    case EQAT_FIELD_U64: return (double)*(const uint64_t *)member;
    case EQAT_FIELD_F64: return *(const double *)member;
    case EQAT_FIELD_BOOL: return *(const bool *)member;
    default: return 0; /* text and pointers */
    }
}

double eqi_options_number(const eqat_field *f, const void *options)
{
    return read_number(f, (const char *)options + f->offset);
}

static bool is_bounded(const eqat_field *f)
{
    bool number = f->type == EQAT_FIELD_I32 || f->type == EQAT_FIELD_ENUM ||
        f->type == EQAT_FIELD_I64 || f->type == EQAT_FIELD_F64;
    return number && f->minimum < f->maximum;
}

static eqat_status check_bounds(eqi_ctx *ctx, const eqat_field *f, double value)
{
    if (!is_bounded(f) || (value >= f->minimum && value <= f->maximum)) return EQAT_OK;
    return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "%s: found %.10g, expected %.10g to %.10g", f->name,
                    value, f->minimum, f->maximum);
}

void eqi_list_words(const char *const *words, char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; words[i] && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0             ? ""
                                     : words[i + 1] ? ", "
                                                    : " or ",
                                 words[i]);
}

static eqat_status check_word(eqi_ctx *ctx, const eqat_field *f, const char *word)
{
    if (!f->names || !word) return EQAT_OK;
    for (size_t i = 0; f->names[i]; i++)
        if (!strcmp(f->names[i], word)) return EQAT_OK;
    char expected[EQI_WORDS_TEXT] = "";
    eqi_list_words(f->names, expected, sizeof expected);
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: found \"%s\", expected %s", f->name, word,
                    expected);
}

static size_t end_of_fields(const eqi_struct *table)
{
    size_t end = sizeof(size_t);
    for (size_t i = 0; i < table->count; i++) {
        size_t here = table->fields[i].offset + eqi_field_size(&table->fields[i]);
        if (here > end) end = here;
    }
    return end;
}

/* What a caller with newer headers sets where no member is known here must not be lost silently. */
static eqat_status check_zero(eqi_ctx *ctx, const eqi_struct *table, const unsigned char *caller,
                              size_t start, size_t end)
{
    for (size_t i = start; i < end; i++)
        if (caller[i])
            return eqi_fail(
                ctx, EQAT_UNSUPPORTED,
                "%s: found byte %zu set, expected 0: this library's struct has %zu bytes, "
                "and nothing there",
                table->name, i, table->size);
    return EQAT_OK;
}

eqat_status eqi_options_take(eqi_ctx *ctx, const eqi_struct *table, void *out, const void *caller)
{
    eqi_options_defaults(table, out, table->size);
    if (!caller) return EQAT_OK;
    size_t given = *(const size_t *)caller;
    if (given < sizeof(size_t))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: struct_size: found %zu, expected at least %zu: call the init function "
                        "first",
                        table->name, given, sizeof(size_t));
    size_t end = table->reserved + table->reserved_size;
    EQI_RETURN_IF(check_zero(ctx, table, caller, table->reserved, end < given ? end : given));
    EQI_RETURN_IF(check_zero(ctx, table, caller, end_of_fields(table), given));
    for (size_t i = 0; i < table->count; i++) {
        const eqat_field *f = &table->fields[i];
        if (f->offset + eqi_field_size(f) > given) continue;
        memcpy((char *)out + f->offset, (const char *)caller + f->offset, eqi_field_size(f));
        const char *member = (const char *)out + f->offset;
        EQI_RETURN_IF(check_bounds(ctx, f, read_number(f, member)));
        if (f->type == EQAT_FIELD_STRING)
            EQI_RETURN_IF(check_word(ctx, f, *(const char *const *)(const void *)member));
    }
    return EQAT_OK;
}

eqat_status eqi_options_give(eqi_ctx *ctx, const char *name, void *caller, const void *full,
                             size_t full_size)
{
    size_t size = *(const size_t *)caller;
    if (size < sizeof size)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: found struct_size %zu, expected its sizeof", name, size);
    memcpy((char *)caller + sizeof size, (const char *)full + sizeof size,
           (size < full_size ? size : full_size) - sizeof size);
    return EQAT_OK;
}
