/* How a fault ends the process: one line on stderr and exit code 86. */
#ifndef HOSTCUDA_FAULT_H
#define HOSTCUDA_FAULT_H

namespace hostcuda
{

enum { FAULT_EXIT = 86 };

/* "hostcuda: <what runs>: <message> (block x, thread y, code at file+offset)". */
[[noreturn]] __attribute__((format(printf, 1, 2))) void fault(const char *format, ...);

/* Address of the instrumented access that is being checked, for the message; NULL: unknown. */
extern const void *fault_code;

/* Reports SIGSEGV like a fault, when HOSTCUDA_SEGV asks for it. */
void watch_segv();

} // namespace hostcuda

#endif
