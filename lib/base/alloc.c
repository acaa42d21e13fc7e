#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/context.h"

/* The size lives in front of the block, so that freeing can keep the account
 * without asking every caller to remember it. */
typedef union header {
    size_t size;
    char pad[EQI_ALIGN];
} header;

/* From here on, header included, a block has pages of its own: between blocks that stay, malloc
 * would keep the room of freed ones, which no later one fits. */
#define PAGES_FROM ((size_t)4 << 20)

static void *pages(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void *raw_alloc(eqi_ctx *ctx, size_t size)
{
    if (size > SIZE_MAX - sizeof(header)) return NULL;
    size += sizeof(header);
    if (ctx->allocator.alloc) return ctx->allocator.alloc(ctx->allocator.user, size, EQI_ALIGN);
    if (size >= PAGES_FROM) return pages(size);
    void *p = NULL;
    return posix_memalign(&p, EQI_ALIGN, size) == 0 ? p : NULL;
}

void eqi_count_bytes(eqi_ctx *ctx, ptrdiff_t bytes)
{
    ctx->bytes_now += (size_t)bytes;
    if (ctx->bytes_now > ctx->bytes_peak) ctx->bytes_peak = ctx->bytes_now;
}

void *eqi_alloc(eqi_ctx *ctx, size_t size, const char *what)
{
    /* Of nothing, what is returned would lie behind its block: lost, to leak detectors. */
    if (!size) size = 1;
    header *h = raw_alloc(ctx, size);
    if (!h && ctx->reclaim && ctx->reclaim(ctx)) h = raw_alloc(ctx, size);
    if (!h) {
        eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %zu bytes for %s", size, what);
        return NULL;
    }
    h->size = size;
    eqi_count_bytes(ctx, (ptrdiff_t)size);
    return h + 1;
}

void *eqi_calloc(eqi_ctx *ctx, size_t count, size_t size, const char *what)
{
    if (size && count > SIZE_MAX / size) {
        eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %zu x %zu bytes for %s", count, size,
                 what);
        return NULL;
    }
    void *p = eqi_alloc(ctx, count * size, what);
    if (p) memset(p, 0, count * size);
    return p;
}

void *eqi_realloc(eqi_ctx *ctx, void *p, size_t size, const char *what)
{
    void *q = eqi_alloc(ctx, size, what);
    if (!q || !p) return q;
    size_t old = ((header *)p - 1)->size;
    memcpy(q, p, old < size ? old : size);
    eqi_free(ctx, p);
    return q;
}

void *eqi_grow(eqi_ctx *ctx, void *list, size_t count, size_t *capacity, size_t size,
               const char *what)
{
    if (count < *capacity) return list;
    const size_t more = *capacity ? 2 * *capacity : 64;
    void *longer = eqi_realloc(ctx, list, more * size, what);
    if (longer) *capacity = more;
    return longer;
}

void eqi_free(eqi_ctx *ctx, void *p)
{
    if (!p) return;
    header *h = (header *)p - 1;
    const size_t size = h->size + sizeof *h;
    eqi_count_bytes(ctx, -(ptrdiff_t)h->size);
    if (ctx->allocator.alloc)
        ctx->allocator.free(ctx->allocator.user, h, size);
    else if (size >= PAGES_FROM)
        munmap(h, size);
    else
        free(h);
}

char *eqi_strdup(eqi_ctx *ctx, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = eqi_alloc(ctx, n, "a string");
    if (p) memcpy(p, s, n);
    return p;
}

char *eqi_asprintf(eqi_ctx *ctx, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    char *p = n < 0 ? NULL : eqi_alloc(ctx, (size_t)n + 1, "a string");
    if (p) vsnprintf(p, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
    return p;
}
