#include "cpu/backend.h"

#include <string.h>

#include "cpu/matmul.h"
#include "cpu/ref/ref.h"

eqat_status eqi_cpu_open(eqi_ctx *ctx, const char *device)
{
    const char *colon = strchr(device, ':');
    const eqi_leaf *leaf = eqi_cpu_leaf(colon ? colon + 1 : NULL);
    if (!leaf)
        return eqi_fail(
            ctx, EQAT_UNSUPPORTED,
            "device: found \"%s\", expected cpu or cpu:generic, avx2, avx512, avx512bf16 or amx, "
            "as far as this processor has it",
            device);
    eqi_cpu *cpu = eqi_calloc(ctx, 1, sizeof *cpu, "the CPU backend");
    if (!cpu) return EQAT_OUT_OF_MEMORY;
    cpu->leaf = leaf;
    ctx->backend_state = cpu;
    eqat_status st = eqi_mm_cache_create(ctx, &cpu->products);
    if (st == EQAT_OK) st = eqi_mm_probe(ctx, cpu->products, &cpu->bf16);
    if (st != EQAT_OK) {
        eqi_cpu_close(ctx);
        return st;
    }
    cpu->bf16 = cpu->bf16 && leaf->bf16;
    return EQAT_OK;
}

void eqi_cpu_close(eqi_ctx *ctx)
{
    eqi_cpu *cpu = eqi_cpu_of(ctx);
    if (!cpu) return;
    eqi_mm_cache_free(ctx, cpu->products);
    for (size_t i = 0; i < EQI_SLOT_COUNT; i++) eqi_free(ctx, cpu->scratch[i].data);
    eqi_free(ctx, cpu);
    ctx->backend_state = NULL;
}

void *eqi_cpu_scratch(eqi_ctx *ctx, eqi_slot slot, size_t size)
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

static const eqi_backend table = {
    .version = EQI_BACKEND_VERSION,
    .name = "cpu",
    .host = true,
    .f64 = false,
    .open = eqi_cpu_open,
    .close = eqi_cpu_close,
    .alloc = eqi_ref_alloc,
    .free = eqi_ref_free,
    .upload = eqi_ref_upload,
    .download = eqi_ref_download,
    .fill = eqi_cpu_fill,
    .copy = eqi_cpu_copy,
    .axpby = eqi_cpu_axpby,
    .mul = eqi_cpu_mul,
    .scale_by = eqi_cpu_scale_by,
    .ratio = eqi_ref_ratio,
    .embedding = eqi_cpu_embedding,
    .embedding_bwd = eqi_cpu_embedding_bwd,
    .linear = eqi_cpu_linear,
    .linear_bwd_x = eqi_cpu_linear_bwd_x,
    .linear_bwd_w = eqi_cpu_linear_bwd_w,
    .bias_bwd = eqi_cpu_bias_bwd,
    .fakequant = eqi_cpu_fakequant,
    .fakequant_bwd = eqi_cpu_fakequant_bwd,
    .fq_linear = eqi_cpu_fq_linear,
    .fq_linear_bwd_x = eqi_cpu_fq_linear_bwd_x,
    .fq_linear_bwd_w = eqi_cpu_fq_linear_bwd_w,
    .fq_linear_update = eqi_cpu_fq_linear_update,
    .dequantize = eqi_cpu_dequantize,
    .packed_linear = eqi_cpu_packed_linear,
    .packed_linear_bwd_x = eqi_cpu_packed_linear_bwd_x,
    .packed_linear_bwd_sz = eqi_cpu_packed_linear_bwd_sz,
    .quantize = eqi_cpu_quantize,
    .init_minmax = eqi_cpu_init_minmax,
    .init_mse = eqi_cpu_init_mse,
    .quantize_minmax = eqi_cpu_quantize_minmax,
    .rmsnorm = eqi_cpu_rmsnorm,
    .rmsnorm_bwd = eqi_cpu_rmsnorm_bwd,
    .rope = eqi_cpu_rope,
    .attention = eqi_cpu_attention,
    .attention_bwd = eqi_cpu_attention_bwd,
    .gated = eqi_cpu_gated,
    .gated_bwd = eqi_cpu_gated_bwd,
    .route = eqi_cpu_route,
    .route_bwd = eqi_cpu_route_bwd,
    .gather_rows = eqi_cpu_gather_rows,
    .scatter_rows = eqi_cpu_scatter_rows,
    .dot_rows = eqi_cpu_dot_rows,
    .mse = eqi_cpu_mse,
    .mse_bwd = eqi_cpu_mse_bwd,
    .linear_cross_entropy = eqi_cpu_linear_cross_entropy,
    .sum_squares = eqi_cpu_sum_squares,
    .clip_factor = eqi_ref_clip_factor,
    .adamw = eqi_cpu_adamw,
};

const eqi_backend *eqi_backend_cpu(void) { return &table; }
