#include <fenv.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "public.h"

/* Hosts whose threads have floating-point modes of their own, and little stack. */

/* As docs/threading.md says: of a thread that calls, and of one of the host's pool. The most that
 * is used here is half of it, because other processors have other kernels, and other compilers
 * other frames. */
enum { CALLER = 128 << 10, BORROWED = 64 << 10 };

/* ---- modes ---- */

typedef struct modes {
    int rounding;
    bool flush; /* subnormals, those that are read and those that come out */
} modes;

static const modes host_modes[] = {
    {FE_TONEAREST, true},  {FE_UPWARD, false},     {FE_DOWNWARD, false},
    {FE_TOWARDZERO, true}, {FE_TOWARDZERO, false},
};

#if defined(__x86_64__)
enum { FLUSH = 0x8040 };
static bool flushes(void) { return (__builtin_ia32_stmxcsr() & FLUSH) == FLUSH; }
static void set_flush(bool on)
{
    unsigned others = __builtin_ia32_stmxcsr() & ~(unsigned)FLUSH;
    __builtin_ia32_ldmxcsr(others | (on ? FLUSH : 0));
}
#else
static bool flushes(void) { return false; }
static void set_flush(bool on) { (void)on; }
#endif

static void set_modes(modes m)
{
    ck_assert_int_eq(fesetround(m.rounding), 0);
    set_flush(m.flush);
}

static bool has_modes(modes m)
{
#if defined(__x86_64__)
    if (flushes() != m.flush) return false;
#endif
    return fegetround() == m.rounding;
}

static const modes usual_modes = {FE_TONEAREST, false};

START_TEST(a_run_in_the_hosts_modes_gives_the_same_bytes)
{
    char name[32];
    const modes m = host_modes[_i];
    const char *expected = reference_folder();
    snprintf(name, sizeof name, "modes-%d", _i);
    set_modes(m);
    const char *found = one_call(&usual, name);
    bool kept = has_modes(m);
    set_modes(usual_modes);
    ck_assert(kept);
    ck_assert(same_folders(found, expected));
}
END_TEST

/* Calls that return no status compute as well. */
START_TEST(numbers_that_are_asked_for_in_the_hosts_modes)
{
    enum { STEPS = 40 };
    double factors[STEPS], loss;
    eqat_e2e_qp *job;
    eqat_e2e_qp_options e = fast_e2e_options();
    bench b = set_up(&usual);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &e));
    /* The second step's micro-batches are not of one size: their mean is no short number. */
    for (int64_t step = 0; step < 2; step++) {
        for (int64_t i = 0; i < eqat_e2e_qp_micro_steps(job, step); i++)
            OK(b.ctx, eqat_e2e_qp_accumulate(job, step, i, NULL));
        OK(b.ctx, eqat_e2e_qp_step(job));
    }
    eqat_optimizer_options o;
    eqat_optimizer *schedule;
    eqat_optimizer_options_init(&o, sizeof o);
    o.total_steps = STEPS;
    OK(b.ctx, eqat_optimizer_create(b.ctx, &schedule, &o));
    for (int64_t i = 0; i < STEPS; i++) factors[i] = eqat_optimizer_lr_factor(schedule, i);
    loss = eqat_e2e_qp_loss(job, 1);
    ck_assert(isfinite(loss));
    for (size_t k = 0; k < EQI_COUNT(host_modes); k++) {
        double found[STEPS];
        set_modes(host_modes[k]);
        for (int64_t i = 0; i < STEPS; i++) found[i] = eqat_optimizer_lr_factor(schedule, i);
        double found_loss = eqat_e2e_qp_loss(job, 1);
        bool kept = has_modes(host_modes[k]);
        set_modes(usual_modes);
        ck_assert(kept);
        ck_assert_mem_eq(found, factors, sizeof found);
        ck_assert_mem_eq(&found_loss, &loss, sizeof loss);
    }
    eqat_optimizer_free(schedule);
    eqat_e2e_qp_free(job);
    tear_down(&b);
}
END_TEST

/* ---- stacks that tell how far they were used ---- */

enum { PAINT = 0xa5, GUARD = 64 << 10, ROOM = 1 << 20 };

typedef struct stack {
    unsigned char *lowest; /* GUARD bytes that nobody may touch stand before it */
    size_t size;
} stack;

