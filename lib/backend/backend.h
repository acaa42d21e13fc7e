/* The backends there are, and the way to them. */
#ifndef EQI_BACKEND_BACKEND_H
#define EQI_BACKEND_BACKEND_H

#include "backend/table.h"
#include "base/context.h"
#include "tensor/quantized.h"
#include "tensor/view.h"

/* The registry: "ref" (plain C), "cpu" (the fastest this processor runs), "cuda:N" (loads
 * libeqat-cuda.so). Fills ctx->backend; a table with a missing entry is refused here, not in the
 * middle of a run. */
eqat_status eqi_backend_open(eqi_ctx *ctx, const char *device);
void eqi_backend_close(eqi_ctx *ctx);
/* Version and completeness of a table; EQAT_BACKEND naming the entry that lacks. */
eqat_status eqi_backend_check(eqi_ctx *ctx, const eqi_backend *backend);

/* lib/cpu/ref fills every entry; lib/cpu overwrites with what is faster. */
extern const eqi_backend eqi_backend_ref;
extern const eqi_backend eqi_backend_cpu_template;
const eqi_backend *eqi_backend_cpu(void);

#endif
