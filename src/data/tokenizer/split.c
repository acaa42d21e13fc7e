#include "data/tokenizer/split.h"

#include "data/tokenizer/bpe_cut.h"
#include "data/tokenizer/utf8.h"

typedef struct job {
    eqi_split *split;
    eqi_bpe *bpe;
    eqi_ids *out;
} job;

static eqat_status run(const job *j, size_t stage, const char *s, size_t n, bool at_start);

void eqi_split_release(eqi_ctx *ctx, eqi_split *split)
{
    for (size_t i = 0; i < split->count; i++) eqi_bytes_free(ctx, &split->stages[i].scratch);
}

void eqi_split_free(eqi_ctx *ctx, eqi_split *split)
{
    eqi_split_release(ctx, split);
    for (size_t i = 0; i < split->count; i++) eqi_regex_free(ctx, split->stages[i].regex);
    split->count = 0;
}

/* Receives a text as a row of parts, matches and what lies between, and joins or drops them as the
 * behavior says. */
typedef struct parts {
    const job *job;
    size_t stage;
    const char *s;
    bool at_start;
    eqi_behavior behavior;
    bool held, held_match; /* a part that may still grow */
    size_t start, end;
} parts;

static eqat_status emit(const parts *p, size_t start, size_t end)
{
    return start < end
        ? run(p->job, p->stage + 1, p->s + start, end - start, p->at_start && start == 0)
        : EQAT_OK;
}

static eqat_status hold(parts *p, size_t start, size_t end, bool match)
{
    bool had = p->held;
    size_t from = p->start, to = p->end;
    p->held = true;
    p->held_match = match;
    p->start = start;
    p->end = end;
    return had ? emit(p, from, to) : EQAT_OK;
}

static eqat_status part(parts *p, size_t start, size_t end, bool match)
{
    switch (p->behavior) {
    case EQI_ISOLATED: return emit(p, start, end);
    case EQI_REMOVED: return match ? EQAT_OK : emit(p, start, end);
    case EQI_CONTIGUOUS:
        if (!p->held || p->held_match != match) return hold(p, start, end, match);
        p->end = end;
        return EQAT_OK;
    case EQI_MERGED_WITH_PREVIOUS:
        if (!match || !p->held || p->held_match) return hold(p, start, end, match);
        p->end = end;
        p->held_match = true;
        return EQAT_OK;
    default:
        if (match) return hold(p, start, end, true);
        if (p->held) {
            p->held = false;
            start = p->start;
        }
        return emit(p, start, end);
    }
}

static eqat_status finish(parts *p)
{
    if (!p->held) return EQAT_OK;
    p->held = false;
    return emit(p, p->start, p->end);
}

static eqat_status by_pattern(parts *p, const eqi_stage *k, size_t n)
{
    eqi_matches m = {.s = p->s, .n = n};
    size_t done = 0;
    for (;;) {
        bool found;
        EQI_RETURN_IF(eqi_regex_next(k->regex, &m, &found));
        if (!found) break;
        if (done != m.start) EQI_RETURN_IF(part(p, done, m.start, k->invert));
        EQI_RETURN_IF(part(p, m.start, m.end, !k->invert));
        done = m.end;
    }
    if (done != n) EQI_RETURN_IF(part(p, done, n, k->invert));
    return finish(p);
}

static eqat_status by_class(parts *p, bool (*is)(uint32_t), size_t n)
{
    size_t done = 0;
    for (size_t i = 0, step; i < n; i += step) {
        if (!is(eqi_utf8_get(p->s + i, &step))) continue;
        if (done < i) EQI_RETURN_IF(part(p, done, i, false));
        done = i + step;
        EQI_RETURN_IF(part(p, i, done, true));
    }
    if (done < n) EQI_RETURN_IF(part(p, done, n, false));
    return finish(p);
}

