#include "train/streams.h"

#include "train/cache.h"

typedef struct progress {
    int64_t blocks; /* behind all samples */
    int64_t passed; /* samples behind one block more */
} progress;

struct eqi_streams {
    eqi_ctx *ctx;
    eqi_streams_shape shape;
    eqi_cache *cache;
    int64_t *numbers; /* [batch] */
    progress progress[EQI_STREAM_COUNT];
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The batch that begins with sample `first` of a pass. */
static int64_t batch_at(const eqi_streams *s, int64_t first)
{
    return least(s->shape.batch, s->shape.samples - first);
}

/* ---- samples ---- */

eqat_status eqi_streams_fetch(eqi_streams *s, eqi_stream stream, const int64_t *samples, int64_t n,
                              eqi_tensor **out)
{
    const int64_t shape[3] = {n, s->shape.time, s->shape.hidden};
    EQI_RETURN_IF(eqi_tensor_create(s->ctx, out, s->shape.dtype, 3, shape));
    eqat_status st = eqi_cache_read(s->cache, (int)stream, samples, n, *out);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}

void eqi_streams_ahead(eqi_streams *s, eqi_stream stream, const int64_t *samples, int64_t n)
{
    eqi_cache_ahead(s->cache, (int)stream, samples, n);
}

/* ---- passes, in the order of samples ---- */

/* The numbers of samples [first, first + batch_at(first)). */
static const int64_t *numbers(eqi_streams *s, int64_t first)
{
    for (int64_t i = 0; i < batch_at(s, first); i++) s->numbers[i] = first + i;
    return s->numbers;
}

static eqat_status embed_all(eqi_streams *s, eqi_streams_embed embed, void *user)
{
    for (int64_t first = 0; first < s->shape.samples; first += s->shape.batch) {
        eqi_tensor *x;
        EQI_RETURN_IF(eqi_check_cancel(s->ctx));
        EQI_RETURN_IF(embed(user, first, batch_at(s, first), &x));
        eqat_status st = EQAT_OK;
        for (int stream = 0; stream < EQI_STREAM_COUNT && st == EQAT_OK; stream++)
            st = eqi_cache_write(s->cache, stream, numbers(s, first), batch_at(s, first), x);
        eqi_tensor_unref(x);
        EQI_RETURN_IF(st);
    }
    return eqi_cache_flush(s->cache);
}

static eqat_status advance_batch(eqi_streams *s, eqi_stream stream, eqi_streams_forward forward,
                                 void *user)
{
    progress *p = &s->progress[stream];
    int64_t first = p->passed, next = first + batch_at(s, first);
    eqi_tensor *x, *y = NULL;
    EQI_RETURN_IF(eqi_check_cancel(s->ctx));
    EQI_RETURN_IF(eqi_streams_fetch(s, stream, numbers(s, first), batch_at(s, first), &x));
    eqi_streams_ahead(s, stream, numbers(s, next), batch_at(s, next));
    eqat_status st = forward(user, first, x, &y);
    eqi_tensor_unref(x);
    if (st == EQAT_OK)
        st = eqi_cache_write(s->cache, (int)stream, numbers(s, first), next - first, y);
    eqi_tensor_unref(y);
    if (st == EQAT_OK) p->passed = next;
    return st;
}

eqat_status eqi_streams_advance(eqi_streams *s, eqi_stream stream, eqi_streams_forward forward,
                                void *user)
{
    progress *p = &s->progress[stream];
    while (p->passed < s->shape.samples) EQI_RETURN_IF(advance_batch(s, stream, forward, user));
    EQI_RETURN_IF(eqi_cache_flush(s->cache));
    p->passed = 0;
    p->blocks++;
    return EQAT_OK;
}

int64_t eqi_streams_blocks(const eqi_streams *s, eqi_stream stream)
{
    return s->progress[stream].blocks;
}

/* ---- from beginning to end ---- */

static eqat_status set_up(eqi_streams *s, const char *offload_dir)
{
    const eqi_streams_shape *shape = &s->shape;
    eqi_cache_shape cache = {.streams = EQI_STREAM_COUNT,
                             .samples = shape->samples,
                             .bytes = (size_t)(shape->time * shape->hidden) *
                                 eqi_dtype_size(shape->dtype),
                             .batch = shape->batch};
    uint64_t resident = shape->memory / (EQI_STREAM_COUNT * cache.bytes);
    cache.resident = resident < (uint64_t)shape->samples ? (int64_t)resident : shape->samples;
    s->numbers = eqi_calloc(s->ctx, (size_t)shape->batch, sizeof *s->numbers, "sample numbers");
    if (!s->numbers) return EQAT_OUT_OF_MEMORY;
    return eqi_cache_create(s->ctx, &s->cache, &cache, offload_dir);
}

eqat_status eqi_streams_create(eqi_ctx *ctx, eqi_streams **out, const eqi_streams_shape *shape,
                               const char *offload_dir, eqi_streams_embed embed, void *user)
{
    *out = NULL;
    eqi_streams *s = eqi_calloc(ctx, 1, sizeof *s, "the activation streams");
    if (!s) return EQAT_OUT_OF_MEMORY;
    s->ctx = eqi_ctx_ref(ctx);
    s->shape = *shape;
    s->shape.batch = least(shape->batch, shape->samples);
    eqat_status st = set_up(s, offload_dir);
    if (st == EQAT_OK) st = embed_all(s, embed, user);
    if (st == EQAT_OK)
        *out = s;
    else
        eqi_streams_free(s);
    return st;
}

void eqi_streams_free(eqi_streams *s)
{
    if (!s) return;
    eqi_ctx *ctx = s->ctx;
    eqi_cache_free(s->cache);
    eqi_free(ctx, s->numbers);
    eqi_free(ctx, s);
    eqi_ctx_unref(ctx);
}
