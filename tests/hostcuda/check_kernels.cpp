/* Scenes within a launch. */
#include "check.h"
#include "faults.h"

#include <math.h>
#include <time.h>

static void normalize_with(planted fault)
{
    enum { ROWS = 10, N = 403 };
    cudaStream_t s = new_stream();
    std::vector<float> x = numbers<float>(ROWS * N), gain = numbers<float>(N);
    float *dx = sent(x, s), *dg = sent(gain, s), *dy = fresh<float>(ROWS * N, s);
    OK(normalize(s, dy, dx, dg, ROWS, N, fault));
    std::vector<float> y = got(dy, ROWS * N, s);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < N; i++) sum += x[r * N + i] * x[r * N + i];
        for (int i = 0; i < N; i++)
            MUST(fabs(y[r * N + i] - x[r * N + i] / sqrt(sum / N + 1e-5) * gain[i]) < 1e-4);
    }
}

static void sum_with(planted fault)
{
    cudaStream_t s = new_stream();
    std::vector<int> x = numbers<int>(1000), zero(1, 0);
    int *dx = sent(x, s), *out = sent(zero, s), sum = 0;
    OK(sum_all(s, out, dx, 1000, fault));
    for (int v : x) sum += v;
    MUST(got(out, 1, s)[0] == sum);
}

static void product_with(planted fault)
{
    enum { M = 32, N = 16, K = 48 };
    cudaStream_t s = new_stream();
    auto number = [](float x) {
        uint32_t u;
        memcpy(&u, &x, 4);
        return (uint16_t)(u >> 16);
    };
    std::vector<float> x = numbers<float>(M * K), w = numbers<float>(N * K);
    std::vector<uint16_t> a, b;
    for (float v : x) a.push_back(number(v));
    for (float v : w) b.push_back(number(v));
    float *dc = fresh<float>(M * N, s);
    OK(product(s, dc, sent(a, s), sent(b, s), M, N, K, fault));
    std::vector<float> c = got(dc, M * N, s);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 0;
            for (int k = 0; k < K; k++) sum += x[i * K + k] * w[j * K + k];
            MUST(c[i * N + j] == sum);
        }
}

static void reverse_with(planted fault)
{
    cudaStream_t s = new_stream();
    std::vector<int> x = numbers<int>(150);
    int *y = fresh<int>(150, s);
    OK(reverse(s, y, sent(x, s), 150, fault));
    std::vector<int> back = got(y, 150, s);
    for (int i = 0; i < 128; i++) MUST(back[i] == x[i ^ 31]);
}

/* When the other thread reads first, its read must not be forgotten for the writer's own. */
static void change_with(planted fault)
{
    cudaStream_t s = new_stream();
    int *y = sent(std::vector<int>(1, 3), s);
    OK(change(s, y, fault));
    MUST(got(y, 1, s)[0] == 7);
}

static void parts_with(planted fault)
{
    cudaStream_t s = new_stream();
    std::vector<int> x = numbers<int>(96);
    int *y = fresh<int>(96, s);
    OK(parts(s, y, sent(x, s), fault));
    std::vector<int> back = got(y, 96, s);
    for (int t = 0; t < 96; t++) {
        int lane = 31 - t % 32, size = 4 << t / 32, part = lane / size, sum = 0;
        for (int i = 0; i < size; i++) sum += x[t / 32 * 32 + part * size + i];
        for (int round = 0; round < part; round++) sum *= size;
        MUST(back[t] == sum);
    }
}

static void count_with(planted fault)
{
    cudaStream_t s = new_stream();
    std::vector<int> x = numbers<int>(1000), expected(16, 0);
    int *y = fresh<int>(16, s);
    OK(count(s, y, sent(x, s), 1000, fault));
    for (int v : x) expected[v & 15]++;
    MUST(got(y, 16, s) == expected);
}

static void peek_with(planted fault)
{
    cudaStream_t s = new_stream();
    int *y = fresh<int>(32, s);
    OK(peek(s, y, fault));
    MUST(got(y, 32, s)[9] == 9);
}

#define SCENE(function, planted_fault) \
    [](bool planted) { function(planted ? planted_fault : NONE); }

static void misaligned(bool planted)
{
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(300), s), *y = fresh<float>(256, s);
    OK(copy4(s, y, x + (planted ? 1 : 4), 256));
    OK(cudaStreamSynchronize(s));
}

static void bytes(bool)
{
    cudaStream_t s = new_stream();
    std::vector<unsigned char> x = numbers<unsigned char>(4096);
    unsigned char *y = fresh<unsigned char>(4096, s);
    OK(copy_mixed(s, y, sent(x, s), 4096));
    MUST(got(y, 4096, s) == x);
    OK(add(s, (float *)y, (float *)y, 4)); /* coarser again */
    OK(cudaStreamSynchronize(s));
}

