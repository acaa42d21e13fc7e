/* Oniguruma's Ruby syntax into PCRE2's. Where the two read the same characters differently the
 * meaning is spelled out (\s, \w, \h, \v, {,n}, (?m:), nested sets); what is rare and differs is
 * refused. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode_news.h"
#include "data/tokenizer/utf8.h"

/* White_Space: PCRE2's \s has U+180E as well. */
#define SPACES                                                                                  \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{" \
    "205f}\\x{3000}"
#define NOT_SPACES                                                                               \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{" \
    "200b}-\\x{2027}"                                                                            \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
/* Oniguruma looks \w below 256 up in a table of its own, where these are words; within [...] it
 * does not. */
#define LATIN1_NUMBERS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
/* Circled and squared Latin: Alphabetic, so part of \w, without being letters. */
#define ALPHABETIC_SYMBOLS \
    "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

typedef struct dialect {
    eqi_ctx *ctx;
    eqi_bytes *out;
    const char *pattern, *where;
    size_t n, i;
    int depth;
} dialect;

static eqat_status refuse(const dialect *d, const char *what)
{
    return eqi_fail(d->ctx, EQAT_UNSUPPORTED,
                    "%s: pattern '%.200s': %s at byte %zu is not supported", d->where, d->pattern,
                    what, d->i);
}

static eqat_status broken(const dialect *d, const char *what)
{
    return eqi_fail(d->ctx, EQAT_FORMAT, "%s: pattern '%.200s': expected %s at byte %zu", d->where,
                    d->pattern, what, d->i);
}

static eqat_status put(dialect *d, const char *s)
{
    return eqi_bytes_append(d->ctx, d->out, s, strlen(s));
}

static int peek(const dialect *d, size_t ahead)
{
    return d->i + ahead < d->n ? (unsigned char)d->pattern[d->i + ahead] : -1;
}

static eqat_status put_literal(dialect *d, uint32_t c)
{
    char s[8];
    if (c < 0x80 && !isalnum((int)c)) {
        snprintf(s, sizeof s, "\\x%02x", c);
        return put(d, s);
    }
    return eqi_bytes_append(d->ctx, d->out, s, eqi_utf8_put(s, c));
}

static bool scripts_have_prefix(void)
{
    /* From 10.40 on a bare script name means its extensions too, which is not what Oniguruma means.
     */
    char version[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, version);
    char *minor;
    long major = strtol(version, &minor, 10);
    return major > 10 || (major == 10 && *minor == '.' && strtol(minor + 1, NULL, 10) >= 40);
}

/* Members of a set: the property, and the characters that have it but that PCRE2 may be too old to
 * know. */
static eqat_status category(dialect *d, const char *name)
{
    char text[48];
    snprintf(text, sizeof text, "\\p{%s}", name);
    EQI_RETURN_IF(put(d, text));
    for (size_t i = 0; i < eqi_chars_new_to_patterns_count; i++) {
        const eqi_char_news *k = &eqi_chars_new_to_patterns[i];
        bool has = !strcmp(name, "L&") ? strchr("ult", k->category[1]) && k->category[0] == 'L'
                                       : !strncmp(name, k->category, strlen(name));
        if (!has) continue;
        snprintf(text, sizeof text, "\\x{%x}-\\x{%x}", (unsigned)k->first, (unsigned)k->last);
        EQI_RETURN_IF(put(d, text));
    }
    return EQAT_OK;
}

static eqat_status word(dialect *d)
{
    static const char *const parts[] = {"L", "M", "Nd", "Nl", "Pc"};
    for (size_t i = 0; i < EQI_COUNT(parts); i++) EQI_RETURN_IF(category(d, parts[i]));
    return put(d, ALPHABETIC_SYMBOLS);
}

