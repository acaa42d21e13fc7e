/* Each stage of a tokenizer.json by itself. Expected pieces are those of Hugging Face tokenizers
 * 0.23. */
#include "make.h"

#define SPACE "\xe2\x96\x81"
#define ALL (EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL)

/* Whole pieces are tokens, so that a piece cut elsewhere falls apart into its characters. */
static void check_pieces(parts p, const char *text, const char *expected)
{
    bytes tokens = {0};
    p.model = "\"ignore_merges\": true";
    put(&tokens, expected, strlen(expected));
    for (int c = 0x21; c < 0x7f; c++) {
        char one[2] = {'|', (char)c};
        if (c != '|') put(&tokens, one, 2);
    }
    put(&tokens, "", 1);
    eqat_tokenizer *t = open_tokenizer(make_json("tokenizer.json", (char *)tokens.p, "", p));
    free(tokens.p);
    ck_tokens(t, text, ALL, expected);
    eqat_tokenizer_free(t);
}

static const struct {
    const char *pre, *text, *expected;
} splits[] = {
    {"{\"type\": \"Split\", \"pattern\": {\"String\": \"-\"}, \"behavior\": \"Removed\", "
     "\"invert\": false}",
     "the-final--countdown", "the|final|countdown"},
    {"{\"type\": \"Split\", \"pattern\": {\"String\": \"-\"}, \"behavior\": \"Isolated\", "
     "\"invert\": false}",
     "the-final--countdown", "the|-|final|-|-|countdown"},
    {"{\"type\": \"Split\", \"pattern\": {\"String\": \"-\"}, \"behavior\": "
     "\"MergedWithPrevious\", \"invert\": false}",
     "the-final--countdown", "the-|final-|-|countdown"},
    {"{\"type\": \"Split\", \"pattern\": {\"String\": \"-\"}, \"behavior\": \"MergedWithNext\", "
     "\"invert\": false}",
     "the-final--countdown", "the|-final|-|-countdown"},
    {"{\"type\": \"Split\", \"pattern\": {\"String\": \"-\"}, \"behavior\": \"Contiguous\", "
     "\"invert\": false}",
     "the-final--countdown", "the|-|final|--|countdown"},
    {"{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a-z]+\"}, \"behavior\": \"Removed\", "
     "\"invert\": true}",
     "the-final--countdown", "the|final|countdown"},
    {"{\"type\": \"Split\", \"pattern\": {\"String\": \".\"}, \"behavior\": \"Isolated\", "
     "\"invert\": false}",
     "a.bc.", "a|.|bc|."},
    {"{\"type\": \"Digits\", \"individual_digits\": true}", "ab123c", "ab|1|2|3|c"},
    {"{\"type\": \"Digits\", \"individual_digits\": false}", "ab123c45", "ab|123|c|45"},
    {"{\"type\": \"Digits\", \"individual_digits\": true}", "a\xc2\xbd\xe2\x85\xab",
     "a|\xc2\xbd|\xe2\x85\xab"},
    {"{\"type\": \"Punctuation\"}", "a.,b", "a|.|,|b"},
    {"{\"type\": \"Punctuation\", \"behavior\": \"Contiguous\"}", "a.,b\xe3\x80\x82+",
     "a|.,|b|\xe3\x80\x82+"},
    {"{\"type\": \"Whitespace\"}", "ab  c!? d_1", "ab|c|!?|d_1"},
    {"{\"type\": \"WhitespaceSplit\"}",
     " ab\xe3\x80\x80"
     "c!\n",
     "ab|c!"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\", \"prepend_scheme\": \"always\"}",
     "ab c  d", SPACE "ab|" SPACE "c|" SPACE "|" SPACE "d"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\", \"prepend_scheme\": \"always\"}",
     " ab", SPACE "ab"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\", \"prepend_scheme\": \"never\"}",
     "ab c", "ab|" SPACE "c"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"" SPACE
     "\", \"prepend_scheme\": \"first\", \"split\": false}",
     "ab c", SPACE "ab" SPACE "c"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"_\", \"add_prefix_space\": false}", "a b",
     "a|_b"},
    {"{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", "I'll go, 12  x\n\n y",
     "I|'ll|\xc4\xa0go|,|\xc4\xa0"
     "12|\xc4\xa0|\xc4\xa0x|\xc4\x8a\xc4\x8a|\xc4\xa0y"},
    {"{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "a b",
     "\xc4\xa0"
     "a|\xc4\xa0"
     "b"},
    {"{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}", "a b",
     "a\xc4\xa0"
     "b"},
    {"{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", "\x7f\xc2\xa0\xc2\xad",
     "\xc4\xa1|\xc3\x82\xc5\x82|\xc3\x82\xc5\x83"},
    {"{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": "
     "true}, {\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}",
     "a 12 b",
     "a|\xc4\xa0|1|2|\xc4\xa0"
     "b"},
};

