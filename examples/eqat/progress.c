#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tool.h"

void tool_duration(double seconds, char *out, size_t size)
{
    long s = lround(seconds);
    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

/* Of which nothing is said unless they take long. */
static bool is_short(const char *phase) { return !strcmp(phase, "rtn") || !strcmp(phase, "save"); }

void tool_begin_phase(tool *t, const char *phase)
{
    tool_close_bar(t);
    snprintf(t->phase, sizeof t->phase, "%s", phase);
    t->phase_started = tool_seconds();
    t->last_line = is_short(phase) ? t->phase_started : 0;
    t->loss = t->val_loss = NAN;
    t->resumed_at = 0;
}

/* ---- time ---- */

static bool is_work(const eqat_progress *p, const char *work) { return !strcmp(p->work, work); }

static bool is_of_blocks(const eqat_progress *p) { return !strcmp(p->phase, "block-ap"); }

/* Of block-ap: what is done of the whole, in units of the costs: passes of the streams and
 * validations count, not steps alone. Without a measurement a step counts as three passes. */
static void work_of_blocks(const tool *t, const eqat_progress *p, double *done, double *all)
{
    tool_costs c = t->costs;
    if (!(c.step > 0)) {
        c.step = 3;
        c.move = 1;
        c.begin = 0;
    }
    double block = tool_costs_block(&c), blocks = (double)p->blocks, before = (double)p->block;
    double here = (double)p->step - before * (double)p->steps / blocks;
    double epochs = c.steps ? floor(here / (double)c.steps) : 0;
    double moves = (double)c.move_batches * c.move, validation = (double)c.val_batches * c.move;
    double batch = (double)p->batch * c.move;
    *all = blocks * block;
    *done = before * block + c.begin + moves + here * c.step + (epochs + 1) * validation;
    if (is_work(p, "validate")) *done += batch - validation;
    if (is_work(p, "inputs")) *done = before * block + block - moves + batch;
    if (is_work(p, "targets")) *done = before * block + batch;
    if (is_work(p, "moments")) *done = before * block + moves;
    if (is_work(p, "start") && here <= 0)
        *done = before * block + moves + c.begin * (double)p->batch / (double)p->batches;
    if (is_work(p, "load")) *done = before * block;
    if (is_work(p, "embed")) *done = 0;
}

/* What is done of the phase, and the whole. */
static void work_of(const tool *t, const eqat_progress *p, double *done, double *all)
{
    bool part = p->batches && !is_work(p, "load");
    *done = (double)p->step + (part ? (double)p->batch / (double)p->batches : 0);
    *all = (double)p->steps;
    if (is_of_blocks(p)) work_of_blocks(t, p, done, all);
}

void tool_resume_phase(tool *t)
{
    t->resumed_at = tool_seconds() - t->phase_started;
    t->resumed_done = -1;
}

/* The first step after it is the first that counts. */
static void begin_resumed(tool *t, const eqat_progress *p)
{
    eqat_progress before = *p;
    double all;
    if (!(t->resumed_at > 0) || t->resumed_done >= 0) return;
    if (!p->batches) before.step--;
    work_of(t, &before, &t->resumed_done, &all);
}

/* Seconds that the phase takes in all, and is expected to go on for; 0 when nothing is known of
 * them. What was measured before it began counts as its first part. */
static double expect(const tool *t, const eqat_progress *p, double elapsed, double *left)
{
    double done, all, seconds = t->costs.e2e, before = 0;
    work_of(t, p, &done, &all);
    if (t->resumed_at > 0) {
        before = t->resumed_done;
        elapsed -= t->resumed_at;
    }
    bool blocks = is_of_blocks(p), measured = blocks || !strcmp(p->phase, "e2e-qp");
    if (blocks) seconds = t->costs.step > 0 ? all : 0;
    double weight = seconds > 0 ? (blocks ? 0.25 / (double)p->blocks : 0.05) : 0;
    if (!measured || !(all > 0)) weight = 0;
    double known = done - before + weight * all;
    *left = 0;
    if (!(known > 0) || is_work(p, "resume")) return 0;
    double total = all * (elapsed + weight * seconds) / known;
    bool over = p->steps && p->step == p->steps;
    *left = over ? 0 : fmax(0, total * (1 - done / all));
    return total;
}

/* ---- told ---- */

/* ", targets 3 of 20": what comes between steps. */
static void work_text(const eqat_progress *p, char *text, size_t size)
{
    static const char *const names[][2] = {
        {"embed", "embeddings"},    {"load", "loading part"},         {"start", "start of linear"},
        {"targets", "targets"},     {"inputs", "inputs of the next"}, {"validate", "validation"},
        {"resume", "passed again"}, {"accumulate", "micro-batch"},    {"types", "type of part"},
        {"moments", "moments"},     {"freeze", "rounding of tensor"}, {"sync", "sync"}};
    text[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && p->batches; i++)
        if (is_work(p, names[i][0]))
            snprintf(text, size, ", %s %lld of %lld", names[i][1], (long long)p->batch + 1,
                     (long long)p->batches);
}

/* "step 12 of 80, block 1 of 5", or in eval "window 3 of 20": all of them pass a block at once. */
static void position_text(const tool *t, const eqat_progress *p, char text[96])
{
    int64_t passes = t->blocks + 1;
    const char *one = !strcmp(p->phase, "rtn") ? "linear"
        : !strcmp(p->phase, "save")            ? "part"
                                               : "step";
    if (!strcmp(p->phase, "eval") && t->blocks)
        snprintf(text, 96, "window %lld of %lld", (long long)(p->step / passes),
                 (long long)(p->steps / passes));
    else if (p->blocks && !p->steps) /* a start without training */
        snprintf(text, 96, "block %lld of %lld", (long long)p->block + 1, (long long)p->blocks);
    else if (p->blocks)
        snprintf(text, 96, "%s %lld of %lld, block %lld of %lld", one, (long long)p->step,
                 (long long)p->steps, (long long)p->block + 1, (long long)p->blocks);
    else
        snprintf(text, 96, "%s %lld of %lld", one, (long long)p->step, (long long)p->steps);
}

static void losses_text(const tool *t, char text[96])
{
    text[0] = 0;
    if (isfinite(t->loss)) snprintf(text, 96, ", loss %.4g", t->loss);
    size_t n = strlen(text);
    if (isfinite(t->val_loss)) snprintf(text + n, 96 - n, ", validation %.4g", t->val_loss);
}

static void rate_text(const eqat_progress *p, double total, char text[32])
{
    double rate = total > 0 ? (double)p->steps / total : 0;
    text[0] = 0;
    if (!strcmp(p->phase, "eval") || is_short(p->phase) || !(rate > 0)) return;
    if (rate >= 1)
        snprintf(text, 32, ", %.1f steps/s", rate);
    else
        snprintf(text, 32, ", %.1f s/step", 1 / rate);
}

static void eta_text(double total, double left, char text[40])
{
    char duration[32];
    tool_duration(left, duration, sizeof duration);
    text[0] = 0;
    if (total > 0) snprintf(text, 40, ", ETA %s", duration);
}

/* What wraps cannot be drawn over. */
static int columns(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 512;
}

static void tell(tool *t, const eqat_progress *p, double now)
{
    char position[96], work[64], losses[96], rate[32], eta[40], bar[21];
    double left, total = expect(t, p, now - t->phase_started, &left);
    position_text(t, p, position);
    work_text(p, work, sizeof work);
    losses_text(t, losses);
    rate_text(p, total, rate);
    eta_text(total, left, eta);
    if (!t->terminal) {
        fprintf(stderr, "%s: %s%s%s%s%s\n", p->phase, position, work, losses, rate, eta);
        return;
    }
    double share = total > 0 ? 1 - left / total : 0;
    for (int i = 0; i < 20; i++) bar[i] = i < (int)(share * 20) ? '#' : '.';
    bar[20] = 0;
    char line[512];
    snprintf(line, sizeof line, "%s [%s] %s%s%s%s%s", p->phase, bar, position, work, losses, rate,
             eta);
    fprintf(stderr, "\r%.*s\033[K", columns() - 1, line);
    fflush(stderr);
    t->bar_open = true;
}

static void log_step(tool *t, const eqat_progress *p)
{
    tool_event(t,
               json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o}", "event", "step",
                         "phase", p->phase, "block", (json_int_t)p->block, "blocks",
                         (json_int_t)p->blocks, "epoch", (json_int_t)p->epoch, "epochs",
                         (json_int_t)p->epochs, "step", (json_int_t)p->step, "steps",
                         (json_int_t)p->steps, "loss", tool_number(p->loss), "val_loss",
                         tool_number(p->val_loss), "lr", tool_number(p->lr), "grad_norm",
                         tool_number(p->grad_norm)));
}

