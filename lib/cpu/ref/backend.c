#include "cpu/ref/ref.h"

const eqi_backend eqi_backend_ref = {.version = EQI_BACKEND_VERSION,
                                     .name = "ref",
                                     .host = true,
                                     .f64 = true,
#define EQI_ENTRY(entry) .entry = eqi_ref_##entry,
                                     EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY
};
