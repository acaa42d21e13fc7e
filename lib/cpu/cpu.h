/* The CPU backend: drivers that cut the work into tasks for the pool, over the kernels of one
 * instruction set. */
#ifndef EQI_CPU_CPU_H
#define EQI_CPU_CPU_H

#include "base/threads.h"
#include "cpu/vec/table.h"

/* Scratch of the context: each slot grows to the largest request and stays, so that a step repeated
 * allocates nothing. Only from the thread that owns the context. */
typedef enum eqi_scratch {
    EQI_SCRATCH_A, /* packed operands of the matrix product in progress */
    EQI_SCRATCH_B,
    EQI_SCRATCH_WORKER, /* one part per worker */
    EQI_SCRATCH_OP,     /* the op's own, alive across its matrix products */
    EQI_SCRATCH_COUNT
} eqi_scratch;

typedef struct eqi_mm_cache eqi_mm_cache;

typedef struct eqi_cpu {
    const eqi_simd *simd;
    bool bf16; /* products of bf16 operands, else of f32 operands rounded to bf16 */
    eqi_mm_cache *products;
    struct {
        void *data;
        size_t size;
    } scratch[EQI_SCRATCH_COUNT];
} eqi_cpu;

static inline eqi_cpu *eqi_cpu_of(eqi_ctx *ctx) { return ctx->backend_state; }

/* The kernels called `name` ("avx2"), or the fastest that run here for NULL; NULL when they do not.
 * Without amx those of AMX count as absent, and the kernel is not asked for its registers. */
const eqi_simd *eqi_cpu_simd(const char *name, bool amx);

eqat_status eqi_cpu_open(eqi_ctx *ctx, const char *device);
void eqi_cpu_close(eqi_ctx *ctx);

/* NULL after eqi_fail. The contents of a slot do not survive a larger request. */
void *eqi_cpu_scratch(eqi_ctx *ctx, eqi_scratch slot, size_t size);

/* Rows of a tile that are fetched before their turn. Each is too short for the processor to foresee
 * the next, which lies a whole row of the matrix further. */
#define EQI_ROWS_AHEAD 4

static inline int64_t eqi_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t eqi_max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t eqi_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t eqi_round_up(int64_t a, int64_t b) { return eqi_ceil_div(a, b) * b; }

#endif
