#include "shadow.h"

#include "cells.h"
#include "fibers.h"
#include "streams.h"

#include "hostcuda/device.h"

#include <link.h>
#include <string.h>
#include <vector>

namespace hostcuda
{

/* ---- may the work that runs use the buffer at all? ---- */
static void check_use(buffer *b)
{
    if (b->freed) fault("uses device memory after its free");
    if (b->kind == PINNED && inside_kernel()) fault("dereferences host memory (pinned)");
    unchecked pause;
    if (b->kind == DEVICE && b->device != running_device())
        fault("uses memory of device %d on device %d", b->device, running_device());
    if (!covers(running_clock(), b->alloc_slot, b->alloc_number))
        fault("uses device memory without order after its allocation");
    raise(b->used, running_slot(), running_number());
    b->checked = here.serial;
}

static void check_ends(const buffer *b, uintptr_t at, size_t size, const char *to)
{
    if (at + size <= b->end) return;
    fault("%s past the end of %s: %zu bytes at %zu of %zu", to,
          b->kind == DEVICE ? "a device buffer" : "a pinned buffer", size, (size_t)(at - b->begin),
          (size_t)(b->end - b->begin));
}

/* ---- shared memory is a buffer, too ---- */
static buffer shared;
static const size_t SHARED_MOST = 256 << 10;

void *shared_begin(size_t size)
{
    if (!shared.begin && !shared_create(&shared, SHARED_MOST))
        fault("no memory left for shared memory");
    shared.end = shared.begin + size;
    return (void *)shared.begin;
}

static void refine_shared(unsigned shift)
{
    uintptr_t end = shared.end;
    shared.end = shared.begin + SHARED_MOST;
    refine(&shared, shift);
    shared.end = end;
}

/* ---- host memory ---- */
struct extent {
    uintptr_t begin, end;
};
static extent params, always;
static std::vector<extent> readable;

void readable_params(const void *p, size_t size) { params = {(uintptr_t)p, (uintptr_t)p + size}; }

void readable_always(const void *p, size_t size) { always = {(uintptr_t)p, (uintptr_t)p + size}; }

static bool within(const extent &e, uintptr_t at) { return at - e.begin < e.end - e.begin; }

/* Constants of the program: segments that cannot be written. */
static int find_constants(dl_phdr_info *info, size_t, void *at)
{
    uintptr_t address = *(uintptr_t *)at;
    bool constant = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &h = info->dlpi_phdr[i];
        extent e = {info->dlpi_addr + h.p_vaddr, info->dlpi_addr + h.p_vaddr + h.p_memsz};
        if (!within(e, address)) continue;
        if (h.p_type == PT_GNU_RELRO || (h.p_type == PT_LOAD && !(h.p_flags & PF_W))) {
            readable.push_back(e);
            constant = true;
        }
    }
    return constant;
}

static bool may_read(uintptr_t at)
{
    unchecked pause;
    if (within(params, at)) return true;
    for (const extent &e : readable)
        if (within(e, at)) return true;
    return dl_iterate_phdr(find_constants, &at) != 0;
}

enum access { READ, WRITE, ATOMIC_CHANGE };

static const char *verb(access how)
{
    return how == READ ? "reads" : how == WRITE ? "writes" : "changes atomically";
}

static __attribute__((noinline)) void check_other(uintptr_t at, size_t size, access how)
{
    if (!inside_kernel()) return;
    if (within({shared.begin, shared.begin + (shared.begin ? SHARED_MOST : 0)}, at))
        fault("%s past the end of shared memory: %zu bytes at %zu of %zu", verb(how), size,
              (size_t)(at - shared.begin), (size_t)(shared.end - shared.begin));
    if (at < 4096) fault("dereferences NULL");
    if (at - heap.base < heap.pages << PAGE_BITS) fault("%s at a wild device address", verb(how));
    if (foreign_stack((const void *)at)) fault("%s the stack of another thread", verb(how));
    if (how != READ || !may_read(at))
        fault("dereferences host memory (%s %p)", verb(how), (void *)at);
}

/* ---- one access of a kernel ---- */
template <bool SHARED, access HOW>
static inline __attribute__((always_inline)) void check_cells(const buffer *b, uintptr_t offset,
                                                              size_t size)
{
    cell *c = b->cells + (offset >> b->shift), *end = b->cells + ((offset + size - 1) >> b->shift);
    spot at = {SHARED ? "shared memory" : "device buffer", offset};
    do {
        if (HOW == READ) read_cell<SHARED>(c, at);
        if (HOW == WRITE) write_cell<SHARED>(c, at);
        if (HOW == ATOMIC_CHANGE) atomic_cell<SHARED>(c, at);
    } while (c++ < end);
}

static unsigned shift_of(uintptr_t at, size_t size)
{
    return (at | size) & 1 ? 0 : (at | size) & 2 ? 1 : 2;
}

