#include "rules.h"

#include <limits.h>
#include <string.h>

#define PATTERN 256

typedef struct rule {
    char pattern[PATTERN];
    bool skip;
    eqat_quantizer_options options;
} rule;

static bool is_skip(const flag_values *given, size_t i)
{
    return !strcmp(given->items[i].name, "skip");
}

/* PATTERN=BITS[,GROUP]; false when it is none. */
static bool parse_rule(const char *value, rule *out)
{
    const char *equals = strrchr(value, '=');
    if (!equals || equals == value || equals - value >= PATTERN) return false;
    char numbers[32], *comma;
    if (snprintf(numbers, sizeof numbers, "%s", equals + 1) >= (int)sizeof numbers) return false;
    snprintf(out->pattern, sizeof out->pattern, "%.*s", (int)(equals - value), value);
    if ((comma = strchr(numbers, ','))) *comma = 0;
    if (eqat_options_set(NULL, "quantizer", &out->options, "bits", numbers) != EQAT_OK)
        return false;
    return !comma ||
        eqat_options_set(NULL, "quantizer", &out->options, "group_size", comma + 1) == EQAT_OK;
}

static bool parse(const flag_values *given, size_t i, const eqat_quantizer_options *base, rule *out)
{
    const char *value = given->items[i].value;
    *out = (rule){.skip = is_skip(given, i), .options = *base};
    if (!out->skip) return parse_rule(value, out);
    return *value && snprintf(out->pattern, PATTERN, "%s", value) < PATTERN;
}

int rules_check(const flag_values *given)
{
    eqat_quantizer_options base;
    eqat_quantizer_options_init(&base, sizeof base);
    rule r;
    for (size_t i = 0; i < given->count; i++) {
        if (parse(given, i, &base, &r)) continue;
        return flags_refuse(
            "--%s: found \"%s\", expected %s", given->items[i].name, given->items[i].value,
            r.skip ? "a pattern" : "PATTERN=BITS or PATTERN=BITS,GROUP: \"*.down_proj=4,32\"");
    }
    return -1;
}

int rules_check_skips(const flag_values *given)
{
    for (size_t i = 0; i < given->count; i++)
        if (!is_skip(given, i))
            return flags_refuse("--rule: found \"%s\" with --bits-per-weight, which chooses the "
                                "bits of all linears, expected --skip alone",
                                given->items[i].value);
    return -1;
}

/* Whether any linear matches, by the library's own matching. */
static eqat_status count_matches(tool *t, const rule *r, eqat_model *model, int64_t *count)
{
    eqat_quantizer *alone;
    eqat_linear_info l = {.struct_size = sizeof l};
    *count = 0;
    eqat_status st = eqat_quantizer_create(t->ctx, &alone, NULL);
    if (st == EQAT_OK) st = eqat_quantizer_add_rule(alone, "*", NULL);
    if (st == EQAT_OK) st = eqat_quantizer_add_rule(alone, r->pattern, &r->options);
    for (int64_t b = 0; st == EQAT_OK && eqat_model_linear_count(model, b) > 0; b++)
        for (int64_t i = 0; st == EQAT_OK && i < eqat_model_linear_count(model, b); i++) {
            st = eqat_model_linear(model, b, i, &l);
            *count += st == EQAT_OK && eqat_quantizer_lookup(alone, l.name, NULL);
        }
    eqat_quantizer_free(alone);
    return st;
}

static eqat_status expect_match(tool *t, const rule *r, eqat_model *model)
{
    int64_t count;
    eqat_linear_info l = {.struct_size = sizeof l};
    eqat_status st = count_matches(t, r, model, &count);
    if (st != EQAT_OK || count) return st;
    st = eqat_model_linear(model, 0, 0, &l);
    if (st != EQAT_OK) return st;
    return tool_fail(t, EQAT_NOT_FOUND,
                     "--%s %s: found no linear that matches, expected the names of some, as %s "
                     "(eqat inspect --all lists them)",
                     r->skip ? "skip" : "rule", r->pattern, l.name);
}

eqat_status rules_add(tool *t, const flag_values *given, const eqat_quantizer_options *base,
                      eqat_model *model, eqat_quantizer *quantizer)
{
    rule r;
    eqat_status st = EQAT_OK;
    for (size_t i = 0; i < given->count && st == EQAT_OK; i++) {
        parse(given, i, base, &r);
        st = expect_match(t, &r, model);
        if (st == EQAT_OK)
            st = eqat_quantizer_add_rule(quantizer, r.pattern, r.skip ? NULL : &r.options);
    }
    return st;
}

json_t *rules_json(const flag_values *given, const eqat_quantizer_options *base)
{
    json_t *list = json_array();
    rule r;
    for (size_t i = 0; i < given->count; i++) {
        parse(given, i, base, &r);
        json_array_append_new(list,
                              json_pack("{s:o,s:i,s:i}", "pattern", tool_text(r.pattern), "bits",
                                        r.skip ? 0 : r.options.bits, "group_size",
                                        r.skip ? 0 : r.options.group_size));
    }
    return list;
}
