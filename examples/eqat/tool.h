/* What the commands of the tool share: the context, progress on standard error, the log file, the
 * JSON report. */
#ifndef EQAT_TOOL_TOOL_H
#define EQAT_TOOL_TOOL_H

#include <eqat/eqat.h>
#include <jansson.h>
#include <stdio.h>

#include "flags.h"

/* Seconds, measured before a run, or only their proportions; of block 0 for all blocks. */
typedef struct tool_costs {
    double begin;                                     /* a block, without its batches */
    double step, move;                                /* a batch: a training step; a pass */
    int64_t steps, val_batches, move_batches, epochs; /* of a block */
    double e2e;                                       /* all of E2E-QP; 0: not measured */
} tool_costs;

typedef struct tool {
    eqat_context *ctx;
    eqat_context_options context;
    bool json;            /* one object on standard output */
    const char *log_path; /* one JSON line per event; NULL: none */
    FILE *log;
    bool keeps;          /* set by a command that saves: the log goes into the folder, too */
    FILE *kept;          /* the lines until then; no name */
    long kept_own;       /* where those of this run begin */
    json_t *run;         /* the first event (record.h) */
    json_t *runs;        /* it, behind those of the input */
    int64_t input_bytes; /* of the input's tensors; 0: not told */
    bool terminal;       /* standard error is one: draw a bar */
    bool bar_open;       /* a bar without its newline is on the screen */
    char error[1024];    /* from tool_fail; "": the context holds the line */
    double started, phase_started, last_line;
    double resumed_at, resumed_done; /* of the phase, in units of the costs; resumed_at 0: no */
    tool_costs costs;
    int64_t blocks;        /* of the model in eval, whose steps are windows through blocks */
    double loss, val_loss; /* the last ones */
    char phase[16];
    json_t *report; /* what --json prints */
} tool;

/* Flags that every command has. */
#define TOOL_FLAGS(t)                                                                       \
    {.name = "json", .help = "print one JSON object on standard output", .on = &(t)->json}, \
    {                                                                                       \
        .name = "log-file", .value = "FILE", .help = "append one JSON line per event",      \
        .text = &(t)->log_path                                                              \
    }
extern const char *const tool_context_fields[];

/* With t->run complete (its reference is taken), opens the log and the context and catches
 * interrupts. Returns 0, or an exit code after telling why. */
int tool_open(tool *t);
/* In place of tool_open after a failure that was told: frees t->run, returns the exit code. */
int tool_give_up(tool *t);
/* Prints the report or, when status is a failure, the one line; closes everything; returns the exit
 * code. */
int tool_close(tool *t, eqat_status status);
/* Keeps the line about a failure outside the library for tool_close; returns status. */
eqat_status tool_fail(tool *t, eqat_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A line for people and the log that stops nothing. */
void tool_warn(tool *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* When samples of so many tokens are longer than what the model was trained for. */
void tool_warn_context(tool *t, eqat_model *model, int64_t seq_len);
bool tool_interrupted(void);
/* While held, an interrupt waits for who asks tool_interrupted; else it cancels what runs. */
void tool_hold_interrupts(bool hold);

void tool_close_bar(tool *t);
double tool_costs_block(const tool_costs *costs);
void tool_duration(double seconds, char *out, size_t size); /* "1:02:03" */
double tool_seconds(void);                                  /* monotonic */
int64_t tool_peak_rss(void);                                /* bytes */
bool tool_has_device_memory(const tool *t); /* tensors are not in the host's memory */
/* Adds what was held at most so far, of the device too; returns the object. */
json_t *tool_with_peaks(tool *t, json_t *object);
/* An eqat_progress_fn; user is the tool. Standard error hears of it from EQAT_LOG_INFO on. */
int32_t tool_progress(void *user, const eqat_progress *progress);
/* The same for what comes between steps, which the log does not hear of. */
int32_t tool_between(void *user, const eqat_progress *progress);
eqat_rtn_options tool_rtn_options(tool *t);        /* that tell tool_between */
void tool_begin_phase(tool *t, const char *phase); /* its time counts from here */
void tool_end_phase(tool *t);                      /* the log hears of it */
void tool_resume_phase(tool *t); /* it goes on from what another process did: rates begin here */
void tool_say(tool *t, const char *format, ...)
    __attribute__((format(printf, 2,
                          3))); /* one line for people: standard output, or nothing with --json */
json_t *tool_text(const char *text); /* a JSON string, also of a path that is not UTF-8 */
void tool_set(tool *t, const char *key, json_t *value); /* into the report; takes the reference */
json_t *tool_number(double x);           /* null when x is not finite: JSON has no name for it */
void tool_event(tool *t, json_t *event); /* into the log; takes the reference */
/* Puts so many bytes of a file in front of this run's lines of the log that is kept, in place of
 * what the input's log said. */
bool tool_log_before(tool *t, const char *path, long long bytes);
long long tool_log_bytes(tool *t); /* of that log */
/* That log from a byte on; *bytes: its length. */
bool tool_log_copy(tool *t, long long from, FILE *to, long long *bytes);

/* Commands: argv after the command's name; each returns the exit code. */
int command_quantize(int argc, char **argv);
int command_e2e_qp(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_report(int argc, char **argv); /* does not return when it can be run */
int command_completion(int argc, char **argv);
int command_man(int argc, char **argv);

#endif
