/* Both phases on Gemma 3 and Qwen3-MoE: from folders and GGUF files, in both compute dtypes, by any
 * number of threads; experts and routers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

enum { EXPERTS = 4 };

static const char *const families[] = {"gemma3", "qwen3_moe", "qwen3_moe-mixed"};

static const char *make_model(const char *name, const char *family, const char *from,
                              const char *to)
{
    return make_family(EQI_STORED_F32, name, family, from, to);
}

static bench open_bench(const char *path, int threads, eqat_dtype compute)
{
    bench b = {.ctx = make_context(threads, 3)};
    b.model = open_model(b.ctx, path, compute);
    b.quantizer = make_quantizer(b.ctx, 2, 32);
    b.data = make_data(b.ctx, 7, 3, true);
    return b;
}

static void train(bench *b, int64_t experts_at_a_time)
{
    eqat_block_ap_options o = fast_options();
    o.experts_at_a_time = experts_at_a_time;
    eqat_e2e_qp_options e = fast_e2e_options();
    OK(b->ctx, eqat_block_ap_quantize(b->model, b->quantizer, b->data, &o));
    OK(b->ctx, eqat_e2e_qp_train(b->model, b->data, &e));
}

/* Trained, saved as `name`, opened again: the same logits. */
static const char *train_and_save(const char *path, int threads, eqat_dtype compute,
                                  const char *name)
{
    bench b = open_bench(path, threads, compute);
    double before = perplexity_of(b.ctx, b.model, b.data);
    OK(b.ctx, eqat_model_check_save(b.model, NULL, NULL));
    train(&b, 0);
    ck_assert_double_ne(perplexity_of(b.ctx, b.model, b.data), before);
    const char *out = save_as(b.ctx, b.model, name);
    eqat_model *again = open_model(b.ctx, out, compute);
    same_logits(b.model, again, 17);
    eqat_model_free(again);
    tear_down(&b);
    return out;
}

/* With dense blocks, GGUF has no such model. */
static bool in_gguf(const char *family) { return !strstr(family, "mixed"); }

START_TEST(what_is_trained_is_what_is_saved)
{
    const char *family = families[_i / 2];
    eqat_dtype compute = _i % 2 ? EQAT_F32 : EQAT_BF16;
    const char *path = make_model("model", family, "{", "{"),
               *out = train_and_save(path, 2, compute, "out");
    ck_assert(same_folders(out, train_and_save(path, 1, compute, "one")));
    ck_assert(same_folders(out, train_and_save(path, 3, compute, "three")));
    if (!in_gguf(family)) return;
    const char *gguf = scratch("model.gguf");
    eqat_context *ctx = make_context(1, 0);
    convert_to_gguf(ctx, path, gguf);
    const char *from_gguf = train_and_save(gguf, 2, compute, "from-gguf");
    /* config.json tells where a model came from, the weights do not */
    eqat_model *a = open_model(ctx, out, compute), *b = open_model(ctx, from_gguf, compute);
    same_logits(a, b, 17);
    eqat_model_free(a);
    eqat_model_free(b);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(training_is_better_than_rounding)
{
    const char *path = make_model("model", families[_i], "{", "{");
    bench full = open_bench(path, 2, EQAT_F32), b = open_bench(path, 2, EQAT_F32),
          r = open_bench(path, 2, EQAT_F32);
    eqat_block_ap_options o = fast_options();
    o.epochs = 6;
    OK(r.ctx, eqat_model_quantize_rtn(r.model, r.quantizer, NULL));
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    double trained = logits_distance(full.model, b.model),
           rounded = logits_distance(full.model, r.model);
    ck_assert_msg(trained < 0.9 * rounded, "%s: %g rounded, %g trained", families[_i], rounded,
                  trained);
    tear_down(&full);
    tear_down(&b);
    tear_down(&r);
}
END_TEST

/* ---- routers ---- */

static float *router(bench *b, int64_t *n)
{
    return parameter_floats(b->ctx, b->model, "model.layers.0.mlp.gate.weight", n);
}

START_TEST(the_router_trains_and_stays_dense)
{
    const char *path = make_family(EQI_STORED_BF16, "model", "qwen3_moe", "{", "{");
    bench b = open_bench(path, 2, EQAT_F32), r = open_bench(path, 2, EQAT_F32);
    eqat_block_ap_options o = fast_options();
    int64_t n;
    float *start = router(&r, &n);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    float *trained = router(&b, &n);
    ck_assert_int_eq(n, EXPERTS * HIDDEN);
    ck_assert(!same_floats(start, trained, n));
    for (int64_t i = 0; i < n; i++) ck_assert(isfinite(trained[i]));
    const char *out = save_as(b.ctx, b.model, "out");
    eqat_model_free(b.model);
    b.model = open_model(b.ctx, out, EQAT_F32);
    float *saved = router(&b, &n);
    ck_assert(same_floats(saved, trained, n));
    free(start);
    free(trained);
    free(saved);
    tear_down(&b);
    tear_down(&r);
}
END_TEST

/* ---- experts ---- */

/* The last row of each router between two others, which BF16 holds, too: with one expert a token,
 * it is never the greatest. That expert's weight being 1, the router has no gradient and stays. */
static const char *starve_the_last(const char *path)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_model *m = open_model(ctx, path, EQAT_F32);
    for (int block = 0; block < 2; block++) {
        char name[64];
        eqat_tensor *t;
        int64_t n;
        snprintf(name, sizeof name, "model.layers.%d.mlp.gate.weight", block);
        OK(ctx, eqat_model_parameter(m, name, &t));
        float *x = read_floats(t, &n);
        for (int64_t i = 0; i < 2 * HIDDEN; i++) x[i] = rintf(x[i] * 64) / 64;
        for (int64_t i = 0; i < HIDDEN; i++)
            x[(EXPERTS - 1) * HIDDEN + i] = 0.5f * (x[i] + x[HIDDEN + i]);
        OK(ctx, eqat_tensor_write(t, x, (size_t)n * sizeof *x));
        free(x);
    }
    const char *out = save_as(ctx, m, "starved");
    eqat_model_free(m);
    eqat_context_free(ctx);
    return out;
}

