#include <stdlib.h>

#include "plain.h"

static void memory(suite *s)
{
    static const size_t sizes[] = {0, 1, 3, 64, 65, 4097, 1 << 20};
    for (size_t i = 0; i < EQI_COUNT(sizes); i++) {
        suite_begin(s, "%zu bytes", sizes[i]);
        s->run++;
        eqi_ctx *ctx = s->ctx[0];
        unsigned char *mine = malloc(2 * sizes[i] + 1), *back = mine ? mine + sizes[i] : NULL;
        unsigned char *p = s->b->alloc(ctx, sizes[i]);
        if (!mine || !p) {
            suite_fail(s, "no memory");
            free(mine);
            continue;
        }
        for (size_t j = 0; j < sizes[i]; j++) mine[j] = (unsigned char)suite_pick(s, 0, 255);
        memset(back, 0, sizes[i]);
        if ((uintptr_t)p % 64) suite_fail(s, "not aligned to 64 bytes");
        if (s->b->upload(ctx, p, mine, sizes[i]) || s->b->download(ctx, back, p, sizes[i]))
            suite_fail(s, "%s", ctx->error);
        if (memcmp(mine, back, sizes[i]) != 0) suite_fail(s, "what comes back differs");
        if (sizes[i] > 2 &&
            (s->b->upload(ctx, p + 1, mine, 1) || s->b->download(ctx, back, p, 2) ||
             back[1] != mine[0]))
            suite_fail(s, "an offset is not kept");
        s->b->free(ctx, p, sizes[i]);
        free(mine);
    }
    s->b->free(s->ctx[0], NULL, 0);
}

const kernel_check check_memory[] = {{"alloc", memory, NULL, NULL}, {0}};
