/* The table, which is all that this library exports. */
#include "backend.h"

static const eqi_backend table = {EQI_BACKEND_VERSION, "cuda", false, /* host */
                                  false,                              /* f64 */
#define EQI_ENTRY(entry) eqi_cuda_##entry,
                                  EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY
};

extern "C" __attribute__((visibility("default"))) const eqi_backend *eqi_backend_of_library(void)
{
    return &table;
}