template <access HOW, bool ALIGNED>
static inline __attribute__((always_inline)) void check(const void *p, size_t size,
                                                        const void *code)
{
    uintptr_t at = (uintptr_t)p;
    if (at - here.stack < STACK_SIZE) return;
    fault_code = code;
    buffer *b = find(at);
    if (b) {
        if (!inside_kernel()) return;
        if (b->checked != here.serial) check_use(b);
        if (__builtin_expect(at + size > b->end, 0)) check_ends(b, at, size, verb(HOW));
        if (ALIGNED && (at & (size - 1))) fault("misaligned access of %zu bytes", size);
        if (((at | size) & ((1u << b->shift) - 1)) != 0) refine(b, shift_of(at, size));
        check_cells<false, HOW>(b, at - b->begin, size);
        here.accesses++;
    } else if (at - shared.begin < shared.end - shared.begin && at + size <= shared.end) {
        if (ALIGNED && (at & (size - 1))) fault("misaligned access of %zu bytes", size);
        if (((at | size) & ((1u << shared.shift) - 1)) != 0) refine_shared(shift_of(at, size));
        check_cells<true, HOW>(&shared, at - shared.begin, size);
        here.accesses++;
    } else if (HOW != READ || !within(always, at)) {
        check_other(at, size, HOW);
    }
}

void check_atomic(const void *p, size_t size, const void *code)
{
    switch (size) {
    case 1: check<ATOMIC_CHANGE, true>(p, 1, code); break;
    case 2: check<ATOMIC_CHANGE, true>(p, 2, code); break;
    case 4: check<ATOMIC_CHANGE, true>(p, 4, code); break;
    default: check<ATOMIC_CHANGE, true>(p, 8, code); break;
    }
}

/* ---- ranges ---- */
static buffer *range_of(const void *p, size_t size, const char *to)
{
    uintptr_t at = (uintptr_t)p;
    buffer *b = find(at);
    if (!b) return nullptr;
    if (b->checked != here.serial) check_use(b);
    check_ends(b, at, size, to);
    /* A granule that reaches over the end of the buffer is the range's own. */
    uintptr_t ends = at - b->begin;
    if (at + size != b->end) ends |= size;
    if (ends & ((1u << b->shift) - 1)) refine(b, shift_of(ends, ends));
    return b;
}

/* The host writes pinned memory unseen: only the order of queued work is checked there. */
void range_read(const void *p, size_t size)
{
    if (!size) return;
    buffer *b = range_of(p, size, "reads");
    if (!b) return;
    uintptr_t offset = (uintptr_t)p - b->begin;
    cell *c = b->cells + (offset >> b->shift), *end = b->cells + ((offset + size - 1) >> b->shift);
    for (; c <= end; c++) {
        if (b->kind == PINNED && !c->write) c->write = (stamp)1;
        read_cell<false>(c, {"buffer", (uintptr_t)(c - b->cells) << b->shift});
    }
}

void range_write(void *p, size_t size)
{
    if (!size) return;
    buffer *b = range_of(p, size, "writes");
    if (!b) return;
    uintptr_t offset = (uintptr_t)p - b->begin;
    cell *c = b->cells + (offset >> b->shift), *end = b->cells + ((offset + size - 1) >> b->shift);
    for (; c <= end; c++) write_cell<false>(c, {"buffer", (uintptr_t)(c - b->cells) << b->shift});
}

/* In turns of some cells: loads and stores that alternate at equal places of pages are slow. */
static void copy_cells(buffer *to, uintptr_t to_offset, const buffer *from, uintptr_t from_offset,
                       size_t size)
{
    const size_t TURN = 256;
    cell *d = to->cells + (to_offset >> to->shift), *s = from->cells + (from_offset >> to->shift);
    for (size_t i = 0, n = ((size - 1) >> to->shift) + 1; i < n; i += TURN) {
        size_t most = n - i < TURN ? n - i : TURN;
        bool written[TURN];
        for (size_t j = 0; j < most; j++) {
            written[j] = s[i + j].write != 0;
            if (written[j])
                read_cell<false>(&s[i + j], {"buffer", from_offset + ((i + j) << to->shift)});
        }
        for (size_t j = 0; j < most; j++) {
            write_cell<false>(&d[i + j], {"buffer", to_offset + ((i + j) << to->shift)});
            if (!written[j]) d[i + j].write = 0;
        }
    }
}

void range_copy(void *to, const void *from, size_t size)
{
    if (!size) return;
    buffer *d = range_of(to, size, "writes"), *s = range_of(from, size, "reads");
    if (!d || !s) fault("copies between devices what is not device memory");
    refine(d, s->shift);
    refine(s, d->shift);
    copy_cells(d, (uintptr_t)to - d->begin, s, (uintptr_t)from - s->begin, size);
}

} // namespace hostcuda

/* ---- what -fsanitize=thread calls ---- */
using namespace hostcuda;

#define CODE __builtin_return_address(0)
#define CHECKED(n)                                                                          \
    extern "C" void __tsan_read##n(void *p) { check<READ, true>(p, n, CODE); }              \
    extern "C" void __tsan_write##n(void *p) { check<WRITE, true>(p, n, CODE); }            \
    extern "C" void __tsan_unaligned_read##n(void *p) { check<READ, false>(p, n, CODE); }   \
    extern "C" void __tsan_unaligned_write##n(void *p) { check<WRITE, false>(p, n, CODE); } \
    extern "C" void __tsan_volatile_read##n(void *p) { check<READ, true>(p, n, CODE); }     \
    extern "C" void __tsan_volatile_write##n(void *p) { check<WRITE, true>(p, n, CODE); }
CHECKED(1)
CHECKED(2)
CHECKED(4)
CHECKED(8)
CHECKED(16)
extern "C" void __tsan_read_range(void *p, size_t n) { check<READ, false>(p, n, CODE); }
extern "C" void __tsan_write_range(void *p, size_t n) { check<WRITE, false>(p, n, CODE); }
extern "C" void __tsan_vptr_read(void *p) { check<READ, true>(p, 8, CODE); }
extern "C" void __tsan_vptr_update(void *, void *) {}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit() {}
