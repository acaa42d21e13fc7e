#include <stdlib.h>

#include "plain.h"

typedef struct params {
    int64_t batch, queries, keys, heads, kv_heads, size;
    eqi_attention_desc d;
    bool segments;
} params;

static params random_params(suite *s)
{
    static const int64_t sizes[] = {1, 7, 8, 16, 20, 33, 64, 80, 128, 260};
    params p = {.batch = suite_pick(s, 0, 2),
                .queries = suite_pick(s, 1, 40),
                .kv_heads = suite_pick(s, 1, 3)};
    if (suite_pick(s, 0, 5) == 0) p.queries = suite_pick(s, 64, 150);
    if (p.batch == 0 && suite_pick(s, 0, 3)) p.batch = 1;
    p.heads = p.kv_heads * suite_pick(s, 1, 4);
    p.size = sizes[suite_pick(s, 0, 9)];
    p.d.q_offset = suite_coin(s) ? 0 : suite_pick(s, 0, 40);
    p.keys = p.d.q_offset + p.queries + (suite_coin(s) ? 0 : suite_pick(s, 0, 9));
    p.d.causal = suite_pick(s, 0, 3) > 0;
    p.d.window = suite_pick(s, 0, 2) ? 0 : suite_pick(s, 1, 30);
    p.d.softcap = suite_pick(s, 0, 3) ? 0.0f : 5.0f;
    p.d.scale = (float)(1.0 / sqrt((double)p.size));
    p.segments = suite_pick(s, 0, 2) == 0;
    return p;
}

/* BF16, and in turn the head sizes of kernels for tensor cores and lengths around their
 * tiles. */
static params tile_params(suite *s, int i)
{
    static const int64_t sizes[] = {256, 64, 128, 80, 96}, lengths[] = {130, 33, 64, 65, 1, 200};
    params p = random_params(s);
    p.batch = suite_pick(s, 1, 2);
    p.heads = p.kv_heads * suite_pick(s, 1, 2);
    p.size = sizes[i % 5];
    p.d.softcap = i % 2 ? 5.0f : 0.0f;
    p.queries = lengths[i / 5 % 6];
    if (suite_coin(s)) p.d.q_offset = suite_pick(s, 1, 150);
    if (i % 3 == 2) { /* odd queries see the first key of a tile first */
        p.d.q_offset |= 1;
        p.d.causal = true;
    }
    p.keys = p.d.q_offset + p.queries + (suite_coin(s) ? 0 : suite_pick(s, 1, 70));
    p.d.window = suite_coin(s) ? 0 : suite_pick(s, 1, 200);
    if (i % 3 == 1) { /* the last tile lacks one key, and nothing else is hidden */
        p.keys += 63 - p.keys % 64;
        p.d.causal = p.segments = false;
        p.d.window = 0;
    }
    p.d.scale = (float)(1.0 / sqrt((double)p.size));
    return p;
}

/* What is not finite in an argument of one token, and whom it may reach. */
typedef enum spoilt {
    IN_QUERY,   /* NaN in q, of the queries: its own row, dk and dv of what it sees */
    IN_KEY,     /* NaN in k: whoever sees it */
    IN_VALUE,   /* NaN in v: the same */
    IN_GRAD,    /* NaN in do: as in q */
    DEAD_QUERY, /* q such that all its scores are -infinity: nobody */
    DEAD_KEYS,  /* k such that all scores are: nobody */
    SPOILS
} spoilt;

static void begin(suite *s, const params *p, eqi_dtype dtype, double spread, spoilt kind)
{
    static const char *const names[] = {", NaN in q",
                                        ", NaN in k",
                                        ", NaN in v",
                                        ", NaN in do",
                                        ", a query of -infinity",
                                        ", keys of -infinity",
                                        ""};
    suite_begin(s,
                "B=%lld Tq=%lld Tk=%lld HQ=%lld HK=%lld D=%lld %s%s window %lld offset %lld cap "
                "%g%s scores %g%s",
                (long long)p->batch, (long long)p->queries, (long long)p->keys, (long long)p->heads,
                (long long)p->kv_heads, (long long)p->size, eqi_dtype_name(dtype),
                p->d.causal ? " causal" : "", (long long)p->d.window, (long long)p->d.q_offset,
                (double)p->d.softcap, p->segments ? " segments" : "", spread, names[kind]);
}

