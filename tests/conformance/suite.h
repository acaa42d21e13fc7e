/* One suite for every backend. A case is a set of arguments and a call; it is computed three times:
 * by the backend under test, by the reference kernels, and by a few lines in the check itself
 * (`again`). The reference is held against those lines in f64, the backend against the reference
 * within a tolerance that follows from its dtype; and: outputs start as NaN, and so does everything
 * around and between the rows of every argument; what a kernel must not write keeps its bytes; on
 * the host, arguments end or begin at an inaccessible page; 1, 2 and 3 threads give the same bytes.
 */
#ifndef TESTS_CONFORMANCE_SUITE_H
#define TESTS_CONFORMANCE_SUITE_H

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "base/half.h"
#include "base/rng.h"

#define SUITE_ARGS 14
#define SUITE_CONTEXTS 3

typedef enum arg_role {
    IN,
    OUT, /* starts as NaN */
    ACC  /* read and written */
} arg_role;

typedef enum arg_layout {
    CONTIGUOUS,
    ROWS,   /* last dimension contiguous */
    STRIDED /* any strides */
} arg_layout;

typedef enum arg_match {
    CLOSE, /* the reference computes it in f64 */
    SAME,  /* the reference computes it in the argument's dtype; still a tolerance */
    EXACT, /* bit for bit */
    JUDGED /* by suite.judge */
} arg_match;

typedef struct arg {
    const char *name;
    arg_role role;
    arg_match match;
    bool absent; /* the call gets NULL */
    int alias;   /* shares the memory of this argument, on the backend under test alone; -1: none */
    double eps;  /* tolerance relative to mag */
    eqi_view v;  /* into image */
    unsigned char *image;
    size_t size;
    int64_t count;
    double *in;    /* values before the call, dense and row-major */
    double *again; /* what the check computes; starts as the value before the call, NaN for OUT */
    double *mag;   /* the scale of each value's rounding errors: sum of |terms|; starts as 0, counts
                      as at least |value| */
    double *ref;   /* what the reference computes */
    double *got;   /* what the backend computed with one thread */
    unsigned char *first; /* the same, bytes */
} arg;

typedef struct suite suite;
typedef eqat_status (*suite_call)(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                                  const void *params);
typedef void (*suite_again)(suite *s, const void *params);

struct suite {
    const char *device;
    eqi_ctx *ctx[SUITE_CONTEXTS]; /* 1, 2, 3 threads */
    eqi_ctx *ref;
    eqi_ctx *timed; /* with --bench */
    const eqi_backend *b;
    uint64_t seed, drawn;
    int cases; /* random cases per kernel */
    bool bench;
    double flops, bytes; /* of one call, for --bench */
    const char *op;
    char label[200];
    arg arg[SUITE_ARGS];
    int args;
    void (*judge)(suite *s); /* looks at ref and got of the JUDGED arguments of a case */
    bool flush;              /* arguments end at the inaccessible page */
    bool aligned;            /* rows of arguments begin at multiples of 16 bytes where widths are */
    long run, failed, shown;
    double worst; /* error / tolerance, largest so far */
};

typedef struct kernel_check {
    const char *name;          /* the entry of the table; NULL ends a list */
    void (*conform)(suite *s); /* random and extreme inputs */
    void (*known)(suite *s);   /* values by hand; may be NULL */
    void (*bench)(suite *s);   /* one call of suite_run for each size; may be NULL */
} kernel_check;

/* ---- building a case ---- */
#define DIMS(...) \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }

void suite_begin(suite *s, const char *format, ...) EQI_PRINTF(2, 3);
arg *suite_arg(suite *s, const char *name, arg_role role, arg_layout layout, eqi_dtype dtype,
               int ndim, const int64_t *shape);
void suite_absent(suite *s, const char *name);
/* The call, and everything that is to be held against it; ends the case. */
void suite_run(suite *s, suite_call call, suite_again again, const void *params);
void suite_fail(suite *s, const char *format, ...) EQI_PRINTF(2, 3);

/* Half of the cases, by their number, are for kernels that move 16 bytes at a time: rows begin at
 * multiples of that (in every fourth four some 8 bytes off), and most widths are multiples of 8. */
static inline bool suite_is_aligned(const suite *s) { return s->run / 2 % 2; }

/* ---- values ---- */
int64_t suite_pick(suite *s, int64_t lo, int64_t hi); /* lo <= x <= hi */
bool suite_coin(suite *s);
double suite_normal(suite *s);
double suite_uniform(suite *s);                /* [0, 1) */
void arg_set(arg *a, int64_t i, double value); /* element i in row-major order */
double arg_value(const arg *a, int64_t i);
void arg_normal(suite *s, arg *a, double scale);
void arg_whole(suite *s, arg *a, int64_t lo, int64_t hi);
void arg_values(arg *a, const double *values);
void arg_sprinkle(suite *s, arg *a, double value, int one_in);

eqi_dtype suite_compute_dtype(suite *s); /* F32, BF16, or F64 where the backend has it */
eqi_dtype suite_weight_dtype(suite *s, eqi_dtype compute);
static inline eqi_dtype suite_master_dtype(eqi_dtype compute)
{
    return compute == EQI_F64 ? EQI_F64 : EQI_F32;
}
double round_to(eqi_dtype dtype, double x); /* the value that a tensor of this dtype holds */
double unit_roundoff(eqi_dtype dtype);

/* ---- inside ---- */
typedef struct buffer {
    void *data, *map;
    size_t size, mapped;
} buffer;
bool buffer_open(suite *s, buffer *b, eqi_ctx *ctx, const arg *a);
bool buffer_read(suite *s, const buffer *b, eqi_ctx *ctx, const arg *a, unsigned char *image);
void buffer_close(suite *s, buffer *b, eqi_ctx *ctx);
void suite_compare(suite *s, arg *a);
void suite_compare_again(suite *s, arg *a);
void suite_compare_bytes(suite *s, const arg *a, const unsigned char *image, size_t size);
void suite_check_untouched(suite *s, const arg *a, const unsigned char *image);
void suite_time(suite *s, suite_call call, const void *params);

/* The checks, one file of tests/kernels for each op. */
extern const kernel_check check_memory[], check_elementwise[], check_embedding[], check_linear[],
    check_fakequant[], check_fq_linear[], check_packed_linear[], check_quantize[],
    check_quantize_minmax[], check_init[], check_rmsnorm[], check_rope[], check_attention[],
    check_gated[], check_route[], check_gather_scatter[], check_mse[], check_linear_cross_entropy[],
    check_kl_divergence[], check_clip[], check_adamw[];

#endif
