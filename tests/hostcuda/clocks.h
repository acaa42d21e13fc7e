/* Which queued work is ordered before which. Every stream has a slot; every piece of work a number
 * in its slot, and a clock: for each slot, the last number that is ordered before it.
 */
#ifndef HOSTCUDA_CLOCKS_H
#define HOSTCUDA_CLOCKS_H

#include <stddef.h>
#include <stdint.h>
#include <vector>

namespace hostcuda
{

typedef std::vector<uint32_t> clock;

inline void join(clock &to, const clock &from)
{
    if (to.size() < from.size()) to.resize(from.size());
    for (size_t i = 0; i < from.size(); i++)
        if (from[i] > to[i]) to[i] = from[i];
}

inline bool covers(const clock &c, uint32_t slot, uint32_t number)
{
    return number == 0 || (slot < c.size() && c[slot] >= number);
}

inline bool covers(const clock &c, const clock &other)
{
    for (size_t i = 0; i < other.size(); i++)
        if (!covers(c, (uint32_t)i, other[i])) return false;
    return true;
}

inline void raise(clock &c, uint32_t slot, uint32_t number)
{
    if (c.size() <= slot) c.resize(slot + 1);
    if (c[slot] < number) c[slot] = number;
}

} // namespace hostcuda

#endif
