#include "context.h"
#include "engine/engine.h"

bool granted(counter *c)
{
    c->requests++;
    return !c->fail_at || (c->once ? c->requests != c->fail_at : c->requests < c->fail_at);
}

static void *count_alloc(void *user, size_t size, size_t align)
{
    counter *c = user;
    void *p = NULL;
    if (!granted(c) || posix_memalign(&p, align, size) != 0) return NULL;
    /* What is not written must not look like a result. */
    memset(p, 0xff, size);
    c->live++;
    c->bytes += size;
    return p;
}

/* What is given back has the sizes of what was given out. */
static void count_free(void *user, void *p, size_t size)
{
    counter *c = user;
    c->live--;
    c->bytes -= size;
    ck_assert(c->live > 0 || c->bytes == 0);
    free(p);
}

eqi_allocator counting(counter *c)
{
    return (eqi_allocator){.alloc = count_alloc, .free = count_free, .user = c};
}

static eqi_ctx *open_with(const char *device, eqi_allocator allocator)
{
    eqi_ctx_config config = {.device = device, .threads = 2, .allocator = allocator};
    char error[EQI_ERROR_MAX] = "";
    eqi_ctx *ctx;
    eqat_status st = eqi_ctx_create(&ctx, &config, error, sizeof error);
    ck_assert_msg(st == EQAT_OK, "context: %s", error);
    return ctx;
}

eqi_ctx *open_counted(const char *device, counter *c) { return open_with(device, counting(c)); }

eqi_ctx *open_ctx(const char *device) { return open_with(device, (eqi_allocator){0}); }

void expect_failure(const eqi_ctx *ctx, const char *call, eqat_status found, eqat_status expected,
                    const char *text)
{
    ck_assert_msg(found == expected, "%s: found %s (%s), expected %s: %s", call,
                  eqat_status_name(found), ctx->error, eqat_status_name(expected), text);
    ck_assert_msg(strstr(ctx->error, text) != NULL, "%s: found \"%s\", expected \"%s\"", call,
                  ctx->error, text);
    ck_assert_msg(strchr(ctx->error, '\n') == NULL, "%s: two lines: %s", call, ctx->error);
}
