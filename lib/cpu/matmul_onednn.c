#include "cpu/matmul.h"

#include <stdio.h>
#include <string.h>

#include "cpu/onednn.h"

#define BUCKETS 256

typedef struct port {
    dnnl_memory_t a, b, c, scratch;
    dnnl_stream_t stream;
} port;

struct eqi_mm {
    eqi_mm *next;
    eqi_mm_shape shape;
    size_t scratch;
    dnnl_primitive_t primitive;
    int workers;
    port ports[]; /* one per worker: a memory object holds one address at a time */
};

struct eqi_mm_cache {
    dnnl_engine_t engine;
    int workers;
    dnnl_stream_t *streams;
    bool blocked[2]; /* whether b is blocked: f32, bf16 */
    eqi_mm *bucket[BUCKETS];
};

/* oneDNN plans a primitive for the threads of the thread that creates it, hence creation on a
 * worker. */
typedef struct creation {
    eqi_mm_cache *cache;
    eqi_mm *mm;
    dnnl_status_t status;
} creation;

static eqat_status failed(eqi_ctx *ctx, dnnl_status_t st, const char *what)
{
    if (st == dnnl_out_of_memory)
        return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "oneDNN: out of memory in %s", what);
    return eqi_fail(ctx, EQAT_BACKEND, "oneDNN: %s failed with status %d", what, (int)st);
}

static void mm_free(eqi_ctx *ctx, eqi_mm *mm)
{
    for (int i = 0; i < mm->workers; i++) {
        const dnnl_memory_t all[] = {mm->ports[i].a, mm->ports[i].b, mm->ports[i].c,
                                     mm->ports[i].scratch};
        for (size_t j = 0; j < EQI_COUNT(all); j++)
            if (all[j]) dnnl_memory_destroy(all[j]);
    }
    if (mm->primitive) dnnl_primitive_destroy(mm->primitive);
    eqi_free(ctx, mm);
}

