#include "commands.h"

#include "tool.h"

static int print_version(int argc, char **argv)
{
    (void)argc, (void)argv;
    printf("eqat %s\n", eqat_version());
    return 0;
}

static int print_usage(int argc, char **argv)
{
    (void)argc, (void)argv;
    commands_usage(stdout);
    return 0;
}

const command commands[] = {
    {"quantize", command_quantize, "a model to 2-8 bits: RTN, Block-AP, or Block-AP and E2E-QP"},
    {"e2e-qp", command_e2e_qp, "train the scales of a quantized model end to end"},
    {"convert", command_convert, "a model to another format, with the same weights"},
    {"eval", command_eval, "perplexity over consecutive windows of a text"},
    {"generate", command_generate, "continue a text"},
    {"inspect", command_inspect, "family, shapes, bits per parameter, bytes"},
    {"tokenize", command_tokenize, "ids of a text, one line per input line"},
    {"report", command_report, "one page of the logs and saved folders of runs"},
    {"completion", command_completion, "completions for bash, zsh or fish"},
    {"man", command_man, "the manual page, for man -l -"},
    {"--version", print_version, "the version"},
    {"--help", print_usage, "this list; eqat COMMAND --help tells the flags of a command"},
    {NULL, NULL, NULL},
};

void commands_usage(FILE *to)
{
    fprintf(to, "usage: eqat COMMAND ...\n\n");
    for (const command *c = commands; c->name; c++) fprintf(to, "  %-11s %s\n", c->name, c->help);
}

typedef struct walk {
    command_show show;
    void *user;
    const command *command;
} walk;

static void show_one(void *user, const flag_set *set)
{
    const walk *w = user;
    w->show(w->user, w->command, set);
}

void commands_walk(command_show show, void *user)
{
    walk w = {show, user, NULL};
    flags_show(show_one, &w);
    for (w.command = commands; w.command->name; w.command++)
        if (w.command->name[0] != '-') w.command->run(0, NULL);
    flags_show(NULL, NULL);
}
