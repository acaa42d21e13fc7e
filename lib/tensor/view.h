/* Questions about what kernels see of a tensor. */
#ifndef EQI_TENSOR_VIEW_H
#define EQI_TENSOR_VIEW_H

#include "backend/table.h"

int64_t eqi_view_count(const eqi_view *v);
bool eqi_view_is_contiguous(const eqi_view *v);
bool eqi_view_same_shape(const eqi_view *a, const eqi_view *b);
int64_t eqi_view_rows(const eqi_view *v); /* product of all but the last dimension */
/* "[2, 3, 4]" into a buffer of the caller's; returns buffer. */
const char *eqi_view_shape_text(const eqi_view *v, char *buffer, size_t size);
#define EQI_SHAPE_TEXT 96

#endif
