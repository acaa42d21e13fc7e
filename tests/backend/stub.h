/* What the stub library tells the program that looks at it. */
#ifndef TESTS_BACKEND_STUB_H
#define TESTS_BACKEND_STUB_H

#include <stdint.h>

typedef struct stub_journal {
    char words[1024]; /* what was called, in order */
    void *stream;     /* of the last context */
    uint64_t device_memory;
} stub_journal;

stub_journal *eqi_stub_journal(void);

#endif