void eqi_mm_name(char *buffer, size_t size)
{
    const dnnl_version_t *v = dnnl_version();
    snprintf(buffer, size, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

/* The symbols of oneDNN carry no version: a host that links another one first gives us that one,
 * whose structures are laid out otherwise. */
static eqat_status check_version(eqi_ctx *ctx)
{
    const dnnl_version_t *v = dnnl_version();
    if (v->major == DNNL_VERSION_MAJOR) return EQAT_OK;
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "oneDNN: found version %d.%d.%d, expected %d", v->major,
                    v->minor, v->patch, DNNL_VERSION_MAJOR);
}

eqat_status eqi_mm_cache_create(eqi_ctx *ctx, eqi_mm_cache **out)
{
    *out = NULL;
    /* Refused once oneDNN has looked at the processor; then AMX was asked for or is off already. */
    if (ctx->no_amx) (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16);
    EQI_RETURN_IF(check_version(ctx));
    eqi_mm_cache *c = eqi_calloc(ctx, 1, sizeof *c, "the matrix products");
    if (!c) return EQAT_OUT_OF_MEMORY;
    c->workers = eqi_pool_size(ctx->pool);
    c->streams = eqi_calloc(ctx, (size_t)c->workers, sizeof *c->streams, "the matrix products");
    dnnl_status_t st = c->streams ? dnnl_engine_create(&c->engine, dnnl_cpu, 0) : dnnl_success;
    for (int i = 0; c->streams && st == dnnl_success && i < c->workers; i++)
        st = dnnl_stream_create(&c->streams[i], c->engine, dnnl_stream_default_flags);
    if (!c->streams || st != dnnl_success) {
        eqat_status status =
            c->streams ? failed(ctx, st, "creating an engine") : EQAT_OUT_OF_MEMORY;
        eqi_mm_cache_free(ctx, c);
        return status;
    }
    *out = c;
    return EQAT_OK;
}

void eqi_mm_cache_free(eqi_ctx *ctx, eqi_mm_cache *c)
{
    if (!c) return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (c->bucket[i]) {
            eqi_mm *mm = c->bucket[i];
            c->bucket[i] = mm->next;
            mm_free(ctx, mm);
        }
    for (int i = 0; c->streams && i < c->workers; i++)
        if (c->streams[i]) dnnl_stream_destroy(c->streams[i]);
    if (c->engine) dnnl_engine_destroy(c->engine);
    eqi_free(ctx, c->streams);
    eqi_free(ctx, c);
}

static dnnl_status_t make_ports(eqi_mm_cache *cache, eqi_mm *mm, dn_desc_ref a, dn_desc_ref b,
                                dn_desc_ref c, dn_desc_ref scratch)
{
    dnnl_status_t st = dnnl_success;
    for (int i = 0; st == dnnl_success && i < mm->workers; i++) {
        port *p = &mm->ports[i];
        p->stream = cache->streams[i];
        st = dnnl_memory_create(&p->a, a, cache->engine, DNNL_MEMORY_NONE);
        if (st == dnnl_success) st = dnnl_memory_create(&p->b, b, cache->engine, DNNL_MEMORY_NONE);
        if (st == dnnl_success) st = dnnl_memory_create(&p->c, c, cache->engine, DNNL_MEMORY_NONE);
        if (st == dnnl_success)
            st = dnnl_memory_create(&p->scratch, scratch, cache->engine, DNNL_MEMORY_NONE);
    }
    return st;
}

static dnnl_status_t make(eqi_mm_cache *cache, eqi_mm *mm, bool blocked)
{
    const eqi_mm_shape *s = &mm->shape;
    dnnl_data_type_t type = s->bf16 ? dnnl_bf16 : dnnl_f32;
    const dn_matrix a = {type, s->m, s->k, false}, b = {type, s->k, s->n, blocked},
                    c = {dnnl_f32, s->m, s->n, false};
    dnnl_memory_desc_t da, db, dc;
    memset(&db, 0, sizeof db);
    memset(&dc, 0, sizeof dc);
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *name = "ref";
    dnnl_status_t st = dn_init(&da, &a);
    if (st != dnnl_success) return st;
    st = dn_init(&db, &b);
    if (st == dnnl_success) st = dn_init(&dc, &c);
    if (st == dnnl_success) st = dn_attributes(&attr, s->acc);
    if (st == dnnl_success) st = dn_product(&pd, cache->engine, attr, &da, &db, &dc);
    if (st == dnnl_success) st = dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    /* The reference implementation takes everything, a thousand times slower. */
    if (st == dnnl_success && strncmp(name, "ref", 3) == 0 && (blocked || s->bf16))
        st = dnnl_unimplemented;
    if (st == dnnl_success) {
        dn_desc_ref scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        mm->scratch = dnnl_memory_desc_get_size(scratch);
        st = dnnl_primitive_create(&mm->primitive, pd);
        if (st == dnnl_success)
            st = make_ports(cache, mm, dn_ref(&da), dn_ref(&db), dn_ref(&dc), scratch);
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (attr) dnnl_primitive_attr_destroy(attr);
    dn_drop(&da);
    dn_drop(&db);
    dn_drop(&dc);
    return st;
}

static void create_task(void *arg, size_t index, int worker)
{
    (void)index;
    (void)worker;
    creation *c = arg;
    c->status = make(c->cache, c->mm, c->cache->blocked[c->mm->shape.bf16]);
}

static eqat_status find(eqi_ctx *ctx, eqi_mm_cache *cache, const eqi_mm_shape *s,
                        const eqi_mm **out, dnnl_status_t *dn)
{
    uint64_t hash = (((uint64_t)s->m * 31 + (uint64_t)s->n) * 31 + (uint64_t)s->k) * 4 +
        (s->bf16 ? 2u : 0u) + (s->acc ? 1u : 0u);
    eqi_mm **head = &cache->bucket[hash * 0x9e3779b97f4a7c15u >> 56];
    for (eqi_mm *mm = *head; mm; mm = mm->next)
        if (eqi_mm_same(&mm->shape, s)) {
            *out = mm;
            return EQAT_OK;
        }
    eqi_mm *mm =
        eqi_calloc(ctx, 1, sizeof *mm + (size_t)cache->workers * sizeof(port), "a matrix product");
    if (!mm) return EQAT_OUT_OF_MEMORY;
    mm->shape = *s;
    mm->workers = cache->workers;
    creation c = {.cache = cache, .mm = mm};
    eqi_parallel(ctx, 1, create_task, &c);
    *dn = c.status;
    if (c.status != dnnl_success) {
        mm_free(ctx, mm);
        return EQAT_BACKEND;
    }
    mm->next = *head;
    *head = mm;
    *out = mm;
    return EQAT_OK;
}

eqat_status eqi_mm_get(eqi_ctx *ctx, const eqi_mm_shape *shape, const eqi_mm **out)
{
    dnnl_status_t dn = dnnl_success;
    eqat_status st = find(ctx, eqi_cpu_of(ctx)->products, shape, out, &dn);
    return dn != dnnl_success ? failed(ctx, dn, "creating a matrix product") : st;
}

eqat_status eqi_mm_probe(eqi_ctx *ctx, eqi_mm_cache *cache, bool *bf16)
{
    const eqi_mm *mm = NULL;
    for (int i = 0; i < 2; i++) {
        dnnl_status_t dn = dnnl_success;
        cache->blocked[i] = true;
        eqat_status st =
            find(ctx, cache, &(eqi_mm_shape){.m = 64, .n = 64, .k = 64, .bf16 = i}, &mm, &dn);
        if (dn != dnnl_success && dn != dnnl_unimplemented)
            return failed(ctx, dn, "creating a matrix product");
        if (dn == dnnl_success) EQI_RETURN_IF(st);
        cache->blocked[i] = dn == dnnl_success;
    }
    *bf16 = cache->blocked[1];
    return EQAT_OK;
}

int64_t eqi_mm_block(const eqi_mm_cache *cache, bool bf16, int64_t n)
{
    return cache->blocked[bf16] ? EQI_MM_BLOCK : n;
}
size_t eqi_mm_scratch(const eqi_mm *mm) { return mm->scratch; }

bool eqi_mm_run(const eqi_mm *mm, int worker, const void *a, const void *b, float *c, void *scratch)
{
    const port *p = &mm->ports[worker];
    /* The handle is not const because a memory object can be either side of a primitive. */
    union {
        const void *in;
        void *handle;
    } x = {.in = a}, y = {.in = b};
    if (dnnl_memory_set_data_handle(p->a, x.handle) != dnnl_success ||
        dnnl_memory_set_data_handle(p->b, y.handle) != dnnl_success ||
        dnnl_memory_set_data_handle(p->c, c) != dnnl_success ||
        dnnl_memory_set_data_handle(p->scratch, scratch) != dnnl_success)
        return false;
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->a},
                                    {DNNL_ARG_WEIGHTS, p->b},
                                    {DNNL_ARG_DST, p->c},
                                    {DNNL_ARG_SCRATCHPAD, p->scratch}};
    /* Built for SYCL, oneDNN computes after the call has returned. */
    return dnnl_primitive_execute(mm->primitive, p->stream, (int)EQI_COUNT(args), args) ==
        dnnl_success &&
        dnnl_stream_wait(p->stream) == dnnl_success;
}