/* \p{...}, with d->i behind the p. */
static eqat_status property(dialect *d, bool negated, bool in_set)
{
    static const char *const categories[][2] = {
        {"any", "Any"},
        {"letter", "L"},
        {"mark", "M"},
        {"number", "N"},
        {"punctuation", "P"},
        {"symbol", "S"},
        {"separator", "Z"},
        {"other", "C"},
        {"lc", "L&"},
        {"uppercaseletter", "Lu"},
        {"lowercaseletter", "Ll"},
        {"decimalnumber", "Nd"},
    };
    if (peek(d, 0) != '{') return refuse(d, "\\p without {name}");
    d->i++;
    if (peek(d, 0) == '^') {
        negated = !negated;
        d->i++;
    }
    char name[40], text[64];
    size_t k = 0;
    int c;
    while ((c = peek(d, 0)) != -1 && c != '}') {
        d->i++;
        if (c == ' ' || c == '_' || c == '-') continue;
        if (!isalpha(c) || k + 1 == sizeof name) return refuse(d, "this property");
        name[k++] = (char)tolower(c);
    }
    if (c == -1 || !k) return broken(d, "a property name and }");
    d->i++;
    name[k] = 0;
    const char *found = NULL;
    for (size_t j = 0; j < EQI_COUNT(categories); j++)
        if (!strcmp(name, categories[j][0])) found = categories[j][1];
    if (!found && k <= 2 && strchr("lmnpszc", name[0])) {
        name[0] = (char)toupper((unsigned char)name[0]);
        found = name;
    }
    static const char *const binary[] = {
        "alpha",  "alnum",      "space",      "punct",     "upper",     "lower",
        "word",   "digit",      "cntrl",      "graph",     "print",     "blank",
        "xdigit", "alphabetic", "whitespace", "uppercase", "lowercase", "emoji"};
    for (size_t j = 0; !found && j < EQI_COUNT(binary); j++)
        if (!strcmp(name, binary[j])) return refuse(d, "this property");
    bool whole = found && !strcmp(found, "Any"), script = !found && scripts_have_prefix();
    if (!found || whole || (negated && in_set)) {
        snprintf(text, sizeof text, "\\%c{%s%s}", negated ? 'P' : 'p', script ? "sc:" : "",
                 found ? found : name);
        return put(d, text);
    }
    if (!in_set) EQI_RETURN_IF(put(d, negated ? "[^" : "["));
    EQI_RETURN_IF(category(d, found));
    return in_set ? EQAT_OK : put(d, "]");
}

