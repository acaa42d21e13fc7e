#include "plain.h"

enum { Y, IDS, TABLE };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    (void)p;
    return b->embedding(ctx, v[Y], v[IDS], v[TABLE]);
}

static void again(suite *s, const void *p)
{
    (void)p;
    arg *y = &s->arg[Y];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t width = y->v.shape[1];
        y->again[i] = round_to(
            y->v.dtype, s->arg[TABLE].in[(int64_t)s->arg[IDS].in[i / width] * width + i % width]);
    }
}

static void embedding(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257), vocab = suite_pick(s, 1, 40);
        eqi_dtype dtype = suite_compute_dtype(s), table = suite_weight_dtype(s, dtype);
        suite_begin(s, "R=%lld H=%lld V=%lld %s from %s", (long long)rows, (long long)width,
                    (long long)vocab, eqi_dtype_name(dtype), eqi_dtype_name(table));
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(rows, width))->match = EXACT;
        arg_whole(s, suite_arg(s, "ids", IN, CONTIGUOUS, EQI_I32, DIMS(rows)), 0, vocab - 1);
        arg_flavour(s, suite_arg(s, "table", IN, CONTIGUOUS, table, DIMS(vocab, width)),
                    (flavour)suite_pick(s, 0, FLAVOURS - 1));
        suite_run(s, call, again, NULL);
    }
}

static void bench(suite *s)
{
    suite_begin(s, "bf16 from bf16 R=4096 H=2048 V=4096");
    suite_arg(s, "y", OUT, ROWS, EQI_BF16, DIMS(4096, 2048));
    arg_whole(s, suite_arg(s, "ids", IN, CONTIGUOUS, EQI_I32, DIMS(4096)), 0, 4095);
    arg_normal(s, suite_arg(s, "table", IN, CONTIGUOUS, EQI_BF16, DIMS(4096, 2048)), 1.0);
    s->bytes = 4.0 * 4096 * 2048;
    suite_run(s, call, NULL, NULL);
}

enum { DTABLE, DY = 2 };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    (void)p;
    return b->embedding_bwd(ctx, v[DTABLE], v[IDS], v[DY]);
}

static void again_bwd(suite *s, const void *p)
{
    (void)p;
    int64_t width = s->arg[DY].v.shape[1];
    plain_start(&s->arg[DTABLE]);
    for (int64_t i = 0; i < s->arg[DY].count; i++)
        plain_term(&s->arg[DTABLE], (int64_t)s->arg[IDS].in[i / width] * width + i % width,
                   s->arg[DY].in[i]);
}

static void embedding_bwd(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257), vocab = suite_pick(s, 1, 40);
        eqi_dtype dtype = suite_compute_dtype(s);
        suite_begin(s, "R=%lld H=%lld V=%lld %s", (long long)rows, (long long)width,
                    (long long)vocab, eqi_dtype_name(dtype));
        arg_normal(
            s,
            suite_arg(s, "dtable", ACC, CONTIGUOUS, suite_master_dtype(dtype), DIMS(vocab, width)),
            1.0);
        arg_whole(s, suite_arg(s, "ids", IN, CONTIGUOUS, EQI_I32, DIMS(rows)), 0, vocab - 1);
        arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(rows, width)),
                    (flavour)suite_pick(s, 0, FLAVOURS - 1));
        suite_run(s, call_bwd, again_bwd, NULL);
    }
}

const kernel_check check_embedding[] = {
    {"embedding", embedding, NULL, bench},
    {"embedding_bwd", embedding_bwd, NULL, NULL},
    {0},
};