static stack make_stack(size_t size)
{
    unsigned char *p =
        mmap(NULL, GUARD + size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(p != MAP_FAILED);
    ck_assert_int_eq(mprotect(p, GUARD, PROT_NONE), 0);
    memset(p + GUARD, PAINT, size);
    return (stack){p + GUARD, size};
}

static void free_stack(const stack *s) { munmap(s->lowest - GUARD, GUARD + s->size); }

static size_t used_of(const stack *s)
{
    size_t untouched = 0;
    while (untouched < s->size && s->lowest[untouched] == PAINT) untouched++;
    return s->size - untouched;
}

static pthread_t start_on(const stack *s, void *(*run)(void *), void *user)
{
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    ck_assert_int_eq(pthread_attr_setstack(&attr, s->lowest, s->size), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, run, user), 0);
    pthread_attr_destroy(&attr);
    return thread;
}

/* Bytes of its stack that a thread took, what it was born with among them. */
static size_t stack_of(void *(*run)(void *), void *user, size_t size)
{
    const stack s = make_stack(size);
    pthread_join(start_on(&s, run, user), NULL);
    size_t used = used_of(&s);
    free_stack(&s);
    return used;
}

/* ---- a host's pool ---- */

enum { POOL = 3 };

typedef void (*task_fn)(void *arg, size_t index);

typedef struct pool {
    stack stacks[POOL];
    modes modes;
    size_t calls;
} pool;

typedef struct errand {
    task_fn task;
    void *arg;
    size_t index;
    modes modes;
    bool kept;
} errand;

static void *run_errand(void *user)
{
    errand *e = user;
    set_modes(e->modes);
    e->task(e->arg, e->index);
    e->kept = has_modes(e->modes);
    return NULL;
}

static void on_little_stack(void *user, size_t count, task_fn task, void *arg)
{
    pool *p = user;
    pthread_t threads[POOL];
    errand errands[POOL];
    ck_assert_uint_le(count, POOL);
    p->calls++;
    for (size_t i = 0; i < count; i++) {
        errands[i] = (errand){task, arg, i, p->modes, false};
        threads[i] = start_on(&p->stacks[i], run_errand, &errands[i]);
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        ck_assert(errands[i].kept);
    }
}

static void train(bench *b, const setting *s)
{
    eqat_block_ap_options o = fast_options();
    eqat_e2e_qp_options e = fast_e2e_options();
    o.offload_dir = s->offload_dir;
    OK(b->ctx, eqat_block_ap_quantize(b->model, b->quantizer, b->data, &o));
    OK(b->ctx, eqat_e2e_qp_train(b->model, b->data, &e));
}

START_TEST(a_pool_of_threads_with_little_stack_and_modes_of_their_own)
{
    pool p = {.modes = host_modes[_i]};
    char name[32];
    eqat_context_options c;
    eqat_context_options_init(&c, sizeof c);
    for (int i = 0; i < POOL; i++) p.stacks[i] = make_stack(BORROWED);
    c.threads = POOL;
    c.seed = usual.seed;
    c.parallel = on_little_stack;
    c.parallel_user = &p;
    const char *expected = reference_folder();
    bench b = set_up(&usual);
    eqat_model_free(b.model);
    eqat_quantizer_free(b.quantizer);
    eqat_data_free(b.data);
    eqat_context_free(b.ctx);
    ck_assert_int_eq(eqat_context_create(&b.ctx, &c, NULL, 0), EQAT_OK);
    b.model = open_model(b.ctx, "model", usual.compute);
    b.quantizer = make_quantizer(b.ctx, usual.bits, 32);
    b.data = make_data(b.ctx, 7, 3, usual.shuffle);
    train(&b, &usual);
    snprintf(name, sizeof name, "pool-%d", _i);
    ck_assert(same_folders(save_as(b.ctx, b.model, name), expected));
    tear_down(&b);
    ck_assert_uint_gt(p.calls, 0);
    for (int i = 0; i < POOL; i++) {
        ck_assert_uint_le(used_of(&p.stacks[i]), BORROWED / 2);
        free_stack(&p.stacks[i]);
    }
}
END_TEST

/* ---- the thread that calls ---- */

