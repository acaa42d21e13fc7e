#include "base/dtype.h"

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