START_TEST(split)
{
    check_pieces((parts){.pre_tokenizer = splits[_i].pre}, splits[_i].text, splits[_i].expected);
}
END_TEST

/* Patterns whose parts Oniguruma and PCRE2 read differently, each as Split with Removed and invert:
 * the pieces are the matches. */
static const struct {
    const char *pattern, *text, *expected;
} patterns[] = {
    {"\\\\s+",
     "a\xc2\x85\xe1\xa0\x8e\xe2\x80\x89"
     "b",
     "\xc2\x85|\xe2\x80\x89"}, /* U+180E is no space */
    {"[^\\\\s]+",
     "a\xe1\xa0\x8e \xc2\xa0"
     "b",
     "a\xe1\xa0\x8e|b"},
    {"[\\\\Sx]+",
     "a \xe2\x80\xa8"
     "b",
     "a|b"},
    {"\\\\S+",
     "a\x0b"
     "b",
     "a|b"},
    {"\\\\w+", "a_1\xcc\x81\xe2\x93\x90!",
     "a_1\xcc\x81\xe2\x93\x90"}, /* a mark, a circled letter */
    {"\\\\w+", "\xc2\xb2\xc2\xbd!\xe2\x85\x93",
     "\xc2\xb2\xc2\xbd"}, /* superscripts and fractions of Latin-1, no others */
    {"[\\\\w]+", "a\xc2\xb2", "a"},
    {"\\\\W+", "a!?b", "!?"},
    {"\\\\d+", "1\xd9\xa3\xc2\xb2",
     "1\xd9\xa3"}, /* an Arabic digit is one, a superscript is none */
    {"\\\\h+", "gAf0", "Af0"},
    {"a\\\\vb",
     "a\x0b"
     "b",
     "a\x0b"
     "b"},
    {"^b", "a\nb\n", "b"},
    {"a$", "a\na", "a|a"},
    {"(?m:a.b)", "a\nb", "a\nb"},
    {"a.b", "a\nbaxb", "axb"},
    {"(?i)a|b", "ABab", "A|B|a|b"},
    {"(?i:'s)", "'S'\xc5\xbf", "'S|'\xc5\xbf"}, /* long s */
    {"[a[bc]-]+", "a-bcd", "a-bc"},
    {"x{,2}y", "xxxyy", "xxy|y"},
    {"x{2}", "xxx", "xx"},
    {"a{b", "a{b", "a{b"},
    {"\\\\u0061\\\\x62\\\\x{63}", "abc", "abc"},
    {"[\\\\x61-\\\\x63]+", "abcd", "abc"},
    {"\\\\p{Han}+", "a\xe6\xbc\xa2\xe3\x80\x82",
     "\xe6\xbc\xa2"}, /* the script alone, not its extensions */
    {"\\\\p{^Lu}+", "Ab", "b"},
    {"\\\\p{Letter}", "1b", "b"},
    {"a++b", "aab", "aab"},
    {"(a|b)(?=c)", "acbc", "a|b"},
    {"(?<!x)a", "xaa", "a"},
    {"x*", "axxb", "xx"}, /* empty matches give nothing */
    {"#\\\\/ ", "#/ ", "#/ "},
};

