/* Bits by sensitivity: what is spent, on what, and what is refused. */
#include <math.h>

#include "public.h"

enum { LINEARS = 7, GROUP = 32 };

typedef struct bits {
    int of[BLOCKS][LINEARS]; /* 0: not quantized */
} bits;

static eqat_allocate_options options_of(double bits_per_weight)
{
    eqat_allocate_options o;
    eqat_allocate_options_init(&o, sizeof o);
    o.bits_per_weight = bits_per_weight;
    return o;
}

static bits bits_of(bench *b, double *per_weight)
{
    bits out = {0};
    double size = 0, weights = 0;
    for (int64_t block = 0; block < BLOCKS; block++)
        for (int64_t i = 0; i < LINEARS; i++) {
            eqat_linear_info l = {.struct_size = sizeof l};
            eqat_quantizer_options o = {.struct_size = sizeof o};
            OK(b->ctx, eqat_model_linear(b->model, block, i, &l));
            if (!eqat_quantizer_lookup(b->quantizer, l.name, &o)) continue;
            out.of[block][i] = o.bits;
            double n = (double)(l.out_features * l.in_features);
            size += n * o.bits + n / GROUP * (16 + o.bits);
            weights += n;
        }
    *per_weight = size / weights;
    return out;
}

static bits allocated(const setting *s, double budget, double *per_weight)
{
    bench b = set_up(s);
    eqat_allocate_options o = options_of(budget);
    OK(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o));
    bits out = bits_of(&b, per_weight);
    tear_down(&b);
    return out;
}

START_TEST(the_budget_is_spent_and_kept)
{
    static const double budgets[] = {2.5625, 3, 3.3, 4, 4.7};
    double before = 0, spent;
    setting two = usual;
    two.threads = 2;
    for (size_t k = 0; k < EQI_COUNT(budgets); k++) {
        bits b = allocated(&usual, budgets[k], &spent);
        ck_assert_double_le(spent, budgets[k] + 1e-9);
        ck_assert_double_ge(spent, before);
        before = spent;
        for (int i = 0; i < BLOCKS; i++) {
            const int *of = b.of[i];
            ck_assert(of[0] == of[1] && of[1] == of[2] && of[4] == of[5]);
            for (int l = 0; l < LINEARS; l++) ck_assert(of[l] >= 2 && of[l] <= 4);
        }
        bits again = allocated(&two, budgets[k], &spent);
        ck_assert_mem_eq(&b, &again, sizeof b);
    }
    ck_assert_double_eq_tol(before, 4 + 20.0 / GROUP, 1e-9); /* four bits everywhere */
    allocated(&usual, 2.5625, &spent);
    ck_assert_double_eq_tol(spent, 2 + 18.0 / GROUP, 1e-9); /* two */
    allocated(&usual, 3, &spent);
    ck_assert_double_gt(spent, 2.8);
}
END_TEST

/* What one linear's rounding to 3 bits does to the logits is mostly its size. */
START_TEST(what_does_nothing_gets_nothing)
{
    bench b = set_up(&usual);
    double spent;
    for (int i = 0; i < BLOCKS; i++) {
        char name[64];
        eqat_tensor *w;
        int64_t n;
        snprintf(name, sizeof name, "model.layers.%d.mlp.down_proj.weight", i);
        OK(b.ctx, eqat_model_parameter(b.model, name, &w));
        float *values = read_floats(w, &n);
        for (int64_t k = 0; k < n; k++) values[k] *= i == 1 ? 1e-3f : 4;
        OK(b.ctx, eqat_tensor_write(w, values, (size_t)n * sizeof *values));
        free(values);
    }
    eqat_allocate_options o = options_of(3.2);
    OK(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o));
    bits found = bits_of(&b, &spent);
    ck_assert_int_eq(found.of[1][4], 2); /* nor gate and up, which only it hears */
    ck_assert_int_eq(found.of[1][6], 2);
    ck_assert_int_gt(found.of[0][6], 2);
    ck_assert_int_gt(found.of[2][6], 2);
    tear_down(&b);
}
END_TEST

START_TEST(rules_that_leave_linears_stay)
{
    bench b = set_up(&usual);
    double spent;
    OK(b.ctx, eqat_quantizer_add_rule(b.quantizer, "*.down_proj", NULL));
    eqat_allocate_options o = options_of(3);
    OK(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o));
    bits found = bits_of(&b, &spent);
    for (int i = 0; i < BLOCKS; i++) ck_assert(!found.of[i][6] && found.of[i][0] >= 2);
    ck_assert_double_le(spent, 3);
    tear_down(&b);
}
END_TEST