static eqat_status hex(dialect *d, size_t digits, bool braces, uint32_t *out)
{
    uint32_t value = 0;
    size_t k = 0;
    for (int c; k < digits && (c = peek(d, 0)) != -1 && isxdigit(c); k++, d->i++)
        value = value * 16 + (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    if (!k || (!braces && k != digits && digits == 4)) return broken(d, "hexadecimal digits");
    if (braces && (peek(d, 0) != '}' || value > 0x10ffff)) return broken(d, "a code point and }");
    if (braces) d->i++;
    if (value >= 0xd800 && value < 0xe000) return broken(d, "a code point that is no surrogate");
    *out = value;
    return EQAT_OK;
}

typedef enum kind { KIND_CHAR, KIND_SET, KIND_ASSERTION } kind;

/* An escape, with d->i behind the backslash. A character is returned in *c; a set or an assertion
 * is written out. */
static eqat_status escape(dialect *d, bool in_set, kind *what, uint32_t *c)
{
    int e = peek(d, 0);
    if (e == -1) return broken(d, "a character behind \\");
    *what = KIND_SET;
    if (e >= 0x80) {
        size_t step;
        *c = eqi_utf8_get(d->pattern + d->i, &step);
        d->i += step;
        *what = KIND_CHAR;
        return EQAT_OK;
    }
    d->i++;
    const char *set = NULL;
    switch (e) {
    case 'p':
    case 'P': return property(d, e == 'P', in_set);
    case 's': set = SPACES; break;
    case 'S': set = NOT_SPACES; break;
    case 'w':
    case 'W':
        if (in_set && e == 'W') return refuse(d, "\\W inside [...]");
        if (!in_set) EQI_RETURN_IF(put(d, e == 'w' ? "[" : "[^"));
        EQI_RETURN_IF(word(d));
        return in_set ? EQAT_OK : put(d, LATIN1_NUMBERS "]");
    case 'd':
    case 'D':
        if (in_set && e == 'D') return put(d, "\\P{Nd}");
        if (!in_set) EQI_RETURN_IF(put(d, e == 'd' ? "[" : "[^"));
        EQI_RETURN_IF(category(d, "Nd"));
        return in_set ? EQAT_OK : put(d, "]");
    case 'h': set = "0-9a-fA-F"; break;
    case 'n': *c = '\n'; break;
    case 't': *c = '\t'; break;
    case 'r': *c = '\r'; break;
    case 'f': *c = '\f'; break;
    case 'v': *c = '\v'; break;
    case 'a': *c = '\a'; break;
    case 'e': *c = 0x1b; break;
    case 'u': EQI_RETURN_IF(hex(d, 4, false, c)); break;
    case 'x': {
        bool braces = peek(d, 0) == '{';
        d->i += braces;
        EQI_RETURN_IF(hex(d, braces ? 8 : 2, braces, c));
        if (!braces && *c >= 0x80) return refuse(d, "a byte that is no ASCII character");
        break;
    }
    case 'A':
    case 'z':
    case 'Z':
        if (in_set) return refuse(d, "this escape inside [...]");
        *what = KIND_ASSERTION;
        return put(d, e == 'A' ? "\\A" : e == 'z' ? "\\z" : "\\Z");
    default:
        if (isalnum(e)) {
            char text[32];
            snprintf(text, sizeof text, "\\%c", e);
            return refuse(d, text);
        }
        *c = (uint32_t)e;
    }
    if (!set) {
        *what = KIND_CHAR;
        return EQAT_OK;
    }
    if (!in_set) EQI_RETURN_IF(put(d, "["));
    EQI_RETURN_IF(put(d, set));
    return in_set ? EQAT_OK : put(d, "]");
}

/* The members of a set, with d->i behind [ or [^; leaves it behind the ]. */
static eqat_status members(dialect *d)
{
    if (++d->depth > 16) return refuse(d, "a set nested so deeply");
    bool first = true,
         may_range =
             false; /* may_range: the last member was a single character that may begin a range */
    for (;; first = false) {
        int e = peek(d, 0);
        if (e == -1) return broken(d, "]");
        if (e == ']' && !first) break;
        if (e == '&' && peek(d, 1) == '&') return refuse(d, "&& inside [...]");
        if (e == '[') {
            if (peek(d, 1) == ':') return refuse(d, "a POSIX bracket");
            if (peek(d, 1) == '^') return refuse(d, "[^...] inside [...]");
            d->i++;
            EQI_RETURN_IF(members(d));
            may_range = false;
            continue;
        }
        if (e == '-' && may_range && peek(d, 1) != ']' && peek(d, 1) != -1) {
            d->i++;
            if (peek(d, 0) == '[') return refuse(d, "a range that ends in a set");
            EQI_RETURN_IF(put(d, "-"));
            kind what = KIND_CHAR;
            uint32_t c;
            if (peek(d, 0) == '\\') {
                d->i++;
                EQI_RETURN_IF(escape(d, true, &what, &c));
                if (what != KIND_CHAR) return refuse(d, "a range that ends in a set");
            } else {
                size_t step;
                c = eqi_utf8_get(d->pattern + d->i, &step);
                d->i += step;
            }
            EQI_RETURN_IF(put_literal(d, c));
            may_range = false;
            continue;
        }
        kind what = KIND_CHAR;
        uint32_t c;
        if (e == '\\' && peek(d, 1) == 'b') {
            d->i += 2;
            c = '\b';
        } else if (e == '\\') {
            d->i++;
            EQI_RETURN_IF(escape(d, true, &what, &c));
        } else {
            size_t step;
            c = eqi_utf8_get(d->pattern + d->i, &step);
            d->i += step;
        }
        if (what == KIND_CHAR) EQI_RETURN_IF(put_literal(d, c));
        may_range = what == KIND_CHAR;
    }
    d->i++;
    d->depth--;
    return EQAT_OK;
}

static eqat_status group(dialect *d)
{
    if (peek(d, 1) != '?') {
        if (peek(d, 1) == '*') return refuse(d, "(*");
        d->i++;
        return put(d, "(");
    }
    static const char *const plain[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    for (size_t k = 0; k < EQI_COUNT(plain); k++) {
        size_t length = strlen(plain[k]);
        if (d->n - d->i < length || memcmp(d->pattern + d->i, plain[k], length) != 0) continue;
        d->i += length;
        return put(d, plain[k]);
    }
    size_t begin = d->i;
    d->i += 2;
    EQI_RETURN_IF(put(d, "(?"));
    for (int c; (c = peek(d, 0)) == 'i' || c == 'm' || c == '-'; d->i++)
        EQI_RETURN_IF(put(d, c == 'i' ? "i" : c == 'm' ? "s" : "-"));
    if (peek(d, 0) == ')' && begin) return refuse(d, "an option that is not at the beginning");
    if (peek(d, 0) != ':' && peek(d, 0) != ')') return refuse(d, "this group");
    EQI_RETURN_IF(put(d, peek(d, 0) == ':' ? ":" : ")"));
    d->i++;
    return EQAT_OK;
}

/* {n}, {n,}, {,m}, {n,m}; anything else is a brace. */
static eqat_status braces(dialect *d)
{
    size_t i = d->i + 1, low = 0, high = 0;
    unsigned long from = 0, to = 0;
    bool comma = false;
    for (; i < d->n && isdigit((unsigned char)d->pattern[i]) && low < 6; i++, low++)
        from = from * 10 + (unsigned long)(d->pattern[i] - '0');
    if (i < d->n && d->pattern[i] == ',') {
        comma = true;
        for (i++; i < d->n && isdigit((unsigned char)d->pattern[i]) && high < 6; i++, high++)
            to = to * 10 + (unsigned long)(d->pattern[i] - '0');
    }
    if (i >= d->n || d->pattern[i] != '}' || (!low && !high)) {
        d->i++;
        return put(d, "\\{");
    }
    d->i = i + 1;
    char text[48];
    if (!comma)
        snprintf(text, sizeof text, "{%lu}", from);
    else if (!high)
        snprintf(text, sizeof text, "{%lu,}", from);
    else
        snprintf(text, sizeof text, "{%lu,%lu}", from, to);
    if (peek(d, 0) == '+' || (peek(d, 0) == '?' && !comma))
        return refuse(d, "a second quantifier behind {...}");
    return put(d, text);
}

eqat_status eqi_regex_translate(eqi_ctx *ctx, eqi_bytes *out, const char *pattern, size_t n,
                                const char *where)
{
    dialect d = {.ctx = ctx, .out = out, .pattern = pattern, .where = where, .n = n};
    while (d.i < n) {
        int c = peek(&d, 0);
        char one[2] = {(char)c, 0};
        if (c == '\\') {
            kind what;
            uint32_t literal = 0;
            d.i++;
            EQI_RETURN_IF(escape(&d, false, &what, &literal));
            if (what == KIND_CHAR) EQI_RETURN_IF(put_literal(&d, literal));
        } else if (c == '[') {
            bool negated = peek(&d, 1) == '^';
            d.i += negated ? 2 : 1;
            EQI_RETURN_IF(put(&d, negated ? "[^" : "["));
            EQI_RETURN_IF(members(&d));
            EQI_RETURN_IF(put(&d, "]"));
        } else if (c == '(') {
            EQI_RETURN_IF(group(&d));
        } else if (c == '{') {
            EQI_RETURN_IF(braces(&d));
        } else if (strchr(")|*+?.^$", c) && c) {
            d.i++;
            EQI_RETURN_IF(put(&d, one));
        } else {
            size_t step;
            uint32_t literal = eqi_utf8_get(pattern + d.i, &step);
            d.i += step;
            EQI_RETURN_IF(put_literal(&d, literal));
        }
    }
    return EQAT_OK;
}