START_TEST(an_expert_without_tokens_stays_at_its_start)
{
    static const char *const linears[] = {"gate_proj", "up_proj", "down_proj"},
                             *const parts[] = {"codes", "scales", "zeros"};
    const char *path = starve_the_last(make_model(
        "model", "qwen3_moe", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 1"));
    bench b = open_bench(path, 2, _i % 2 ? EQAT_F32 : EQAT_BF16),
          r = open_bench(path, 2, _i % 2 ? EQAT_F32 : EQAT_BF16);
    OK(r.ctx, eqat_model_quantize_rtn(r.model, r.quantizer, NULL));
    train(&b, _i / 2);
    int moved[EXPERTS] = {0};
    for (int block = 0; block < 2; block++)
        for (int e = 0; e < EXPERTS; e++)
            for (int i = 0; i < 9; i++) {
                char name[96];
                snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.%s.%s", block, e,
                         linears[i / 3], parts[i % 3]);
                moved[e] += !same_parameter(&b, &r, name);
            }
    ck_assert_int_eq(moved[EXPERTS - 1], 0);
    for (int e = 0; e < EXPERTS - 1; e++) ck_assert_msg(moved[e] > 0, "expert %d", e);
    eqat_linear_info last = {.struct_size = sizeof last};
    OK(b.ctx, eqat_model_linear(b.model, 1, 4 + EXPERTS * 3, &last));
    ck_assert_str_eq(last.name, "model.layers.1.mlp.experts.3.down_proj");
    ck_assert_int_eq(last.bits, 2);
    const char *out = save_as(b.ctx, b.model, "out");
    eqat_model *again = open_model(b.ctx, out, EQAT_F32);
    eqat_model_free(again);
    tear_down(&b);
    tear_down(&r);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, NULL, scratch_clean);
    tcase_add_loop_test(tc, what_is_trained_is_what_is_saved, 0, 6);
    tcase_add_loop_test(tc, training_is_better_than_rounding, 0, 3);
    tcase_add_test(tc, the_router_trains_and_stays_dense);
    tcase_add_loop_test(tc, an_expert_without_tokens_stays_at_its_start, 0, 4);
    return run_case("families", tc, CK_NOFORK);
}
