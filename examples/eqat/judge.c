#include "judge.h"

#include <math.h>
#include <stdlib.h>

#include "identity.h"

int64_t judge_windows(int64_t train, int64_t epochs, int64_t val)
{
    int64_t afford = train * epochs / 20;
    if (afford < 1) afford = 1;
    return afford < val ? afford : val;
}

eqat_status judge_take(tool *t, judge *j, eqat_data *data, int64_t windows)
{
    j->time = eqat_data_seq_len(data);
    if (j->off || !windows) return EQAT_OK;
    j->ids = malloc((size_t)(windows * j->time) * sizeof *j->ids);
    if (!j->ids) return tool_fail(t, EQAT_OUT_OF_MEMORY, "out of memory: validation windows");
    for (; j->windows < windows; j->windows++) {
        const eqat_sample sample = {.struct_size = sizeof sample,
                                    .ids = j->ids + j->windows * j->time};
        eqat_status st = eqat_data_sample(data, true, j->windows, &sample);
        if (st != EQAT_OK) return st;
    }
    return EQAT_OK;
}

bool judge_is_left(tool *t, const output *out)
{
    json_t *of = identity_of(t->run);
    if (!of) return false; /* opening the model tells why */
    bool left = output_is_same(t, out, of) && !output_log_has(out->path, "judged");
    json_decref(of);
    if (left) tool_say(t, "%s: found whole, but not judged; it is judged now", out->path);
    return left;
}

void judge_release(judge *j)
{
    free(j->ids);
    j->ids = NULL;
}

static eqat_status open_windows(tool *t, const judge *j, eqat_model *model, eqat_data **out)
{
    eqat_model_info m = {.struct_size = sizeof m};
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = j->windows;
    o.val_size = 0;
    o.seq_len = j->time;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    o.shuffle = false;
    eqat_status st = eqat_model_inspect(model, &m);
    t->blocks = m.blocks;
    if (st != EQAT_OK) return st;
    return eqat_data_from_tokens(t->ctx, out, j->ids, (size_t)(j->windows * j->time), m.vocab_size,
                                 &o);
}

/* NaN: its losses are not finite. */
static eqat_status perplexity_of(tool *t, const judge *j, eqat_model *model, double *out)
{
    eqat_data *data = NULL;
    eqat_eval_options o;
    eqat_perplexity p = {.struct_size = sizeof p};
    eqat_eval_options_init(&o, sizeof o);
    o.progress = tool_between;
    o.progress_user = t;
    *out = NAN;
    tool_begin_phase(t, "eval");
    eqat_status st = open_windows(t, j, model, &data);
    if (st == EQAT_OK) st = eqat_eval_perplexity(model, data, &o, &p);
    if (st == EQAT_OK) *out = p.perplexity;
    eqat_data_free(data);
    return st == EQAT_NUMERIC ? EQAT_OK : st;
}

/* A token's loss differs between two roundings by half a nat or so: what their mean over all tokens
 * may differ by chance, twice its deviation, is no judgement. */
static bool is_worse(const judge *j, double result, double rtn)
{
    double tokens = (double)(j->windows * (j->time - 1));
    if (!isfinite(result) || !isfinite(rtn)) return !isfinite(result);
    return log(result / rtn) > 1 / sqrt(tokens);
}

static void tell(tool *t, judge *j, double full, double rtn, double result)
{
    j->worse = is_worse(j, result, rtn);
    tool_close_bar(t);
    tool_event(t,
               json_pack("{s:s,s:I,s:I,s:o,s:o,s:o}", "event", "judged", "windows",
                         (json_int_t)j->windows, "seq_len", (json_int_t)j->time, "full_precision",
                         tool_number(full), "rtn", tool_number(rtn), "result",
                         tool_number(result)));
    tool_set(t, "judged",
             json_pack("{s:I,s:o,s:o,s:o}", "windows", (json_int_t)j->windows, "full_precision",
                       tool_number(full), "rtn", tool_number(rtn), "result", tool_number(result)));
    tool_say(t,
             "perplexity on %lld validation windows: %.4g in full precision, %.4g rounded to "
             "nearest, %.4g as saved",
             (long long)j->windows, full, rtn, result);
    if (j->worse)
        tool_warn(t,
                  "the result is worse than round to nearest, which takes no training: lower "
                  "rates or more samples help");
}

void judge_result(
    tool *t, judge *j, eqat_model *result, const char *input, const eqat_model_options *options,
    eqat_status (*make_quantizer)(void *user, eqat_model *model, eqat_quantizer **out), void *user)
{
    eqat_model *model = NULL;
    eqat_quantizer *quantizer = NULL;
    double full = NAN, rtn = NAN, trained = NAN;
    eqat_rtn_options rounding = tool_rtn_options(t);
    eqat_status st = perplexity_of(t, j, result, &trained);
    eqat_model_free(result);
    if (st == EQAT_OK) st = eqat_model_open(t->ctx, &model, input, options);
    if (st == EQAT_OK) st = perplexity_of(t, j, model, &full);
    if (st == EQAT_OK) st = make_quantizer(user, model, &quantizer);
    if (st == EQAT_OK) st = eqat_model_quantize_rtn(model, quantizer, &rounding);
    if (st == EQAT_OK) st = perplexity_of(t, j, model, &rtn);
    j->cut = st == EQAT_CANCELLED;
    if (st == EQAT_OK)
        tell(t, j, full, rtn, trained);
    else
        tool_warn(t, "the result is saved, but not judged: %s",
                  t->error[0] ? t->error : eqat_context_error(t->ctx));
    t->error[0] = 0;
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
}
