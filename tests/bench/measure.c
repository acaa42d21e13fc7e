#include "measure.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int n_arguments;
static char **arguments;
static const char *separator = "{";
static eqat_context *context;

void bench_begin(int argc, char **argv)
{
    n_arguments = argc;
    arguments = argv;
}

static const char *find(const char *name)
{
    size_t n = strlen(name);
    for (int i = 1; i < n_arguments; i++)
        if (!strncmp(arguments[i], name, n) && arguments[i][n] == '=') return arguments[i] + n + 1;
    return NULL;
}

const char *bench_text(const char *name)
{
    const char *value = find(name);
    if (value) return value;
    fprintf(stderr, "%s: %s= is missing\n", arguments[0], name);
    exit(2);
}

int64_t bench_int(const char *name, int64_t otherwise)
{
    const char *value = find(name);
    return value ? strtoll(value, NULL, 10) : otherwise;
}

double bench_real(const char *name, double otherwise)
{
    const char *value = find(name);
    return value ? strtod(value, NULL) : otherwise;
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double bench_seconds(void) { return seconds_of(CLOCK_MONOTONIC); }
double bench_cpu(void) { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }
double bench_thread_cpu(void) { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }

static int64_t status_bytes(const char *field)
{
    char line[256];
    long long kilobytes = 0;
    size_t n = strlen(field);
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, n)) kilobytes = strtoll(line + n, NULL, 10);
    if (f) fclose(f);
    return kilobytes * 1024;
}

int64_t bench_resident(void) { return status_bytes("VmRSS:"); }
int64_t bench_resident_peak(void) { return status_bytes("VmHWM:"); }

void bench_ok(eqat_status status)
{
    if (status == EQAT_OK) return;
    fprintf(stderr, "%s: %s\n", arguments[0], context ? eqat_context_error(context) : "no context");
    exit(1);
}

eqat_context *bench_context(void)
{
    eqat_context_options options;
    eqat_context_options_init(&options, sizeof options);
    options.threads = (int32_t)bench_int("threads", 0);
    if (find("device")) options.device = find("device");
    bench_ok(eqat_context_create(&context, &options, NULL, 0));
    return context;
}

void bench_open(bench_setting *s)
{
    s->base = bench_resident();
    s->context = bench_context();
    eqat_model_options m;
    eqat_model_options_init(&m, sizeof m);
    m.compute_dtype = strcmp(bench_text("dtype"), "f32") ? EQAT_BF16 : EQAT_F32;
    bench_ok(eqat_model_open(context, &s->model, bench_text("model"), &m));
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.seq_len = bench_int("time", 512);
    d.train_size = bench_int("samples", 2);
    d.val_size = 0;
    d.sampling = EQAT_SAMPLING_CONSECUTIVE;
    d.shuffle = false;
    bench_ok(eqat_data_open(context, &s->data, bench_text("tokens"), NULL, 0, &d));
}

void bench_close(bench_setting *s)
{
    eqat_data_free(s->data);
    eqat_model_free(s->model);
    eqat_context_free(s->context);
}

eqat_block_ap *bench_block_ap(const bench_setting *s, eqat_quantizer **quantizer)
{
    eqat_quantizer_options q;
    eqat_quantizer_options_init(&q, sizeof q);
    q.group_size = (int32_t)bench_int("group", 64);
    bench_ok(eqat_quantizer_create(s->context, quantizer, &q));
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.batch_size = bench_int("batch", 2);
    eqat_block_ap *job;
    bench_ok(eqat_block_ap_create(s->model, &job, *quantizer, s->data, &o));
    bench_ok(eqat_block_ap_begin(job));
    return job;
}

bool bench_more(bench_times *t)
{
    int64_t warmup = bench_int("warmup", 1), steps = bench_int("steps", 5);
    if (t->count <= warmup) {
        t->begin = bench_seconds();
        return true;
    }
    if (t->count >= warmup + steps || t->count == 1000) return false;
    return bench_seconds() - t->begin < bench_real("seconds", 20);
}

void bench_start(bench_times *t)
{
    t->cpu[t->count] = -bench_cpu();
    t->value[t->count] = -bench_seconds();
}

void bench_stop(bench_times *t)
{
    t->value[t->count] += bench_seconds();
    t->cpu[t->count] += bench_cpu();
    t->count++;
}

static void name_member(const char *name, const char *suffix)
{
    printf("%s\"%s%s\": ", separator, name, suffix);
    separator = ", ";
}

static void print_list(const double *value, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) printf("%s%.6f", i == from ? "[" : ", ", value[i]);
    printf("]");
}

void bench_print_times(const char *name, const bench_times *t)
{
    int64_t warmup = bench_int("warmup", 1);
    name_member(name, "");
    print_list(t->value, warmup, t->count);
    name_member(name, "_cpu");
    print_list(t->cpu, warmup, t->count);
}

void bench_print_real(const char *name, double value)
{
    name_member(name, "");
    if (isfinite(value))
        printf("%.9g", value);
    else
        printf("null");
}

void bench_print_int(const char *name, int64_t value)
{
    name_member(name, "");
    printf("%" PRId64, value);
}

void bench_end(void) { printf("}\n"); }
