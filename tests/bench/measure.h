/* What the programs of the benchmark share: arguments of the form name=value, clocks, the process's
 * memory, one JSON object. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <eqat/eqat.h>

/* Remembers the arguments; every program takes name=value only. */
void bench_begin(int argc, char **argv);
const char *bench_text(const char *name); /* ends the program when it is missing */
int64_t bench_int(const char *name, int64_t otherwise);
double bench_real(const char *name, double otherwise);

double bench_seconds(void);
/* Seconds of a processor: of all threads of the process, of the calling thread. */
double bench_cpu(void);
double bench_thread_cpu(void);
/* Resident bytes now and at most. Not ru_maxrss: that also remembers the parent's memory from
 * between fork and exec. */
int64_t bench_resident(void);
int64_t bench_resident_peak(void);

/* Ends the program with the library's own line. */
void bench_ok(eqat_status status);

typedef struct bench_setting {
    eqat_context *context;
    eqat_model *model;
    eqat_data *data;
    int64_t base; /* resident bytes right before the model was opened */
} bench_setting;

/* threads=N device=cpu:avx512 */
eqat_context *bench_context(void);

/* model=DIR tokens=FILE dtype=bf16|f32 time=T samples=N threads=N: consecutive windows. */
void bench_open(bench_setting *s);
void bench_close(bench_setting *s);

/* group=64 batch=2: Block-AP at the first block. The caller frees the job, then *quantizer. */
eqat_block_ap *bench_block_ap(const bench_setting *s, eqat_quantizer **quantizer);

/* Times of single steps: `warmup` steps are not counted; ends after `steps` of them or `seconds`
 * seconds, but not before one. The processor's time is measured beside the clock's: it tells more
 * on a machine that is busy with something else. */
typedef struct bench_times {
    double begin;
    int64_t count;
    double value[1000], cpu[1000];
} bench_times;

bool bench_more(bench_times *t);
void bench_start(bench_times *t);
void bench_stop(bench_times *t);

/* {"name": ..., ...} on standard output, member by member. */
void bench_print_times(const char *name /* and name_cpu */, const bench_times *t);
void bench_print_real(const char *name, double value);
void bench_print_int(const char *name, int64_t value);
void bench_end(void);

#endif
