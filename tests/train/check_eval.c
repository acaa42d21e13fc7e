#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#include "public.h"

typedef struct eval_seen {
    int64_t calls, step, steps;
    double loss;
    bool cancel;
} eval_seen;

static int32_t watch_eval(void *user, const eqat_progress *p)
{
    eval_seen *s = user;
    ck_assert_str_eq(p->phase, "eval");
    s->calls++;
    s->step = p->step;
    s->steps = p->steps;
    s->loss = p->loss;
    return s->cancel;
}

START_TEST(perplexity_is_that_of_the_windows_one_by_one)
{
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_data *data = make_data(ctx, 5, 0, true);
    double nll = 0;
    for (int64_t i = 0; i < 5; i++) {
        int32_t ids[TIME];
        float loss, count;
        read_ids(ctx, data, false, i, ids);
        eqat_batch batch;
        eqat_batch_init(&batch, sizeof batch);
        batch.batch = 1;
        batch.time = TIME;
        batch.ids = ids;
        eqat_tensor *loss_t, *count_t;
        OK(ctx, eqat_model_loss(model, NULL, &batch, &loss_t, &count_t));
        OK(ctx, eqat_tensor_read(loss_t, &loss, sizeof loss));
        OK(ctx, eqat_tensor_read(count_t, &count, sizeof count));
        ck_assert_int_eq((int)count, TIME - 1);
        nll += (double)loss * (double)count;
        eqat_tensor_free(loss_t);
        eqat_tensor_free(count_t);
    }
    eqat_eval_options o;
    eqat_eval_options_init(&o, sizeof o);
    eval_seen s = {0};
    o.progress = watch_eval;
    o.progress_user = &s;
    eqat_perplexity p = {.struct_size = sizeof p};
    for (int64_t batch = 1; batch <= 4; batch++) {
        o.batch_size = batch;
        OK(ctx, eqat_eval_perplexity(model, data, &o, &p));
        ck_assert_double_eq_tol(p.nll, nll, batch == 1 ? 0x1p-60 : 1e-6 * nll);
        ck_assert_int_eq(p.windows, 5);
        ck_assert_int_eq(p.tokens, 5 * (TIME - 1));
        ck_assert_double_eq_tol(p.perplexity, exp(p.nll / (double)p.tokens), 1e-9 * p.perplexity);
        ck_assert_int_eq(s.step, s.steps);
        ck_assert_double_eq_tol(s.loss, p.nll / (double)p.tokens, 1e-12);
    }
    o.max_windows = 2;
    struct {
        eqat_perplexity p;
        int64_t guard;
    } shorter = {{.struct_size = offsetof(eqat_perplexity, windows), .windows = 77}, 88};
    OK(ctx, eqat_eval_perplexity(model, data, &o, &shorter.p));
    says(ctx, eqat_eval_perplexity(model, data, &o, &(eqat_perplexity){0}), EQAT_INVALID_ARGUMENT,
         "struct_size");
    ck_assert_int_eq(shorter.p.tokens, 2 * (TIME - 1));
    ck_assert_int_eq(shorter.p.windows, 77);
    s.cancel = true;
    says(ctx, eqat_eval_perplexity(model, data, &o, &p), EQAT_CANCELLED, "cancelled");
    o.progress = NULL;
    eqat_context_cancel(ctx);
    says(ctx, eqat_eval_perplexity(model, data, &o, &p), EQAT_CANCELLED, "cancelled");
    eqat_data_free(data);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

/* Mean losses that the last two calls told. */
typedef struct means {
    double last, before;
} means;

static int32_t keep_two(void *user, const eqat_progress *p)
{
    means *m = user;
    m->before = m->last;
    m->last = p->loss;
    return 0;
}

START_TEST(windows_that_do_not_fit_in_memory_at_once)
{
    enum { LONG = 256, WIDTH = 32, FIT = (256 << 20) / (LONG * WIDTH * 4), ALL = FIT + 1 };
    const llama_shape thin = {VOCAB, WIDTH, 32, 1, 1, 1, false};
    write_llama("thin", &thin, NULL);
    eqat_context *ctx = make_context(2, 0);
    eqat_model *model = open_model(ctx, "thin", EQAT_F32);
    int32_t *ids = malloc((size_t)ALL * LONG * sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (int64_t i = 0; i < ALL * LONG; i++)
        ids[i] = (int32_t)(((uint64_t)i * 2654435761u >> 20) % VOCAB);
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.val_size = 0;
    d.seq_len = LONG;
    d.sampling = EQAT_SAMPLING_CONSECUTIVE;
    eqat_eval_options o;
    eqat_eval_options_init(&o, sizeof o);
    o.batch_size = 64;
    means m = {0};
    o.progress = keep_two;
    o.progress_user = &m;
    eqat_perplexity all = {.struct_size = sizeof all}, last = all;
    eqat_data *data;
    d.train_size = ALL;
    OK(ctx, eqat_data_from_tokens(ctx, &data, ids, (size_t)ALL * LONG, VOCAB, &d));
    OK(ctx, eqat_eval_perplexity(model, data, &o, &all));
    eqat_data_free(data);
    d.train_size = 1;
    OK(ctx, eqat_data_from_tokens(ctx, &data, ids + (size_t)FIT * LONG, LONG, VOCAB, &d));
    OK(ctx, eqat_eval_perplexity(model, data, NULL, &last));
    eqat_data_free(data);
    /* The block of the last window was behind the losses of all the others. */
    ck_assert_double_eq_tol(all.nll - m.before * (double)FIT * (LONG - 1), last.nll,
                            1e-6 * last.nll);
    free(ids);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(perplexity_does_not_depend_on_batches_and_threads)
{
    double nll[2] = {0, 0};
    for (int dtype = 0; dtype < 2; dtype++)
        for (int threads = 1; threads <= 3; threads += 2)
            for (int64_t batch = 1; batch <= 3; batch++) {
                eqat_context *ctx = make_context(threads, 0);
                eqat_model *model = open_model(ctx, "model", dtype ? EQAT_BF16 : EQAT_F32);
                eqat_data *data = make_data(ctx, 5, 0, false);
                eqat_eval_options o;
                eqat_eval_options_init(&o, sizeof o);
                o.batch_size = batch;
                eqat_perplexity p = {.struct_size = sizeof p};
                OK(ctx, eqat_eval_perplexity(model, data, &o, &p));
                if (threads == 1 && batch == 1) nll[dtype] = p.nll;
                ck_assert_double_eq(p.nll, nll[dtype]);
                eqat_data_free(data);
                eqat_model_free(model);
                eqat_context_free(ctx);
            }
    ck_assert_double_ne(nll[0], nll[1]);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, perplexity_is_that_of_the_windows_one_by_one);
    tcase_add_test(tc, windows_that_do_not_fit_in_memory_at_once);
    tcase_add_test(tc, perplexity_does_not_depend_on_batches_and_threads);
    return run_case("evaluation", tc, CK_NOFORK);
}