START_TEST(pattern)
{
    char pre[512];
    snprintf(pre, sizeof pre,
             "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, \"behavior\": \"Removed\", "
             "\"invert\": true}",
             patterns[_i].pattern);
    check_pieces((parts){.pre_tokenizer = pre}, patterns[_i].text, patterns[_i].expected);
}
END_TEST

static const struct {
    const char *pattern;
    eqat_status status;
    const char *message;
} refused[] = {
    {"\\\\bx", EQAT_UNSUPPORTED, "\\b"},
    {"(a)\\\\1", EQAT_UNSUPPORTED, "\\1"},
    {"(?<name>a)", EQAT_UNSUPPORTED, "this group"},
    {"(?x:a)", EQAT_UNSUPPORTED, "this group"},
    {"a(?i)b", EQAT_UNSUPPORTED, "at the beginning"},
    {"[a&&b]", EQAT_UNSUPPORTED, "&&"},
    {"[a[^b]]", EQAT_UNSUPPORTED, "[^...] inside"},
    {"[[:alpha:]]", EQAT_UNSUPPORTED, "POSIX"},
    {"[\\\\W]", EQAT_UNSUPPORTED, "\\W"},
    {"[a-\\\\d]", EQAT_UNSUPPORTED, "range"},
    {"a{1,2}+", EQAT_UNSUPPORTED, "quantifier"},
    {"\\\\p{Alpha}", EQAT_UNSUPPORTED, "property"},
    {"\\\\p{Nothing}", EQAT_FORMAT, "regular expression"},
    {"\\\\pL", EQAT_UNSUPPORTED, "{name}"},
    {"\\\\xff", EQAT_UNSUPPORTED, "ASCII"},
    {"\\\\ud800", EQAT_FORMAT, "surrogate"},
    {"\\\\u12", EQAT_FORMAT, "hexadecimal"},
    {"(a", EQAT_FORMAT, "regular expression"},
    {"[a", EQAT_FORMAT, "]"},
    {"a\\\\", EQAT_FORMAT, "behind"},
    {"*a", EQAT_FORMAT, "regular expression"},
    {"[[[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]]", EQAT_UNSUPPORTED, "nested"},
};

START_TEST(refused_pattern)
{
    char pre[512];
    eqat_tokenizer *t;
    snprintf(pre, sizeof pre,
             "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, \"behavior\": \"Removed\", "
             "\"invert\": true}",
             refused[_i].pattern);
    const char *path = make_json("tokenizer.json", "a|b", "", (parts){.pre_tokenizer = pre});
    says(ctx, eqat_tokenizer_open(ctx, &t, path), refused[_i].status, refused[_i].message);
    ck_assert_ptr_null(t);
    ck_assert_ptr_nonnull(strstr(ctx->error, "tokenizer.json"));
}
END_TEST

