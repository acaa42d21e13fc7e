#include "data/tokenizer/gguf_pre.h"

#include <string.h>

#include "base/context.h"
#include "data/tokenizer/tokenizer.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define LLAMA3(digits)                                                   \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TEKKEN                                                                                   \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|" \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|" \
    "\\p{N}|"                                                                                    \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const eqi_gguf_pre pres[] = {
    {"default",
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
     false,
     false,
     false,
     false},
    {"gpt-2", {NULL}, false, false, false, false},
    {"gpt2", {NULL}, false, false, false, false},
    {"llama-bpe", {LLAMA3("\\p{N}{1,3}")}, false, false, true, true},
    {"llama3", {LLAMA3("\\p{N}{1,3}")}, false, false, true, true},
    {"llama-v3", {LLAMA3("\\p{N}{1,3}")}, false, false, true, true},
    {"qwen2", {LLAMA3("\\p{N}")}, false, true, false, false},
    {"smollm", {NULL}, true, false, false, false},
    {"starcoder", {NULL}, true, false, false, false},
    {"refact", {NULL}, true, false, false, false},
    {"tekken", {TEKKEN}, false, false, true, true},
};

const eqi_gguf_pre *eqi_gguf_pre_find(const char *name)
{
    for (size_t i = 0; i < EQI_COUNT(pres); i++)
        if (!strcmp(name, pres[i].name)) return &pres[i];
    return NULL;
}

/* What a tokenizer.json asks for, as far as it can be compared. */
typedef struct asked {
    const char *patterns[4];
    size_t count;                                /* of patterns */
    bool digits, own, nfc, ignore_merges, other; /* own: ByteLevel's; other: none of these */
} asked;

static void read_split(const json_t *step, asked *a)
{
    const char *regex =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    const bool plain = regex && behavior && !strcmp(behavior, "Isolated") &&
        !json_is_true(json_object_get(step, "invert")) && a->count < EQI_COUNT(a->patterns);
    if (plain)
        a->patterns[a->count++] = regex;
    else
        a->other = true;
}

static void read_step(const json_t *step, asked *a)
{
    const char *type = eqi_json_type(step);
    size_t i;
    const json_t *inner;
    if (!strcmp(type, "Sequence")) {
        json_array_foreach(json_object_get(step, "pretokenizers"), i, inner) read_step(inner, a);
    } else if (!strcmp(type, "Split")) {
        read_split(step, a);
    } else if (!strcmp(type, "Digits")) {
        a->digits = json_is_true(json_object_get(step, "individual_digits"));
        a->other |= !a->digits || a->count;
    } else if (!strcmp(type, "ByteLevel")) {
        a->own = !json_is_false(json_object_get(step, "use_regex"));
        a->other |= json_is_true(json_object_get(step, "add_prefix_space"));
    } else {
        a->other = true;
    }
}

static void read_normalizer(const json_t *step, asked *a)
{
    const char *type = eqi_json_type(step);
    size_t i;
    const json_t *inner;
    if (!step || json_is_null(step)) return;
    if (!strcmp(type, "Sequence"))
        json_array_foreach(json_object_get(step, "normalizers"), i, inner)
            read_normalizer(inner, a);
    else if (!strcmp(type, "NFC"))
        a->nfc = true;
    else
        a->other = true;
}

static bool same(const eqi_gguf_pre *p, const asked *a)
{
    size_t n = 0;
    while (n < EQI_COUNT(p->patterns) && p->patterns[n]) n++;
    bool same = n == a->count && a->own == (n == 0) && a->digits == p->digits && a->nfc == p->nfc &&
        a->ignore_merges == p->ignore_merges;
    for (size_t i = 0; same && i < n; i++) same = !strcmp(p->patterns[i], a->patterns[i]);
    return same;
}

const eqi_gguf_pre *eqi_gguf_pre_recognise(const json_t *tokenizer)
{
    asked a = {.count = 0};
    read_step(json_object_get(tokenizer, "pre_tokenizer"), &a);
    read_normalizer(json_object_get(tokenizer, "normalizer"), &a);
    a.ignore_merges =
        json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges"));
    for (size_t i = 0; !a.other && i < EQI_COUNT(pres); i++)
        if (same(&pres[i], &a)) return &pres[i];
    return NULL;
}
