#include "fault.h"

#include "fibers.h"
#include "memory.h"
#include "settings.h"
#include "streams.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace hostcuda
{

const void *fault_code;

/* Appends to a text of at most `size` bytes. */
__attribute__((format(printf, 3, 4))) static void append(char *text, size_t size,
                                                         const char *format, ...)
{
    size_t n = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + n, size - n, format, args);
    va_end(args);
}

static void append_index(char *text, size_t size, const char *what, dim3 at, dim3 of)
{
    append(text, size, "%s %u", what, at.x);
    if (of.y * of.z > 1) append(text, size, ",%u", at.y);
    if (of.z > 1) append(text, size, ",%u", at.z);
}

static void append_place(char *text, size_t size)
{
    place at;
    if (!where(&at)) return;
    append(text, size, " (");
    append_index(text, size, "block", at.block, at.grid);
    append_index(text, size, ", thread", at.thread, at.threads);
    Dl_info info;
    if (fault_code && dladdr(fault_code, &info) && info.dli_fname) {
        const char *name = strrchr(info.dli_fname, '/');
        append(text, size, ", code at %s+0x%zx", name ? name + 1 : info.dli_fname,
               (size_t)((const char *)fault_code - (const char *)info.dli_fbase));
    }
    append(text, size, ")");
}

void fault(const char *format, ...)
{
    char text[1000];
    snprintf(text, sizeof text - 1, "hostcuda: %s: ", running_name());
    size_t n = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + n, sizeof text - 1 - n, format, args);
    va_end(args);
    append_place(text, sizeof text - 1);
    strcat(text, "\n");
    if (write(2, text, strlen(text)) < 0) _exit(FAULT_EXIT);
    _exit(FAULT_EXIT);
}

static void on_segv(int, siginfo_t *info, void *)
{
    const void *at = info->si_addr;
    if (device_address(at)) fault("the host dereferences device memory");
    if (stack_guard(at)) fault("the stack of a thread overflows");
    signal(SIGSEGV, SIG_DFL);
}

void watch_segv()
{
    if (!asked().catch_segv) return;
    static char stack[64 << 10];
    stack_t other = {};
    other.ss_sp = stack;
    other.ss_size = sizeof stack;
    sigaltstack(&other, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
}

} // namespace hostcuda
