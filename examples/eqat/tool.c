#include "tool.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "output.h"
#include "record.h"

const char *const tool_context_fields[] = {"device", "device_memory", "threads",
                                           "seed",   "log_level",     NULL};

static eqat_context *volatile interrupted_context;
static volatile sig_atomic_t interrupted; /* the signal */
static volatile sig_atomic_t held;

/* Output goes on when its reader is interrupted, too: what is saved now must not end by a broken
 * pipe. */
static void on_interrupt(int sig)
{
    static const char line[] =
        "\neqat: saves after this step; the same signal again ends at once\n";
    int err = errno;
    interrupted = sig;
    signal(SIGPIPE, SIG_IGN);
    if (held && write(STDERR_FILENO, line, sizeof line - 1) < 0) held = 1;
    if (!held && interrupted_context) eqat_context_cancel(interrupted_context);
    errno = err;
}

/* Those that the process may use. */
static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

bool tool_interrupted(void) { return interrupted; }

void tool_hold_interrupts(bool hold) { held = hold; }

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

bool tool_has_device_memory(const tool *t)
{
    return eqat_context_device_bytes_left(t->ctx) != SIZE_MAX;
}

json_t *tool_with_peaks(tool *t, json_t *object)
{
    json_object_set_new(object, "peak_rss_bytes", json_integer(tool_peak_rss()));
    if (tool_has_device_memory(t))
        json_object_set_new(object, "peak_device_bytes",
                            json_integer((json_int_t)eqat_context_device_bytes_peak(t->ctx)));
    return object;
}

void tool_close_bar(tool *t)
{
    if (t->bar_open) fputc('\n', stderr);
    t->bar_open = false;
}

static void on_log(void *user, int32_t level, const char *line)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    tool *t = user;
    const char *name = level >= 0 && level < 4 ? names[level] : "log";
    tool_close_bar(t);
    fprintf(stderr, "eqat: %s: %s\n", name, line);
    tool_event(t,
               json_pack("{s:s,s:s,s:o}", "event", "log", "level", name, "text", tool_text(line)));
}

/* The first line comes before all that the library says. */
static void begin_log(tool *t)
{
    int available = processors(), threads = t->context.threads;
    json_object_set_new(t->run, "processors", json_integer(available));
    json_object_set_new(t->run, "threads", json_integer(threads ? threads : available));
    json_object_set_new(t->run, "device", json_string(t->context.device));
    json_object_set_new(t->run, "seed", json_integer((json_int_t)t->context.seed));
    record_options(t->run, "context", "context", &t->context);
    tool_event(t, json_incref(t->run));
    json_array_append(t->runs, t->run);
}

static int open_log(tool *t)
{
    if (t->log_path && !(t->log = fopen(t->log_path, "a"))) {
        fprintf(stderr, "eqat: %s: cannot open the log file: %s\n", t->log_path, strerror(errno));
        return 1;
    }
    if (!t->keeps || (t->kept = tmpfile())) return 0;
    fprintf(stderr, "eqat: cannot make a temporary file for the log: %s\n", strerror(errno));
    return 1;
}

static void release(tool *t)
{
    if (t->kept) fclose(t->kept);
    json_decref(t->report);
    json_decref(t->runs);
    json_decref(t->run);
}

static void catch_interrupts(void)
{
    /* The second interrupt ends the process the ordinary way. No SA_RESTART: a read from a terminal
     * ends, too. */
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        bool ignored =
            sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN; /* nohup */
        if (!ignored) sigaction(signals[i], &action, NULL);
    }
}

int tool_open(tool *t)
{
    char error[1024] = "";
    t->started = t->phase_started = tool_seconds();
    t->terminal = isatty(STDERR_FILENO);
    t->report = json_object();
    t->runs = json_array();
    json_object_set(t->report, "command", json_object_get(t->run, "command"));
    int code = open_log(t);
    if (code == 0) {
        catch_interrupts(); /* whoever reads the first line of the log may interrupt */
        const char *model = json_string_value(json_object_get(t->run, "model"));
        if (t->keeps) output_inherit(t, model);
        if (t->keeps) t->kept_own = ftell(t->kept);
        begin_log(t);
        t->context.log = on_log;
        t->context.log_user = t;
        code = eqat_context_create(&t->ctx, &t->context, error, sizeof error) != EQAT_OK;
    }
    if (*error) fprintf(stderr, "eqat: %s\n", error);
    if (code == 0) {
        interrupted_context = t->ctx;
        if (interrupted && !held) eqat_context_cancel(t->ctx);
        return 0;
    }
    if (t->log) fclose(t->log);
    release(t);
    return code;
}

