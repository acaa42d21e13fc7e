#include <pthread.h>
#include <stdatomic.h>

#include "api.h"

/* Handles may go on any thread: a host's garbage collector picks one. */

typedef struct garbage {
    eqat_tensor *tensors[2];
    eqat_data *data;
    atomic_int released;
} garbage;

static void on_release(void *user, void *data)
{
    garbage *g = user;
    (void)data;
    atomic_fetch_add(&g->released, 1);
}

static void *collect(void *user)
{
    garbage *g = user;
    eqat_tensor_free(g->tensors[0]);
    eqat_tensor_free(g->tensors[1]);
    return NULL;
}

static void on_another_thread(void *(*work)(void *), void *arg)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, work, arg), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

static eqat_status fill(void *user, bool validation, int64_t index, const eqat_sample *sample)
{
    garbage *g = user;
    (void)validation;
    (void)index;
    on_another_thread(collect, g); /* for ever, if a free waited for the call to end */
    ck_assert_int_eq(atomic_load(&g->released), 0);
    sample->ids[0] = 1;
    return EQAT_OK;
}

static eqat_data *one_sample(eqat_context *ctx, garbage *g)
{
    eqat_data *data;
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = o.seq_len = 1;
    o.val_size = 0;
    OK(eqat_data_from_records(ctx, &data, fill, g, EQAT_SAMPLE_IDS, 10, 0, &o));
    return data;
}

START_TEST(a_free_during_a_call_waits_for_its_end)
{
    static float memory[4];
    garbage g = {.released = 0};
    const int64_t n = 4;
    int32_t id;
    const eqat_sample sample = {.struct_size = sizeof sample, .ids = &id};
    eqat_context *ctx = open_context(NULL);
    eqat_data *data = one_sample(ctx, &g);
    OK(eqat_tensor_wrap(ctx, &g.tensors[0], EQAT_F32, 1, &n, NULL, memory, sizeof memory,
                        on_release, &g));
    g.tensors[1] = eqat_tensor_ref(g.tensors[0]); /* two references of one handle */
    OK(eqat_data_sample(data, false, 0, &sample));
    ck_assert_int_eq(atomic_load(&g.released), 1);
    eqat_data_free(data);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(a_free_between_calls_is_done_at_once)
{
    static float memory[4];
    garbage g = {.released = 0};
    const int64_t n = 4;
    eqat_context *ctx = open_context(NULL);
    OK(eqat_tensor_wrap(ctx, &g.tensors[0], EQAT_F32, 1, &n, NULL, memory, sizeof memory,
                        on_release, &g));
    eqat_context_free(ctx);
    on_another_thread(collect, &g); /* and the context with it */
    ck_assert_int_eq(atomic_load(&g.released), 1);
}
END_TEST

/* ---- all at once ---- */

enum { SLOTS = 64, ROUNDS = 4000 };

typedef struct market {
    _Atomic(eqat_tensor *) slot[SLOTS];
    atomic_bool closed;
} market;

static void *collector(void *user)
{
    market *m = user;
    for (bool last = false; !last;) {
        last = atomic_load(&m->closed);
        for (int i = 0; i < SLOTS; i++) eqat_tensor_free(atomic_exchange(&m->slot[i], NULL));
    }
    return NULL;
}

/* Every block comes back with its size, none is left. */
typedef struct account {
    size_t blocks, bytes;
} account;

static void *counted_alloc(void *user, size_t size, size_t align)
{
    account *a = user;
    void *p = NULL;
    if (posix_memalign(&p, align, size) != 0) return NULL;
    a->blocks++;
    a->bytes += size;
    return p;
}

static void counted_free(void *user, void *p, size_t size)
{
    account *a = user;
    a->blocks--;
    a->bytes -= size;
    free(p);
}

static void trade(market *m, eqat_context *ctx)
{
    eqat_tape *tape;
    eqat_tensor *one = vector(ctx, 16, 1), *y;
    OK(eqat_tape_create(ctx, &tape));
    for (int i = 0; i < ROUNDS; i++) {
        OK(eqat_op_add(tape, one, one, &y));
        eqat_tensor_free(atomic_exchange(&m->slot[i % SLOTS], eqat_tensor_ref(y)));
        eqat_tensor_free(y);
    }
    eqat_tensor_free(one);
    eqat_tape_free(tape);
}

START_TEST(nothing_is_lost_among_threads)
{
    market m = {.closed = false};
    account a = {0};
    eqat_context_options o = defaults();
    o.alloc = counted_alloc;
    o.free = counted_free;
    o.alloc_user = &a;
    eqat_context *ctx = open_context(&o);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, collector, &m);
    trade(&m, ctx);
    eqat_context_free(ctx);
    atomic_store(&m.closed, true);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    ck_assert_uint_eq(a.blocks, 0);
    ck_assert_uint_eq(a.bytes, 0);
}
END_TEST

