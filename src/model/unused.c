#include <stdlib.h>
#include <string.h>

#include "model/model.h"

#define PATTERNS 12
#define PATTERN_TEXT 96

/* Names with * in place of the numbers between dots, each with how many tensors have it. */
typedef struct pattern {
    char text[PATTERN_TEXT];
    size_t count;
} pattern;

typedef struct patterns {
    pattern list[PATTERNS];
    size_t n, others; /* tensors of patterns that did not fit */
} patterns;

static void make_pattern(const char *name, char text[PATTERN_TEXT])
{
    size_t at = 0;
    for (bool start = true; *name && at + 1 < PATTERN_TEXT;) {
        size_t digits = start ? strspn(name, "0123456789") : 0;
        bool number = digits && (name[digits] == '.' || !name[digits]);
        start = !number && *name == '.';
        text[at++] = number ? '*' : *name;
        name += number ? digits : 1;
    }
    text[at] = 0;
}

static void add(patterns *p, const char *name)
{
    char text[PATTERN_TEXT];
    size_t i = 0;
    make_pattern(name, text);
    while (i < p->n && strcmp(p->list[i].text, text) != 0) i++;
    if (i == PATTERNS) {
        p->others++;
        return;
    }
    if (i == p->n) memcpy(p->list[p->n++].text, text, sizeof text);
    p->list[i].count++;
}

static void tell(const eqat_model *m, const patterns *p, eqi_log_level level)
{
    char line[PATTERNS * (PATTERN_TEXT + 24)] = "";
    for (size_t i = 0; i < p->n; i++) {
        size_t at = strlen(line);
        snprintf(line + at, sizeof line - at, "%s%s (%zu)", at ? ", " : "", p->list[i].text,
                 p->list[i].count);
    }
    size_t at = strlen(line);
    if (p->others) snprintf(line + at, sizeof line - at, " and %zu others", p->others);
    if (p->n)
        eqi_log(m->ctx, level, "%s: tensors that the model does not use: %.800s", m->path, line);
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && !strcmp(name + n - k, end);
}

static bool begins_with(const char *name, const char *start)
{
    return !strncmp(name, start, strlen(start));
}

/* Buffers that are computed, and scales of a cache that nobody keeps here. */
static bool is_buffer(const char *name)
{
    static const char *const ends[] = {".rotary_emb.inv_freq", ".k_scale", ".v_scale"};
    for (size_t i = 0; i < EQI_COUNT(ends); i++)
        if (ends_with(name, ends[i])) return true;
    return false;
}

/* Where every tensor takes part in the function. */
static bool is_inside(const char *name)
{
    static const char *const starts[] = {"model.layers.", "model.norm.", "model.embed_tokens.",
                                         "lm_head."};
    for (size_t i = 0; i < EQI_COUNT(starts); i++)
        if (begins_with(name, starts[i])) return true;
    return false;
}

/* Some writers of packed models give every linear a bias. */
static eqat_status is_zero(eqat_model *m, const eqi_source_entry *e, bool *zero)
{
    float values[256];
    *zero = eqi_stored_is_float(e->stored) && eqi_stored_block(e->stored) == 1;
    for (int64_t at = 0; *zero && at < e->elements;) {
        int64_t n = e->elements - at < 256 ? e->elements - at : 256;
        EQI_RETURN_IF(eqi_source_read_f32(m->source, e, at, n, values));
        for (int64_t i = 0; i < n; i++) *zero &= values[i] == 0;
        at += n;
    }
    return EQAT_OK;
}

static eqat_status refuse(eqat_model *m, const eqi_source_entry *e)
{
    static const char layers[] = "model.layers.";
    const char *file = eqi_source_path(m->source, e->file);
    long long blocks = m->config.blocks;
    if (begins_with(e->name, layers) && atoll(e->name + sizeof layers - 1) >= blocks)
        return eqi_fail(m->ctx, EQAT_FORMAT,
                        "%s: tensor %.200s: found a block beyond the %lld of num_hidden_layers",
                        file, e->name, blocks);
    return eqi_fail(m->ctx, EQAT_FORMAT,
                    "%s: tensor %.200s: found it, expected none of that name from config.json",
                    file, e->name);
}

eqat_status eqi_model_check_unused(eqat_model *m)
{
    patterns harmless = {.n = 0}, unused = {.n = 0};
    for (size_t i = 0; i < eqi_source_count(m->source); i++) {
        const eqi_source_entry *e = eqi_source_at(m->source, i);
        if (eqi_source_was_expected(m->source, i)) continue;
        bool zero = false;
        if (is_buffer(e->name)) {
            add(&harmless, e->name);
            continue;
        }
        if (is_inside(e->name) && ends_with(e->name, ".bias")) EQI_RETURN_IF(is_zero(m, e, &zero));
        if (is_inside(e->name) && !zero) return refuse(m, e);
        add(zero ? &harmless : &unused, e->name);
    }
    tell(m, &harmless, EQI_LOG_INFO);
    tell(m, &unused, EQI_LOG_WARN);
    return EQAT_OK;
}