int tool_give_up(tool *t)
{
    json_decref(t->run);
    return 1;
}

int tool_close(tool *t, eqat_status status)
{
    tool_close_bar(t);
    double seconds = tool_seconds() - t->started;
    int code = status == EQAT_OK   ? 0
        : status == EQAT_CANCELLED ? 128 + (interrupted ? interrupted : SIGINT)
                                   : 1;
    if (status == EQAT_OK) {
        tool_set(t, "seconds", json_real(seconds));
        tool_with_peaks(t, t->report);
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
    const char *message = status == EQAT_OK ? NULL
        : t->error[0]                       ? t->error
                                            : eqat_context_error(t->ctx);
    tool_event(t,
               tool_with_peaks(t,
                               json_pack("{s:s,s:s,s:o*,s:f}", "event", "end", "status",
                                         eqat_status_name(status), "message",
                                         message ? tool_text(message) : NULL, "seconds", seconds)));
    interrupted_context = NULL;
    eqat_context_free(t->ctx);
    bool lost = t->log && ferror(t->log);
    if (t->log && fclose(t->log) != 0) lost = true;
    if (lost) {
        fprintf(stderr, "eqat: %s: cannot write the log file\n", t->log_path);
        if (code == 0) code = 1;
    }
    release(t);
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

void tool_warn(tool *t, const char *format, ...)
{
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (t->context.log_level >= EQAT_LOG_WARN) on_log(t, EQAT_LOG_WARN, line);
}

void tool_warn_context(tool *t, eqat_model *model, int64_t seq_len)
{
    eqat_model_info m = {.struct_size = sizeof m};
    if (eqat_model_inspect(model, &m) == EQAT_OK && m.max_positions && seq_len > m.max_positions)
        tool_warn(t, "samples of %lld tokens: the model was trained for at most %lld",
                  (long long)seq_len, (long long)m.max_positions);
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

/* ---- the log that is kept ---- */

/* As many bytes, or with -1 all to the end. */
static bool copy(FILE *from, FILE *to, long long bytes)
{
    char piece[1 << 14];
    while (bytes) {
        size_t most = bytes < 0 || bytes > (long long)sizeof piece ? sizeof piece : (size_t)bytes;
        size_t n = fread(piece, 1, most, from);
        if (n == 0) return bytes < 0 && !ferror(from);
        if (fwrite(piece, 1, n, to) != n) return false;
        if (bytes > 0) bytes -= (long long)n;
    }
    return true;
}

bool tool_log_before(tool *t, const char *path, long long bytes)
{
    if (!bytes) return true;
    FILE *joined = tmpfile(), *before = fopen(path, "rb");
    bool done = joined && before && copy(before, joined, bytes) &&
        fseek(t->kept, t->kept_own, SEEK_SET) == 0 && copy(t->kept, joined, -1);
    if (before) fclose(before);
    if (!done) {
        if (joined) fclose(joined);
        return false;
    }
    fclose(t->kept);
    t->kept = joined;
    return true;
}

long long tool_log_bytes(tool *t) { return fseek(t->kept, 0, SEEK_END) == 0 ? ftell(t->kept) : 0; }

bool tool_log_copy(tool *t, long long from, FILE *to, long long *bytes)
{
    bool done = fseek(t->kept, (long)from, SEEK_SET) == 0 && copy(t->kept, to, -1);
    done = fseek(t->kept, 0, SEEK_END) == 0 && done;
    *bytes = ftell(t->kept);
    return done;
}

static void write_line(FILE *log, const json_t *event)
{
    json_dumpf(event, log, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10));
    fputc('\n', log);
}

void tool_event(tool *t, json_t *event)
{
    if (event && (t->log || t->kept)) {
        json_object_set_new(event, "t", json_real(tool_seconds() - t->started));
        if (t->kept) write_line(t->kept, event);
        if (t->log) write_line(t->log, event);
        if (t->log) fflush(t->log);
    }
    json_decref(event);
}

/* JSON has no NaN. */
json_t *tool_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }
