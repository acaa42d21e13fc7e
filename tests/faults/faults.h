/* Calls of the operating system, counted, of which one fails: linked in front of them (--wrap). */
#ifndef TESTS_FAULTS_FAULTS_H
#define TESTS_FAULTS_FAULTS_H

#include <stdbool.h>

typedef enum fault {
    FAULT_NONE,
    FAULT_EIO,         /* the call fails, once */
    FAULT_FULL,        /* it and all that follow and need room fail: ENOSPC */
    FAULT_SHORT,       /* reads and writes do half of it, once */
    FAULT_INTERRUPTED, /* EINTR, once */
    FAULT_COUNT
} fault;

/* From now on the n-th call (from 1) that can fail so does. */
void faults_begin(fault kind, long n);
/* No more; whether the call was reached. */
bool faults_end(void);
/* Calls since faults_begin that could have failed so. */
long faults_counted(void);
/* What failed: "rename", and "" for none. */
const char *faults_call(void);

/* The n-th thread from now on cannot be started; 0: all can. */
void faults_of_threads(long n);

#endif
