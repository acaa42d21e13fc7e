/* Kinds of quantizers in both phases: zero points that are fixed in the middle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"
#include "train/block_ap.h"

static setting fixed_at(int bits)
{
    setting s = usual;
    s.bits = bits;
    s.zero_point = EQAT_ZERO_POINT_FIXED;
    return s;
}

static bool in_the_middle(double z, int bits)
{
    return z == (1 << (bits - 1)) - 1 || z == 1 << (bits - 1);
}

/* The saved zero points of a linear. */
static unsigned char *zeros_of(bench *b, const char *linear, size_t *n)
{
    char name[96];
    eqat_tensor *t;
    snprintf(name, sizeof name, "%s.zeros", linear);
    OK(b->ctx, eqat_model_parameter(b->model, name, &t));
    ck_assert_int_eq(eqat_tensor_dtype(t), EQAT_U8);
    *n = (size_t)eqat_tensor_count(t);
    unsigned char *z = malloc(*n);
    OK(b->ctx, eqat_tensor_read(t, z, *n));
    return z;
}

/* How many of them are in the middle, and whether both values are there. */
static size_t count_middle(bench *b, const char *linear, int bits, size_t *n, bool *both)
{
    unsigned char *z = zeros_of(b, linear, n);
    size_t count = 0, upper = 0;
    for (size_t i = 0; i < *n; i++) {
        if (in_the_middle(z[i], bits)) count++;
        if (z[i] == 1 << (bits - 1)) upper++;
    }
    *both = upper && upper < count;
    free(z);
    return count;
}

/* In memory groups have either value; a file holds the upper one alone, with a scale of either
 * sign. */
static void expect_middle(bench *b, int bits, bool saved)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    size_t n;
    bool both, ever = false;
    for (int64_t block = 0; block < BLOCKS; block++)
        for (int64_t i = 0; i < eqat_model_linear_count(b->model, block); i++) {
            OK(b->ctx, eqat_model_linear(b->model, block, i, &l));
            ck_assert_msg(count_middle(b, l.name, bits, &n, &both) == n, "%s", l.name);
            ever = ever || both;
        }
    ck_assert(ever == !saved);
}

START_TEST(fixed_zero_points_stay)
{
    static const char *const names[] = {"self_attn.q_proj.zeros", "mlp.down_proj.zeros",
                                        "self_attn.q_proj.scales", "mlp.down_proj.weight"};
    const setting s = fixed_at(_i);
    bench b = set_up(&s);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    float *before[4];
    int64_t n[4], m;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    for (int i = 0; i < 4; i++)
        before[i] = read_floats(eqat_block_ap_parameter(job, names[i]), &n[i]);
    for (int64_t step = 0; step < 4; step++) OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
    for (int i = 0; i < 4; i++) {
        float *after = read_floats(eqat_block_ap_parameter(job, names[i]), &m);
        ck_assert_msg(same_floats(before[i], after, m) == (i < 2), "%s", names[i]);
        for (int64_t k = 0; i < 2 && k < m; k++) ck_assert(in_the_middle((double)after[k], _i));
        free(before[i]);
        free(after);
    }
    eqat_block_ap_abandon(job);
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_block_ap_free(job);
    eqat_e2e_qp_options e = fast_e2e_options();
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &e));
    expect_middle(&b, _i, false);
    /* the same from disk */
    const char *path = save_as(b.ctx, b.model, "fixed");
    double trained = perplexity_of(b.ctx, b.model, b.data);
    eqat_model_free(b.model);
    b.model = open_model(b.ctx, path, EQAT_F32);
    expect_middle(&b, _i, true);
    ck_assert_double_eq(perplexity_of(b.ctx, b.model, b.data), trained);
    tear_down(&b);
    remove_dir(path);
}
END_TEST

/* Round to nearest is the start, which no steps leave as it is. */
START_TEST(fixed_without_training)
{
    const setting s = fixed_at(_i);
    eqat_block_ap_options o = fast_options();
    o.epochs = 0;
    bench a = set_up(&s), b = set_up(&s);
    OK(a.ctx, eqat_model_quantize_rtn(a.model, a.quantizer, NULL));
    expect_middle(&a, _i, false);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    const char *rounded = save_as(a.ctx, a.model, "rounded"),
               *started = save_as(b.ctx, b.model, "started");
    ck_assert(same_folders(rounded, started));
    tear_down(&a);
    tear_down(&b);
    remove_dir(rounded);
    remove_dir(started);
}
END_TEST

START_TEST(kinds_by_pattern)
{
    setting trained = usual; /* unless a rule says otherwise */
    trained.bits = 4;
    bench b = set_up(&trained);
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = 3;
    o.group_size = 32;
    o.zero_point = EQAT_ZERO_POINT_FIXED;
    OK(b.ctx, eqat_quantizer_add_rule(b.quantizer, "*.mlp.*", &o));
    eqat_block_ap_options fast = fast_options();
    fast.quant_lr = 0.1; /* zero points that train move */
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &fast));
    OK(b.ctx, eqat_block_ap_begin(job));
    int64_t n;
    float *before = read_floats(eqat_block_ap_parameter(job, "self_attn.q_proj.zeros"), &n);
    for (int64_t step = 0; step < 4; step++) OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
    float *after = read_floats(eqat_block_ap_parameter(job, "self_attn.q_proj.zeros"), &n);
    ck_assert(!same_floats(before, after, n));
    free(before);
    free(after);
    eqat_block_ap_abandon(job);
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_block_ap_free(job);
    size_t groups;
    bool both;
    ck_assert_uint_eq(count_middle(&b, "model.layers.1.mlp.up_proj", 3, &groups, &both), groups);
    ck_assert_uint_lt(count_middle(&b, "model.layers.1.self_attn.q_proj", 4, &groups, &both),
                      groups);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_loop_test(tc, fixed_zero_points_stay, 2, 5);
    tcase_add_loop_test(tc, fixed_without_training, 2, 5);
    tcase_add_test(tc, kinds_by_pattern);
    return run_case("kinds", tc, CK_NOFORK);
}
