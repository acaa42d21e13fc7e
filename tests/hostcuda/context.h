/* Switching stacks: a few instructions on x86_64 and aarch64, ucontext elsewhere. */
#ifndef HOSTCUDA_CONTEXT_H
#define HOSTCUDA_CONTEXT_H

#include <stddef.h>

#if (defined __x86_64__ || defined __aarch64__) && !defined HOSTCUDA_UCONTEXT
#define HOSTCUDA_ASSEMBLY 1
#else
#include <setjmp.h>
#include <ucontext.h>
#endif

namespace hostcuda
{

struct context {
#ifdef HOSTCUDA_ASSEMBLY
    void *sp;
#else
    jmp_buf registers;
    ucontext_t first; /* until it has run once */
    bool begun;
#endif
};

/* A context that begins in `entry`, which must not return. */
void context_make(context *c, void *stack, size_t size, void (*entry)());
/* Keeps the running context in `from` and goes on with `to`. */
void context_switch(context *from, context *to);

} // namespace hostcuda

#endif