int32_t tool_between(void *user, const eqat_progress *p)
{
    tool *t = user;
    if (strcmp(t->phase, p->phase)) tool_begin_phase(t, p->phase);
    double now = tool_seconds(), pause = t->terminal ? 0.1 : 10;
    if (isfinite(p->loss)) t->loss = p->loss;
    if (isfinite(p->val_loss)) t->val_loss = p->val_loss;
    begin_resumed(t, p);
    bool shown = t->last_line > t->phase_started || !is_short(p->phase);
    bool due = now - t->last_line > pause || (p->step == p->steps && !p->batches && shown);
    if (due && t->context.log_level >= EQAT_LOG_INFO) {
        tell(t, p, now);
        t->last_line = now;
    }
    return 0;
}

int32_t tool_progress(void *user, const eqat_progress *p)
{
    log_step(user, p);
    return tool_between(user, p);
}

void tool_end_phase(tool *t)
{
    tool_event(t,
               tool_with_peaks(t,
                               json_pack("{s:s,s:s,s:f}", "event", "phase", "phase", t->phase,
                                         "seconds", tool_seconds() - t->phase_started)));
}

eqat_rtn_options tool_rtn_options(tool *t)
{
    eqat_rtn_options o;
    eqat_rtn_options_init(&o, sizeof o);
    o.progress = tool_between;
    o.progress_user = t;
    return o;
}
