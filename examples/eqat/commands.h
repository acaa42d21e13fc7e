/* The commands of the tool, one table for main, --help, the manual and the completions. */
#ifndef EQAT_TOOL_COMMANDS_H
#define EQAT_TOOL_COMMANDS_H

#include <stdio.h>

#include "flags.h"

typedef struct command {
    const char *name;                  /* "quantize", or a flag in its place: "--version" */
    int (*run)(int argc, char **argv); /* what follows the name; returns the exit code */
    const char *help;
} command;

extern const command commands[]; /* the last has no name */

void commands_usage(FILE *to); /* the list */

/* Calls show for each command that is not a flag, with its flags. */
typedef void (*command_show)(void *user, const command *c, const flag_set *set);
void commands_walk(command_show show, void *user);

#endif
