/* Merging against the plainest way to do it: look for the pair with the lowest rank, leftmost
 * first, again and again. */
#include "base/rng.h"
#include "data/tokenizer/bpe_cut.h"
#include "data/tokenizer/normalize.h"
#include "data/tokenizer/utf8.h"
#include "make.h"

#define SPACE "\xe2\x96\x81"
#define TOKENS_MAX 600
#define TEXT_MAX 3000

typedef struct toy {
    eqi_bpe bpe;
    char texts[TOKENS_MAX][24];
    int32_t count;
    struct {
        int32_t left, right, id;
    } merges[TOKENS_MAX];
    uint32_t merge_count;
} toy;

static uint64_t draws;

static uint32_t draw(uint32_t bound)
{
    return (uint32_t)eqi_rng_below(5, EQI_RNG_USER, draws++, bound);
}

static void add_token(toy *y, const char *text)
{
    snprintf(y->texts[y->count], sizeof y->texts[0], "%s", text);
    OK(ctx, eqi_vocab_add(ctx, &y->bpe.vocab, y->count, text, strlen(text)));
    y->count++;
}

/* Merges of random tokens, shorter ones more often; spaces inside words only when asked for. */
static toy *make_toy(uint64_t seed, bool inner_spaces, bool bytes_too, bool fuse, bool ignore)
{
    static const char *const letters[] = {"<unk>", "a",        "b",           "c",
                                          SPACE,   "\xc3\xa9", "\xe6\xbc\xa2"};
    toy *y = calloc(1, sizeof *y);
    ck_assert_ptr_nonnull(y);
    draws = seed << 20;
    y->bpe.ctx = ctx;
    y->bpe.fuse_unk = fuse;
    y->bpe.byte_fallback = bytes_too;
    y->bpe.ignore_merges = ignore;
    for (size_t i = 0; i < EQI_COUNT(letters); i++) add_token(y, letters[i]);
    int32_t first = 1, letters_end = y->count;
    for (int b = 0; bytes_too && b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        add_token(y, text);
    }
    int32_t merged = y->count;
    while (y->count < merged + 200) {
        char text[64];
        int32_t pair[2];
        for (int k = 0; k < 2; k++) {
            int32_t pick =
                first + (int32_t)draw((uint32_t)(letters_end - first + y->count - merged));
            pair[k] = pick < letters_end ? pick : merged + pick - letters_end;
        }
        snprintf(text, sizeof text, "%s%s", y->texts[pair[0]], y->texts[pair[1]]);
        const char *space = strstr(y->texts[pair[1]], SPACE);
        if (strlen(text) >= 20 ||
            (!inner_spaces && space &&
             strspn(text, SPACE) < (size_t)(space - y->texts[pair[1]]) + strlen(y->texts[pair[0]])))
            continue;
        if (eqi_vocab_find(&y->bpe.vocab, text, strlen(text)) != EQI_NO_ID) continue;
        y->merges[y->merge_count].left = pair[0];
        y->merges[y->merge_count].right = pair[1];
        y->merges[y->merge_count++].id = y->count;
        add_token(y, text);
    }
    y->bpe.unk = 0;
    OK(ctx, eqi_bpe_begin(&y->bpe, y->merge_count));
    for (uint32_t i = 0; i < y->merge_count; i++)
        eqi_bpe_merge(&y->bpe, y->merges[i].left, y->merges[i].right, y->merges[i].id, i);
    OK(ctx, eqi_bpe_finish(&y->bpe));
    OK(ctx, eqi_bpe_plan_cuts(&y->bpe));
    return y;
}

static void free_toy(toy *y)
{
    eqi_bpe_free(&y->bpe);
    free(y);
}