static const struct {
    const char *normalizer, *text, *expected;
} normalizers[] = {
    {"{\"type\": \"NFC\"}", "e\xcc\x81x", "\xc3\xa9x"},
    {"{\"type\": \"NFC\"}", "e\xcc\x81\xcc\xa7",
     "\xc8\xa9\xcc\x81"}, /* marks change places first */
    {"{\"type\": \"NFC\"}", "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81"}, /* Hangul */
    {"{\"type\": \"NFC\"}", "\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"},
    {"{\"type\": \"NFC\"}", "\xe2\x84\xab\xcd\xbe", "\xc3\x85;"}, /* singletons */
    {"{\"type\": \"NFC\"}", "\xe3\x81\x8b\xe3\x82\x99", "\xe3\x81\x8c"},
    {"{\"type\": \"NFC\"}", "\xef\xac\x81", "\xef\xac\x81"},
    {"{\"type\": \"NFD\"}", "\xc3\xa9", "e\xcc\x81"},
    {"{\"type\": \"NFKC\"}", "\xef\xac\x81\xc2\xb2\xef\xbc\xa1", "fi2A"},
    {"{\"type\": \"NFKD\"}", "\xc3\xa9\xc2\xbd",
     "e\xcc\x81"
     "1\xe2\x81\x84"
     "2"},
    {"{\"type\": \"Lowercase\"}", "A\xc3\x89\xc4\xb0\xe1\xba\x9e", "a\xc3\xa9i\xcc\x87\xc3\x9f"},
    {"{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": false}",
     " \n\xe3\x80\x80"
     "a",
     "a"},
    {"{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}", " a.b\t", "a.b"},
    {"{\"type\": \"Prepend\", \"prepend\": \"xy\"}", "ab", "xyab"},
    {"{\"type\": \"Prepend\", \"prepend\": \"xy\"}", "", ""},
    {"{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" SPACE "\"}",
     "a b  c", "a" SPACE "b" SPACE SPACE "c"},
    {"{\"type\": \"Replace\", \"pattern\": {\"String\": \"aa\"}, \"content\": \"b\"}", "aaaaa.",
     "bba."},
    {"{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[0-9]+\"}, \"content\": \"\"}", "a12b3",
     "ab"},
    {"{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}, {\"type\": \"Lowercase\"}, "
     "{\"type\": \"Prepend\", \"prepend\": \"_\"}]}",
     "\xef\xbc\xa1", "_a"},
};

START_TEST(normalizer)
{
    check_pieces((parts){.normalizer = normalizers[_i].normalizer}, normalizers[_i].text,
                 normalizers[_i].expected);
}
END_TEST

/* Metaspace "first" asks whether a piece begins where the text began. */
static const struct {
    const char *normalizer, *text, *expected;
} firsts[] = {
    {NULL, "a<s>b", SPACE "a|<s>|b"},
    {NULL, "<s>b", "<s>|b"},
    {"{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": false}", " a", "a"},
    {"{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"c\"}", "ab",
     SPACE "cb"},
    {"{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"\"}", "ab", "b"},
    {"{\"type\": \"Replace\", \"pattern\": {\"String\": \"ab\"}, \"content\": \"c\"}", "abd", "cd"},
    {"{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"b\"}, \"content\": \"c\"}", "ab",
     SPACE "ac"},
};

START_TEST(metaspace_first)
{
    check_pieces((parts){.normalizer = firsts[_i].normalizer,
                         .pre_tokenizer = "{\"type\": \"Metaspace\", \"replacement\": \"" SPACE
                                          "\", \"prepend_scheme\": \"first\", \"split\": false}",
                         .added_tokens = strstr(firsts[_i].text, "<s>")
                             ? "[{\"content\": \"<s>\", \"special\": true}]"
                             : NULL},
                 firsts[_i].text, firsts[_i].expected);
}
END_TEST

static const struct {
    const char *flags, *text, *expected;
} added[] = {
    {"", "xNEWy  NEW", "x|NEW|y|SS|NEW"},
    {", \"lstrip\": true", "x  NEW y", "x|NEW|Sy"},
    {", \"rstrip\": true", "x NEW \n y", "xS|NEW|y"},
    {", \"single_word\": true", "NEWx xNEW _NEW NEW1 NEW.",
     "N|E|W|xS|x|N|E|W|S|_|N|E|W|S|N|E|W|1|S|NEW|."},
    {", \"single_word\": true", "\xc3\xa9NEW NEW\xe2\x80\x8d",
     "\xc3\xa9|N|E|W|S|N|E|W|\xe2\x80\x8d"},
    {", \"lstrip\": true, \"rstrip\": true", " NEW  NEW ", "NEW|NEW"},
};