static void *trains(void *user)
{
    const setting *s = user;
    bench b = set_up(s);
    train(&b, s);
    perplexity_of(b.ctx, b.model, b.data);
    tear_down(&b);
    return NULL;
}

static void *trains_bf16(void *user)
{
    setting s = usual;
    (void)user;
    s.compute = EQAT_BF16;
    s.init = EQAT_INIT_DESCENT;
    s.offload_dir = scratch_dir();
    return trains(&s);
}

static void *trains_f32(void *user)
{
    setting s = usual;
    (void)user;
    return trains(&s);
}

static void *allocates(void *user)
{
    bench b = set_up(&usual);
    eqat_allocate_options o;
    (void)user;
    eqat_allocate_options_init(&o, sizeof o);
    o.bits_per_weight = 3.6;
    OK(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o));
    tear_down(&b);
    return NULL;
}

static void rounds_and_saves(const char *format, const char *path)
{
    eqat_context *ctx = make_context(2, 0);
    eqat_model *m = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *q = make_quantizer(ctx, 4, 32);
    eqat_save_options o;
    eqat_save_options_init(&o, sizeof o);
    o.format = format;
    o.allow_lossy = o.allow_asymmetric = true;
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_save(m, path, &o));
    eqat_quantizer_free(q);
    eqat_model_free(m);
    eqat_context_free(ctx);
}

static void *saves_in_every_format(void *user)
{
    static const char *const formats[] = {
        "gptq_v2", "gptq", "compressed-tensors", "auto-round", "mlx", "awq", "fp16", "gguf"};
    (void)user;
    for (size_t i = 0; i < EQI_COUNT(formats); i++) {
        size_t bytes;
        const char *path = scratch(formats[i]);
        rounds_and_saves(formats[i], path);
        eqat_context *ctx = make_context(2, 0);
        eqat_model *m = open_model(ctx, path, EQAT_F32);
        free(logits_of(m, 8, &bytes));
        eqat_model_free(m);
        eqat_context_free(ctx);
    }
    return NULL;
}

/* Into the blobs of a cache. */
static void *follows_links(void *user)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    const char *cache = fresh_dir(), *blobs = in_dir(cache, "blobs"),
               *snapshot = in_dir(cache, "snapshots/r");
    (void)user;
    mkdir(blobs, 0777);
    mkdir(in_dir(cache, "snapshots"), 0777);
    mkdir(snapshot, 0777);
    for (int i = 0; i < 2; i++) {
        size_t n;
        char *data = read_file(in_dir(scratch("model"), names[i]), &n);
        write_file(in_dir(blobs, names[i]), data, n);
        ck_assert_int_eq(symlink(in_dir(blobs, names[i]), in_dir(snapshot, names[i])), 0);
        free(data);
    }
    eqat_context *ctx = make_context(1, 0);
    eqat_model_free(open_model(ctx, snapshot, EQAT_F32));
    eqat_context_free(ctx);
    return NULL;
}

/* `depth` times `open`, then the middle, then as many times `close`. */
static char *nested(const char *before, const char *open, int depth, const char *middle,
                    const char *close, const char *after)
{
    size_t step = strlen(open) + strlen(close);
    char *text =
             calloc(1, strlen(before) + step * (size_t)depth + strlen(middle) + strlen(after) + 1),
         *at = text;
    at = stpcpy(at, before);
    for (int i = 0; i < depth; i++) at = stpcpy(at, open);
    at = stpcpy(at, middle);
    for (int i = 0; i < depth; i++) at = stpcpy(at, close);
    stpcpy(at, after);
    return text;
}

static eqat_status open_json(eqat_context *ctx, const char *text)
{
    eqat_model *m;
    const char *dir = fresh_dir();
    write_text(in_dir(dir, "config.json"), text);
    return eqat_model_open(ctx, &m, dir, NULL);
}

/* As deep as jansson itself would go. */
static void *reads_deep_json(void *user)
{
    char *text = nested("{\"a\":\n ", "[", 2040, "", "]", "}");
    eqat_context *ctx = make_context(1, 0);
    (void)user;
    says(ctx, open_json(ctx, text), EQAT_FORMAT,
         "config.json: line 2: more than 100 levels of nesting");
    free(text);
    text = nested("{\"a\": \"[[{\\\"[\", \"b\": ", "[", 99, "", "]", "}");
    says(ctx, open_json(ctx, text), EQAT_FORMAT, "model_type: found nothing");
    free(text);
    eqat_context_free(ctx);
    return NULL;
}

