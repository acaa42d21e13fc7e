/* A rule of a quantizer in one line. */
#ifndef TESTS_SUPPORT_RULE_H
#define TESTS_SUPPORT_RULE_H

#include <eqat/quantizer.h>

/* bits 0: left as it is. */
static inline eqat_status add_rule(eqat_quantizer *quantizer, const char *pattern, int bits,
                                   int group_size)
{
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = bits;
    o.group_size = group_size;
    return eqat_quantizer_add_rule(quantizer, pattern, bits ? &o : NULL);
}

#endif
