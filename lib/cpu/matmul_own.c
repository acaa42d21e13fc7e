/* Products by the kernels in vec/, for builds without oneDNN. */
#include "cpu/matmul.h"

#include <stdio.h>

struct eqi_mm {
    eqi_mm *next;
    eqi_mm_shape shape;
    const eqi_simd *simd;
};

struct eqi_mm_cache {
    eqi_mm *first;
};

void eqi_mm_name(char *buffer, size_t size) { snprintf(buffer, size, "own"); }

eqat_status eqi_mm_cache_create(eqi_ctx *ctx, eqi_mm_cache **out)
{
    *out = eqi_calloc(ctx, 1, sizeof **out, "the matrix products");
    return *out ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

void eqi_mm_cache_free(eqi_ctx *ctx, eqi_mm_cache *c)
{
    if (!c) return;
    while (c->first) {
        eqi_mm *mm = c->first;
        c->first = mm->next;
        eqi_free(ctx, mm);
    }
    eqi_free(ctx, c);
}

eqat_status eqi_mm_get(eqi_ctx *ctx, const eqi_mm_shape *shape, const eqi_mm **out)
{
    const eqi_cpu *cpu = eqi_cpu_of(ctx);
    for (*out = cpu->products->first; *out; *out = (*out)->next)
        if (eqi_mm_same(&(*out)->shape, shape)) return EQAT_OK;
    eqi_mm *mm = eqi_calloc(ctx, 1, sizeof *mm, "a matrix product");
    if (!mm) return EQAT_OUT_OF_MEMORY;
    *mm = (eqi_mm){.next = cpu->products->first, .shape = *shape, .simd = cpu->simd};
    *out = cpu->products->first = mm;
    return EQAT_OK;
}

eqat_status eqi_mm_probe(eqi_ctx *ctx, eqi_mm_cache *cache, bool *bf16)
{
    (void)cache;
    *bf16 = eqi_cpu_of(ctx)->simd->bf16;
    return EQAT_OK;
}

int64_t eqi_mm_block(const eqi_mm_cache *cache, bool bf16, int64_t n)
{
    (void)cache;
    (void)bf16;
    (void)n;
    return EQI_MM_BLOCK;
}

size_t eqi_mm_scratch(const eqi_mm *mm)
{
    (void)mm;
    return 0;
}

bool eqi_mm_run(const eqi_mm *mm, int worker, const void *a, const void *b, float *c, void *scratch)
{
    (void)worker;
    (void)scratch;
    const eqi_mm_shape *s = &mm->shape;
    mm->simd->product(c, s->bf16 ? EQI_ELEM_BF16 : EQI_ELEM_F32, a, b,
                      (const int64_t[3]){s->m, s->n, s->k}, s->acc);
    return true;
}
