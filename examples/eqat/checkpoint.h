/* What a run keeps so that the same command can go on after whatever ended it: a folder with the
 * states of its jobs, its log, and checkpoint.json, which names them and is replaced last. */
#ifndef EQAT_TOOL_CHECKPOINT_H
#define EQAT_TOOL_CHECKPOINT_H

#include "output.h"
#include "tool.h"

typedef struct checkpoint {
    const char *dir; /* NULL: nothing is kept, and every call does nothing */
    const char *steps_text, *seconds_text;
    int64_t steps;    /* from one to the next; 0: does not count */
    double seconds;   /* likewise */
    bool placed;      /* an earlier run of the command has put its result in place */
    json_t *manifest; /* as it is on disk */
    int folder;       /* open, and locked */
    int64_t taken;    /* steps since the last one */
    double last;      /* when it was */
} checkpoint;

#define CHECKPOINT_FLAGS(c)                                                                       \
    {.name = "checkpoint-dir",                                                                    \
     .value = "DIR",                                                                              \
     .help = "keep there what the same command goes on from when it is ended; gone with the end", \
     .text = &(c)->dir},                                                                          \
        {.name = "checkpoint-seconds",                                                            \
         .value = "N",                                                                            \
         .help = "at most so long between two; 0: after every block and at the end alone "        \
                 "(default 600)",                                                                 \
         .text = &(c)->seconds_text},                                                             \
    {                                                                                             \
        .name = "checkpoint-steps", .value = "N",                                                 \
        .help = "at most so many steps between two; 0: any number (default 0)",                   \
        .text = &(c)->steps_text                                                                  \
    }

/* Reads the numbers. -1, or 2 after telling why not. */
int checkpoint_check(checkpoint *c);
/* Makes the folder, or takes up what another run of the command has left there: its log comes in
 * front of this one's. Refuses a folder in use, one with other files, and the checkpoint of a run
 * with other options, data or model, naming what differs. */
eqat_status checkpoint_open(tool *t, checkpoint *c, const output *out);
/* The state of a phase's job, or NULL; free(). */
char *checkpoint_state(const checkpoint *c, const char *phase);
/* A job was loaded from such a state: tells so. */
void checkpoint_resumed(tool *t, checkpoint *c, const char *phase);

/* Counts a step; whether it is time for the next checkpoint. */
bool checkpoint_due(checkpoint *c);
/* Writes the job's state by `save`, and the log so far. A failure is told, and the checkpoint
 * before stays. */
typedef eqat_status (*checkpoint_save_fn)(void *job, const char *path);
void checkpoint_save(tool *t, checkpoint *c, const char *phase, checkpoint_save_fn save, void *job);

/* Of a run that was interrupted: what goes on from there, if anything was saved. */
void checkpoint_tell(const tool *t, const checkpoint *c);
/* done: the result is in its place, and the checkpoint goes. */
void checkpoint_close(checkpoint *c, bool done);

#endif
