/* The entries of the table, one file per op; those that nobody defines are the reference's. */
#ifndef EQI_CPU_BACKEND_H
#define EQI_CPU_BACKEND_H

#include "cpu/cpu.h"

#define EQI_ENTRY(entry) eqi_##entry##_fn eqi_cpu_##entry;
EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY

#endif
