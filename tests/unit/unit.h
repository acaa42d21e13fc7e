#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include "engine.h"

TCase *case_alloc(void);
TCase *case_file(void);
TCase *case_rng(void);
TCase *case_threads(void);
TCase *case_tensor(void);
TCase *case_recycle(void);
TCase *case_tape(void);
TCase *case_checkpoint(void);
TCase *case_registry(void);
TCase *case_shapes(void);
TCase *case_memory(void);
TCase *case_product(void);

#endif
