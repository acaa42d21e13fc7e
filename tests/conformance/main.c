/* conformance [--device cpu] [--op NAME] [--bench] [--threads N] [--seed N] [--cases N] [--list] */
#include <stdlib.h>

#include "engine/engine.h"
#include "suite.h"

static const kernel_check *const kernel_checks[] = {
    check_memory,        check_elementwise,
    check_embedding,     check_linear,
    check_fakequant,     check_fq_linear,
    check_quantize,      check_quantize_minmax,
    check_packed_linear, check_init,
    check_rmsnorm,       check_rope,
    check_attention,     check_gated,
    check_route,         check_gather_scatter,
    check_mse,           check_linear_cross_entropy,
    check_kl_divergence, check_clip,
    check_adamw,         NULL,
};

static int usage(void)
{
    fputs("usage: conformance [--device cpu] [--op NAME] [--bench] [--threads N] [--seed N] "
          "[--cases N] [--list]\n",
          stderr);
    return 2;
}

static eqi_ctx *open_context(const char *device, int threads)
{
    eqi_ctx *ctx = NULL;
    char error[EQI_ERROR_MAX] = "";
    eqi_ctx_config config = {.device = device, .threads = threads};
    eqat_status st = eqi_ctx_create(&ctx, &config, error, sizeof error);
    if (st == EQAT_OK) return ctx;
    fprintf(stderr, "conformance: %s\n", error);
    /* Skipped where the processor lacks the instruction set asked for. */
    exit(st == EQAT_UNSUPPORTED ? 77 : 1);
}

/* Every kernel draws from a stream of its own, so that --op repeats what the whole run did. */
static uint64_t seed_of(uint64_t seed, const char *name)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (const char *c = name; *c; c++) h = (h ^ (unsigned char)*c) * UINT64_C(1099511628211);
    return seed ^ h;
}

/* All entries from fill on are kernels; the check of memory stands for those before. */
static bool complete(void)
{
    size_t entries = (sizeof(eqi_backend) - offsetof(eqi_backend, fill)) / sizeof(void (*)(void)),
           checks = 0;
    for (const kernel_check *const *file = kernel_checks; *file; file++)
        for (const kernel_check *k = *file; k->name; k++) checks++;
    if (checks == entries + 1) return true;
    fprintf(stderr, "conformance: %zu kernels, %zu checks\n", entries, checks - 1);
    return false;
}

static void check(suite *s, const kernel_check *k, uint64_t seed)
{
    long failed = s->failed;
    s->op = k->name;
    s->seed = seed_of(seed, k->name);
    s->drawn = 0;
    s->run = s->shown = 0;
    s->worst = 0;
    if (s->bench) {
        if (k->bench) k->bench(s);
        return;
    }
    if (k->known) k->known(s);
    if (k->conform) k->conform(s);
    printf("%s %-22s %5ld cases, error at most %.2f of what is allowed\n",
           s->failed > failed ? "FAIL" : "ok  ", k->name, s->run, s->worst);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    suite s = {.device = "cpu", .cases = 60};
    const char *op = NULL;
    uint64_t seed = 1;
    int threads = 0;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--bench")) {
            s.bench = true;
            continue;
        }
        if (!strcmp(argv[i], "--list")) {
            for (const kernel_check *const *file = kernel_checks; *file; file++)
                for (const kernel_check *k = *file; k->name; k++) puts(k->name);
            return 0;
        }
        if (!value) return usage();
        if (!strcmp(argv[i], "--device"))
            s.device = value;
        else if (!strcmp(argv[i], "--op"))
            op = value;
        else if (!strcmp(argv[i], "--threads"))
            threads = atoi(value);
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(value, NULL, 0);
        else if (!strcmp(argv[i], "--cases"))
            s.cases = atoi(value);
        else
            return usage();
        i++;
    }
    if (!complete()) return 1;
    s.ref = open_context("ref", 1);
    for (int i = 0; i < SUITE_CONTEXTS; i++) s.ctx[i] = open_context(s.device, i + 1);
    if (s.bench) s.timed = open_context(s.device, threads);
    s.b = s.ctx[0]->backend;
    printf("device %s, seed %llu\n", s.device, (unsigned long long)seed);
    int found = 0;
    for (const kernel_check *const *file = kernel_checks; *file; file++)
        for (const kernel_check *k = *file; k->name; k++)
            if (!op || !strcmp(op, k->name)) {
                check(&s, k, seed);
                found++;
            }
    for (int i = 0; i < SUITE_CONTEXTS; i++) eqi_ctx_unref(s.ctx[i]);
    eqi_ctx_unref(s.timed);
    eqi_ctx_unref(s.ref);
    if (!found) {
        fprintf(stderr, "conformance: no kernel is called %s\n", op);
        return 2;
    }
    if (!s.bench) printf("%d kernels, %ld failures\n", found, s.failed);
    return s.failed ? 1 : 0;
}
