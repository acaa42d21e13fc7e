/* Command-line flags out of the library's options tables: every field is a flag, its default stands
 * in --help. */
#ifndef EQAT_TOOL_FLAGS_H
#define EQAT_TOOL_FLAGS_H

#include <eqat/eqat.h>

/* The fields of one options struct as flags: --PREFIXtrain-size for train_size. */
typedef struct flag_group {
    const char *title; /* of the section in --help; NULL: accepted, not shown */
    const char *struct_name;
    const char *prefix;
    void *options;             /* initialised; its present values are shown as defaults */
    const char *const *fields; /* NULL-terminated names to offer; NULL: all */
    const char **given; /* receives a flag of these that was given, "--epochs" or "--epochs=2";
                           NULL: not wanted */
} flag_group;

/* What a flag that may be repeated was given, in order. */
typedef struct flag_values {
    struct {
        const char *name, *value; /* "rule", "*.down_proj=4" */
    } items[256];
    size_t count;
} flag_values;

/* A flag of the tool's own; exactly one of text, on and list is set. */
typedef struct flag_own {
    const char *name;  /* "out" */
    const char *value; /* "DIR" in --help; NULL for a switch */
    const char *help;
    const char **text;
    bool *on;
    const char *const *words; /* NULL-terminated values that there are; NULL: any */
    flag_values *list;        /* flags of one list keep the order between them */
} flag_own;

typedef struct flag_set {
    const char *usage; /* "quantize MODEL --out DIR ..." */
    const char *about;
    const flag_own *own;
    size_t n_own;
    const flag_group *groups;
    size_t n_groups;
    const char *const *words; /* what the argument can be, as in flag_own; NULL: a path */
    const char **second;      /* receives a second argument, also a path; NULL: there is but one */
} flag_set;

/* One flag as it is told to people, whichever table it comes from. */
typedef struct flag_row {
    const char *section;      /* NULL: the flags that stand first */
    const char *name;         /* "train-size" */
    const char *value;        /* "N"; NULL for a switch */
    const char *const *words; /* as in flag_own */
    const char *help;
    const char *fallback; /* the value without the flag; NULL: told in help */
} flag_row;
typedef void (*flag_visit)(void *user, const flag_row *row);

/* Visits every flag that is shown, in order. */
void flags_walk(const flag_set *set, flag_visit visit, void *user);

/* From now on flags_parse gives its set to `show` and returns 0, and the command does nothing: how
 * the manual and the completions ask each command for its flags.  NULL: as before. */
void flags_show(void (*show)(void *user, const flag_set *set), void *user);

/* Parses argv[0..argc) into the options; the single argument that is not a flag goes to
 * *positional. Returns -1 to go on, or an exit code (0 after --help, 2 after an error told on
 * standard error). */
int flags_parse(const flag_set *set, int argc, char **argv, const char **positional);
/* The line about flags that cannot be, on standard error. Returns the exit code, 2. */
int flags_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