START_TEST(added_token)
{
    char list[256];
    snprintf(list, sizeof list, "[{\"id\": 0, \"content\": \"NEW\", \"normalized\": false%s}]",
             added[_i].flags);
    const char *path = make_json(
        "tokenizer.json", "NEW|N|E|W|x|y|S|_|1|.|SS|Sy|xS|\xc3\xa9|\xe2\x80\x8d", "S S|S y|x S",
        (parts){.normalizer =
                    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"S\"}",
                .added_tokens = list});
    eqat_tokenizer *t = open_tokenizer(path);
    ck_tokens(t, added[_i].text, EQAT_TOKENIZE_PLAIN, added[_i].expected);
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(added_tokens_together)
{
    /* The longest wins at the first place; special ones only when asked for; normalized ones in
     * normalized text. */
    const char *list = "[{\"id\": 7, \"content\": \"ab\", \"normalized\": false}, {\"id\": 8, "
                       "\"content\": \"abc\", \"special\": true, \"normalized\": false},"
                       " {\"id\": 9, \"content\": \"Q\", \"normalized\": true}, {\"id\": 10, "
                       "\"content\": \"\\u00e9\", \"normalized\": true}]";
    const char *path = make_json(
        "tokenizer.json", "a|b|c|q|d|\xc3\xa9|e", "",
        (parts){.normalizer = "{\"type\": \"Lowercase\"}",
                .added_tokens =
                    "[{\"id\": 7, \"content\": \"ab\", \"normalized\": false},"
                    " {\"id\": 8, \"content\": \"abc\", \"special\": true, \"normalized\": false},"
                    " {\"id\": 9, \"content\": \"Q\", \"normalized\": true},"
                    " {\"id\": 5, \"content\": \"\\u00e9\", \"normalized\": true}]"});
    (void)list;
    eqat_tokenizer *t = open_tokenizer(path);
    ck_assert_int_eq(eqat_tokenizer_vocab_size(t), 10);
    ck_tokens(t, "abcd", EQAT_TOKENIZE_PARSE_SPECIAL, "abc|d");
    ck_tokens(t, "abcd", EQAT_TOKENIZE_PLAIN,
              "a|b|c|d"); /* the special token hides the shorter one */
    ck_tokens(t, "aabd", EQAT_TOKENIZE_PLAIN, "a|ab|d");
    ck_tokens(t, "ABab", EQAT_TOKENIZE_PLAIN, "a|b|ab"); /* looked for in the raw text */
    ck_tokens(t, "aQq", EQAT_TOKENIZE_PLAIN, "a|Q|Q");   /* in lower case */
    ck_tokens(t, "\xc3\x89", EQAT_TOKENIZE_PLAIN, "\xc3\xa9");
    ck_assert(eqat_tokenizer_is_special(t, 8) && !eqat_tokenizer_is_special(t, 7) &&
              !eqat_tokenizer_is_special(t, 0) && !eqat_tokenizer_is_special(t, 99));
    ck_assert_int_eq(eqat_tokenizer_token_id(t, "abc", 3), 8);
    ck_assert_int_eq(eqat_tokenizer_token_id(t, "b", 1), 1);
    ck_assert_int_eq(eqat_tokenizer_token_id(t, "zz", 2), -1);
    ck_assert_ptr_null(eqat_tokenizer_token_text(t, 10, NULL));
    ck_assert_ptr_null(eqat_tokenizer_token_text(t, -1, NULL));
    eqat_tokenizer_free(t);
}
END_TEST

#define TEMPLATE(single, tokens) \
    "{\"type\": \"TemplateProcessing\", \"single\": [" single "], \"special_tokens\": {" tokens "}}"
#define PIECE(id) "{\"SpecialToken\": {\"id\": \"" id "\", \"type_id\": 0}}"
#define SEQUENCE "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}"
#define SPECIAL(id, ids) \
    "\"" id "\": {\"id\": \"" id "\", \"ids\": [" ids "], \"tokens\": [\"" id "\"]}"

static const struct {
    const char *post, *expected;
} posts[] = {
    {TEMPLATE(PIECE("s") ", " SEQUENCE, SPECIAL("s", "1")), "s|a"},
    {TEMPLATE(PIECE("s") ", " SEQUENCE ", " PIECE("e") ", " PIECE("e"),
              SPECIAL("s", "1") ", " SPECIAL("e", "2")),
     "s|a|e|e"},
    {TEMPLATE(PIECE("s") ", " SEQUENCE, SPECIAL("s", "1, 2")), "s|e|a"},
    {"{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, " TEMPLATE(
         PIECE("s") ", " SEQUENCE, SPECIAL("s", "1")) "]}",
     "s|a"},
};

START_TEST(post_processor)
{
    eqat_tokenizer *t = open_tokenizer(
        make_json("tokenizer.json", "a|s|e", "", (parts){.post_processor = posts[_i].post}));
    ck_tokens(t, "a", EQAT_TOKENIZE_ADD_SPECIAL, posts[_i].expected);
    ck_tokens(t, "a", EQAT_TOKENIZE_PLAIN, "a");
    eqat_tokenizer_free(t);
}
END_TEST

static const struct {
    const char *decoder, *tokens, *expected;
} decoders[] = {
    {NULL, "a|b", "a b"},
    {"{\"type\": \"Fuse\"}", "a|b", "ab"},
    {"{\"type\": \"ByteLevel\"}",
     "\xc4\xa0"
     "a|\xc3\x83|\xc2\xa9|x",
     " a\xc3\xa9x"},
    {"{\"type\": \"ByteLevel\"}", "a b|\xe6\xbc\xa2",
     "a b\xe6\xbc\xa2"}, /* not in the alphabet: as it is */
    {"{\"type\": \"ByteFallback\"}", "<0xC3>|<0xa9>|<0x>|<0xZZ>", "\xc3\xa9<0x><0xZZ>"},
    {"{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
     "\"" SPACE "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"},"
     " {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": "
     "0}]}",
     SPACE SPACE "a|" SPACE "b|<0x0A>", " a b\n"},
    {"{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Strip\", \"content\": \"x\", \"start\": "
     "2, \"stop\": 1}, {\"type\": \"Fuse\"}]}",
     "xxxaxx|xb", "xaxb"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\", \"prepend_scheme\": \"always\"}",
     SPACE "a|" SPACE "b", "a b"},
    {"{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\", \"prepend_scheme\": \"never\"}",
     SPACE "a|" SPACE "b", " a b"},
};

