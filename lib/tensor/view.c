#include "tensor/view.h"

#include <stdio.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[EQI_DTYPE_COUNT] = {
    [EQI_F32] = {"f32", 4}, [EQI_BF16] = {"bf16", 2}, [EQI_F16] = {"f16", 2},
    [EQI_F64] = {"f64", 8}, [EQI_I32] = {"i32", 4},   [EQI_U8] = {"u8", 1},
    [EQI_U32] = {"u32", 4},
};

static bool dtype_valid(eqi_dtype dtype) { return (unsigned)dtype < EQI_DTYPE_COUNT; }
size_t eqi_dtype_size(eqi_dtype dtype) { return dtype_valid(dtype) ? dtypes[dtype].size : 0; }
const char *eqi_dtype_name(eqi_dtype dtype)
{
    return dtype_valid(dtype) ? dtypes[dtype].name : "unknown";
}

bool eqi_dtype_is_float(eqi_dtype dtype)
{
    return dtype == EQI_F32 || dtype == EQI_BF16 || dtype == EQI_F16 || dtype == EQI_F64;
}

int64_t eqi_view_count(const eqi_view *v)
{
    int64_t n = 1;
    for (int i = 0; i < v->ndim; i++) n *= v->shape[i];
    return n;
}

int64_t eqi_view_rows(const eqi_view *v)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < v->ndim; i++) n *= v->shape[i];
    return n;
}

bool eqi_view_is_contiguous(const eqi_view *v)
{
    if (eqi_view_count(v) == 0) return true;
    int64_t expected = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] != 1 && v->stride[i] != expected) return false;
        expected *= v->shape[i];
    }
    return true;
}

bool eqi_view_same_shape(const eqi_view *a, const eqi_view *b)
{
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}

const char *eqi_view_shape_text(const eqi_view *v, char *buffer, size_t size)
{
    size_t at = 0;
    for (int i = 0; i < v->ndim && at < size; i++) {
        int n = snprintf(buffer + at, size - at, "%s%lld", i ? ", " : "[", (long long)v->shape[i]);
        if (n > 0) at += (size_t)n;
    }
    if (at < size) snprintf(buffer + at, size - at, "]");
    return buffer;
}
