#include "cpu/cpu.h"

#include <string.h>

#include "cpu/matmul.h"

eqat_status eqi_cpu_open(eqi_ctx *ctx, const char *device)
{
    const char *colon = strchr(device, ':');
    const eqi_simd *simd = eqi_cpu_simd(colon ? colon + 1 : NULL, !ctx->no_amx);
    if (!simd)
        return eqi_fail(
            ctx, EQAT_UNSUPPORTED,
            "device: found \"%s\", expected cpu or cpu:generic, avx2, avx512, avx512bf16 or amx, "
            "as far as this processor has it%s",
            device, ctx->no_amx ? ", and amx is off" : "");
    eqi_cpu *cpu = eqi_calloc(ctx, 1, sizeof *cpu, "the CPU backend");
    if (!cpu) return EQAT_OUT_OF_MEMORY;
    cpu->simd = simd;
    ctx->backend_state = cpu;
    eqat_status st = eqi_mm_cache_create(ctx, &cpu->products);
    if (st == EQAT_OK) st = eqi_mm_probe(ctx, cpu->products, &cpu->bf16);
    if (st != EQAT_OK) {
        eqi_cpu_close(ctx);
        return st;
    }
    cpu->bf16 = cpu->bf16 && simd->bf16;
    char products[64];
    eqi_mm_name(products, sizeof products);
    eqi_log(ctx, EQI_LOG_INFO, "device cpu:%s, threads: %d, products: %s%s", simd->name,
            eqi_pool_size(ctx->pool), products, cpu->bf16 ? ", of bf16" : "");
    return EQAT_OK;
}

void eqi_cpu_close(eqi_ctx *ctx)
{
    eqi_cpu *cpu = eqi_cpu_of(ctx);
    if (!cpu) return;
    eqi_mm_cache_free(ctx, cpu->products);
    for (size_t i = 0; i < EQI_SCRATCH_COUNT; i++) eqi_free(ctx, cpu->scratch[i].data);
    eqi_free(ctx, cpu);
    ctx->backend_state = NULL;
}

void *eqi_cpu_scratch(eqi_ctx *ctx, eqi_scratch slot, size_t size)
{
    eqi_cpu *cpu = eqi_cpu_of(ctx);
    if (size > cpu->scratch[slot].size) {
        eqi_free(ctx, cpu->scratch[slot].data);
        cpu->scratch[slot].size = 0;
        cpu->scratch[slot].data = eqi_alloc(ctx, size, "scratch memory of the CPU kernels");
        if (cpu->scratch[slot].data) cpu->scratch[slot].size = size;
    }
    return cpu->scratch[slot].data;
}
