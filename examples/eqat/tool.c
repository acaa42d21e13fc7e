#include "tool.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

const char *const tool_context_fields[] = {"device", "threads", "seed", "log_level", NULL};

static eqat_context *volatile interrupted_context;
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
    if (interrupted_context) eqat_context_cancel(interrupted_context);
}

bool tool_interrupted(void) { return interrupted; }

double tool_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Linux's ru_maxrss begins with the peak of the program that started this one. */
static int64_t peak_of_status(void)
{
    char line[128];
    long long kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && kilobytes == 0 && fgets(line, sizeof line, f))
        sscanf(line, "VmHWM: %lld", &kilobytes);
    if (f) fclose(f);
    return (int64_t)kilobytes * 1024;
}

int64_t tool_peak_rss(void)
{
    int64_t peak = peak_of_status();
    struct rusage u;
    if (peak > 0) return peak;
    getrusage(RUSAGE_SELF, &u);
    return (int64_t)u.ru_maxrss * 1024;
}

static void close_bar(tool *t)
{
    if (t->bar_open) fputc('\n', stderr);
    t->bar_open = false;
}

static void on_log(void *user, int32_t level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    tool *t = user;
    const char *name = level >= 0 && level < 4 ? names[level] : "log";
    close_bar(t);
    fprintf(stderr, "eqat: %s: %s\n", name, line);
    tool_event(t,
               json_pack("{s:s,s:s,s:o}", "event", "log", "level", name, "text", tool_text(line)));
}

int tool_open(tool *t, const char *command)
{
    t->started = t->phase_started = tool_seconds();
    t->terminal = isatty(STDERR_FILENO);
    t->report = json_object();
    tool_set(t, "command", json_string(command));
    if (t->log_path && !(t->log = fopen(t->log_path, "a"))) {
        fprintf(stderr, "eqat: %s: cannot open the log file: %s\n", t->log_path, strerror(errno));
        json_decref(t->report);
        return 1;
    }
    tool_event(t, json_pack("{s:s,s:s}", "event", "start", "command", command));
    t->context.log = on_log;
    t->context.log_user = t;
    char error[1024];
    if (eqat_context_create(&t->ctx, &t->context, error, sizeof error) != EQAT_OK) {
        fprintf(stderr, "eqat: %s\n", error);
        if (t->log) fclose(t->log);
        json_decref(t->report);
        return 1;
    }
    interrupted_context = t->ctx;
    /* The second interrupt ends the process the ordinary way. No SA_RESTART: a read from a terminal
     * ends, too. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return 0;
}

int tool_close(tool *t, eqat_status status)
{
    close_bar(t);
    double seconds = tool_seconds() - t->started;
    int code = status == EQAT_OK ? 0 : status == EQAT_CANCELLED ? 130 : 1;
    if (status == EQAT_OK) {
        tool_set(t, "seconds", json_real(seconds));
        tool_set(t, "peak_rss_bytes", json_integer(tool_peak_rss()));
        if (t->json) {
            json_dumpf(t->report, stdout,
                       JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10));
            fputc('\n', stdout);
        }
        if (fflush(stdout) != 0) {
            fprintf(stderr, "eqat: standard output: cannot write: %s\n", strerror(errno));
            code = 1;
        }
    } else {
        fprintf(stderr, "eqat: %s\n", t->error[0] ? t->error : eqat_context_error(t->ctx));
    }
    tool_event(t,
               json_pack("{s:s,s:s,s:f}", "event", "end", "status", eqat_status_name(status),
                         "seconds", seconds));
    interrupted_context = NULL;
    eqat_context_free(t->ctx);
    bool lost = t->log && ferror(t->log);
    if (t->log && fclose(t->log) != 0) lost = true;
    if (lost) {
        fprintf(stderr, "eqat: %s: cannot write the log file\n", t->log_path);
        if (code == 0) code = 1;
    }
    json_decref(t->report);
    return code;
}

eqat_status tool_fail(tool *t, eqat_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(t->error, sizeof t->error, format, args);
    va_end(args);
    return status;
}

void tool_say(tool *t, const char *format, ...)
{
    if (t->json) return;
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

json_t *tool_text(const char *text)
{
    json_t *json = json_string(text);
    if (json) return json;
    char *ascii = strdup(text);
    for (char *p = ascii; p && *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    json = json_string(ascii);
    free(ascii);
    return json;
}

void tool_set(tool *t, const char *key, json_t *value)
{
    json_object_set_new(t->report, key, value);
}

void tool_event(tool *t, json_t *event)
{
    if (t->log && event) {
        json_object_set_new(event, "t", json_real(tool_seconds() - t->started));
        json_dumpf(event, t->log, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10));
        fputc('\n', t->log);
        fflush(t->log);
    }
    json_decref(event);
}

/* JSON has no NaN. */
json_t *tool_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static void time_text(double seconds, char *out, size_t size)
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
        close_bar(t);
        snprintf(t->phase, sizeof t->phase, "%s", p->phase);
        t->phase_started = now;
        t->last_line = 0;
    }
    double share = p->steps > 0 ? (double)p->step / (double)p->steps : 0;
    char eta[32] = "?";
    if (share > 0) time_text((now - t->phase_started) * (1 - share) / share, eta, sizeof eta);
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
