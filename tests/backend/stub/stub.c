/* A backend in a library of its own that computes nothing but fill and copy of whole tensors. What
 * is wrong with it, the environment says: EQAT_STUB is "version", "missing", "null", "open" or
 * nothing. */
#include "../stub.h"

#include <stdlib.h>
#include <string.h>

#include "backend/table.h"

enum { BLOCKS = 64 };

typedef struct state {
    struct {
        char *data;
        size_t size;
    } blocks[BLOCKS];
    size_t used, peak;
} state;

eqi_backend_fn eqi_backend_of_library;

static stub_journal journal;

static void note(const char *word)
{
    size_t used = strlen(journal.words);
    if (used + strlen(word) + 2 > sizeof journal.words) return;
    strcat(journal.words, word);
    strcat(journal.words, " ");
}

static bool is(const char *what)
{
    const char *wrong = getenv("EQAT_STUB");
    return wrong && !strcmp(wrong, what);
}

static eqi_seat *seat_of(eqi_ctx *ctx) { return (eqi_seat *)(void *)ctx; }
static state *state_of(eqi_ctx *ctx) { return seat_of(ctx)->state; }

static eqat_status stub_open(eqi_ctx *ctx, const char *device)
{
    const eqi_services *services = seat_of(ctx)->services;
    if (is("open"))
        return services->fail(ctx, EQAT_UNSUPPORTED, "%s: found 0 devices, expected at least 1",
                              device);
    state *s = services->alloc(ctx, sizeof *s, "the stub");
    if (!s) return EQAT_OUT_OF_MEMORY;
    memset(s, 0, sizeof *s);
    seat_of(ctx)->state = s;
    journal.stream = seat_of(ctx)->stream;
    journal.device_memory = seat_of(ctx)->device_memory;
    services->log(ctx, 2, "device %s: a stub", device);
    return EQAT_OK;
}

static void stub_close(eqi_ctx *ctx)
{
    if (state_of(ctx)) seat_of(ctx)->services->free(ctx, state_of(ctx));
    seat_of(ctx)->state = NULL;
    note("close");
}

static void *out_of_memory(eqi_ctx *ctx, size_t size)
{
    seat_of(ctx)->services->fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %zu bytes", size);
    return NULL;
}

static void *stub_alloc(eqi_ctx *ctx, size_t size)
{
    state *s = state_of(ctx);
    int i = 0;
    while (i < BLOCKS && s->blocks[i].data) i++;
    char *data = i < BLOCKS ? malloc(size ? size : 1) : NULL;
    if (!data) return out_of_memory(ctx, size);
    s->blocks[i].data = data;
    s->blocks[i].size = size;
    s->used += size;
    if (s->used > s->peak) s->peak = s->used;
    return data;
}

static void stub_free(eqi_ctx *ctx, void *data, size_t size)
{
    state *s = state_of(ctx);
    for (int i = 0; i < BLOCKS; i++)
        if (s->blocks[i].data == data) s->blocks[i].data = NULL;
    s->used -= size;
    free(data);
}

static eqat_status stub_upload(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    (void)ctx;
    memcpy(dst, src, n);
    note("upload");
    return EQAT_OK;
}

static eqat_status stub_download(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    (void)ctx;
    memcpy(dst, src, n);
    note("download");
    return EQAT_OK;
}

static eqat_status stub_synchronize(eqi_ctx *ctx)
{
    (void)ctx;
    note("synchronize");
    return EQAT_OK;
}

static eqat_status stub_memory(eqi_ctx *ctx, eqi_memory *out)
{
    const state *s = state_of(ctx);
    *out = (eqi_memory){.used = s->used, .peak = s->peak, .total = journal.device_memory};
    if (out->total) out->free = out->total - s->used;
    return EQAT_OK;
}

static void stub_reset_peak(eqi_ctx *ctx) { state_of(ctx)->peak = state_of(ctx)->used; }

static bool stub_reaches(eqi_ctx *ctx, const void *p)
{
    const state *s = state_of(ctx);
    const char *at = p;
    for (int i = 0; i < BLOCKS; i++) {
        const char *data = s->blocks[i].data;
        if (data && at >= data && at < data + s->blocks[i].size) return true;
    }
    return false;
}

static int64_t count(const eqi_view *v)
{
    int64_t n = 1;
    for (int i = 0; i < v->ndim; i++) n *= v->shape[i];
    return n;
}

static eqat_status stub_fill(eqi_ctx *ctx, const eqi_view *y, double value)
{
    (void)ctx;
    for (int64_t i = 0; i < count(y); i++) ((float *)y->data)[i] = (float)value;
    return EQAT_OK;
}

static eqat_status stub_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x)
{
    (void)ctx;
    memcpy(y->data, x->data, (size_t)count(y) * sizeof(float));
    return EQAT_OK;
}

static eqat_status no_kernel(void) { return EQAT_BACKEND; }

__attribute__((visibility("default"))) stub_journal *eqi_stub_journal(void) { return &journal; }

__attribute__((visibility("default"))) const eqi_backend *eqi_backend_of_library(void)
{
    static eqi_backend table;
    table = (eqi_backend){.version = EQI_BACKEND_VERSION, .name = "stub"};
#define EQI_ENTRY(entry) table.entry = (eqi_##entry##_fn *)(void *)no_kernel;
    EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY
    table.open = stub_open;
    table.close = stub_close;
    table.alloc = stub_alloc;
    table.free = stub_free;
    table.upload = stub_upload;
    table.download = stub_download;
    table.synchronize = stub_synchronize;
    table.memory = stub_memory;
    table.reset_peak = stub_reset_peak;
    table.reaches = stub_reaches;
    table.fill = stub_fill;
    table.copy = stub_copy;
    if (is("missing")) table.rope = NULL;
    /* Of another version, all else is anything. */
    if (is("version")) table.version = 1, table.name = (const char *)1;
    return is("null") ? NULL : &table;
}
