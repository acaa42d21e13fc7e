/* What elements are. */
#ifndef EQI_BASE_DTYPE_H
#define EQI_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>

/* Values equal those of eqat_dtype. */
typedef enum eqi_dtype {
    EQI_F32 = 0,
    EQI_BF16 = 1,
    EQI_F16 = 2, /* storage of weights only; no op computes in it */
    EQI_F64 = 3, /* the reference kernels only: finite differences */
    EQI_I32 = 4, /* token ids, positions, labels */
    EQI_U8 = 5,  /* frozen zero points */
    EQI_U32 = 6, /* packed codes */
    EQI_DTYPE_COUNT
} eqi_dtype;

size_t eqi_dtype_size(eqi_dtype dtype);
const char *eqi_dtype_name(eqi_dtype dtype); /* "f32" */
bool eqi_dtype_is_float(eqi_dtype dtype);

#endif
