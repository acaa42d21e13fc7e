#include "memory.h"

#include "fault.h"
#include "settings.h"

#include <map>
#include <new>
#include <sys/mman.h>
#include <vector>

namespace hostcuda
{

arena heap;

/* A part of the arena: buffers stand one behind the other, and again from the start once the end
 * is reached, so that a freed address is not used again soon. */
struct region {
    uintptr_t begin, end, next;
    std::map<uintptr_t, buffer *> buffers; /* by begin; freed ones until their place is needed */
};
static region regions[2];
static std::vector<size_t> used;
static int opened;

static void *reserve(void *at, size_t size, int protection)
{
    void *p = mmap(at, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : p;
}

static bool set_up(size_t device, size_t pinned)
{
    size_t pages = (device + pinned) >> PAGE_BITS;
    void *base = reserve((void *)0x200000000000, device + pinned, PROT_NONE);
    void *table = reserve(nullptr, pages * sizeof(buffer *), PROT_READ | PROT_WRITE);
    if (!base || !table) {
        if (base) munmap(base, device + pinned);
        if (table) munmap(table, pages * sizeof(buffer *));
        return false;
    }
    madvise(base, device + pinned, MADV_DONTDUMP);
    /* Protection changes at every wait: few pages are quick. */
    madvise(base, device + pinned, MADV_HUGEPAGE);
    heap = {(uintptr_t)base, pages, (buffer **)table};
    regions[DEVICE].begin = regions[DEVICE].next = heap.base;
    regions[DEVICE].end = regions[PINNED].begin = regions[PINNED].next = heap.base + device;
    regions[PINNED].end = heap.base + device + pinned;
    watch_segv();
    return true;
}

static bool ready()
{
    if (heap.page) return true;
    for (size_t device = (size_t)512 << 30; device >= (size_t)8 << 30; device /= 2)
        if (set_up(device, device / 4)) return true;
    return false;
}

bool device_address(const void *at)
{
    return (uintptr_t)at >= regions[DEVICE].begin && (uintptr_t)at < regions[DEVICE].end;
}

static size_t footprint(size_t size)
{
    size_t page = (size_t)1 << PAGE_BITS;
    return (size + page - 1) / page * page + GUARD;
}

static void own_pages(const buffer *b, buffer *owner)
{
    size_t first = (b->begin - heap.base) >> PAGE_BITS;
    size_t count = footprint(b->end - b->begin) >> PAGE_BITS;
    for (size_t i = 0; i < count; i++) heap.page[first + i] = owner;
}

/* Room at r.next: steps over live buffers, forgets freed ones. */
static bool make_room(region &r, size_t size)
{
    for (int turns = 0; turns < 2; turns++) {
        auto at = r.buffers.lower_bound(r.next);
        while (r.next + size <= r.end) {
            if (at == r.buffers.end() || at->first >= r.next + size) return true;
            buffer *b = at->second;
            if (b->freed) {
                own_pages(b, nullptr);
                delete b;
                at = r.buffers.erase(at);
            } else {
                r.next = b->begin + footprint(b->end - b->begin);
                ++at;
            }
        }
        r.next = r.begin;
    }
    return false;
}

static size_t cells_size(const buffer *b)
{
    return (((b->end - b->begin - 1) >> b->shift) + 1) * sizeof(cell);
}

/* Zero, and of no weight until they are used. */
static bool make_cells(buffer *b)
{
    void *p = reserve(nullptr, cells_size(b), PROT_READ | PROT_WRITE);
    b->cells = (cell *)p;
    return p != nullptr;
}

static void drop_cells(buffer *b)
{
    if (b->cells) munmap(b->cells, cells_size(b));
    b->cells = nullptr;
}

static bool map_pinned(buffer *b, int protection)
{
    size_t size = footprint(b->end - b->begin) - GUARD;
    return mprotect((void *)b->begin, size, protection) == 0;
}

buffer *memory_alloc(memory_kind kind, size_t size, int device)
{
    if (!ready()) return nullptr;
    region &r = regions[kind];
    if (size > r.end - r.begin || !make_room(r, footprint(size))) return nullptr;
    buffer *b = new (std::nothrow) buffer();
    if (!b) return nullptr;
    b->begin = r.next;
    b->end = b->begin + size;
    b->shift = 2;
    b->kind = kind;
    b->device = device;
    if (!make_cells(b) || (kind == PINNED && !map_pinned(b, PROT_READ | PROT_WRITE))) {
        drop_cells(b);
        delete b;
        return nullptr;
    }
    own_pages(b, b);
    r.buffers[b->begin] = b;
    r.next += footprint(size);
    return b;
}

void memory_free(buffer *b)
{
    b->freed = true;
    drop_cells(b);
    madvise((void *)b->begin, footprint(b->end - b->begin) - GUARD, MADV_DONTNEED);
    if (b->kind == PINNED) map_pinned(b, PROT_NONE);
}

bool shared_create(buffer *b, size_t size)
{
    void *p = reserve(nullptr, size, PROT_READ | PROT_WRITE);
    if (!p) return false;
    b->begin = (uintptr_t)p;
    b->end = b->begin + size;
    b->shift = 2;
    return make_cells(b);
}

size_t memory_used(int device) { return (size_t)device < used.size() ? used[(size_t)device] : 0; }

void memory_count(int device, long long bytes)
{
    if ((size_t)device >= used.size()) used.resize((size_t)device + 1);
    used[(size_t)device] += (size_t)bytes;
}

void refine(buffer *b, unsigned shift)
{
    if (shift >= b->shift) return;
    buffer coarse = *b;
    b->shift = shift;
    if (!make_cells(b)) fault("no memory left to check accesses of %d bytes", 1 << shift);
    unsigned by = coarse.shift - shift;
    for (size_t i = 0, n = cells_size(b) / sizeof(cell); i < n; i++) {
        const cell &c = coarse.cells[i >> by];
        if (c.write | c.read) b->cells[i] = c;
    }
    drop_cells(&coarse);
}

static void protect(int protection)
{
    if (!heap.page) return;
    if (mprotect((void *)heap.base, regions[DEVICE].end - heap.base, protection) != 0)
        fault("mprotect of device memory failed");
}

void memory_open()
{
    if (opened++ == 0) protect(PROT_READ | PROT_WRITE);
}

void memory_close()
{
    if (--opened == 0) protect(PROT_NONE);
}

} // namespace hostcuda
