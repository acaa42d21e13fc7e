#include "data/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/tokenizer/utf8.h"

struct eqi_regex {
    eqi_ctx *ctx; /* borrowed */
    pcre2_general_context *memory;
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *match;
    pcre2_jit_stack *stack;
    bool jit;
};

/* Alternatives that try a long run and take it back need no stack of their own, but groups do. */
#define JIT_STACK_START (32 * 1024)
#define JIT_STACK_MAX (8 * 1024 * 1024)

/* Groups inside one another, at most: the patterns of real tokenizers have three. PCRE2's own 250
 * take the stack of a small thread. */
#define NEST_MOST 32

/* KiB, where PCRE2 has no code of its own. */
#define HEAP_LIMIT (256 * 1024)

/* Backtracking from one place of the text. Patterns of real tokenizers take a run back once, so
 * that they need a few for each byte; one that needs more than this would not end. */
static uint32_t match_limit(size_t n)
{
    const size_t least = 1000000, per_byte = 64;
    return n < (UINT32_MAX - least) / per_byte ? (uint32_t)(least + per_byte * n) : UINT32_MAX;
}

void eqi_regex_free(eqi_ctx *ctx, eqi_regex *r)
{
    if (!r) return;
    pcre2_match_data_free(r->data);
    pcre2_match_context_free(r->match);
    pcre2_jit_stack_free(r->stack);
    pcre2_code_free(r->code);
    pcre2_general_context_free(r->memory);
    eqi_free(ctx, r);
}

static void *allocate(PCRE2_SIZE size, void *ctx) { return eqi_alloc(ctx, size, "a pattern"); }
static void release(void *p, void *ctx) { eqi_free(ctx, p); }

static eqat_status prepare(eqi_regex *r, const char *pattern, size_t n, const char *where)
{
    int code;
    PCRE2_SIZE at;
    eqi_ctx *ctx = r->ctx;
    r->memory = pcre2_general_context_create(allocate, release, ctx);
    pcre2_compile_context *compile = r->memory ? pcre2_compile_context_create(r->memory) : NULL;
    if (!compile) return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %s: a pattern", where);
    pcre2_set_newline(compile, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(compile, NEST_MOST);
    r->code = pcre2_compile((PCRE2_SPTR)pattern, n, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code,
                            &at, compile);
    pcre2_compile_context_free(compile);
    if (!r->code && code == PCRE2_ERROR_HEAP_FAILED)
        return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %s: a pattern", where);
    if (!r->code) {
        char text[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: found pattern '%.200s', expected a regular expression: %s", where,
                        pattern, text);
    }
    r->data = pcre2_match_data_create(1, r->memory);
    r->match = pcre2_match_context_create(r->memory);
    if (!r->data || !r->match)
        return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %s: a pattern", where);
    pcre2_set_heap_limit(r->match, HEAP_LIMIT);
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    if (r->jit) r->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, r->memory);
    if (r->stack) pcre2_jit_stack_assign(r->match, NULL, r->stack);
    return EQAT_OK;
}

static eqat_status create(eqi_ctx *ctx, eqi_regex **out, const char *pattern, size_t n,
                          const char *where)
{
    eqi_regex *r = eqi_calloc(ctx, 1, sizeof *r, "a pattern");
    if (!r) return EQAT_OUT_OF_MEMORY;
    r->ctx = ctx;
    eqat_status st = prepare(r, pattern, n, where);
    if (st != EQAT_OK) {
        eqi_regex_free(ctx, r);
        return st;
    }
    *out = r;
    return EQAT_OK;
}

eqat_status eqi_regex_create(eqi_ctx *ctx, eqi_regex **out, const char *pattern, size_t n,
                             const char *where)
{
    *out = NULL;
    eqi_bytes text = {0};
    eqat_status st = eqi_regex_translate(ctx, &text, pattern, n, where);
    if (st == EQAT_OK) st = eqi_bytes_append(ctx, &text, "", 1);
    if (st == EQAT_OK) st = create(ctx, out, text.data, text.size - 1, where);
    eqi_bytes_free(ctx, &text);
    return st;
}

eqat_status eqi_regex_create_literal(eqi_ctx *ctx, eqi_regex **out, const char *s, size_t n,
                                     const char *where)
{
    *out = NULL;
    eqi_bytes text = {0};
    eqat_status st = eqi_bytes_reserve(ctx, &text, 2 * n + 1);
    for (size_t i = 0; st == EQAT_OK && i < n; i++) {
        if ((unsigned char)s[i] < 0x80 && eqi_char_is_punctuation((unsigned char)s[i]))
            text.data[text.size++] = '\\';
        text.data[text.size++] = s[i];
    }
    if (st == EQAT_OK) {
        text.data[text.size] = 0;
        st = create(ctx, out, text.data, text.size, where);
    }
    eqi_bytes_free(ctx, &text);
    return st;
}

eqat_status eqi_regex_next(eqi_regex *r, eqi_matches *m, bool *found)
{
    *found = false;
    pcre2_set_match_limit(r->match, match_limit(m->n));
    while (m->at <= m->n) {
        int rc;
        if (r->jit)
            rc = pcre2_jit_match(r->code, (PCRE2_SPTR)m->s, m->n, m->at, 0, r->data, r->match);
        else
            rc = pcre2_match(r->code, (PCRE2_SPTR)m->s, m->n, m->at, PCRE2_NO_UTF_CHECK, r->data,
                             r->match);
        if (rc == PCRE2_ERROR_NOMATCH) {
            m->at = m->n + 1;
            return EQAT_OK;
        }
        if (rc < 0) {
            char text[128] = "";
            pcre2_get_error_message(rc, (PCRE2_UCHAR *)text, sizeof text);
            bool memory = rc == PCRE2_ERROR_NOMEMORY;
            return eqi_fail(r->ctx, memory ? EQAT_OUT_OF_MEMORY : EQAT_UNSUPPORTED,
                            "%stext: splitting it by the tokenizer's pattern failed at byte %zu: "
                            "%s",
                            memory ? "out of memory: " : "", m->at, text);
        }
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(r->data);
        if (range[0] == range[1] && m->any && range[1] == m->end) {
            m->at += m->at < m->n ? eqi_utf8_length((unsigned char)m->s[m->at]) : 1;
            continue;
        }
        m->any = *found = true;
        m->start = range[0];
        m->end = m->at = range[1];
        return EQAT_OK;
    }
    return EQAT_OK;
}