/* A fast kernel may round the probabilities and their gradients to the dtype of its matrix
 * products. */
static double product_eps(eqi_dtype dtype)
{
    return dtype == EQI_F64 ? 0x1p-40 : dtype == EQI_BF16 ? 0x1p-8 : 0x1p-21;
}

/* Where key j's values for query head h begin. */
static int64_t key_at(const params *p, int64_t b, int64_t j, int64_t h)
{
    return ((b * p->keys + j) * p->kv_heads + h * p->kv_heads / p->heads) * p->size;
}

/* One row of scores, made by masking a full row. */
typedef struct row {
    double *p, *slope;  /* probability, 0 for a key that is hidden; d score / d (q.k) */
    double lse, spread; /* the largest sum of |terms| of a score */
} row;

static void fill_row(row *out, const double *q, const double *k, const double *segments,
                     const params *p, int64_t b, int64_t h, int64_t i)
{
    int64_t place = p->d.q_offset + i;
    double sum = 0.0, top = -INFINITY;
    out->spread = 0.0;
    for (int64_t j = 0; j < p->keys; j++) {
        const double *x = q + ((b * p->queries + i) * p->heads + h) * p->size;
        const double *y = k + key_at(p, b, j, h);
        double score = 0.0, terms = 0.0, cap = (double)p->d.softcap;
        for (int64_t c = 0; c < p->size; c++) score += x[c] * y[c] * (double)p->d.scale;
        for (int64_t c = 0; c < p->size; c++) terms += fabs(x[c] * y[c] * (double)p->d.scale);
        out->slope[j] = (double)p->d.scale;
        if (cap > 0.0) {
            out->slope[j] /= pow(cosh(score / cap), 2);
            score = cap * tanh(score / cap);
        }
        bool hidden = (p->d.causal && j > place) ||
            (p->d.window && (j > place || place - j >= p->d.window)) ||
            (p->segments && segments[b * p->keys + j] != segments[b * p->keys + place]);
        out->p[j] = hidden ? -INFINITY : score;
        if (!hidden) out->spread = fmax(out->spread, terms);
        if (!isnan(top) && !(out->p[j] <= top)) top = out->p[j];
    }
    for (int64_t j = 0; j < p->keys; j++)
        if (out->p[j] != -(double)INFINITY) sum += exp(out->p[j] - top);
    out->lse = top + log(sum);
    for (int64_t j = 0; j < p->keys; j++)
        out->p[j] = out->p[j] == -(double)INFINITY ? 0.0 : exp(out->p[j] - out->lse);
}

static arg *heads(suite *s, const char *name, arg_role role, eqi_dtype dtype, const params *p,
                  bool query, double scale)
{
    arg *a = suite_arg(
        s, name, role, ROWS, dtype,
        DIMS(p->batch, query ? p->queries : p->keys, query ? p->heads : p->kv_heads, p->size));
    if (role == IN) arg_normal(s, a, scale);
    return a;
}

static void segment_ids(suite *s, const params *p)
{
    if (!p->segments) {
        suite_absent(s, "segments");
        return;
    }
    arg *a = suite_arg(s, "segments", IN, CONTIGUOUS, EQI_I32, DIMS(p->batch, p->keys));
    int64_t id = -3;
    for (int64_t i = 0; i < a->count; i++) arg_set(a, i, (double)(suite_pick(s, 0, 6) ? id : ++id));
}

/* Case i, on tiles every second time: those in which something is hidden for NaN, and for infinite
 * scores those in which nothing is, because it is not what is hidden that has to be left out. */
static params spoilt_params(suite *s, int i, spoilt *kind, bool backward)
{
    params p = i % 2 ? tile_params(s, i / 2 * 3) : random_params(s);
    *kind = (spoilt)(i / 2 % SPOILS);
    if (*kind == IN_GRAD && !backward) *kind = IN_VALUE;
    if (*kind < DEAD_QUERY) return p;
    p.d.softcap = 0.0f;
    if (i % 2) {
        p.d.causal = p.segments = false;
        p.d.window = 0;
    }
    return p;
}