static void byte_tail(bool planted)
{
    cudaStream_t s = new_stream();
    unsigned char *x = sent(numbers<unsigned char>(4096), s), *y = fresh<unsigned char>(4096, s);
    OK(copy_mixed(s, y, x, 4088));
    if (planted) got(y, 4089, s);
    got(y, 4088, s);
}

static void never_written(bool planted)
{
    cudaStream_t s = new_stream();
    float *x = fresh<float>(100, s), *y = sent(numbers<float>(100), s);
    OK(fill(s, x, 1, planted ? 99 : 100));
    OK(add(s, y, x, 100));
    OK(cudaStreamSynchronize(s));
}

static void host_memory(bool planted)
{
    cudaStream_t s = new_stream();
    static float here[100];
    float *x = sent(numbers<float>(100), s), *y = sent(numbers<float>(100), s);
    OK(add(s, y, planted ? here : x, 100));
    OK(cudaStreamSynchronize(s));
}

static void pinned_memory(bool planted)
{
    cudaStream_t s = new_stream();
    void *here;
    OK(cudaHostAlloc(&here, 400, 0));
    float *x = sent(numbers<float>(100), s), *y = sent(numbers<float>(100), s);
    OK(add(s, y, planted ? (float *)here : x, 100));
    OK(cudaStreamSynchronize(s));
}

static void wild(bool planted)
{
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(100), s), *y = sent(numbers<float>(100), s);
    OK(add(s, y, planted ? x + (1 << 24) : x, 100));
    OK(cudaStreamSynchronize(s));
}

static void all_votes(bool)
{
    cudaStream_t s = new_stream();
    int *y = fresh<int>(8, s);
    OK(votes(s, y));
    for (int v : got(y, 8, s)) MUST(v == 1);
}

static void speed(bool)
{
    enum { N = 256 * 64, ROUNDS = 200 };
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(N), s), *y = sent(numbers<float>(N), s);
    OK(cudaStreamSynchronize(s));
    timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    OK(busy(s, y, x, N, ROUNDS));
    OK(cudaStreamSynchronize(s));
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    printf("  %.1f million checked accesses a second\n", 3.0 * N * ROUNDS / seconds * 1e-6);
    fflush(stdout);
}

const scene kernel_scenes[] = {
    {"dropped barrier", SCENE(normalize_with, BARRIER), "without a barrier|nobody wrote: shared",
     nullptr},
    {"dropped last barrier", SCENE(normalize_with, LAST_BARRIER), "without a barrier", nullptr},
    {"off-by-one tail", SCENE(normalize_with, TAIL), "past the end of a device buffer", nullptr},
    {"past shared memory", SCENE(normalize_with, SHARED_END), "past the end of shared memory",
     nullptr},
    {"absent lane", SCENE(normalize_with, LANE), "waits for lane 31", nullptr},
    {"mask without caller", SCENE(normalize_with, MASK), "leaves out its caller", nullptr},
    {"two barriers", SCENE(normalize_with, TWO_BARRIERS), "different barriers", nullptr},
    {"dropped __syncwarp", SCENE(reverse_with, SYNCWARP), "without a barrier|nobody wrote: shared",
     nullptr},
    {"shuffle in place of __syncwarp", SCENE(reverse_with, NO_FENCE),
     "without a barrier|nobody wrote: shared", nullptr},
    {"parts of warps", SCENE(parts_with, PART_SYNC), "without a barrier|nobody wrote: shared",
     nullptr},
    {"atomics in shared memory", SCENE(count_with, SHARED_COUNT), "without a barrier", nullptr},
    {"swapped fragment", SCENE(product_with, FRAGMENT), "wrong: c[i * N + j] == sum", nullptr},
    {"reader in another lane", SCENE(change_with, OTHER_LANE), "without a barrier", nullptr},
    {"reader in another warp", SCENE(change_with, OTHER_WARP), "without a barrier", nullptr},
    {"reader in another block", SCENE(change_with, OTHER_BLOCK), "another block", nullptr},
    {"plain sum across blocks", SCENE(sum_with, PLAIN_SUM), "another block", nullptr},
    {"plain read of atomics", SCENE(sum_with, PLAIN_READ), "another block", nullptr},
    {"stack of another thread", SCENE(peek_with, OTHER_STACK), "stack of another thread", nullptr},
    {"null pointer", SCENE(peek_with, NULL_POINTER), "dereferences NULL", nullptr},
    {"misaligned vector load", misaligned, "misaligned", nullptr},
    {"never written", never_written, "nobody wrote", nullptr},
    {"bytes", bytes, nullptr, nullptr},
    {"never written byte", byte_tail, "nobody wrote", nullptr},
    {"host memory", host_memory, "host memory", nullptr},
    {"pinned memory", pinned_memory, "host memory", nullptr},
    {"wild pointer", wild, "wild", nullptr},
    {"votes", all_votes, nullptr, nullptr},
    {"speed", speed, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr},
};
