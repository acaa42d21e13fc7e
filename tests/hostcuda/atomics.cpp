#include "fibers.h"
#include "shadow.h"

#include "hostcuda/device.h"

/* Blocks run one after the other and threads switch elsewhere: plain code is atomic. */
template <class T> static T exchange_value(T *at, T value)
{
    T old = *at;
    *at = value;
    return old;
}

template <class T> static T add(T *at, T value)
{
    hostcuda::check_atomic(at, sizeof *at);
    T old;
    __builtin_add_overflow(*at, value, &old);
    return exchange_value(at, old);
}

template <class T> static T swap_if(T *at, T expected, T value)
{
    hostcuda::check_atomic(at, sizeof *at);
    return exchange_value(at, *at == expected ? value : *at);
}

int atomicAdd(int *at, int value) { return add(at, value); }
unsigned atomicAdd(unsigned *at, unsigned value) { return add(at, value); }
unsigned long long atomicAdd(unsigned long long *at, unsigned long long value)
{
    return add(at, value);
}

int atomicCAS(int *at, int expected, int value) { return swap_if(at, expected, value); }
unsigned atomicCAS(unsigned *at, unsigned expected, unsigned value)
{
    return swap_if(at, expected, value);
}

int atomicMax(int *at, int value)
{
    hostcuda::check_atomic(at, sizeof *at);
    return exchange_value(at, value > *at ? value : *at);
}

int atomicExch(int *at, int value)
{
    hostcuda::check_atomic(at, sizeof *at);
    return exchange_value(at, value);
}