/* Column 0 of every row. */
static void set_column(arg *a, double value)
{
    for (int64_t i = 0; i < a->count; i += a->v.shape[3]) arg_set(a, i, value);
}

/* An element of column c (-1: any) of one token of each sequence, a late one rather than an early
 * one, because early queries do not see it. */
static void set_token(suite *s, arg *a, int64_t c, double value)
{
    int64_t tokens = a->v.shape[1], heads = a->v.shape[2], size = a->v.shape[3];
    for (int64_t b = 0; b < a->v.shape[0]; b++) {
        int64_t first = suite_pick(s, 0, tokens - 1), t = suite_pick(s, first, tokens - 1),
                h = suite_pick(s, 0, heads - 1), at = c < 0 ? suite_pick(s, 0, size - 1) : c;
        arg_set(a, ((b * tokens + t) * heads + h) * size + at, value);
    }
}

static void spoil(suite *s, arg *q, arg *k, arg *v, arg *d_o, spoilt kind)
{
    arg *const of[] = {q, k, v, d_o};
    if (kind < DEAD_QUERY) {
        set_token(s, of[kind], -1, (double)NAN);
        return;
    }
    bool keys = kind == DEAD_KEYS;
    set_column(k, keys ? -(double)INFINITY : 1.0);
    if (keys)
        set_column(q, 1.0);
    else
        set_token(s, q, 0, -(double)INFINITY);
    if (suite_coin(s)) set_token(s, v, -1, (double)NAN);
}

/* ---- attention ---- */
enum { O, LSE, Q, K, V, SEGMENTS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->attention(ctx, v[O], v[LSE], v[Q], v[K], v[V], v[SEGMENTS], &((const params *)p)->d);
}

static void again(suite *s, const void *params_)
{
    const params *p = params_;
    double *scratch = malloc((size_t)(2 * p->keys) * sizeof *scratch),
           eps = product_eps(s->arg[Q].v.dtype);
    row w = {.p = scratch, .slope = scratch + p->keys};
    s->arg[O].eps = eps;
    plain_start(&s->arg[O]);
    for (int64_t n = 0; n < p->batch * p->heads * p->queries; n++) {
        int64_t b = n / p->queries / p->heads, h = n / p->queries % p->heads, i = n % p->queries;
        fill_row(&w, s->arg[Q].in, s->arg[K].in, s->arg[SEGMENTS].in, p, b, h, i);
        s->arg[LSE].again[n] = w.lse;
        s->arg[LSE].mag[n] = 1.0 + w.spread + log((double)p->keys);
        for (int64_t c = 0; c < p->size; c++) {
            int64_t at = ((b * p->queries + i) * p->heads + h) * p->size + c;
            for (int64_t j = 0; j < p->keys; j++) {
                int64_t kj = key_at(p, b, j, h);
                if (w.p[j] != 0.0) plain_term(&s->arg[O], at, w.p[j] * s->arg[V].in[kj + c]);
            }
            s->arg[O].mag[at] *= 1.0 + (1.0 + w.spread) * s->arg[LSE].eps / eps;
        }
    }
    free(scratch);
}

static void arguments(suite *s, const params *p, eqi_dtype dtype, double spread)
{
    heads(s, "o", OUT, dtype, p, true, 0.0);
    suite_arg(s, "lse", OUT, CONTIGUOUS, suite_master_dtype(dtype),
              DIMS(p->batch, p->heads, p->queries));
    heads(s, "q", IN, dtype, p, true, spread);
    heads(s, "k", IN, dtype, p, false, 1.0);
    heads(s, "v", IN, dtype, p, false, 1.0);
    segment_ids(s, p);
}

static void attention_spoilt(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        spoilt kind;
        params p = spoilt_params(s, i, &kind, false);
        eqi_dtype dtype = i % 2 ? EQI_BF16 : suite_compute_dtype(s);
        begin(s, &p, dtype, 1.0, kind);
        s->aligned = i % 2 || s->aligned;
        arguments(s, &p, dtype, 1.0);
        spoil(s, &s->arg[Q], &s->arg[K], &s->arg[V], NULL, kind);
        suite_run(s, call, again, &p);
    }
}

