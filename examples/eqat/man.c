/* The manual page in mdoc, made of what --help shows. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "tool.h"

#define REVISED "November 28, 2026"
#define TEXT_WIDTH 78

/* A hyphen stays a hyphen, and nothing begins a request. */
static void print_word(const char *word, size_t length)
{
    if (word[0] == '.' || word[0] == '\'') printf("\\&");
    for (size_t i = 0; i < length; i++) {
        if (word[i] == '-')
            printf("\\-");
        else if (word[i] == '\\')
            printf("\\e");
        else
            putchar(word[i]);
    }
}

/* Text in lines of its own; mdoc wants every sentence to begin one. */
static void print_text(const char *text)
{
    size_t column = 0;
    bool sentence = false;
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t length = strcspn(text, " ");
        bool begins = sentence && isupper((unsigned char)*text);
        if (column > 0) putchar(begins || column + length > TEXT_WIDTH ? '\n' : ' ');
        if (begins || column + length > TEXT_WIDTH) column = 0;
        print_word(text, length);
        sentence = text[length - 1] == '.';
        column += length + 1;
        text += length;
    }
    putchar('\n');
}

static bool is_value(const char *word, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isupper((unsigned char)word[i])) return false;
    return length > 0;
}

/* "eval MODEL [--seq-len N]": flags bold, what stands for a value in italics. */
static void print_usage(const char *usage)
{
    while (*usage) {
        size_t word = strcspn(usage, " []");
        bool strong = *usage == '-', value = is_value(usage, word);
        if (strong || value) printf(strong ? "\\fB" : "\\fI");
        print_word(usage, word);
        if (strong || value) printf("\\fR");
        usage += word;
        size_t gap = strspn(usage, " []");
        printf("%.*s", (int)gap, usage);
        usage += gap;
    }
    putchar('\n');
}

typedef struct flag_list {
    const char *section;
} flag_list;

static void print_flag(void *user, const flag_row *row)
{
    flag_list *list = user;
    if (row->section != list->section) {
        printf(".El\n.Pp\n.Em ");
        print_text(row->section);
        printf(".Bl -tag -width Ds\n");
        list->section = row->section;
    }
    printf(".It Fl -%s", row->name);
    if (row->value) printf(" Ar \"%s\"", row->value);
    putchar('\n');
    char text[1024];
    snprintf(text, sizeof text, row->fallback ? "%s (default %s)" : "%s", row->help, row->fallback);
    print_text(text);
}

static void print_synopsis(void *user, const command *c, const flag_set *set)
{
    (void)user, (void)c;
    printf(".Nm\n");
    print_usage(set->usage);
}

static void print_command(void *user, const command *c, const flag_set *set)
{
    (void)user;
    flag_list list = {NULL};
    printf(".Ss eqat %s\n", c->name);
    print_text(set->about);
    printf(".Bl -tag -width Ds\n");
    flags_walk(set, print_flag, &list);
    printf(".El\n");
}

static void print_head(void)
{
    printf(".Dd " REVISED "\n.Dt EQAT 1\n.Os \"eqat %s\"\n"
           ".Sh NAME\n.Nm eqat\n.Nd quantizes, trains, evaluates and inspects language models\n"
           ".Sh SYNOPSIS\n",
           eqat_version());
    commands_walk(print_synopsis, NULL);
    for (const command *c = commands; c->name; c++)
        if (c->name[0] == '-') printf(".Nm\n.Fl %s\n", c->name + 1);
    printf(".Sh DESCRIPTION\n.Nm\n"
           "makes language models of 2, 3 or 4 bits with EfficientQAT.\n"
           "Block\\-AP trains all weights, scales and zero points of one transformer block\n"
           "after another; E2E\\-QP then trains the scales alone, end to end.\n"
           "The result is a Hugging Face folder in the gptq_v2 layout.\n"
           ".Pp\n.Ar MODEL\n"
           "is a Hugging Face folder or a GGUF file, also a quantized one.\n"
           ".Ar FILE\n"
           "with text or tokens is\n.Pa .txt ,\n.Pa .jsonl\n(key\n.Qq text ) ,\n"
           ".Pa .npy ,\n.Pa .u16\nor\n.Pa .u32 .\n"
           ".Pp\nA value follows its flag as the next argument or after an equals sign:\n"
           ".Fl -bits Ar 2\nor\n.Fl -bits=2 .\n");
}

static void print_tail(void)
{
    printf(
        ".Sh EXIT STATUS\n.Bl -tag -width 130\n"
        ".It 0\nAll went well.\n"
        ".It 1\nA failure, told in one line on standard error; no output is left behind.\n"
        ".It 2\nThe command line cannot be read: an unknown flag, a value out of bounds.\n"
        ".It 3\nThe result of\n.Cm quantize\nis there, but worse than round to nearest.\n"
        ".It 128+N\nInterrupted by signal N, such as 130 by SIGINT.\nA result of Block\\-AP that "
        "is "
        "complete, and checkpoints, stay;\nstandard error tells where.\n.El\n"
        ".Sh EXAMPLES\n"
        "Two bits in groups of 64, both phases:\n"
        ".Bd -literal -offset indent\n"
        "eqat quantize SmolLM2\\-135M \\-\\-out SmolLM2\\-w2g64 \\-\\-bits 2 \\-\\-group\\-size 64 "
        "\\e\n"
        "    \\-\\-calib text.jsonl \\-\\-e2e text.jsonl\n"
        ".Ed\n.Pp\n"
        "What it lost:\n"
        ".Bd -literal -offset indent\n"
        "eqat eval SmolLM2\\-135M  \\-\\-text wiki.txt \\-\\-seq\\-len 2048\n"
        "eqat eval SmolLM2\\-w2g64 \\-\\-text wiki.txt \\-\\-seq\\-len 2048\n"
        ".Ed\n.Pp\n"
        "Completion in this bash:\n"
        ".Bd -literal -offset indent\n"
        "source <(eqat completion bash)\n"
        ".Ed\n"
        ".Sh SEE ALSO\n"
        ".Rs\n.%%A Mengzhao Chen et al.\n"
        ".%%T EfficientQAT: Efficient Quantization\\-Aware Training for Large Language Models\n"
        ".%%D 2025\n.%%J ACL\n.Re\n");
}

int command_man(int argc, char **argv)
{
    static const char *const no_words[] = {NULL};
    const char *none;
    const flag_set set = {
        .usage = "man", .about = "Prints this manual page, for man -l -.", .words = no_words};
    int code = flags_parse(&set, argc, argv, &none);
    if (code >= 0) return code;
    if (none) return flags_refuse("man: unexpected argument \"%s\"", none);
    print_head();
    printf(".Sh COMMANDS\n");
    commands_walk(print_command, NULL);
    print_tail();
    return 0;
}
