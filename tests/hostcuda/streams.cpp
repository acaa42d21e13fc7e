#include "streams.h"

#include "fault.h"
#include "memory.h"
#include "result.h"
#include "settings.h"

#include <algorithm>
#include <deque>
#include <list>
#include <stdio.h>

namespace hostcuda
{

struct work {
    uint32_t number;
    clock after;
    const char *name;
    std::function<void()> run;
};

struct stream {
    uint32_t slot;
    int device;
    bool blocking; /* takes turns with the default stream of its device */
    bool destroyed;
    clock last; /* of what comes next: everything that it follows */
    std::deque<work> queue;
};

/* A slot outlives its stream: its numbers go on in the next one, once the host has seen the end of
 * everything in it. */
struct slot {
    uint32_t issued, done;
    std::vector<uint64_t> phases; /* of work that ran, by number - 1 */
    bool taken;
};

struct event {
    int device;
    clock recorded;
};

/* What ran, in the order of phases. */
struct past {
    uint64_t phase;
    uint32_t slot, number;
    const char *name;
};

static std::vector<slot> slots;
static std::list<stream *> streams;
static std::list<event *> events;
static std::vector<stream *> defaults; /* by device */
static std::vector<past> history;
static clock host; /* what the host knows to be done */
static const work *current;
static const stream *current_stream;
static cudaError_t broken_by;

std::recursive_mutex &turn()
{
    static std::recursive_mutex mutex;
    return mutex;
}

/* ---- streams ---- */
static uint32_t take_slot()
{
    for (uint32_t i = 0; i < slots.size(); i++)
        if (!slots[i].taken && covers(host, i, slots[i].issued)) {
            slots[i].taken = true;
            return i;
        }
    slots.push_back({0, 0, {}, true});
    return (uint32_t)slots.size() - 1;
}

static stream *create_stream(int device, bool blocking)
{
    stream *s = new stream();
    s->slot = take_slot();
    s->device = device;
    s->blocking = blocking;
    streams.push_back(s);
    return s;
}

static stream *default_stream(int device)
{
    if (defaults.size() <= (size_t)device) defaults.resize((size_t)device + 1);
    stream *&s = defaults[(size_t)device];
    if (!s) s = create_stream(device, false);
    return s;
}

static bool is_default(const stream *s)
{
    return (size_t)s->device < defaults.size() && defaults[(size_t)s->device] == s;
}

stream *stream_of(cudaStream_t handle)
{
    if (!handle) return default_stream(current_device());
    for (stream *s : streams)
        if (s == handle && !s->destroyed) return s;
    return nullptr;
}

uint32_t slot_of(const stream *s) { return s->slot; }
uint32_t number_of(const stream *s) { return slots[s->slot].issued; }
int device_of(const stream *s) { return s->device; }

/* Destroyed streams go once their work is done. */
static void bury()
{
    for (auto at = streams.begin(); at != streams.end();) {
        stream *s = *at;
        if (s->destroyed && s->queue.empty()) {
            slots[s->slot].taken = false;
            delete s;
            at = streams.erase(at);
        } else {
            ++at;
        }
    }
}

/* ---- queueing ---- */
static void take_turns(stream *s)
{
    if (is_default(s)) {
        for (const stream *other : streams)
            if (other->blocking && other->device == s->device) join(s->last, other->last);
    } else if (s->blocking && (size_t)s->device < defaults.size() && defaults[(size_t)s->device]) {
        join(s->last, defaults[(size_t)s->device]->last);
    }
}

static bool run_one();

void enqueue(stream *s, const char *name, std::function<void()> run)
{
    const size_t most = 16384; /* a queue is not endless on a device, either */
    while (s->queue.size() >= most) run_one();
    take_turns(s);
    join(s->last, host);
    uint32_t number = ++slots[s->slot].issued;
    raise(s->last, s->slot, number);
    s->queue.push_back({number, s->last, name, std::move(run)});
}

/* ---- running ---- */
static bool is_ready(const stream *s)
{
    if (s->queue.empty()) return false;
    const clock &after = s->queue.front().after;
    for (uint32_t i = 0; i < after.size(); i++)
        if (i != s->slot && slots[i].done < after[i]) return false;
    return true;
}

/* The phase of the earliest work that ran and is not ordered before work with this clock. */
static uint64_t settled_before(const clock &after, uint64_t now)
{
    uint64_t settled = now;
    for (uint32_t i = 0; i < slots.size(); i++) {
        uint32_t known = i < after.size() ? after[i] : 0;
        if (known < slots[i].phases.size()) settled = std::min(settled, slots[i].phases[known]);
    }
    return settled;
}

static void run_work(stream *s)
{
    work w = std::move(s->queue.front());
    s->queue.pop_front();
    current = &w;
    current_stream = s;
    here.serial = history.size() + 1;
    here.work_first = here.block_first = ++here.phase;
    here.settled = settled_before(w.after, here.phase);
    here.epoch = 0;
    here.now = make_stamp(here.phase, 0, 0);
    if (here.phase > PHASE_OF_SETS / 2) fault("has run too long: phases are used up");
    if (asked().trace) fprintf(stderr, "hostcuda: runs %s, stream %u\n", w.name, s->slot);
    history.push_back({here.phase, s->slot, w.number, w.name});
    slots[s->slot].phases.push_back(here.phase);
    if (!broken_by) w.run();
    slots[s->slot].done = w.number;
    current = nullptr;
    current_stream = nullptr;
}

/* Work that may run next, drawn by the seed. */
static bool run_one()
{
    static std::vector<stream *> ready;
    ready.clear();
    for (stream *s : streams)
        if (is_ready(s)) ready.push_back(s);
    if (ready.empty()) return false;
    memory_open();
    run_work(ready[draw((uint32_t)ready.size())]);
    memory_close();
    return true;
}

static bool done(const clock &c)
{
    for (uint32_t i = 0; i < c.size(); i++)
        if (slots[i].done < c[i]) return false;
    return true;
}

/* ---- the report ---- */
static FILE *report_file()
{
    static FILE *file = asked().report ? fopen(asked().report, "w") : nullptr;
    return file;
}

/* Work that is queued behind `c`: what the devices go on with while the host catches its breath. */
static size_t queued_behind(const clock &c)
{
    size_t n = 0;
    for (const stream *s : streams)
        for (const work &w : s->queue) n += s->slot >= c.size() || w.number > c[s->slot];
    return n;
}

void report_refusal(const char *what, long number)
{
    FILE *file = report_file();
    if (!file) return;
    fprintf(file, "refused %s %ld\n", what, number);
    fflush(file);
}

static void report_wait(const clock &c, const char *who)
{
    FILE *file = report_file();
    if (!file) return;
    size_t behind = queued_behind(c);
    fprintf(file, "%s %s, %zu behind\n", behind ? "wait" : "drain", who, behind);
    fflush(file);
}

/* The host goes on after everything in `c`. */
static void wait(const clock &c, const char *who)
{
    clock until = c; /* streams' own clocks go on */
    if (!done(until)) {
        report_wait(until, who);
        memory_open();
        while (!done(until))
            if (!run_one()) fault("streams wait for each other");
        memory_close();
    }
    join(host, until);
    bury();
}

void wait_for(stream *s, const char *who) { wait(s->last, who); }

void would_wait_for(const stream *s, const char *who)
{
    if (!done(s->last)) report_wait(s->last, who);
}

static clock of_all()
{
    clock all;
    for (const stream *s : streams) join(all, s->last);
    return all;
}

void wait_for_all(const char *who) { wait(of_all(), who); }

void would_wait_for_all(const char *who)
{
    clock all = of_all();
    if (!done(all)) report_wait(all, who);
}

/* Whether it is done; who asks again and again gets there. */
static bool poll(const clock &c)
{
    if (!done(c) && draw(2)) run_one();
    if (!done(c)) return false;
    join(host, c);
    return true;
}

/* ---- the work that runs ---- */
const char *running_name() { return current ? current->name : "host"; }
const clock &running_clock() { return current ? current->after : host; }
uint32_t running_slot() { return current_stream->slot; }
uint32_t running_number() { return current->number; }
int running_device() { return current_stream->device; }

static const past &at_phase(uint64_t phase)
{
    auto later = std::upper_bound(history.begin(), history.end(), phase,
                                  [](uint64_t p, const past &w) { return p < w.phase; });
    return *(later - 1);
}

bool is_settled(uint64_t phase)
{
    const past &w = at_phase(phase);
    return covers(running_clock(), w.slot, w.number);
}

const char *name_at(uint64_t phase) { return at_phase(phase).name; }

void work_at(uint64_t phase, uint32_t *slot, uint32_t *number)
{
    const past &w = at_phase(phase);
    *slot = w.slot;
    *number = w.number;
}

void break_device(cudaError_t error) { broken_by = error; }
cudaError_t broken() { return broken_by; }

} // namespace hostcuda

