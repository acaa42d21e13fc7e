/* What the layouts that grew out of GPTQ's files share: gptq, gptq_v2, auto-round and those of the
 * reference implementation. */
#ifndef EQI_FORMAT_GPTQ_H
#define EQI_FORMAT_GPTQ_H

#include "format/layout_impl.h"

/* 2, 3, 4 or 8 */
bool eqi_gptq_bits(int64_t bits);
/* group_size as config.json says it: -1 can stand for any row. */
bool eqi_covers(int bits, int64_t group, const eqi_layout_linear *linear);
/* bits and group_size that cover the most linears. */
void eqi_choose_common(const eqi_layout_linear *linears, size_t n, int *bits, int64_t *group);
bool eqi_all_symmetric(const eqi_layout_linear *linears, size_t n); /* those that are packed */

/* For GPTQModel: a new object of the linears that are not as bits and group_size say; NULL: out of
 * memory. */
json_t *eqi_gptq_dynamic(const eqi_layout_linear *linears, size_t n, int bits, int64_t group);
/* A new list of those that are not packed; NULL: out of memory. */
json_t *eqi_dense_names(const eqi_layout_linear *linears, size_t n);

/* Members of eqi_layout. */
eqat_status eqi_gptq_parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out);
eqat_status eqi_gptq_parse_v2(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out);
void eqi_gptq_describe(const eqi_packing *packing, const eqi_source *source,
                       eqi_layout_linear *linear);
eqat_status eqi_gptq_check(eqi_ctx *ctx, const eqi_layout_linear *linear);
int eqi_gptq_tensors(const eqi_layout_linear *linear, eqi_layout_tensor list[EQI_LAYOUT_TENSORS]);
eqat_status eqi_gptq_read(const eqi_packing *packing, eqi_source *source,
                          const eqi_layout_linear *linear, eqi_packed *out);
json_t *eqi_gptq_config(const eqi_layout_linear *linears, size_t n);
json_t *eqi_gptq_config_v2(const eqi_layout_linear *linears, size_t n);
void eqi_gptq_warn(eqi_ctx *ctx, const eqi_layout_linear *linears, size_t n);

/* Parts of read and write; scales are [groups, out] in the file. */
eqat_status eqi_gptq_read_zeros(const eqi_packing *packing, eqi_source *source,
                                const eqi_layout_linear *linear, eqi_packed *out);
eqat_status eqi_gptq_read_scales(eqi_source *source, const eqi_layout_linear *linear,
                                 eqi_packed *out);
eqat_status eqi_gptq_write_scales(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *linear,
                                  const eqi_packed *packed);
/* qweight, qzeros and scales */
eqat_status eqi_gptq_write_matrices(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *linear,
                                    const eqi_packed *packed, bool less_one);

#endif
