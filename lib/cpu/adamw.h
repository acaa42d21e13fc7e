#ifndef EQI_CPU_ADAMW_H
#define EQI_CPU_ADAMW_H

#include "cpu/cpu.h"

eqi_adamw_terms eqi_cpu_adamw_terms(const eqi_adamw_desc *d, float factor);
bool eqi_cpu_is_finite(eqi_ctx *ctx, const eqi_view *rows); /* every value */

#endif
