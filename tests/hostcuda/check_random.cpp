/* Random programs: the stand-in must report those, and only those, that plain vector clocks, kept
 * for every thread and every access, find at fault.
 */
#include "check.h"
#include "faults.h"

#include <algorithm>
#include <random>
#include <stdlib.h>

typedef std::vector<int> times; /* for each thread, or stream: how far it is known */

static std::mt19937 &dice()
{
    static std::mt19937 generator((unsigned)atoi(getenv("HOSTCUDA_SEED")) * 7919);
    return generator;
}

static int roll(int bound) { return (int)(dice()() % (unsigned)bound); }

static void learn(times &to, const times &from)
{
    for (size_t i = 0; i < to.size(); i++) to[i] = std::max(to[i], from[i]);
}

struct touch {
    int who, time, cell;
    bool writes, atomic;
    times known;
};

static bool conflict(const touch &a, const touch &b)
{
    if (a.who == b.who || a.cell != b.cell || (!a.writes && !b.writes)) return false;
    if (a.atomic && b.atomic) return false;
    return b.known[(size_t)a.who] < a.time && a.known[(size_t)b.who] < b.time;
}

static bool racy(const std::vector<touch> &touches)
{
    for (size_t i = 0; i < touches.size(); i++)
        for (size_t j = 0; j < i; j++)
            if (conflict(touches[i], touches[j])) return true;
    return false;
}

/* ---- threads of a block ---- */
enum { THREADS = 64, ROUNDS = 7, CELLS = 4 };

/* Each warp is cut into parts of one size, of which most meet at the end of the round. */
static std::vector<step> random_steps()
{
    std::vector<step> steps(ROUNDS * THREADS);
    for (int r = 0; r < ROUNDS; r++) {
        bool barrier = roll(5) == 0;
        for (int warp = 0; warp < THREADS; warp += 32) {
            int size = 1 << (1 + roll(5));
            for (int part = 0; part < 32; part += size) {
                unsigned lanes = size == 32 ? 0xffffffffu : ((1u << size) - 1) << part;
                bool meets = roll(4) != 0;
                for (int i = part; i < part + size; i++)
                    steps[(size_t)(r * THREADS + warp + i)] = {step::IDLE, 0, meets ? lanes : 0,
                                                               barrier};
            }
        }
        for (int n = roll(4), thread = roll(THREADS); n > 0; n--) {
            step &s = steps[(size_t)(r * THREADS + thread)];
            int what = roll(6);
            s.what = what < 3 ? step::READ : what < 5 ? step::WRITE : step::ATOMIC;
            s.cell = roll(CELLS);
            thread = roll(2) ? thread ^ (1 << roll(6)) : roll(THREADS);
        }
    }
    return steps;
}

static std::vector<touch> touches_of(const std::vector<step> &steps)
{
    std::vector<times> known(THREADS, times(THREADS));
    std::vector<touch> touches;
    for (int r = 0; r < ROUNDS; r++) {
        const step *now = &steps[(size_t)(r * THREADS)];
        std::vector<times> before;
        for (int t = 0; t < THREADS; t++) {
            known[(size_t)t][(size_t)t] = r + 1;
            if (now[t].what)
                touches.push_back({t, r + 1, now[t].cell, now[t].what != step::READ,
                                   now[t].what == step::ATOMIC, known[(size_t)t]});
        }
        before = known;
        for (int t = 0; t < THREADS; t++)
            for (int u = 0; u < THREADS; u++)
                if (now[t].barrier || (t / 32 == u / 32 && now[t].mask >> u % 32 & 1))
                    learn(known[(size_t)t], before[(size_t)u]);
    }
    return touches;
}

static void random_threads(bool planted)
{
    std::vector<step> steps;
    do steps = random_steps();
    while (racy(touches_of(steps)) != planted);
    cudaStream_t s = new_stream();
    int *y = fresh<int>(THREADS, s);
    OK(interpret(s, y, sent(steps, s), ROUNDS));
    OK(cudaStreamSynchronize(s));
}

/* ---- streams ---- */
enum { STREAMS = 4, BUFFERS = 3, CALLS = 12, SIZE = 130 };

struct calls {
    cudaStream_t stream[STREAMS];
    cudaEvent_t event[STREAMS];
    float *buffer[BUFFERS];
};

/* One call of a random program: a launch that reads one buffer and changes another, a record, a
 * wait for an event, or the host waits. `c` NULL: nothing is called, only the clocks are kept. */
struct program {
    struct call {
        int kind, stream, other, to;
    };
    std::vector<call> list;
};

static program random_calls()
{
    program p;
    for (int i = 0; i < CALLS; i++)
        p.list.push_back({roll(9), roll(STREAMS), roll(STREAMS), roll(BUFFERS)});
    return p;
}

static std::vector<touch> touches_of(const program &p)
{
    std::vector<times> known(STREAMS, times(STREAMS)), recorded = known;
    times host(STREAMS);
    std::vector<touch> touches;
    int time = 0;
    for (const program::call &c : p.list) {
        times &mine = known[(size_t)c.stream];
        if (c.kind < 4) {
            learn(mine, host);
            mine[(size_t)c.stream] = ++time;
            touches.push_back({c.stream, time, c.to, true, false, mine});
            touches.push_back({c.stream, time, c.other % BUFFERS, false, false, mine});
        } else if (c.kind < 6) {
            recorded[(size_t)c.stream] = mine;
        } else if (c.kind < 8) {
            learn(mine, recorded[(size_t)c.other]);
        } else {
            learn(host, mine);
        }
    }
    return touches;
}

static void perform(const calls &with, const program::call &c)
{
    cudaStream_t s = with.stream[c.stream];
    if (c.kind < 4)
        OK(add(s, with.buffer[c.to], with.buffer[c.other % BUFFERS], SIZE));
    else if (c.kind < 6)
        OK(cudaEventRecord(with.event[c.stream], s));
    else if (c.kind < 8)
        OK(cudaStreamWaitEvent(s, with.event[c.other]));
    else
        OK(cudaStreamSynchronize(s));
}

static void random_streams(bool planted)
{
    program p;
    do p = random_calls();
    while (racy(touches_of(p)) != planted);
    calls with;
    for (cudaStream_t &s : with.stream) s = new_stream();
    for (cudaEvent_t &e : with.event) e = new_event();
    for (float *&b : with.buffer) {
        b = lasting<float>(SIZE);
        OK(cudaMemsetAsync(b, 0, SIZE * sizeof(float), with.stream[0]));
    }
    OK(cudaDeviceSynchronize());
    for (const program::call &c : p.list) perform(with, c);
    OK(cudaDeviceSynchronize());
}

const scene random_scenes[] = {
    {"random threads", random_threads, "without a barrier", nullptr},
    {"random streams", random_streams, "without order", nullptr},
    {nullptr, nullptr, nullptr, nullptr},
};
