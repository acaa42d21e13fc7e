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

/* What a late download brings is what was there when it was asked for, whatever comes behind it. */
static void late(suite *s)
{
    enum { TICKETS = EQI_LATE_COUNT - 1, REST = 3 };
    static const size_t sizes[] = {EQI_LATE_BYTES, 4, 1, 0, 64};
    eqi_ctx *ctx = s->ctx[0];
    unsigned char sent[TICKETS], got[TICKETS][EQI_LATE_BYTES], full[EQI_LATE_BYTES];
    uint64_t tickets[TICKETS];
    for (int round = 0; round < REST; round++) {
        unsigned char *p = s->b->alloc(ctx, EQI_LATE_BYTES);
        suite_begin(s, "%d late downloads", (int)TICKETS);
        s->run++;
        if (!p) {
            suite_fail(s, "no memory");
            return;
        }
        memset(got, 0xee, sizeof got);
        for (int i = 0; i < TICKETS; i++) {
            sent[i] = (unsigned char)suite_pick(s, 0, 200);
            memset(full, sent[i], sizeof full);
            if (s->b->upload(ctx, p, full, sizeof full) ||
                s->b->download_late(ctx, got[i], p, sizes[i % EQI_COUNT(sizes)], &tickets[i]))
                suite_fail(s, "%s", ctx->error);
        }
        memset(full, 0xff, sizeof full);
        if (s->b->upload(ctx, p, full, sizeof full)) suite_fail(s, "%s", ctx->error);
        s->b->free(ctx, p, EQI_LATE_BYTES);
        for (int k = 0; k < TICKETS - round; k++) { /* some never arrive */
            int i = round ? TICKETS - 1 - k : k;
            size_t n = sizes[i % EQI_COUNT(sizes)];
            if (s->b->arrive(ctx, tickets[i])) suite_fail(s, "%s", ctx->error);
            for (size_t j = 0; j < sizeof got[i]; j++)
                if (got[i][j] != (j < n ? sent[i] : 0xee)) {
                    suite_fail(s, "ticket %d: byte %zu differs", i, j);
                    break;
                }
        }
    }
}

/* A large one, into pinned memory, with more tickets behind it than there is room for. */
static void late_and_large(suite *s)
{
    enum { SIZE = 3 << 20 };
    eqi_ctx *ctx = s->ctx[0];
    unsigned char *p = s->b->alloc(ctx, SIZE), small;
    const size_t before = ctx->bytes_now;
    unsigned char *pinned = s->b->pin(ctx, SIZE);
    const size_t with = ctx->bytes_now;
    unsigned char *mine = malloc(SIZE);
    uint64_t first, other = 0;
    suite_begin(s, "a late download of %d bytes", (int)SIZE);
    s->run++;
    s->b->unpin(ctx, s->b->pin(ctx, 0), 0);
    s->b->unpin(ctx, NULL, SIZE);
    if (!p || !pinned || !mine) {
        suite_fail(s, "no memory");
        return;
    }
    for (int i = 0; i < SIZE; i++) mine[i] = (unsigned char)suite_pick(s, 0, 255);
    if (s->b->upload(ctx, p, mine, SIZE) || s->b->download_late(ctx, pinned, p, SIZE, &first))
        suite_fail(s, "%s", ctx->error);
    for (int i = 0; i < 2 * EQI_LATE_COUNT; i++)
        if (s->b->upload(ctx, p, &i, 1) || s->b->download_late(ctx, &small, p, 1, &other))
            suite_fail(s, "%s", ctx->error);
    if (s->b->arrive(ctx, first) || memcmp(mine, pinned, SIZE) != 0)
        suite_fail(s, "what comes differs");
    if (s->b->arrive(ctx, other) || small != 2 * EQI_LATE_COUNT - 1)
        suite_fail(s, "the last one differs");
    s->b->free(ctx, p, SIZE);
    const size_t last = ctx->bytes_now;
    s->b->unpin(ctx, pinned, SIZE);
    if (with - before != SIZE || last - ctx->bytes_now != SIZE)
        suite_fail(s, "pinned memory is not in the context's account");
    free(mine);
}

/* Uploads in a row of all sizes, from one buffer that changes at once: more than a backend may hold
 * back, and across the edges of what it holds them in. */
static void uploads(suite *s)
{
    enum { LARGE = 3 << 20, COUNT = 32 };
    eqi_ctx *ctx = s->ctx[0];
    unsigned char *mine = malloc(LARGE), *p[COUNT];
    size_t n[COUNT];
    suite_begin(s, "%d uploads", (int)COUNT);
    s->run++;
    if (!mine) {
        suite_fail(s, "no memory");
        return;
    }
    for (int i = 0; i < COUNT; i++) {
        n[i] = (size_t)suite_pick(s, 1, i % 3 ? LARGE : 1000);
        p[i] = s->b->alloc(ctx, n[i]);
        memset(mine, i + 1, n[i]);
        if (!p[i] || s->b->upload(ctx, p[i], mine, n[i])) suite_fail(s, "%s", ctx->error);
    }
    for (int i = 0; i < COUNT; i++) {
        if (!p[i]) continue;
        if (s->b->download(ctx, mine, p[i], n[i])) suite_fail(s, "%s", ctx->error);
        for (size_t j = 0; j < n[i]; j++)
            if (mine[j] != i + 1) {
                suite_fail(s, "upload %d of %zu bytes: byte %zu differs", i, n[i], j);
                break;
            }
        s->b->free(ctx, p[i], n[i]);
    }
    free(mine);
}

static void all(suite *s)
{
    memory(s);
    late(s);
    late_and_large(s);
    uploads(s);
}

const kernel_check check_memory[] = {{"alloc", all, NULL, NULL}, {0}};
