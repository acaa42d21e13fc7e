/* Memory of the backend under test. The host's is mapped between two inaccessible pages. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "suite.h"

bool buffer_open(suite *s, buffer *b, eqi_ctx *ctx, const arg *a)
{
    *b = (buffer){0};
    if (!s->b->host) {
        b->size = a->size;
        b->data = s->b->alloc(ctx, a->size);
        if (b->data && s->b->upload(ctx, b->data, a->image, a->size) == EQAT_OK) return true;
        suite_fail(s, "no memory for %s: %s", a->name, ctx->error);
        return false;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (a->size + page - 1) / page * page + page;
    b->mapped = inner + 2 * page;
    b->map = mmap(NULL, b->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->map == MAP_FAILED ||
        mprotect((unsigned char *)b->map + page, inner, PROT_READ | PROT_WRITE) != 0) {
        fputs("conformance: out of memory\n", stderr);
        exit(1);
    }
    unsigned char *start = (unsigned char *)b->map + page;
    b->data = s->flush ? start + inner - a->size : start;
    memcpy(b->data, a->image, a->size);
    return true;
}

bool buffer_read(suite *s, const buffer *b, eqi_ctx *ctx, const arg *a, unsigned char *image)
{
    if (s->b->host) {
        memcpy(image, b->data, a->size);
        return true;
    }
    if (s->b->download(ctx, image, b->data, a->size) == EQAT_OK) return true;
    suite_fail(s, "cannot read %s back: %s", a->name, ctx->error);
    return false;
}

void buffer_close(suite *s, buffer *b, eqi_ctx *ctx)
{
    if (b->map)
        munmap(b->map, b->mapped);
    else if (b->data)
        s->b->free(ctx, b->data, b->size);
    *b = (buffer){0};
}
