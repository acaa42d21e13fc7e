#include <stdarg.h>
#include <stdlib.h>

#include "suite.h"

static void *must(void *p)
{
    if (p) return p;
    fputs("conformance: out of memory\n", stderr);
    exit(1);
}

void suite_fail(suite *s, const char *format, ...)
{
    s->failed++;
    if (s->shown++ >= 10) return;
    va_list args;
    va_start(args, format);
    printf("FAIL %s: %s: ", s->op, s->label);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

void suite_begin(suite *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->label, sizeof s->label, format, args);
    va_end(args);
    s->args = 0;
    s->judge = NULL;
    s->flush = suite_coin(s);
    s->aligned = suite_is_aligned(s);
}

/* Strides of a layout; returns the number of elements that the view spans. */
static int64_t lay_out(suite *s, eqi_view *v, arg_layout layout)
{
    static const int64_t odd[] = {0, 0, 1, 3, 8, 29}, half[] = {0, 0, 8, 8, 40, 4},
                         whole[] = {0, 0, 8, 8, 40, 16};
    const int64_t *pads = !s->aligned ? odd : s->run / 4 % 4 == 3 ? half : whole;
    int order[EQI_MAX_DIMS];
    for (int d = 0; d < v->ndim; d++) order[d] = v->ndim - 1 - d; /* innermost first */
    if (layout == STRIDED)
        for (int d = v->ndim - 1; d > 0; d--) {
            int e = (int)suite_pick(s, 0, d), t = order[d];
            order[d] = order[e];
            order[e] = t;
        }
    int64_t span = 1;
    if (layout == STRIDED && !s->bench && !s->aligned) span = suite_pick(s, 1, 2);
    for (int i = 0; i < v->ndim; i++) {
        v->stride[order[i]] = span;
        span *= v->shape[order[i]];
        if (layout != CONTIGUOUS && i + 1 < v->ndim && !s->bench) span += pads[suite_pick(s, 0, 5)];
    }
    return span;
}

arg *suite_arg(suite *s, const char *name, arg_role role, arg_layout layout, eqi_dtype dtype,
               int ndim, const int64_t *shape)
{
    arg *a = &s->arg[s->args++];
    *a = (arg){.name = name, .role = role, .alias = -1, .count = 1};
    a->eps = dtype == EQI_F64 ? 0x1p-40 : 0x1p-21;
    a->v.dtype = dtype;
    a->v.ndim = ndim;
    for (int d = 0; d < ndim; d++) {
        a->v.shape[d] = shape[d];
        a->count *= shape[d];
    }
    size_t item = eqi_dtype_size(dtype);
    int64_t span = lay_out(s, &a->v, layout);
    /* Elements in front make the data unaligned (or not); those behind show what a kernel writes
     * past its end. */
    size_t front = s->bench || suite_coin(s) ? 0
        : s->aligned                         ? (size_t)suite_pick(s, 1, 3) * 16
                                             : (size_t)suite_pick(s, 1, 17) * item;
    size_t behind = s->bench || s->flush ? 0 : (size_t)suite_pick(s, 1, 17) * item;
    a->size = front + (size_t)span * item + behind;
    a->image = must(malloc(a->size ? a->size : 1));
    memset(a->image, 0xff, a->size);
    a->v.data = a->image + front;
    return a;
}

void suite_absent(suite *s, const char *name)
{
    s->arg[s->args++] = (arg){.name = name, .absent = true, .alias = -1};
}

/* Where the view of an argument lies when its image stands at `base`. */
static eqi_view moved(const arg *a, void *base)
{
    eqi_view v = a->v;
    v.data = (unsigned char *)base + ((unsigned char *)a->v.data - a->image);
    return v;
}

static void prepare(arg *a)
{
    size_t n = (size_t)(a->count ? a->count : 1);
    double **dense[] = {&a->in, &a->again, &a->mag, &a->ref, &a->got};
    for (size_t i = 0; i < sizeof dense / sizeof *dense; i++)
        *dense[i] = must(calloc(n, sizeof(double)));
    for (int64_t i = 0; i < a->count; i++) {
        a->in[i] = arg_value(a, i);
        a->again[i] = a->role == OUT ? (double)NAN : a->in[i];
    }
}

