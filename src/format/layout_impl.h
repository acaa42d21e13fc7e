/* What the file of a layout needs; seen by the files of src/format alone. */
#ifndef EQI_FORMAT_LAYOUT_IMPL_H
#define EQI_FORMAT_LAYOUT_IMPL_H

#include "format/layout.h"
#include "format/source_impl.h"

/* The rows of the table in layouts.c. */
extern const eqi_layout eqi_layout_gptq, eqi_layout_gptq_v2, eqi_layout_auto_round,
    eqi_layout_auto_round_plain, eqi_layout_auto_round_gptq, eqi_layout_awq,
    eqi_layout_compressed_tensors, eqi_layout_fp16, eqi_layout_mlx, eqi_layout_reference;

/* A tensor of two dimensions that must be there. */
eqi_layout_tensor eqi_layout_matrix(const char *suffix, eqi_stored stored, eqi_accepted types,
                                    int64_t rows, int64_t columns);

/* The tensor "<linear>.<suffix>"; NULL: none. */
const eqi_source_entry *eqi_layout_tensor_of(const eqi_source *source,
                                             const eqi_layout_linear *linear, const char *suffix);
/* Holds a packed linear's tensors against what the layout says of them. */
eqat_status eqi_layout_expect(const eqi_layout *layout, const eqi_source *source, const char *path,
                              const eqi_layout_linear *linear);
/* All words of the tensor "<linear>.<suffix>", which has been held against `tensors`; the caller
 * frees them. */
eqat_status eqi_layout_words(eqi_source *source, const eqi_layout_linear *linear,
                             const char *suffix, uint32_t **out);
/* The index "<linear>.<suffix>", when there is one, says that input k is in group k / q.group. */
eqat_status eqi_layout_check_g_idx(eqi_source *source, const eqi_layout_linear *linear,
                                   const char *suffix);
/* [rows, columns] -> [columns, rows] */
void eqi_transpose_words(const uint32_t *src, int64_t rows, int64_t columns, uint32_t *dst);
/* EQAT_UNSUPPORTED: a key of quantization_config, what it is and what it should be. */
eqat_status eqi_layout_refuse(eqi_ctx *ctx, const char *path, const char *key, const json_t *found,
                              const char *expected);

#endif
