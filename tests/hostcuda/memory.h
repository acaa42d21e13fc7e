/* Device memory and pinned memory: one arena of reserved addresses, a buffer on pages of its own.
 * Device memory is inaccessible but while queued work runs; freed addresses come back late.
 */
#ifndef HOSTCUDA_MEMORY_H
#define HOSTCUDA_MEMORY_H

#include "clocks.h"
#include "stamps.h"

#include <stddef.h>
#include <stdint.h>

namespace hostcuda
{

enum { PAGE_BITS = 12 };
/* No access is larger, and no overrun that is told by name, but for arrays walked with a stride. */
const size_t GUARD = 64 << 10;

enum memory_kind { DEVICE, PINNED };

struct buffer {
    uintptr_t begin, end;
    cell *cells;
    unsigned shift; /* a cell stands for 2^shift bytes: the smallest access so far, at most 4 */
    memory_kind kind;
    int device;
    bool freed;          /* the free has run */
    bool free_queued;    /* the free was asked for */
    uint64_t checked;    /* serial of the last work that may use it */
    uint32_t alloc_slot; /* work that uses it must come after this number of this slot */
    uint32_t alloc_number;
    clock used; /* the last work that used it, by slot */
};

struct arena {
    uintptr_t base;
    size_t pages;
    buffer **page; /* the buffer on each page, or in front of it for the guard; NULL: none */
};
extern arena heap;

/* The buffer that owns the address, be it past its end; NULL: none. */
inline buffer *find(uintptr_t at)
{
    size_t page = (at - heap.base) >> PAGE_BITS;
    return page < heap.pages ? heap.page[page] : nullptr;
}
inline buffer *find(const void *at) { return find((uintptr_t)at); }

/* Whether the address lies in the part of the arena that is the devices'. */
bool device_address(const void *at);

/* NULL: no memory. */
buffer *memory_alloc(memory_kind kind, size_t size, int device);
/* Gives back the pages; the record stays, to tell a use after the free. */
void memory_free(buffer *b);
/* A buffer outside the arena, for the shared memory of a block. */
bool shared_create(buffer *b, size_t size);
/* Bytes that are in use on a device, or kept there. */
size_t memory_used(int device);
void memory_count(int device, long long bytes);

/* Makes the granule at most 2^shift bytes. */
void refine(buffer *b, unsigned shift);

/* Device memory is accessible between the two; they nest. */
void memory_open();
void memory_close();

} // namespace hostcuda

#endif
