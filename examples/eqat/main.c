/* eqat: quantizes, trains, evaluates and inspects models with libeqat, through its public interface
 * alone. */
#include <stdio.h>
#include <string.h>

#include "tool.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"quantize", command_quantize, "a model to 2-8 bits: RTN, Block-AP, or Block-AP and E2E-QP"},
    {"e2e-qp", command_e2e_qp, "train the scales of a quantized model end to end"},
    {"eval", command_eval, "perplexity over consecutive windows of a text"},
    {"inspect", command_inspect, "family, shapes, bits per parameter, bytes"},
    {"tokenize", command_tokenize, "ids of a text, one line per input line"},
};

static void usage(FILE *to)
{
    fprintf(to, "usage: eqat COMMAND ...\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(to,
            "\neqat COMMAND --help tells the flags of a command; eqat --version the version.\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("eqat %s\n", eqat_version());
        return 0;
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 2, argv + 2);
    fprintf(stderr, "eqat: unknown command \"%s\"\n", argv[1]);
    usage(stderr);
    return 2;
}