static void attention(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
        double spread = i % 5 ? 1.0 : i % 2 ? 30.0 : 1000.0;
        begin(s, &p, dtype, spread, SPOILS);
        arguments(s, &p, dtype, spread);
        suite_run(s, call, again, &p);
    }
    for (int i = 0; i < s->cases; i++) {
        params p = tile_params(s, i);
        double spread = i % 5 ? 1.0 : 30.0;
        begin(s, &p, EQI_BF16, spread, SPOILS);
        s->aligned = true;
        arguments(s, &p, EQI_BF16, spread);
        suite_run(s, call, again, &p);
    }
    attention_spoilt(s);
}

/* Two keys with scores 0 and ln 3: weights 1/4 and 3/4. The first query sees only the first key. */
static void attention_known(suite *s)
{
    params p = {.batch = 1,
                .queries = 2,
                .keys = 2,
                .heads = 1,
                .kv_heads = 1,
                .size = 2,
                .d = {.scale = 0.5f, .causal = true}};
    double ln3 = (double)(float)(2 * 1.0986122886681098);
    double e = exp(0.5 * ln3);
    suite_begin(s, "by hand");
    arguments(s, &p, EQI_F32, 1.0);
    arg_values(&s->arg[Q], (double[]){1, 0, 1, 0});
    arg_values(&s->arg[K], (double[]){0, 5, ln3, 0});
    arg_values(&s->arg[V], (double[]){4, 8, 0, 16});
    known_run(s, call, &p, (double[]){4, 8, 4 / (1 + e), (8 + 16 * e) / (1 + e), 0, log(1 + e)});
    suite_begin(s, "a query that is not a number");
    arguments(s, &p, EQI_F32, 1.0);
    arg_values(&s->arg[Q], (double[]){1, 0, NAN, 0});
    arg_values(&s->arg[K], (double[]){0, 5, ln3, 0});
    arg_values(&s->arg[V], (double[]){4, 8, 0, 16});
    known_run(s, call, &p, (double[]){4, 8, NAN, NAN, 0, NAN});
    suite_begin(s, "a score of -infinity");
    arguments(s, &p, EQI_F32, 1.0);
    arg_values(&s->arg[Q], (double[]){1, 0, 1, 0});
    arg_values(&s->arg[K], (double[]){-INFINITY, 5, ln3, 0});
    arg_values(&s->arg[V], (double[]){4, 8, 1, 2});
    known_run(s, call, &p, (double[]){0, 0, 1, 2, -INFINITY, 0.5 * ln3});
    p.keys = 0;
    p.d.causal = false;
    suite_begin(s, "no keys");
    arguments(s, &p, EQI_F32, 1.0);
    known_run(s, call, &p, (double[]){0, 0, 0, 0, -INFINITY, -INFINITY});
}

/* ---- attention_bwd ---- */
enum { DQ, DK, DV, DO, BO, BLSE, BQ, BK, BV, BSEGMENTS };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    return b->attention_bwd(ctx, v[DQ], v[DK], v[DV], v[DO], v[BO], v[BLSE], v[BQ], v[BK], v[BV],
                            v[BSEGMENTS], &((const params *)p)->d);
}

/* What again_bwd keeps of a row: g = v.do and the sum of its |terms| for each key, the means of
 * both by p; how much the error of a probability exceeds that of a product. */
typedef struct row_bwd {
    row w;
    double *g, *g_mag, mean, mean_mag, grow;
} row_bwd;