static eqat_status metaspace(const job *j, size_t stage, const char *s, size_t n, bool at_start)
{
    eqi_ctx *ctx = j->bpe->ctx;
    eqi_stage *k = &j->split->stages[stage];
    eqi_bytes *b = &k->scratch;
    b->size = 0;
    bool begins =
        s[0] == ' ' || (n >= k->space_length && memcmp(s, k->space, k->space_length) == 0);
    if (!begins &&
        (k->prepend == EQI_PREPEND_ALWAYS || (k->prepend == EQI_PREPEND_FIRST && at_start)))
        EQI_RETURN_IF(eqi_bytes_append(ctx, b, k->space, k->space_length));
    for (size_t i = 0; i < n;) {
        const char *p = memchr(s + i, ' ', n - i);
        size_t to = p ? (size_t)(p - s) : n;
        EQI_RETURN_IF(eqi_bytes_append(ctx, b, s + i, to - i));
        if (p) EQI_RETURN_IF(eqi_bytes_append(ctx, b, k->space, k->space_length));
        i = to + (p != NULL);
    }
    if (!k->split) return run(j, stage + 1, b->data, b->size, at_start);
    parts p = {.job = j,
               .stage = stage,
               .s = b->data,
               .at_start = at_start,
               .behavior = EQI_MERGED_WITH_NEXT};
    size_t done = 0;
    for (size_t i = 0; i + k->space_length <= b->size;) {
        const char *q = memmem(b->data + i, b->size - i, k->space, k->space_length);
        if (!q) break;
        i = (size_t)(q - b->data);
        if (done < i) EQI_RETURN_IF(part(&p, done, i, false));
        done = i + k->space_length;
        EQI_RETURN_IF(part(&p, i, done, true));
        i = done;
    }
    if (done < b->size) EQI_RETURN_IF(part(&p, done, b->size, false));
    return finish(&p);
}

static eqat_status byte_level(const job *j, eqi_stage *k, const char *s, size_t n)
{
    if (k->prepend == EQI_PREPEND_ALWAYS && s[0] != ' ') {
        k->scratch.size = 0;
        EQI_RETURN_IF(eqi_bytes_append(j->bpe->ctx, &k->scratch, " ", 1));
        EQI_RETURN_IF(eqi_bytes_append(j->bpe->ctx, &k->scratch, s, n));
        s = k->scratch.data;
        n = k->scratch.size;
    }
    if (!k->regex) return eqi_bpe_word(j->bpe, s, n, j->out);
    eqi_matches m = {.s = s, .n = n};
    size_t done = 0;
    for (;;) {
        bool found;
        EQI_RETURN_IF(eqi_regex_next(k->regex, &m, &found));
        size_t start = found ? m.start : n;
        if (done < start) EQI_RETURN_IF(eqi_bpe_word(j->bpe, s + done, start - done, j->out));
        if (!found) return EQAT_OK;
        EQI_RETURN_IF(eqi_bpe_word(j->bpe, s + start, m.end - start, j->out));
        done = m.end;
    }
}

static eqat_status run(const job *j, size_t stage, const char *s, size_t n, bool at_start)
{
    if (stage == j->split->count) return eqi_bpe_text(j->bpe, s, n, j->out);
    eqi_stage *k = &j->split->stages[stage];
    parts p = {.job = j, .stage = stage, .s = s, .at_start = at_start, .behavior = k->behavior};
    switch (k->kind) {
    case EQI_STAGE_PATTERN: return by_pattern(&p, k, n);
    case EQI_STAGE_DIGITS: return by_class(&p, eqi_char_is_numeric, n);
    case EQI_STAGE_PUNCTUATION: return by_class(&p, eqi_char_is_punctuation, n);
    case EQI_STAGE_WHITESPACE_SPLIT: return by_class(&p, eqi_char_is_space, n);
    case EQI_STAGE_METASPACE: return metaspace(j, stage, s, n, at_start);
    default: return byte_level(j, k, s, n);
    }
}

eqat_status eqi_split_encode(eqi_split *split, eqi_bpe *bpe, const char *s, size_t n, bool at_start,
                             eqi_ids *out)
{
    job j = {.split = split, .bpe = bpe, .out = out};
    return n ? run(&j, 0, s, n, at_start) : EQAT_OK;
}