START_TEST(decoder)
{
    eqat_tokenizer *t = open_tokenizer(make_json("tokenizer.json", decoders[_i].tokens, "",
                                                 (parts){.decoder = decoders[_i].decoder}));
    int32_t ids[16];
    size_t n;
    const char *text;
    for (int32_t i = 0; i < eqat_tokenizer_vocab_size(t); i++) ids[i] = i;
    OK(ctx,
       eqat_tokenizer_decode(t, ids, (size_t)eqat_tokenizer_vocab_size(t), EQAT_TOKENIZE_PLAIN,
                             &text, &n));
    ck_assert_str_eq(text, decoders[_i].expected);
    ck_assert_uint_eq(n, strlen(decoders[_i].expected));
    OK(ctx, eqat_tokenizer_decode(t, NULL, 0, EQAT_TOKENIZE_PLAIN, &text, &n));
    ck_assert_str_eq(text, "");
    ids[1] = 99;
    says(ctx, eqat_tokenizer_decode(t, ids, 2, EQAT_TOKENIZE_PLAIN, &text, &n),
         EQAT_INVALID_ARGUMENT, "id 1: found 99");
    ck_assert(!text && !n);
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(decode_special)
{
    const char *path =
        make_json("tokenizer.json", "a|<s>|\xc3\xa9", "",
                  (parts){.decoder = "{\"type\": \"ByteLevel\"}",
                          .added_tokens = "[{\"id\": 1, \"content\": \"<s>\", \"special\": true}, "
                                          "{\"id\": 2, \"content\": \"\\u00e9\"}]"});
    eqat_tokenizer *t = open_tokenizer(path);
    const int32_t ids[] = {1, 0, 2};
    const char *text;
    size_t n;
    OK(ctx, eqat_tokenizer_decode(t, ids, 3, EQAT_TOKENIZE_PLAIN, &text, &n));
    ck_assert_str_eq(text, "<s>a\xc3\xa9");
    OK(ctx, eqat_tokenizer_decode(t, ids, 3, EQAT_TOKENIZE_SKIP_SPECIAL, &text, &n));
    ck_assert_str_eq(text, "a\xc3\xa9");
    eqat_tokenizer_free(t);
}
END_TEST

static eqat_status encode_by(const char *regex, const char *text, size_t n)
{
    char pre[512];
    const int32_t *ids;
    size_t count;
    snprintf(pre, sizeof pre,
             "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"%s\"}, \"behavior\": "
             "\"Isolated\", \"invert\": false}",
             regex);
    const char *path = make_json("tokenizer.json", "a|b", "", (parts){.pre_tokenizer = pre});
    eqat_tokenizer *t = open_tokenizer(path);
    eqat_status st = eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_PLAIN, &ids, &count);
    eqat_tokenizer_free(t);
    return st;
}

