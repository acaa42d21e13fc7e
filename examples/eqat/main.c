/* eqat: quantizes, trains, evaluates and inspects models with libeqat, through its public interface
 * alone. */
#include <string.h>

#include "commands.h"

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "-h")) name = "--help";
    for (const command *c = commands; c->name; c++)
        if (!strcmp(name, c->name)) return c->run(argc - 2, argv + 2);
    if (argc > 1) fprintf(stderr, "eqat: unknown command \"%s\"\n", name);
    commands_usage(stderr);
    return 2;
}