/* The last handles of a context, each on a thread of its own, at the same moment. */
enum { LAST = 3, CONTEXTS = 3000 };

typedef struct departure {
    pthread_barrier_t start, end;
    eqat_tensor *leaving[LAST];
} departure;

typedef struct seat {
    departure *d;
    int index;
} seat;

static void *depart(void *user)
{
    const seat *s = user;
    for (int i = 0; i < CONTEXTS; i++) {
        pthread_barrier_wait(&s->d->start);
        eqat_tensor_free(s->d->leaving[s->index]);
        pthread_barrier_wait(&s->d->end);
    }
    return NULL;
}

START_TEST(the_last_to_leave_closes_the_door)
{
    departure d;
    seat seats[LAST];
    pthread_t threads[LAST];
    account a = {0};
    eqat_context_options o = defaults();
    o.device = "ref";
    o.threads = 1;
    o.alloc = counted_alloc;
    o.free = counted_free;
    o.alloc_user = &a;
    pthread_barrier_init(&d.start, NULL, LAST + 1);
    pthread_barrier_init(&d.end, NULL, LAST + 1);
    for (int i = 0; i < LAST; i++) {
        seats[i] = (seat){&d, i};
        pthread_create(&threads[i], NULL, depart, &seats[i]);
    }
    for (int i = 0; i < CONTEXTS; i++) {
        eqat_context *ctx = open_context(&o);
        for (int j = 0; j < LAST; j++) d.leaving[j] = vector(ctx, 4, 1);
        eqat_context_free(ctx);
        pthread_barrier_wait(&d.start);
        pthread_barrier_wait(&d.end);
        ck_assert_uint_eq(a.blocks, 0);
        ck_assert_uint_eq(a.bytes, 0);
    }
    for (int i = 0; i < LAST; i++) pthread_join(threads[i], NULL);
}
END_TEST

typedef struct rival {
    eqat_context *ctx;
    double value;
} rival;

static void *add_up(void *user)
{
    const rival *r = user;
    eqat_tape *tape;
    eqat_tensor *x = vector(r->ctx, 16, r->value), *y;
    float found[16];
    OK(eqat_tape_create(r->ctx, &tape));
    for (int i = 0; i < ROUNDS; i++) {
        OK(eqat_op_add(tape, x, x, &y));
        OK(eqat_tensor_read(y, found, sizeof found));
        ck_assert(found[15] == (float)(2 * r->value));
        eqat_tensor_free(y);
    }
    eqat_tensor_free(x);
    eqat_tape_free(tape);
    return NULL;
}

START_TEST(calls_take_turns)
{
    eqat_context *ctx = open_context(NULL);
    rival a = {ctx, 1}, b = {ctx, 2};
    pthread_t thread;
    pthread_create(&thread, NULL, add_up, &a);
    add_up(&b);
    pthread_join(thread, NULL);
    eqat_context_free(ctx);
}
END_TEST

TCase *frees_case(void)
{
    TCase *c = tcase_create("frees");
    tcase_add_test(c, a_free_during_a_call_waits_for_its_end);
    tcase_add_test(c, a_free_between_calls_is_done_at_once);
    tcase_add_test(c, nothing_is_lost_among_threads);
    tcase_add_test(c, the_last_to_leave_closes_the_door);
    tcase_add_test(c, calls_take_turns);
    return c;
}
