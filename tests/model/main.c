#include "cases.h"

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *(*const cases[])(void) = {case_api,        case_config,    case_rope,      case_forward,
                                     case_parameters, case_bad_input, case_quantizer, case_save,
                                     case_layout,     case_gguf,      case_memory,    case_pieces,
                                     case_families,   case_save_gguf, case_generate,  case_choose};
    for (size_t i = 0; i < EQI_COUNT(cases); i++) suite_add_tcase(suite, cases[i]());
    return run_suite(suite, CK_NOFORK);
}
