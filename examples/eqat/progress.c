#include <math.h>
#include <string.h>

#include "tool.h"

void tool_duration(double seconds, char *out, size_t size)
{
    long s = lround(seconds);
    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

static void draw_bar(tool *t, const eqat_progress *p, double share, const char *eta)
{
    char bar[31];
    int full = (int)(share * 30);
    for (int i = 0; i < 30; i++) bar[i] = i < full ? '#' : '.';
    bar[30] = 0;
    fprintf(stderr, "\r%s [%s] %3.0f%%", p->phase, bar, share * 100);
    if (p->blocks)
        fprintf(stderr, " block %lld/%lld", (long long)p->block + 1, (long long)p->blocks);
    if (isfinite(p->loss)) fprintf(stderr, " loss %.4g", p->loss);
    fprintf(stderr, " ETA %s \033[K", eta);
    fflush(stderr);
    t->bar_open = true;
}

int32_t tool_progress(void *user, const eqat_progress *p)
{
    tool *t = user;
    double now = tool_seconds();
    if (strcmp(t->phase, p->phase)) {
        tool_close_bar(t);
        snprintf(t->phase, sizeof t->phase, "%s", p->phase);
        t->phase_started = now;
        t->last_line = 0;
    }
    double share = p->steps > 0 ? (double)p->step / (double)p->steps : 0;
    char eta[32] = "?";
    if (share > 0) tool_duration((now - t->phase_started) * (1 - share) / share, eta, sizeof eta);
    bool last = p->step == p->steps, told = t->context.log_level >= EQAT_LOG_INFO;
    if (told && t->terminal && (now - t->last_line > 0.1 || last)) {
        draw_bar(t, p, share, eta);
        t->last_line = now;
    } else if (told && !t->terminal && (now - t->last_line > 10 || last)) {
        fprintf(stderr, "%s: step %lld of %lld", p->phase, (long long)p->step, (long long)p->steps);
        if (p->blocks)
            fprintf(stderr, ", block %lld of %lld", (long long)p->block + 1, (long long)p->blocks);
        if (isfinite(p->loss)) fprintf(stderr, ", loss %.6g", p->loss);
        fprintf(stderr, ", ETA %s\n", eta);
        t->last_line = now;
    }
    tool_event(t,
               json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o}", "event", "step", "phase",
                         p->phase, "block", (json_int_t)p->block, "epoch", (json_int_t)p->epoch,
                         "epochs", (json_int_t)p->epochs, "step", (json_int_t)p->step, "steps",
                         (json_int_t)p->steps, "loss", tool_number(p->loss), "val_loss",
                         tool_number(p->val_loss), "lr", tool_number(p->lr), "grad_norm",
                         tool_number(p->grad_norm)));
    return 0;
}

void tool_end_phase(tool *t)
{
    tool_event(t,
               json_pack("{s:s,s:s,s:f,s:I}", "event", "phase", "phase", t->phase, "seconds",
                         tool_seconds() - t->phase_started, "peak_rss_bytes",
                         (json_int_t)tool_peak_rss()));
}
