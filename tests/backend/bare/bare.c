/* Another library of the same name. */
#include <stdbool.h>

__attribute__((visibility("default"))) bool is_bare(void);
bool is_bare(void) { return true; }
