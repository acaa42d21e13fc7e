/* longjmp to another stack is what is wanted here, not an error. */
#undef _FORTIFY_SOURCE

#include "context.h"

#include <stdint.h>

#ifdef HOSTCUDA_ASSEMBLY

/* Saves what the calling convention lets a function keep, changes stacks, and returns there. */
extern "C" __attribute__((visibility("hidden"))) void hostcuda_switch(void **save, void *load);

#ifdef __x86_64__
asm(".text\n"
    ".hidden hostcuda_switch\n"
    ".globl hostcuda_switch\n"
    ".type hostcuda_switch, @function\n"
    "hostcuda_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size hostcuda_switch, .-hostcuda_switch\n");
enum { SAVED = 6, RETURN = 6, FRAME = 8 }; /* words: registers, return address, alignment */
#else
asm(".text\n"
    ".hidden hostcuda_switch\n"
    ".globl hostcuda_switch\n"
    ".type hostcuda_switch, %function\n"
    "hostcuda_switch:\n"
    "    stp x29, x30, [sp, #-160]!\n"
    "    stp x19, x20, [sp, #16]\n"
    "    stp x21, x22, [sp, #32]\n"
    "    stp x23, x24, [sp, #48]\n"
    "    stp x25, x26, [sp, #64]\n"
    "    stp x27, x28, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n"
    "    stp d10, d11, [sp, #112]\n"
    "    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n"
    "    str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp, #16]\n"
    "    ldp x21, x22, [sp, #32]\n"
    "    ldp x23, x24, [sp, #48]\n"
    "    ldp x25, x26, [sp, #64]\n"
    "    ldp x27, x28, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n"
    "    ldp d10, d11, [sp, #112]\n"
    "    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    ldp x29, x30, [sp], #160\n"
    "    ret\n"
    ".size hostcuda_switch, .-hostcuda_switch\n");
enum { RETURN = 1, FRAME = 20 };
#endif

namespace hostcuda
{

void context_make(context *c, void *stack, size_t size, void (*entry)())
{
    uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
    uint64_t *frame = (uint64_t *)top - FRAME;
    for (int i = 0; i < FRAME; i++) frame[i] = 0;
    frame[RETURN] = (uint64_t)(uintptr_t)entry;
    c->sp = frame;
}

void context_switch(context *from, context *to) { hostcuda_switch(&from->sp, to->sp); }

} // namespace hostcuda

#else

namespace hostcuda
{

void context_make(context *c, void *stack, size_t size, void (*entry)())
{
    getcontext(&c->first);
    c->first.uc_stack.ss_sp = stack;
    c->first.uc_stack.ss_size = size;
    c->first.uc_link = nullptr;
    makecontext(&c->first, entry, 0);
    c->begun = false;
}

void context_switch(context *from, context *to)
{
    from->begun = true;
    if (_setjmp(from->registers)) return;
    if (to->begun) _longjmp(to->registers, 1);
    setcontext(&to->first);
}

} // namespace hostcuda

#endif