static void run_reference(suite *s, suite_call call, const void *params)
{
    eqi_view v[SUITE_ARGS];
    const eqi_view *p[SUITE_ARGS] = {0};
    void *copy[SUITE_ARGS] = {0};
    for (int i = 0; i < s->args; i++) {
        arg *a = &s->arg[i];
        if (a->absent) continue;
        p[i] = &v[i];
        if (a->role == IN || a->match != CLOSE || !eqi_dtype_is_float(a->v.dtype)) {
            copy[i] = must(malloc(a->size ? a->size : 1));
            memcpy(copy[i], a->image, a->size);
            v[i] = moved(a, copy[i]);
            continue;
        }
        v[i] = a->v;
        v[i].dtype = EQI_F64;
        v[i].data = a->ref;
        int64_t stride = 1;
        for (int d = v[i].ndim - 1; d >= 0; d--) {
            v[i].stride[d] = stride;
            stride *= v[i].shape[d];
        }
        for (int64_t e = 0; e < a->count; e++) a->ref[e] = a->role == OUT ? (double)NAN : a->in[e];
    }
    if (call(&eqi_backend_ref, s->ref, p, params) != EQAT_OK)
        suite_fail(s, "the reference failed: %s", s->ref->error);
    for (int i = 0; i < s->args; i++) {
        arg *a = &s->arg[i];
        if (!copy[i]) continue;
        if (a->role == IN && memcmp(copy[i], a->image, a->size) != 0)
            suite_fail(s, "the reference changed %s", a->name);
        arg there = *a;
        there.v = v[i];
        for (int64_t e = 0; e < a->count; e++) a->ref[e] = arg_value(&there, e);
        free(copy[i]);
    }
}

/* Has an output the memory of input i? */
static bool is_lent(const suite *s, int i)
{
    for (int j = 0; j < s->args; j++)
        if (!s->arg[j].absent && s->arg[j].alias == i) return true;
    return false;
}

/* What the call left of argument i. */
static void inspect(suite *s, int i, const buffer *buf, eqi_ctx *ctx, bool first)
{
    arg *a = &s->arg[i];
    const arg *owner = a->alias >= 0 ? &s->arg[a->alias] : a;
    unsigned char *image = must(malloc(owner->size ? owner->size : 1));
    if (!buffer_read(s, &buf[owner - s->arg], ctx, owner, image)) {
        free(image);
        return;
    }
    if (a->role == IN) {
        if (!is_lent(s, i) && memcmp(image, a->image, a->size) != 0)
            suite_fail(s, "changed its input %s", a->name);
        free(image);
        return;
    }
    suite_check_untouched(s, owner, image);
    if (!first) {
        suite_compare_bytes(s, a, image, owner->size);
        free(image);
        return;
    }
    arg there = *a;
    there.v = moved(owner, image);
    for (int64_t e = 0; e < a->count; e++) a->got[e] = arg_value(&there, e);
    a->first = image;
    if (a->match != JUDGED) suite_compare(s, a);
}

static void run_device(suite *s, suite_call call, const void *params, eqi_ctx *ctx, bool first)
{
    buffer buf[SUITE_ARGS] = {0};
    eqi_view v[SUITE_ARGS];
    const eqi_view *p[SUITE_ARGS] = {0};
    for (int i = 0; i < s->args; i++) {
        arg *a = &s->arg[i];
        if (a->absent) continue;
        p[i] = &v[i];
        if (a->alias >= 0) continue;
        if (!buffer_open(s, &buf[i], ctx, a)) goto done;
        v[i] = moved(a, buf[i].data);
    }
    for (int i = 0; i < s->args; i++)
        if (!s->arg[i].absent && s->arg[i].alias >= 0) v[i] = v[s->arg[i].alias];
    eqat_status st = call(s->b, ctx, p, params);
    if (st != EQAT_OK) suite_fail(s, "%s: %s", eqat_status_name(st), ctx->error);
    for (int i = 0; i < s->args; i++)
        if (!s->arg[i].absent) inspect(s, i, buf, ctx, first);
    if (first && s->judge) s->judge(s);
done:
    for (int i = 0; i < s->args; i++) buffer_close(s, &buf[i], ctx);
}

void suite_run(suite *s, suite_call call, suite_again again, const void *params)
{
    if (s->bench) {
        suite_time(s, call, params);
    } else {
        long failed = s->failed;
        for (int i = 0; i < s->args; i++)
            if (!s->arg[i].absent) prepare(&s->arg[i]);
        run_reference(s, call, params);
        if (again) {
            again(s, params);
            for (int i = 0; i < s->args; i++)
                if (!s->arg[i].absent && s->arg[i].role != IN && s->arg[i].match != JUDGED)
                    suite_compare_again(s, &s->arg[i]);
        }
        for (int c = 0; c < SUITE_CONTEXTS; c++)
            if (s->failed == failed) run_device(s, call, params, s->ctx[c], c == 0);
        s->run++;
    }
    for (int i = 0; i < s->args; i++) {
        arg *a = &s->arg[i];
        free(a->image);
        free(a->in);
        free(a->again);
        free(a->mag);
        free(a->ref);
        free(a->got);
        free(a->first);
        *a = (arg){0};
    }
    s->args = 0;
}