/* ---- the interface ---- */
using namespace hostcuda;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    HOSTCUDA_ENTER;
    if (!out || flags > cudaStreamNonBlocking) return result(cudaErrorInvalidValue);
    *out = create_stream(current_device(), !(flags & cudaStreamNonBlocking));
    return result(cudaSuccess);
}

cudaError_t cudaStreamCreate(cudaStream_t *out) { return cudaStreamCreateWithFlags(out, 0); }

cudaError_t cudaStreamDestroy(cudaStream_t handle)
{
    HOSTCUDA_ENTER_ANYWAY;
    stream *s = handle ? stream_of(handle) : nullptr;
    if (!s) return result(cudaErrorInvalidResourceHandle);
    s->destroyed = true;
    bury();
    return result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle)
{
    HOSTCUDA_ENTER;
    stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    wait_for(s, "cudaStreamSynchronize");
    return result(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize()
{
    HOSTCUDA_ENTER;
    wait_for_all("cudaDeviceSynchronize");
    return result(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t handle)
{
    HOSTCUDA_ENTER;
    stream *s = stream_of(handle);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    return result(poll(s->last) ? cudaSuccess : cudaErrorNotReady);
}

static event *event_of(cudaEvent_t handle)
{
    auto at = std::find(events.begin(), events.end(), handle);
    return at == events.end() ? nullptr : *at;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t waited, unsigned flags)
{
    HOSTCUDA_ENTER;
    stream *s = stream_of(handle);
    event *e = event_of(waited);
    if (!s || !e) return result(cudaErrorInvalidResourceHandle);
    if (flags != cudaEventWaitDefault) return result(cudaErrorInvalidValue);
    join(s->last, e->recorded);
    return result(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    HOSTCUDA_ENTER;
    if (!out || flags > (cudaEventBlockingSync | cudaEventDisableTiming))
        return result(cudaErrorInvalidValue);
    *out = new event{current_device(), {}};
    events.push_back(*out);
    return result(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle)
{
    HOSTCUDA_ENTER_ANYWAY;
    event *e = event_of(handle);
    if (!e) return result(cudaErrorInvalidResourceHandle);
    events.remove(e);
    delete e;
    return result(cudaSuccess);
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t in)
{
    HOSTCUDA_ENTER;
    event *e = event_of(handle);
    stream *s = stream_of(in);
    if (!e || !s || e->device != s->device) return result(cudaErrorInvalidResourceHandle);
    if (is_default(s)) take_turns(s);
    e->recorded = s->last;
    return result(cudaSuccess);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle)
{
    HOSTCUDA_ENTER;
    event *e = event_of(handle);
    if (!e) return result(cudaErrorInvalidResourceHandle);
    wait(e->recorded, "cudaEventSynchronize");
    return result(cudaSuccess);
}

cudaError_t cudaEventQuery(cudaEvent_t handle)
{
    HOSTCUDA_ENTER;
    event *e = event_of(handle);
    if (!e) return result(cudaErrorInvalidResourceHandle);
    return result(poll(e->recorded) ? cudaSuccess : cudaErrorNotReady);
}
