#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

/* The page is made by the Python package, which has the flags, too. */
int command_report(int argc, char **argv)
{
    static const char *const program = "eqat-report";
    const flag_set set = {.usage = "report RUN_DIR... [flags of eqat-report]",
                          .about =
                              "Makes one HTML page of the logs and saved folders of runs, with "
                              "eqat-report of the Python package eqat; eqat-report --help "
                              "tells its flags."};
    const char *first;
    bool asked = argc == 1 && (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h"));
    if (!argv || asked) return flags_parse(&set, argc, argv, &first);
    const char **command = calloc((size_t)argc + 2, sizeof *command);
    if (!command) return 1;
    command[0] = program;
    for (int i = 0; i < argc; i++) command[i + 1] = argv[i];
    execvp(program, (char *const *)command);
    fprintf(stderr,
            "eqat: report: cannot run %s: %s; expected it in PATH, from the Python package "
            "eqat\n",
            program, strerror(errno));
    free(command);
    return 1;
}