static size_t plain_symbols(const toy *y, const char *s, size_t n, int32_t *out)
{
    size_t count = 0;
    bool unknown = false;
    for (size_t i = 0, step; i < n; i += step) {
        step = eqi_utf8_length((unsigned char)s[i]);
        int32_t id = eqi_vocab_find(&y->bpe.vocab, s + i, step);
        if (id == EQI_NO_ID && y->bpe.byte_fallback) {
            char text[8];
            for (size_t k = 0; k < step; k++) {
                snprintf(text, sizeof text, "<0x%02X>", (unsigned char)s[i + k]);
                out[count++] = eqi_vocab_find(&y->bpe.vocab, text, 6);
            }
            continue;
        }
        if (id == EQI_NO_ID && unknown && y->bpe.fuse_unk) continue;
        unknown = id == EQI_NO_ID;
        out[count++] = unknown ? 0 : id;
    }
    return count;
}

static size_t plain_merge(const toy *y, int32_t *w, size_t n)
{
    for (;;) {
        uint32_t best = UINT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (uint32_t k = 0; k < y->merge_count && k < best; k++)
                if (y->merges[k].left == w[i] && y->merges[k].right == w[i + 1]) {
                    best = k;
                    at = i;
                }
        if (best == UINT32_MAX) return n;
        w[at] = y->merges[best].id;
        memmove(w + at + 1, w + at + 2, (n - at - 2) * sizeof *w);
        n--;
    }
}