/* Patterns that would take 2^n or n^3 steps end with an error. */
START_TEST(patterns_that_would_not_end)
{
    static const char *const hostile[] = {"(a+)+$", "(a|aa)+$",    "(a|a?)+b",
                                          "(a*)*b", "a*a*a*a*a*b", "([a-z]+)*\\\\d"};
    enum { N = 20000 };
    char *text = malloc(N);
    memset(text, 'a', N);
    memcpy(text + N - 2, "!b", 2);
    for (size_t i = 0; i < EQI_COUNT(hostile); i++) {
        ck_assert_msg(encode_by(hostile[i], text, N) == EQAT_UNSUPPORTED, "%s", hostile[i]);
        ck_assert_msg(strstr(ctx->error, "limit"), "%s: %s", hostile[i], ctx->error);
    }
    free(text);
}
END_TEST

/* Runs that the patterns of real tokenizers take back once. */
START_TEST(patterns_that_take_long_runs_back)
{
    static const char *const real[] = {
        "'(?i:[sdmt]|ll|ve|re)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "
        "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+",
        "'s|'t| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+"};
    enum { N = 1000000 };
    char *text = malloc(N);
    for (int i = 0; i < 3; i++) {
        memset(text, " a."[i], N);
        text[N - 1] = 'b';
        for (size_t k = 0; k < EQI_COUNT(real); k++) OK(ctx, encode_by(real[k], text, N));
    }
    free(text);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("tokenizer stages");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, split, 0, EQI_COUNT(splits));
    tcase_add_loop_test(c, pattern, 0, EQI_COUNT(patterns));
    tcase_add_loop_test(c, refused_pattern, 0, EQI_COUNT(refused));
    tcase_add_loop_test(c, normalizer, 0, EQI_COUNT(normalizers));
    tcase_add_loop_test(c, metaspace_first, 0, EQI_COUNT(firsts));
    tcase_add_loop_test(c, added_token, 0, EQI_COUNT(added));
    tcase_add_test(c, added_tokens_together);
    tcase_add_loop_test(c, post_processor, 0, EQI_COUNT(posts));
    tcase_add_loop_test(c, decoder, 0, EQI_COUNT(decoders));
    tcase_add_test(c, decode_special);
    tcase_add_test(c, patterns_that_would_not_end);
    tcase_add_test(c, patterns_that_take_long_runs_back);
    return run_case("tokenizer stages", c, CK_FORK_GETENV);
}
