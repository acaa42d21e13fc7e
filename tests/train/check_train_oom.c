#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* Requests for memory are refused one after another, each alone or with all that follow: the call
 * says "out of memory", leaves the model as it was or as it is when the stage is done, and what is
 * left to do, by the same job or a new one, then gives the same result. */

typedef enum stage { BLOCK_AP, E2E_QP, EVAL, DONE } stage;

typedef struct work {
    eqat_context *ctx;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data;
    eqat_block_ap *block_ap; /* between a failure and the next try */
    eqat_e2e_qp *e2e_qp;
    bool offload;
    stage next;
    double nll;
} work;

/* Every field there is; hidden is that of write_tiny_model. */
static eqat_status fill(void *user, bool validation, int64_t index, const eqat_sample *s)
{
    (void)user;
    for (int32_t t = 0; t < TIME; t++) {
        s->ids[t] = (int32_t)(7 * t + 3 * index + validation) % VOCAB;
        s->labels[t] = t % 3 ? (int32_t)(5 * t + index) % VOCAB : -1;
        s->positions[t] = t / 2;
        s->segments[t] = t > 9;
        for (int32_t i = 0; i < 32; i++)
            s->embeddings[t * 32 + i] = (float)((s->ids[t] * (i + 3)) % 17 - 8) / 8;
    }
    return EQAT_OK;
}

static eqat_data *make_records(eqat_context *ctx)
{
    const int32_t fields = EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS | EQAT_SAMPLE_POSITIONS |
        EQAT_SAMPLE_SEGMENTS | EQAT_SAMPLE_EMBEDDINGS;
    eqat_data_options o;
    eqat_data *data;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = 2;
    o.val_size = 1;
    o.seq_len = TIME;
    OK(ctx, eqat_data_from_records(ctx, &data, fill, NULL, fields, VOCAB, 32, &o));
    return data;
}

static work start(counter *c, bool records)
{
    /* The reference keeps no scratch: every allocation is one of these loops or of the engine. */
    work w = {.ctx = open_counted("ref", c)};
    w.model = open_model(w.ctx, "tiny", EQAT_F32);
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.group_size = 32;
    if (records) o.init = EQAT_INIT_DESCENT; /* with second moments and a factor on the way */
    OK(w.ctx, eqat_quantizer_create(w.ctx, &w.quantizer, &o));
    w.data = records ? make_records(w.ctx) : make_data(w.ctx, 2, 1, true);
    return w;
}

static void give_up(work *w)
{
    eqat_block_ap_free(w->block_ap);
    eqat_e2e_qp_free(w->e2e_qp);
    w->block_ap = NULL;
    w->e2e_qp = NULL;
}

static void end(work *w, const counter *c)
{
    eqat_data_free(w->data);
    eqat_quantizer_free(w->quantizer);
    eqat_model_free(w->model);
    eqat_context_free(w->ctx);
    ck_assert_uint_eq(c->live, 0);
}

static eqat_status block_ap(work *w)
{
    eqat_block_ap_options o;
    eqat_block_ap_options_init(&o, sizeof o);
    o.epochs = 1;
    o.weight_lr = o.quant_lr = 1e-3;
    if (w->offload) o.offload_dir = scratch_dir();
    if (!w->block_ap) {
        eqat_status st = eqat_block_ap_create(w->model, &w->block_ap, w->quantizer, w->data, &o);
        if (st != EQAT_OK) return st;
    }
    eqat_status st = eqat_block_ap_run(w->block_ap);
    if (st != EQAT_OK) return st;
    eqat_block_ap_free(w->block_ap);
    w->block_ap = NULL;
    return EQAT_OK;
}

static eqat_status e2e_qp(work *w)
{
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.lr = 1e-3;
    o.epochs = 2;
    o.params = EQAT_E2E_SZ;
    o.train_norms = true;
    if (!w->e2e_qp) {
        eqat_status st = eqat_e2e_qp_create(w->model, &w->e2e_qp, w->data, &o);
        if (st != EQAT_OK) return st;
    }
    eqat_status st = eqat_e2e_qp_run(w->e2e_qp);
    if (st != EQAT_OK) return st;
    eqat_e2e_qp_free(w->e2e_qp);
    w->e2e_qp = NULL;
    return EQAT_OK;
}

static eqat_status go_on(work *w)
{
    eqat_perplexity p = {.struct_size = sizeof p};
    while (w->next != DONE) {
        eqat_status st = w->next == BLOCK_AP ? block_ap(w)
            : w->next == E2E_QP              ? e2e_qp(w)
                                             : eqat_eval_perplexity(w->model, w->data, NULL, &p);
        if (st != EQAT_OK) return st;
        w->next++;
    }
    w->nll = p.nll;
    return EQAT_OK;
}

static void exhaust(bool once, bool offload, bool records)
{
    counter c = {0};
    work w = start(&c, records);
    size_t before = c.requests;
    OK(w.ctx, go_on(&w));
    size_t requests = c.requests - before, refused = 0;
    double expected = w.nll;
    end(&w, &c);
    /* All of the first ones, where things are set up, then every seventeenth: steps repeat
     * themselves. */
    for (size_t n = 1; n <= requests; n += n < 150 ? 1 : 17) {
        c = (counter){.once = once};
        w = start(&c, records);
        w.offload = offload;
        c.fail_at = c.requests + n;
        eqat_status st = go_on(&w);
        c.fail_at = 0;
        if (st != EQAT_OK) {
            refused++;
            ck_assert_msg(st == EQAT_OUT_OF_MEMORY, "request %d: found %s: %s", (int)n,
                          eqat_status_name(st), eqat_context_error(w.ctx));
            ck_assert_ptr_nonnull(strstr(eqat_context_error(w.ctx), "out of memory"));
            if (n % 2) give_up(&w);
            OK(w.ctx, go_on(&w));
        }
        ck_assert_double_eq(w.nll, expected);
        end(&w, &c);
    }
    ck_assert_uint_gt(refused, 80);
}

START_TEST(alone) { exhaust(true, false, false); }
END_TEST

START_TEST(from_there_on) { exhaust(false, false, false); }
END_TEST

START_TEST(offloaded) { exhaust(false, true, false); }
END_TEST

START_TEST(from_records) { exhaust(false, false, true); }
END_TEST

static void write_tiny_model(void)
{
    write_llama("tiny", &(llama_shape){VOCAB, 32, 32, 1, 2, 1, false}, NULL);
}

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_tiny_model, scratch_clean);
    tcase_add_test(tc, alone);
    tcase_add_test(tc, from_there_on);
    tcase_add_test(tc, offloaded);
    tcase_add_test(tc, from_records);
    return run_case("training without memory", tc, CK_NOFORK);
}