static size_t random_text(char *s, size_t letters, bool unknown)
{
    static const char *const units[] = {"a",        "b",
                                        "c",        SPACE,
                                        "\xc3\xa9", "\xe6\xbc\xa2",
                                        "aa",       SPACE SPACE,
                                        "x",        "\xf0\x9f\xa6\x99"};
    size_t n = 0;
    for (size_t i = 0; i < letters; i++) {
        const char *p = units[draw(unknown ? 10 : 8)];
        memcpy(s + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

/* inner spaces, byte tokens, fused unknowns, whole words */
static const bool settings[][4] = {{false, false, true, false},
                                   {false, true, true, false},
                                   {true, false, false, false},
                                   {true, true, false, false},
                                   {false, false, false, false}};

START_TEST(as_the_plain_way)
{
    const bool *k = settings[_i % 5];
    toy *y = make_toy((uint64_t)_i, k[0], k[1], k[2], k[3]);
    ck_assert(y->bpe.cut_before_space == !k[0]);
    static char text[TEXT_MAX * 8];
    static int32_t expected[TEXT_MAX * 8];
    for (int round = 0; round < 60; round++) {
        size_t n = random_text(text, round < 40 ? 1 + draw(40) : 100 + draw(300), round % 2);
        size_t count = plain_merge(y, expected, plain_symbols(y, text, n, expected));
        eqi_ids word = {0}, whole = {0};
        OK(ctx, eqi_bpe_word_uncached(&y->bpe, text, n, &word));
        for (int again = 0; again < 2; again++) {
            whole.size = 0;
            OK(ctx, eqi_bpe_text(&y->bpe, text, n, &whole));
            ck_assert_uint_eq(whole.size, count);
            ck_assert_mem_eq(whole.data, expected, count * sizeof *expected);
        }
        ck_assert_uint_eq(word.size, count);
        ck_assert_mem_eq(word.data, expected, count * sizeof *expected);
        eqi_ids_free(ctx, &word);
        eqi_ids_free(ctx, &whole);
    }
    free_toy(y);
}
END_TEST

START_TEST(words_in_the_cache)
{
    /* More words than the cache holds, of every length around its limits, twice in different
     * orders. */
    toy *y = make_toy(77, false, true, true, false);
    eqi_ids a = {0}, b = {0};
    char text[64];
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t word = i < 100000 ? i : (i * 7919u) % 100000;
        size_t n = 0;
        for (uint32_t k = word; k && n < 30; k /= 3) text[n++] = (char)('a' + k % 3);
        for (uint32_t k = 0; k < word % 27 && n < 40; k++) text[n++] = 'b';
        a.size = b.size = 0;
        eqat_status st = eqi_bpe_word(&y->bpe, text, n, &a);
        if (i < 100000 && i % 8) continue;
        if (n && st == EQAT_OK) st = eqi_bpe_word_uncached(&y->bpe, text, n, &b);
        if (st != EQAT_OK || a.size != b.size ||
            (n && memcmp(a.data, b.data, a.size * sizeof *a.data) != 0))
            ck_abort_msg("word %u of %zu bytes differs from what the cache says", i, n);
    }
    eqi_ids_free(ctx, &a);
    eqi_ids_free(ctx, &b);
    free_toy(y);
}
END_TEST

START_TEST(a_pair_given_twice)
{
    /* The later rank counts: with "a b" after "b c", abc is a|bc. */
    eqat_tokenizer *t =
        open_tokenizer(make_json("tokenizer.json", "a|b|c|ab|bc", "a b|b c|a b", (parts){0}));
    ck_tokens(t, "abc", EQAT_TOKENIZE_PLAIN, "a|bc");
    eqat_tokenizer_free(t);
    t = open_tokenizer(make_json("tokenizer.json", "a|b|c|ab|bc", "a b|b c", (parts){0}));
    ck_tokens(t, "abc", EQAT_TOKENIZE_PLAIN, "ab|c");
    ck_tokens(t, "bab", EQAT_TOKENIZE_PLAIN, "b|ab");
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(unknown_characters)
{
    const char *tokens = "a|b|?|<0xC3>|<0xA9>|<0xC2>";
    eqat_tokenizer *t = open_tokenizer(
        make_json("tokenizer.json", tokens, "", (parts){.model = "\"unk_token\": \"?\""}));
    ck_tokens(t, "axxb", EQAT_TOKENIZE_PLAIN, "a|?|?|b");
    ck_assert_int_eq(eqat_tokenizer_unk(t), 2);
    eqat_tokenizer_free(t);
    t = open_tokenizer(make_json("tokenizer.json", tokens, "",
                                 (parts){.model = "\"unk_token\": \"?\", \"fuse_unk\": true"}));
    ck_tokens(t, "axxbx", EQAT_TOKENIZE_PLAIN, "a|?|b|?");
    eqat_tokenizer_free(t);
    t = open_tokenizer(make_json("tokenizer.json", tokens, "", (parts){0}));
    ck_tokens(t, "axxb", EQAT_TOKENIZE_PLAIN, "a|b"); /* no unknown token: nothing */
    eqat_tokenizer_free(t);
    /* Bytes where all of a character's bytes have tokens; the unknown token waits behind them. */
    t = open_tokenizer(
        make_json("tokenizer.json", tokens, "",
                  (parts){.model = "\"unk_token\": \"?\", \"byte_fallback\": true"}));
    ck_tokens(t,
              "a\xc3\xa9"
              "b\xc2\xaa",
              EQAT_TOKENIZE_PLAIN, "a|<0xC3>|<0xA9>|b|?");
    ck_tokens(t,
              "\xc2\xaa\xc3\xa9"
              "b",
              EQAT_TOKENIZE_PLAIN, "<0xC3>|<0xA9>|?|b");
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(byte_level_words)
{
    /* \u0120 is a space; h + e + l... in raw bytes. */
    const char *path =
        make_json("tokenizer.json",
                  "h|e|l|o|\xc4\xa0|he|ll|hell|\xc4\xa0hell|\xc3\x83|\xc2\xa9|\xc3\x83\xc2\xa9",
                  "h e|l l|he ll|\xc4\xa0 hell|\xc3\x83 \xc2\xa9",
                  (parts){.pre_tokenizer = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
                          .decoder = "{\"type\": \"ByteLevel\"}"});
    eqat_tokenizer *t = open_tokenizer(path);
    ck_tokens(t, "hello hello", EQAT_TOKENIZE_PLAIN, "hell|o|\xc4\xa0hell|o");
    ck_tokens(t, "\xc3\xa9", EQAT_TOKENIZE_PLAIN, "\xc3\x83\xc2\xa9");
    const int32_t *ids;
    size_t count, n;
    const char *text;
    OK(ctx, eqat_tokenizer_encode(t, "h\xc3\xa9llo", 6, EQAT_TOKENIZE_PLAIN, &ids, &count));
    OK(ctx, eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &text, &n));
    ck_assert_str_eq(text, "h\xc3\xa9llo");
    OK(ctx, eqat_tokenizer_encode(t, "", 0, EQAT_TOKENIZE_PLAIN, &ids, &count));
    ck_assert_uint_eq(count, 0);
    eqat_tokenizer_free(t);
}
END_TEST

/* What is quadratic when done carelessly: each takes well under a second. */
START_TEST(long_texts)
{
    enum { SIZE = 1 << 19 };
    static const char *const units[] = {
        " ",   "a",  "\n", SPACE, "x", "\xcc\x81\xcc\xa7", "a\xcc\x81", "ab ", "\xe6\xbc\xa2",
        " \n", "<s", "'",  "\x80"};
    static const parts kinds[] = {
        {.normalizer = "{\"type\": \"NFC\"}",
         .pre_tokenizer = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}"},
        {.normalizer = "{\"type\": \"NFKC\"}",
         .pre_tokenizer =
             "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
             "{\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
             "\\\\p{L}+|\\\\p{N}{1,3}| "
             "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}"
             ", \"behavior\": \"Isolated\", \"invert\": false},"
             " {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}"},
        {.normalizer =
             "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": "
             "\"" SPACE "\"},"
             " {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" SPACE
             "\"}]}"},
        {.pre_tokenizer =
             "{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\", \"split\": true}"},
    };
    parts p = kinds[_i];
    p.added_tokens =
        "[{\"content\": \"<s>\", \"special\": true, \"lstrip\": true, \"rstrip\": true}]";
    p.model = "\"unk_token\": \"?\", \"fuse_unk\": false";
    eqat_tokenizer *t = open_tokenizer(
        make_json("tokenizer.json",
                  "?|a|b|aa|aaaa|" SPACE "|" SPACE SPACE
                  "|\xc4\xa0|\xc4\xa0\xc4\xa0|\xc4\x8a|\xc3\xa6|\xc2\xbc|\xc2\xa2|\xc3\xa6\xc2\xbc",
                  "a a|aa aa|" SPACE " " SPACE "|\xc4\xa0 \xc4\xa0|\xc3\xa6 \xc2\xbc", p));
    char *text = malloc(SIZE);
    ck_assert_ptr_nonnull(text);
    for (size_t k = 0; k < EQI_COUNT(units); k++) {
        size_t n = 0, m = strlen(units[k]), count;
        const int32_t *ids;
        while (n + m < SIZE) {
            memcpy(text + n, units[k], m);
            n += m;
        }
        OK(ctx, eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_PARSE_SPECIAL, &ids, &count));
    }
    free(text);
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(utf8)
{
    /* One replacement for each maximal ill-formed part, as in the Unicode standard, table 3-8 and
     * its neighbours. */
    static const struct {
        const char *in, *out;
        size_t n;
    } cases[] = {
        {"a\x80z", "a?z", 3},
        {"\xf0\x80\x80\x41", "???A", 4},
        {"\xe2\x96", "?", 2},
        {"\xf4\x8f\xbf", "?", 3},
        {"\xf0\x9f\xa6", "?", 3},
        {"\xed\xa0\x80", "???", 3},                               /* a surrogate */
        {"\xf4\x90\x80\x80", "????", 4},                          /* beyond U+10FFFF */
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A", 9}, /* overlong */
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A", 9},
        {"\xff\xfe", "??", 2},
        {"12345678\xc3", "12345678?", 9},
        {"\xc3\xa9\xe6\xbc\xa2\xf0\x9f\xa6\x99", "\xc3\xa9\xe6\xbc\xa2\xf0\x9f\xa6\x99", 9},
    };
    for (size_t i = 0; i < EQI_COUNT(cases); i++) {
        eqi_bytes out = {0}, marks = {0};
        OK(ctx, eqi_utf8_repair(ctx, &out, cases[i].in, cases[i].n));
        for (size_t k = 0; k < out.size; k++) {
            bool mark = out.size - k >= 3 && !memcmp(out.data + k, "\xef\xbf\xbd", 3);
            OK(ctx, eqi_bytes_append(ctx, &marks, mark ? "?" : out.data + k, 1));
            k += mark ? 2 : 0;
        }
        OK(ctx, eqi_bytes_append(ctx, &marks, "", 1));
        ck_assert_str_eq(marks.data, cases[i].out);
        ck_assert(eqi_utf8_valid(out.data, out.size) == out.size);
        eqi_bytes_free(ctx, &out);
        eqi_bytes_free(ctx, &marks);
    }
    for (uint32_t c = 0; c < 0x110000; c++) {
        char s[4];
        size_t n, back;
        if (c >= 0xd800 && c < 0xe000) continue;
        n = eqi_utf8_put(s, c);
        if (eqi_utf8_valid(s, n) != n || eqi_utf8_get(s, &back) != c || back != n ||
            eqi_utf8_length((unsigned char)s[0]) != n)
            ck_abort_msg("U+%04X does not come back", c);
    }
}
END_TEST

/* The quick look of the Unicode forms must agree with the work it saves, character by character and
 * next to others. */
START_TEST(plain_text_is_in_form)
{
    eqi_normalizers n = {0};
    eqi_bytes once = {0}, twice = {0};
    static const char *const beside[] = {"%s",
                                         "a%s",
                                         "%sa\xcc\x81",
                                         "\xea\xb0\x80%s",
                                         "\xe3\x81\x8b%s",
                                         "%s\xe3\x82\x99",
                                         "%s\xe1\x86\xa8"};
    for (uint32_t c = 1; c < 0x30000; c += (c >= 0x3400 && c < 0xd700) || c >= 0x20000 ? 19 : 1) {
        if (c >= 0xd800 && c < 0xe000) continue;
        char one[5] = "", text[16];
        eqi_utf8_put(one, c);
        snprintf(text, sizeof text, beside[c % EQI_COUNT(beside)], one);
        size_t size = strlen(text);
        for (int k = EQI_NORMALIZE_NFC; k <= EQI_NORMALIZE_NFKD; k++) {
            eqi_normalizer_kind form = (eqi_normalizer_kind)k;
            once.size = twice.size = 0;
            bool ok = eqi_unicode_form(ctx, &n, form, text, size, &once) == EQAT_OK &&
                eqi_unicode_form(ctx, &n, form, once.data, once.size, &twice) == EQAT_OK;
            ok = ok && once.size == twice.size && memcmp(once.data, twice.data, once.size) == 0;
            if (ok && eqi_unicode_is_plain(form, text, size))
                ok = once.size == size && memcmp(once.data, text, size) == 0;
            if (!ok) ck_abort_msg("form %d of '%s' (U+%04X)", k, text, c);
        }
    }
    eqi_bytes_free(ctx, &once);
    eqi_bytes_free(ctx, &twice);
    eqi_normalizers_free(ctx, &n);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("tokenizer merging");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, as_the_plain_way, 0, 25);
    tcase_add_test(c, words_in_the_cache);
    tcase_add_test(c, a_pair_given_twice);
    tcase_add_test(c, unknown_characters);
    tcase_add_test(c, byte_level_words);
    tcase_add_loop_test(c, long_texts, 0, 4);
    tcase_add_test(c, utf8);
    tcase_add_test(c, plain_text_is_in_form);
    return run_case("tokenizer merging", c, CK_FORK_GETENV);
}