static void add_dv(suite *s, row_bwd *r, const params *p, int64_t b, int64_t h, int64_t qi)
{
    const double *d_o = s->arg[DO].in + qi;
    r->mean = r->mean_mag = 0.0;
    for (int64_t j = 0; j < p->keys; j++) {
        int64_t kj = key_at(p, b, j, h);
        r->g[j] = r->g_mag[j] = 0.0;
        if (r->w.p[j] == 0.0) continue;
        for (int64_t c = 0; c < p->size; c++) {
            r->g[j] += d_o[c] * s->arg[BV].in[kj + c];
            r->g_mag[j] += fabs(d_o[c] * s->arg[BV].in[kj + c]);
            s->arg[DV].again[kj + c] += r->w.p[j] * d_o[c];
            s->arg[DV].mag[kj + c] += fabs(r->w.p[j] * d_o[c]) * r->grow;
        }
        r->mean += r->w.p[j] * r->g[j];
        r->mean_mag += r->w.p[j] * r->g_mag[j];
    }
}

/* d score_j = p_j (g_j - sum p g); both parts count into the scale of its error. */
static void add_dq_dk(suite *s, const row_bwd *r, const params *p, int64_t b, int64_t h, int64_t qi,
                      double slope_error)
{
    for (int64_t j = 0; j < p->keys; j++) {
        if (r->w.p[j] == 0.0) continue;
        int64_t kj = key_at(p, b, j, h);
        double d = r->w.p[j] * (r->g[j] - r->mean) * r->w.slope[j];
        /* The slope of a saturated softcap is a difference of numbers near 1. */
        double d_mag = r->w.p[j] * (r->g_mag[j] + r->mean_mag) *
            (r->w.slope[j] * r->grow + (double)p->d.scale * slope_error);
        for (int64_t c = 0; c < p->size; c++) {
            s->arg[DQ].again[qi + c] += d * s->arg[BK].in[kj + c];
            s->arg[DQ].mag[qi + c] += d_mag * fabs(s->arg[BK].in[kj + c]);
            s->arg[DK].again[kj + c] += d * s->arg[BQ].in[qi + c];
            s->arg[DK].mag[kj + c] += d_mag * fabs(s->arg[BQ].in[qi + c]);
        }
    }
}

static void again_bwd(suite *s, const void *params_)
{
    const params *p = params_;
    double *scratch = malloc((size_t)(4 * p->keys) * sizeof *scratch),
           eps = product_eps(s->arg[BQ].v.dtype);
    double base = s->arg[DQ].v.dtype == EQI_F64 ? 0x1p-40 : 0x1p-21;
    row_bwd r = {.w = {.p = scratch, .slope = scratch + p->keys},
                 .g = scratch + 2 * p->keys,
                 .g_mag = scratch + 3 * p->keys};
    for (int i = DQ; i <= DV; i++) {
        plain_start(&s->arg[i]);
        s->arg[i].eps = eps;
    }
    for (int64_t n = 0; n < p->batch * p->heads * p->queries; n++) {
        int64_t b = n / p->queries / p->heads, h = n / p->queries % p->heads, i = n % p->queries;
        int64_t qi = ((b * p->queries + i) * p->heads + h) * p->size;
        fill_row(&r.w, s->arg[BQ].in, s->arg[BK].in, s->arg[BSEGMENTS].in, p, b, h, i);
        r.grow = 1.0 + (1.0 + r.w.spread) * base / eps;
        add_dv(s, &r, p, b, h, qi);
        add_dq_dk(s, &r, p, b, h, qi, base / eps);
    }
    free(scratch);
}

static void dense(const arg *a, double *to)
{
    for (int64_t i = 0; i < a->count; i++) to[i] = arg_value(a, i);
}

/* o and lse as the forward pass leaves them, rounded to their dtypes */
static void forward_of(suite *s, const params *p)
{
    int64_t n_q = p->batch * p->queries * p->heads * p->size,
            n_k = p->batch * p->keys * p->kv_heads * p->size;
    double *m = calloc((size_t)(n_q + 2 * n_k + p->batch * p->keys + 2 * p->keys), sizeof *m);
    double *q = m, *k = q + n_q, *v = k + n_k, *segments = v + n_k;
    row w = {.p = segments + p->batch * p->keys};
    w.slope = w.p + p->keys;
    dense(&s->arg[BQ], q);
    dense(&s->arg[BK], k);
    dense(&s->arg[BV], v);
    if (p->segments) dense(&s->arg[BSEGMENTS], segments);
    for (int64_t n = 0; n < p->batch * p->heads * p->queries; n++) {
        int64_t b = n / p->queries / p->heads, h = n / p->queries % p->heads, i = n % p->queries;
        fill_row(&w, q, k, segments, p, b, h, i);
        arg_set(&s->arg[BLSE], n, w.lse);
        for (int64_t c = 0; c < p->size; c++) {
            double sum = 0.0;
            for (int64_t j = 0; j < p->keys; j++)
                if (w.p[j] != 0.0) sum += w.p[j] * v[key_at(p, b, j, h) + c];
            arg_set(&s->arg[BO], ((b * p->queries + i) * p->heads + h) * p->size + c, sum);
        }
    }
    free(m);
}

