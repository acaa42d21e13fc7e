#include "api/options.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/entry.h"

static const eqi_struct *const structs[] = {
    &eqi_struct_attention,    &eqi_struct_context,    &eqi_struct_model,
    &eqi_struct_quantizer,    &eqi_struct_data,       &eqi_struct_block_ap,
    &eqi_struct_e2e_qp,       &eqi_struct_eval,       &eqi_struct_rtn,
    &eqi_struct_allocate,     &eqi_struct_save,       &eqi_struct_optimizer,
    &eqi_struct_batch,        &eqi_struct_sample,     &eqi_struct_model_info,
    &eqi_struct_linear_info,  &eqi_struct_progress,   &eqi_struct_epoch_report,
    &eqi_struct_stage_report, &eqi_struct_perplexity, &eqi_struct_choose,
};

static const eqi_struct *find_struct(const char *name)
{
    if (!name) return NULL;
    for (size_t i = 0; i < EQI_COUNT(structs); i++)
        if (!strcmp(structs[i]->name, name)) return structs[i];
    return NULL;
}

const char *eqat_options_struct(size_t index)
{
    return index < EQI_COUNT(structs) ? structs[index]->name : NULL;
}

size_t eqat_options_count(const char *struct_name)
{
    const eqi_struct *s = find_struct(struct_name);
    return s ? s->count : 0;
}

size_t eqat_options_size(const char *struct_name)
{
    const eqi_struct *s = find_struct(struct_name);
    return s ? s->size : 0;
}

eqat_status eqat_options_field(const char *struct_name, size_t index, eqat_field *out)
{
    const eqi_struct *s = find_struct(struct_name);
    if (!out) return EQAT_INVALID_ARGUMENT;
    if (!s || index >= s->count) return EQAT_NOT_FOUND;
    size_t n = out->struct_size;
    if (n < sizeof n) return EQAT_INVALID_ARGUMENT;
    eqat_field f = s->fields[index];
    f.struct_size = n;
    memcpy(out, &f, n < sizeof f ? n : sizeof f);
    return EQAT_OK;
}

static bool parse_bool(const char *text, double *out)
{
    static const char *const yes[] = {"on", "true", "1"}, *const no[] = {"off", "false", "0"};
    for (size_t i = 0; i < 3; i++) {
        if (!strcmp(text, yes[i])) return *out = 1, true;
        if (!strcmp(text, no[i])) return *out = 0, true;
    }
    return false;
}

/* strtod of the C locale, whichever the host program has set. */
static double parse_real(const char *text, char **end)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c) return strtod(text, end);
    double value = strtod_l(text, end, c);
    freelocale(c);
    return value;
}

static bool is_among(const char *text, const char *const *names)
{
    for (; *names; names++)
        if (!strcmp(*names, text)) return true;
    return false;
}

eqat_status eqat_options_set(eqat_context *ctx, const char *struct_name, void *options,
                             const char *field, const char *text)
{
    EQI_FPENV_GUARD(); /* text becomes numbers */
    EQI_NEED(ctx, struct_name, options, field);
    const eqi_struct *s = find_struct(struct_name);
    if (!s) return eqi_fail(ctx, EQAT_NOT_FOUND, "options: no struct is named %s", struct_name);
    const eqat_field *f = NULL;
    for (size_t i = 0; i < s->count && !f; i++)
        if (!strcmp(s->fields[i].name, field)) f = &s->fields[i];
    size_t given = *(const size_t *)options;
    if (!f || f->type == EQAT_FIELD_POINTER || f->offset + eqi_field_size(f) > given)
        return eqi_fail(ctx, EQAT_NOT_FOUND, "%s options: no field that text can set is named %s",
                        struct_name, field);
    if (f->type != EQAT_FIELD_STRING) EQI_NEED(ctx, text);
    void *member = (char *)options + f->offset;
    char expected[EQI_WORDS_TEXT] = "";
    double number = 0;
    bool valid = false;
    char *end = NULL;
    errno = 0;
    switch ((eqat_field_type)f->type) {
    case EQAT_FIELD_STRING:
        if (f->names && text) eqi_list_words(f->names, expected, sizeof expected);
        valid = !f->names || !text || is_among(text, f->names);
        if (valid) *(const char **)member = text;
        if (valid) return EQAT_OK;
        break;
    case EQAT_FIELD_BOOL:
        snprintf(expected, sizeof expected, "on or off");
        valid = parse_bool(text, &number);
        break;
    case EQAT_FIELD_ENUM:
        eqi_list_words(f->names, expected, sizeof expected);
        for (int i = 0; f->names[i] && !valid; i++)
            if (!strcmp(f->names[i], text)) number = i, valid = true;
        break;
    case EQAT_FIELD_U64: {
        snprintf(expected, sizeof expected, "a whole number from 0 on");
        unsigned long long v = strtoull(text, &end, 0);
        if (isdigit((unsigned char)text[0]) && *end == 0 && errno == 0) {
            *(uint64_t *)member = v;
            return EQAT_OK;
        }
        break;
    }
    case EQAT_FIELD_I32:
    case EQAT_FIELD_I64:
        snprintf(expected, sizeof expected, "a whole number, %.10g to %.10g", f->minimum,
                 f->maximum);
        number = (double)strtoll(text, &end, 0);
        valid =
            end != text && *end == 0 && errno == 0 && number >= f->minimum && number <= f->maximum;
        break;
    case EQAT_FIELD_F64:
        snprintf(expected, sizeof expected, "a number, %.10g to %.10g", f->minimum, f->maximum);
        number = parse_real(text, &end);
        valid = end != text && *end == 0 && number >= f->minimum && number <= f->maximum;
        break;
    case EQAT_FIELD_POINTER: break;
    }
    if (!valid)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "%s: found \"%s\", expected %s", f->name, text,
                        expected);
    eqi_field_write(f, member, number);
    return EQAT_OK;
}
