/* The cases of this suite, and what their files share. */
#ifndef TESTS_MODEL_CASES_H
#define TESTS_MODEL_CASES_H

#include "engine.h"
#include "model/weights.h"
#include "public.h"

TCase *case_api(void);
TCase *case_config(void);
TCase *case_rope(void);
TCase *case_forward(void);
TCase *case_parameters(void);
TCase *case_bad_input(void);
TCase *case_save(void);
TCase *case_save_gguf(void);
TCase *case_layout(void);
TCase *case_gguf(void);
TCase *case_families(void);
TCase *case_choose(void);
TCase *case_generate(void);
TCase *case_memory(void);
TCase *case_quantizer(void);
TCase *case_pieces(void);

#endif
