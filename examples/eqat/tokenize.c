#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"
#include "tool.h"

static eqat_status print_line(tool *t, const eqat_tokenizer *tokenizer, const char *line,
                              size_t length, uint32_t flags, json_t *lines)
{
    const int32_t *ids;
    size_t count;
    eqat_status st = eqat_tokenizer_encode(tokenizer, line, length, flags, &ids, &count);
    if (st != EQAT_OK) return st;
    if (!t->json) {
        for (size_t i = 0; i < count; i++) printf("%s%d", i ? " " : "", ids[i]);
        putchar('\n');
        return EQAT_OK;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
    json_array_append_new(lines, list);
    return EQAT_OK;
}

static eqat_status print_lines(tool *t, const eqat_tokenizer *tokenizer, FILE *in, const char *name,
                               uint32_t flags, json_t *lines)
{
    char *line = NULL;
    size_t capacity = 0;
    eqat_status st = EQAT_OK;
    for (ssize_t n;
         st == EQAT_OK && !tool_interrupted() && (n = getline(&line, &capacity, in)) >= 0;) {
        if (n > 0 && line[n - 1] == '\n') n--;
        st = print_line(t, tokenizer, line, (size_t)n, flags, lines);
    }
    if (st == EQAT_OK && tool_interrupted())
        st = tool_fail(t, EQAT_CANCELLED, "cancelled");
    else if (st == EQAT_OK && ferror(in))
        st = tool_fail(t, EQAT_IO, "%s: cannot read: %s", name, strerror(errno));
    free(line);
    return st;
}

int command_tokenize(int argc, char **argv)
{
    tool t = {0};
    const char *path, *text = NULL;
    bool special = false, parse = false;
    eqat_context_options_init(&t.context, sizeof t.context);
    t.context.threads = 1;
    const flag_own own[] = {
        {.name = "text", .value = "FILE", .help = "the text; - for standard input", .text = &text},
        {.name = "add-special",
         .help = "put the beginning-of-text token where the tokenizer does",
         .on = &special},
        {.name = "parse-special",
         .help = "read special tokens written in the text as such",
         .on = &parse},
        TOOL_FLAGS(&t),
    };
    const flag_group groups[] = {{"Context", "context", "", &t.context, tool_context_fields}};
    const flag_set set = {"tokenize MODEL --text FILE",
                          "Ids of a text, one line per input line (without its newline).",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          1};
    int code = flags_parse(&set, argc, argv, &path);
    if (code >= 0) return code;
    if (!path || !text) return flags_refuse("tokenize: expected a MODEL and --text FILE");
    FILE *in = strcmp(text, "-") ? fopen(text, "rb") : stdin;
    if (!in) {
        fprintf(stderr, "eqat: %s: cannot open: %s\n", text, strerror(errno));
        return 1;
    }
    t.run = record_new("tokenize", argc, argv);
    json_object_set_new(t.run, "model", tool_text(path));
    code = tool_open(&t);
    if (code) {
        if (in != stdin) fclose(in);
        return code;
    }
    uint32_t flags =
        (special ? EQAT_TOKENIZE_ADD_SPECIAL : 0u) | (parse ? EQAT_TOKENIZE_PARSE_SPECIAL : 0u);
    json_t *lines = json_array();
    eqat_tokenizer *tokenizer = NULL;
    eqat_status st = eqat_tokenizer_open(t.ctx, &tokenizer, path);
    if (st == EQAT_OK) st = print_lines(&t, tokenizer, in, text, flags, lines);
    tool_set(&t, "ids", lines);
    eqat_tokenizer_free(tokenizer);
    if (in != stdin) fclose(in);
    return tool_close(&t, st);
}
