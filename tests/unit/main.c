#include "unit.h"

int main(void)
{
    Suite *suite = suite_create("engine");
    TCase *(*const cases[])(void) = {case_alloc,    case_file,    case_rng,    case_threads,
                                     case_tensor,   case_recycle, case_tape,   case_checkpoint,
                                     case_registry, case_shapes,  case_memory, case_product};
    for (size_t i = 0; i < EQI_COUNT(cases); i++) suite_add_tcase(suite, cases[i]());
    return run_suite(suite, CK_NOFORK);
}
