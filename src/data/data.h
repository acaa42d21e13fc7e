/* Calibration data inside the library. */
#ifndef EQI_DATA_DATA_H
#define EQI_DATA_DATA_H

#include "eqat/data.h"

eqat_data *eqi_data_ref(eqat_data *data);
/* Ranks that share the samples. */
int32_t eqi_data_world(const eqat_data *data);

#endif