static void arguments_bwd(suite *s, const params *p, eqi_dtype dtype, double spread)
{
    heads(s, "dq", OUT, dtype, p, true, 0.0);
    heads(s, "dk", OUT, dtype, p, false, 0.0);
    heads(s, "dv", OUT, dtype, p, false, 0.0);
    heads(s, "do", IN, dtype, p, true, 1.0);
    heads(s, "o", IN, dtype, p, true, 1.0);
    suite_arg(s, "lse", IN, CONTIGUOUS, suite_master_dtype(dtype),
              DIMS(p->batch, p->heads, p->queries));
    heads(s, "q", IN, dtype, p, true, spread);
    heads(s, "k", IN, dtype, p, false, 1.0);
    heads(s, "v", IN, dtype, p, false, 1.0);
    segment_ids(s, p);
    for (int64_t i = 0; s->bench && i < s->arg[BLSE].count; i++) arg_set(&s->arg[BLSE], i, 8.0);
}

static void attention_bwd_spoilt(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        spoilt kind;
        params p = spoilt_params(s, i, &kind, true);
        eqi_dtype dtype = i % 2 ? EQI_BF16 : suite_compute_dtype(s);
        begin(s, &p, dtype, 1.0, kind);
        s->aligned = i % 2 || s->aligned;
        arguments_bwd(s, &p, dtype, 1.0);
        spoil(s, &s->arg[BQ], &s->arg[BK], &s->arg[BV], &s->arg[DO], kind);
        forward_of(s, &p);
        suite_run(s, call_bwd, again_bwd, &p);
    }
}

static void attention_bwd(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
        double spread = i % 5 ? 1.0 : 20.0;
        begin(s, &p, dtype, spread, SPOILS);
        arguments_bwd(s, &p, dtype, spread);
        forward_of(s, &p);
        suite_run(s, call_bwd, again_bwd, &p);
    }
    for (int i = 0; i < s->cases; i++) {
        params p = tile_params(s, i);
        double spread = i % 5 ? 1.0 : 20.0;
        begin(s, &p, EQI_BF16, spread, SPOILS);
        s->aligned = true;
        arguments_bwd(s, &p, EQI_BF16, spread);
        forward_of(s, &p);
        suite_run(s, call_bwd, again_bwd, &p);
    }
    attention_bwd_spoilt(s);
}

static void bench_of(suite *s, bool backward)
{
    for (int i = 0; i < 4; i++) {
        int64_t t = i < 2 ? 256 : 2048;
        params p = {.batch = 2,
                    .queries = t,
                    .keys = t,
                    .heads = 9,
                    .kv_heads = 3,
                    .size = 64,
                    .d = {.scale = 0.125f, .causal = true}};
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        begin(s, &p, dtype, 1.0, SPOILS);
        if (backward)
            arguments_bwd(s, &p, dtype, 1.0);
        else
            arguments(s, &p, dtype, 1.0);
        s->flops = (backward ? 5.0 : 2.0) *
            (double)(p.batch * p.heads * t * t * p.size); /* causal: half of the products */
        suite_run(s, backward ? call_bwd : call, NULL, &p);
    }
}

static void bench(suite *s) { bench_of(s, false); }
static void bench_bwd(suite *s) { bench_of(s, true); }

const kernel_check check_attention[] = {
    {"attention", attention, attention_known, bench},
    {"attention_bwd", attention_bwd, NULL, bench_bwd},
    {0},
};
