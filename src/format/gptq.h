/* The gptq and gptq_v2 layouts of packed linears (docs/formats.md), to and from the engine's. */
#ifndef EQI_FORMAT_GPTQ_H
#define EQI_FORMAT_GPTQ_H

#include <jansson.h>

#include "ops/ops.h"

/* quantization_config of a config.json. */
typedef struct eqi_gptq_config {
    bool present;
    int bits;
    int64_t group;  /* -1: the whole row */
    bool minus_one; /* checkpoint_format gptq: zero points are stored less one */
    bool dynamic;   /* linears may differ from bits and group */
} eqi_gptq_config;

/* json: the whole config.json. Other methods, bit widths, orders of activation are EQAT_UNSUPPORTED
 * by name. */
eqat_status eqi_gptq_config_parse(eqi_ctx *ctx, eqi_gptq_config *out, const json_t *json,
                                  const char *path);

/* Whether a linear can be written: bits 2, 3, 4 or 8, and whole words in both directions. */
eqat_status eqi_gptq_check(eqi_ctx *ctx, const char *name, int64_t out, int64_t in,
                           const eqi_quant_desc *q);

/* Sizes in 32-bit words. */
int64_t eqi_gptq_weight_rows(int64_t in, int bits);   /* qweight is [this, out] */
int64_t eqi_gptq_zero_columns(int64_t out, int bits); /* qzeros is [groups, this] */

/* qweight [in*bits/32, out] <-> codes [out, in/32*bits]: the same words, transposed. */
void eqi_gptq_transpose(const uint32_t *src, int64_t rows, int64_t columns, uint32_t *dst);
/* zeros [out, groups] <-> qzeros [groups, out*bits/32]. */
void eqi_gptq_pack_zeros(const uint8_t *zeros, int64_t out, int64_t groups, int bits,
                         uint32_t *qzeros);
void eqi_gptq_unpack_zeros(const uint32_t *qzeros, int64_t out, int64_t groups, int bits,
                           bool minus_one, uint8_t *zeros);

/* One linear of a model to be saved; bits 0: left as it is. */
typedef struct eqi_gptq_linear {
    const char *name;
    int64_t in;
    int bits;
    int64_t group;
} eqi_gptq_linear;

/* A new quantization_config for these linears: bits and group_size of most of them, `dynamic` for
 * the others. NULL: out of memory, or none is quantized. */
json_t *eqi_gptq_config_make(const eqi_gptq_linear *linears, size_t n);

#endif