static int32_t cancel_at(void *user, const eqat_progress *p)
{
    int64_t *left = user;
    ck_assert_str_eq(p->phase, "allocate");
    ck_assert(p->step <= p->steps);
    return (*left)-- == 0;
}

START_TEST(a_cancelled_one_adds_nothing)
{
    bench b = set_up(&usual);
    double before, spent;
    bits was = bits_of(&b, &before);
    eqat_allocate_options o = options_of(3);
    for (int64_t at = 0; at < 20; at += 3) {
        int64_t left = at;
        o.progress = cancel_at;
        o.progress_user = &left;
        ck_assert_int_eq(eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o), EQAT_CANCELLED);
        bits now = bits_of(&b, &spent);
        ck_assert_mem_eq(&now, &was, sizeof now);
    }
    o.progress = NULL;
    OK(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o));
    bits now = bits_of(&b, &spent), fresh = allocated(&usual, 3, &before);
    ck_assert_mem_eq(&now, &fresh, sizeof now);
    tear_down(&b);
}
END_TEST

static void write_models(void)
{
    write_small_model();
    write_llama("tiny", &(llama_shape){VOCAB, 32, 32, 2, 2, 1, false}, NULL);
}

/* Requests for memory are refused one after another: rules stay as they were, nothing is lost. */
START_TEST(without_memory_nothing_is_added)
{
    size_t requests = 1, refused = 0;
    for (size_t n = 0; n <= requests; n += n < 60 ? 1 : 97) {
        counter c = {.once = n % 2};
        bench b = {.ctx = open_counted("ref", &c)};
        b.model = open_model(b.ctx, "tiny", EQAT_F32);
        b.quantizer = make_quantizer(b.ctx, 2, 32);
        b.data = make_data(b.ctx, 1, 0, true);
        eqat_quantizer_options o = {.struct_size = sizeof o};
        eqat_allocate_options a = options_of(4.7);
        const char *last = "model.layers.1.mlp.down_proj";
        const size_t before = c.requests;
        c.fail_at = n ? before + n : 0;
        eqat_status st = eqat_quantizer_allocate(b.quantizer, b.model, b.data, &a);
        c.fail_at = 0;
        if (!n) requests = c.requests - before;
        if (st != EQAT_OK) {
            refused++;
            ck_assert_int_eq(st, EQAT_OUT_OF_MEMORY);
            ck_assert(eqat_quantizer_lookup(b.quantizer, last, &o) && o.bits == 2);
            OK(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &a));
        }
        ck_assert(eqat_quantizer_lookup(b.quantizer, last, &o) && o.bits == 4);
        tear_down(&b);
        ck_assert_uint_eq(c.live, 0);
    }
    ck_assert_uint_gt(refused, 40);
}
END_TEST

START_TEST(what_cannot_be_allocated_is_refused)
{
    bench b = set_up(&usual);
    eqat_allocate_options o = options_of(2.5);
    says(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o), EQAT_INVALID_ARGUMENT,
         "bits_per_weight: found 2.5, expected at least 2.563, which all linears take at 2 bits");
    o = options_of(3);
    bench other = set_up(&usual);
    says(b.ctx, eqat_quantizer_allocate(b.quantizer, other.model, b.data, &o),
         EQAT_INVALID_ARGUMENT, "found a model of another context");
    tear_down(&other);
    const int32_t ids[8 * TIME] = {1};
    eqat_data_options half = consecutive(8, 0, TIME);
    eqat_data *data;
    half.world = 2;
    OK(b.ctx, eqat_data_from_tokens(b.ctx, &data, ids, EQI_COUNT(ids), VOCAB, &half));
    says(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, data, &o), EQAT_INVALID_ARGUMENT,
         "found samples of one of 2 ranks, expected the same of all");
    eqat_data_free(data);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    says(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o), EQAT_INVALID_ARGUMENT,
         "already quantized");
    OK(b.ctx, eqat_quantizer_add_rule(b.quantizer, "*", NULL));
    says(b.ctx, eqat_quantizer_allocate(b.quantizer, b.model, b.data, &o), EQAT_INVALID_ARGUMENT,
         "found no linear that the quantizer selects");
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("allocate");
    tcase_add_unchecked_fixture(tc, write_models, scratch_clean);
    tcase_add_test(tc, the_budget_is_spent_and_kept);
    tcase_add_test(tc, what_does_nothing_gets_nothing);
    tcase_add_test(tc, rules_that_leave_linears_stay);
    tcase_add_test(tc, a_cancelled_one_adds_nothing);
    tcase_add_test(tc, without_memory_nothing_is_added);
    tcase_add_test(tc, what_cannot_be_allocated_is_refused);
    return run_case("bits by sensitivity", tc, CK_NOFORK);
}
