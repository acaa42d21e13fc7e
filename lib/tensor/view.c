#include "tensor/view.h"

#include <stdio.h>

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
