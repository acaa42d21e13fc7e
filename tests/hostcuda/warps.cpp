/* Warp operations: lanes of a mask gather, each with its value, and go on with those of all. */
#include "block.h"
#include "fault.h"
#include "fibers.h"
#include "shadow.h"

#include <string.h>
#include <sys/mman.h>

namespace hostcuda
{

static meeting *free_meetings;

/* Every thread holds one at most. In one piece, so that reads of kernels there are told quickly. */
static void add_meetings()
{
    const size_t count = 1024;
    void *p = mmap(nullptr, count * sizeof(meeting), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fault("no memory left for warp operations");
    for (size_t i = count; i-- > 0;) {
        meeting *m = (meeting *)p + i;
        m->next = free_meetings;
        free_meetings = m;
    }
    readable_always(p, count * sizeof(meeting));
}

static void let_go(fiber *f)
{
    meeting *m = f->last;
    f->last = nullptr;
    if (!m || --m->holders) return;
    m->next = free_meetings;
    free_meetings = m;
}

void begin_warp(warp *w, unsigned lanes)
{
    w->present = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    for (int i = 0; i < 32 && w->epoch[0] == 0; i++) w->epoch[31 - i] = 1;
}

bool lane_synced(unsigned thread, unsigned epoch)
{
    return self->home->seen[self->lane][thread % 32] >= epoch;
}

/* ---- gathering ---- */
static meeting *open_meeting(warp *w, unsigned mask, const char *what, int site)
{
    for (meeting *m : w->open)
        if (m->mask == mask && m->site == site && m->what == what) return m;
    if (!free_meetings) add_meetings();
    meeting *m = free_meetings;
    free_meetings = m->next;
    m->mask = mask;
    m->what = what;
    m->site = site;
    m->arrived = m->holders = 0;
    w->open.push_back(m);
    return m;
}

static bool complete(const warp *w, const meeting *m)
{
    return (m->mask & w->present & ~m->arrived) == 0;
}

/* Epochs would not fit into stamps any longer: a new phase, as if a barrier had come. That may
 * hide a conflict, and invents none. */
static void renumber_epochs()
{
    here.phase++;
    for (warp &w : running_block.warps) {
        memset(w.seen, 0, sizeof w.seen);
        for (uint16_t &e : w.epoch) e = 1;
    }
}

/* Every lane has seen what any of them has seen or done. */
static void order_lanes(warp *w, unsigned lanes)
{
    uint16_t most = 0, row[32] = {0};
    for (unsigned i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        if (w->epoch[i] > most) most = w->epoch[i];
        for (unsigned j = 0; j < 32; j++) row[j] = row[j] > w->seen[i][j] ? row[j] : w->seen[i][j];
    }
    for (unsigned j = 0; j < 32; j++)
        if (lanes >> j & 1) row[j] = most;
    for (unsigned i = 0; i < 32; i++) {
        if (!(lanes >> i & 1)) continue;
        memcpy(w->seen[i], row, sizeof row);
        w->epoch[i] = (uint16_t)(most + 1);
    }
    if (most + 1u >= EPOCH_LIMIT) renumber_epochs();
}

static const char SHUFFLE[] = "a shuffle", VOTE[] = "a vote", SYNC[] = "__syncwarp",
                  EXCHANGE[] = "an exchange of lanes";

static void close_meeting(warp *w, meeting *m)
{
    for (meeting *&o : w->open)
        if (o == m) {
            o = w->open.back();
            w->open.pop_back();
            break;
        }
    fiber **lanes = running_block.fibers + (w - running_block.warps.data()) * 32;
    for (unsigned rest = m->arrived; rest; rest &= rest - 1) make_ready(lanes[__builtin_ctz(rest)]);
    if (m->what == SYNC) order_lanes(w, m->arrived);
}

/* The caller's place in a meeting that it has joined, and the wait until all have. */
static meeting *arrive(unsigned mask, const char *what, int site)
{
    fiber *f = self;
    if (!(mask >> f->lane & 1)) fault("the mask of %s leaves out its caller", what);
    let_go(f);
    meeting *m = open_meeting(f->home, mask, what, site);
    m->arrived |= 1u << f->lane;
    m->holders++;
    f->last = m;
    f->site = site;
    return m;
}

static void gather(meeting *m)
{
    fiber *f = self;
    f->waits = AT_MEETING;
    if (complete(f->home, m)) close_meeting(f->home, m);
    pause_fiber();
}

void leave_warp(fiber *f)
{
    warp *w = f->home;
    let_go(f);
    w->present &= ~(1u << f->lane);
    for (size_t i = 0; i < w->open.size();)
        if (complete(w, w->open[i]))
            close_meeting(w, w->open[i]);
        else
            i++;
}

/* ---- the operations ---- */
void sync_warp(unsigned mask, int site) { gather(arrive(mask, SYNC, site)); }

const shot *exchange(unsigned mask, const void *value, size_t n, int site)
{
    if (n > sizeof(shot)) fault("an exchange of %zu bytes: found more than 64", n);
    meeting *m = arrive(mask, EXCHANGE, site);
    memcpy(&m->shots[self->lane], value, n);
    gather(m);
    if (mask & ~m->arrived)
        fault("%s reads lane %d, which is absent", EXCHANGE, __builtin_ctz(mask & ~m->arrived));
    return m->shots;
}

uint64_t shuffle(unsigned mask, uint64_t bits, int from, int site)
{
    meeting *m = arrive(mask, SHUFFLE, site);
    m->shots[self->lane].v[0] = bits;
    gather(m);
    if (from < 0) return bits;
    if (!(m->arrived >> from & 1))
        fault("%s in line %d reads lane %d, which is absent", SHUFFLE, site, from);
    return m->shots[from].v[0];
}

unsigned vote(unsigned mask, bool value, int site)
{
    meeting *m = arrive(mask, VOTE, site);
    m->shots[self->lane].v[0] = value;
    gather(m);
    unsigned bits = 0;
    for (unsigned rest = m->arrived; rest; rest &= rest - 1)
        bits |= (unsigned)m->shots[__builtin_ctz(rest)].v[0] << __builtin_ctz(rest);
    return bits;
}

} // namespace hostcuda
