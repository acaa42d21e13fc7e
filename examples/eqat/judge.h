/* The end of eqat quantize: perplexities of the input, of its round to nearest, and of the result
 * on validation samples. */
#ifndef EQAT_TOOL_JUDGE_H
#define EQAT_TOOL_JUDGE_H

#include "output.h"
#include "tool.h"

typedef struct judge {
    bool off;     /* asked not to */
    int32_t *ids; /* of the windows, one behind the other; NULL: none are known */
    int64_t windows, time;
    bool cut;   /* interrupted */
    bool worse; /* the result than round to nearest, by more than chance */
} judge;

/* Validation windows that a run of so many training samples can afford: a twentieth of these. */
int64_t judge_windows(int64_t train, int64_t epochs, int64_t val);
/* Copies the first so many validation samples. */
eqat_status judge_take(tool *t, judge *j, eqat_data *data, int64_t windows);
/* Puts the identity into the run's record. True: in its place is the whole result of the same
 * command, which was ended before it had judged it. */
bool judge_is_left(tool *t, const output *out);
/* Judges a result that is saved; frees it on the way, so that there is never more than one model. A
 * failure is told and leaves worse false: the result is there. */
void judge_result(
    tool *t, judge *j, eqat_model *result, const char *input, const eqat_model_options *options,
    eqat_status (*make_quantizer)(void *user, eqat_model *model, eqat_quantizer **out), void *user);
void judge_release(judge *j);

#endif