#define LETTERS "\"a\": 0, \"b\": 1, \"c\": 2, \"\\u0120\": 3"
#define SPLIT                                                                                \
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {" LETTERS "}, \"merges\": []}, "            \
    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", " \
    "\"pattern\": {\"Regex\": \""
#define BEHIND                                                                                    \
    "\"}, \"behavior\": \"Isolated\", \"invert\": false}, {\"type\": \"ByteLevel\", "             \
    "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}]}, \"decoder\": " \
    "{\"type\": \"ByteLevel\"}}"

/* As many groups as PCRE2 would take, and as many as are taken. */
static void *splits_by_deep_patterns(void *user)
{
    enum { LENGTH = 1 << 16 };
    eqat_context *ctx = make_context(1, 0);
    const char *path = in_dir(fresh_dir(), "tokenizer.json");
    eqat_tokenizer *t;
    const int32_t *ids;
    size_t n;
    (void)user;
    char *json = nested(SPLIT, "(", 250, "a", "+)", BEHIND);
    write_text(path, json);
    says(ctx, eqat_tokenizer_open(ctx, &t, path), EQAT_FORMAT, "parentheses are too deeply nested");
    free(json);
    json = nested(SPLIT, "(?:", 31, "a|b", "|c)", BEHIND);
    write_text(path, json);
    OK(ctx, eqat_tokenizer_open(ctx, &t, path));
    free(json);
    char *text = malloc(LENGTH);
    for (size_t i = 0; i < LENGTH; i++) text[i] = "abc "[i * i % 7 % 4];
    OK(ctx, eqat_tokenizer_encode(t, text, LENGTH, 0, &ids, &n));
    ck_assert_uint_eq(n, LENGTH);
    free(text);
    eqat_tokenizer_free(t);
    eqat_context_free(ctx);
    return NULL;
}

static const struct {
    const char *what;
    void *(*run)(void *);
} calls[] = {
    {"training in f32", trains_f32},
    {"training in bf16, from error feedback, with files", trains_bf16},
    {"allocation", allocates},
    {"saving and opening", saves_in_every_format},
    {"symbolic links", follows_links},
    {"deep JSON", reads_deep_json},
    {"deep patterns", splits_by_deep_patterns},
};

START_TEST(what_a_call_takes_of_its_stack)
{
    size_t used = stack_of(calls[_i].run, NULL, ROOM);
    ck_assert_msg(used <= CALLER / 2, "%s: %zu bytes", calls[_i].what, used);
}
END_TEST

/* As a host makes them. */
static void *rounds(void *user)
{
    rounds_and_saves("gptq_v2", user);
    return NULL;
}

START_TEST(a_thread_that_has_no_more)
{
    static const size_t sizes[] = {CALLER, CALLER / 2};
    char name[32];
    pthread_t thread;
    pthread_attr_t attr;
    snprintf(name, sizeof name, "corner-%d", _i);
    const char *expected = scratch("not-in-a-corner"), *found = scratch(name);
    if (access(expected, F_OK) != 0) rounds_and_saves("gptq_v2", expected);
    pthread_attr_init(&attr);
    ck_assert_int_eq(pthread_attr_setstacksize(&attr, sizes[_i]), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, rounds, (void *)found), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    ck_assert(same_folders(found, expected));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_loop_test(tc, a_run_in_the_hosts_modes_gives_the_same_bytes, 0,
                        (int)EQI_COUNT(host_modes));
    tcase_add_test(tc, numbers_that_are_asked_for_in_the_hosts_modes);
    tcase_add_loop_test(tc, a_pool_of_threads_with_little_stack_and_modes_of_their_own, 0,
                        (int)EQI_COUNT(host_modes));
    tcase_add_loop_test(tc, what_a_call_takes_of_its_stack, 0, (int)EQI_COUNT(calls));
    tcase_add_loop_test(tc, a_thread_that_has_no_more, 0, 2);
    return run_case("hosts with modes and little stack", tc, CK_NOFORK);
}
