#include <stdio.h>

#include "api.h"

/* ---- structs of other sizes ---- */

typedef struct newer {
    eqat_quantizer_options known;
    int32_t more[4];
} newer;

START_TEST(what_is_not_known_is_refused)
{
    eqat_context *ctx = open_context(NULL);
    eqat_quantizer *q;
    newer n;
    memset(&n, 0xff, sizeof n);
    eqat_quantizer_options_init(&n.known, sizeof n);
    OK(eqat_quantizer_create(ctx, &q, &n.known)); /* all of it is zero */
    eqat_quantizer_free(q);
    n.more[3] = 1;
    ck_assert_int_eq(eqat_quantizer_create(ctx, &q, &n.known), EQAT_UNSUPPORTED);
    ck_assert_ptr_null(q);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), "quantizer: found byte"));
    n.known.struct_size = sizeof n.known; /* the caller's word for what counts */
    OK(eqat_quantizer_create(ctx, &q, &n.known));
    eqat_quantizer_free(q);
    eqat_context_free(ctx);
}
END_TEST

/* Samples are taken by the same rule; a model's batch has a test in the suite of models. */
START_TEST(what_is_not_known_of_a_sample_is_refused)
{
    struct {
        eqat_sample known;
        int32_t *weights;
    } n;
    int32_t ids[64] = {0}, found[4];
    eqat_context *ctx = open_context(NULL);
    eqat_data *data;
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = 2;
    o.val_size = 0;
    o.seq_len = 4;
    OK(eqat_data_from_tokens(ctx, &data, ids, 64, 0, &o));
    memset(&n, 0, sizeof n);
    n.known.struct_size = sizeof n;
    n.known.ids = found;
    OK(eqat_data_sample(data, false, 0, &n.known));
    n.weights = found;
    ck_assert_int_eq(eqat_data_sample(data, false, 0, &n.known), EQAT_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), "sample: found byte"));
    n.known.struct_size = sizeof n.known;
    OK(eqat_data_sample(data, false, 0, &n.known));
    n.known.struct_size = 0;
    ck_assert_int_eq(eqat_data_sample(data, false, 0, &n.known), EQAT_INVALID_ARGUMENT);
    eqat_data_free(data);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(reserved_members_stay_zero)
{
    char error[256];
    eqat_context *ctx;
    eqat_context_options o = defaults();
    o.reserved[6] = 1;
    ck_assert_int_eq(eqat_context_create(&ctx, &o, error, sizeof error), EQAT_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(error, "context: found byte"));
}
END_TEST

START_TEST(sizes_by_name)
{
    ck_assert_uint_eq(eqat_options_size("context"), sizeof(eqat_context_options));
    ck_assert_uint_eq(eqat_options_size("quantizer"), sizeof(eqat_quantizer_options));
    ck_assert_uint_eq(eqat_options_size("e2e_qp"), sizeof(eqat_e2e_qp_options));
    ck_assert_uint_eq(eqat_options_size("batch"), sizeof(eqat_batch));
    ck_assert_uint_eq(eqat_options_size("sample"), sizeof(eqat_sample));
    ck_assert_uint_eq(eqat_options_size("model_info"), sizeof(eqat_model_info));
    ck_assert_uint_eq(eqat_options_size("linear_info"), sizeof(eqat_linear_info));
    ck_assert_uint_eq(eqat_options_size("progress"), sizeof(eqat_progress));
    ck_assert_uint_eq(eqat_options_size("epoch_report"), sizeof(eqat_epoch_report));
    ck_assert_uint_eq(eqat_options_size("stage_report"), sizeof(eqat_stage_report));
    ck_assert_uint_eq(eqat_options_size("perplexity"), sizeof(eqat_perplexity));
    ck_assert_uint_eq(eqat_options_size("no such"), 0);
    ck_assert_uint_eq(eqat_options_size(NULL), 0);
}
END_TEST

/* Every byte of every struct is size, a field, an alignment gap or reserved at the end. */
START_TEST(fields_cover_their_structs)
{
    static const size_t bytes[] = {[EQAT_FIELD_BOOL] = 1,
                                   [EQAT_FIELD_I32] = 4,
                                   [EQAT_FIELD_I64] = 8,
                                   [EQAT_FIELD_U64] = 8,
                                   [EQAT_FIELD_F64] = 8,
                                   [EQAT_FIELD_ENUM] = 4,
                                   [EQAT_FIELD_STRING] = sizeof(char *),
                                   [EQAT_FIELD_POINTER] = sizeof(void *)};
    const char *name;
    int n = 0;
    for (; (name = eqat_options_struct((size_t)n)); n++) {
        size_t end = sizeof(size_t);
        for (size_t i = 0; i < eqat_options_count(name); i++) {
            eqat_field f = {.struct_size = sizeof f};
            OK(eqat_options_field(name, i, &f));
            size_t size = bytes[f.type], start = (end + size - 1) / size * size;
            ck_assert_msg(f.offset == start, "%s.%s: found %zu, expected %zu", name, f.name,
                          f.offset, start);
            ck_assert_ptr_nonnull(f.help);
            end = f.offset + size;
        }
        ck_assert_uint_eq((end + 7) / 8 * 8, eqat_options_size(name));
    }
    ck_assert_int_eq(n, 21);
}
END_TEST

START_TEST(versions_agree)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", EQAT_VERSION_MAJOR, EQAT_VERSION_MINOR,
             EQAT_VERSION_PATCH);
    ck_assert_str_eq(eqat_version(), text);
}
END_TEST

/* ---- what the log says ---- */

typedef struct lines {
    char text[4096];
} lines;

static void keep(void *user, int32_t level, const char *line)
{
    lines *l = user;
    size_t at = strlen(l->text);
    snprintf(l->text + at, sizeof l->text - at, "%d %s\n", level, line);
}

START_TEST(the_log_names_the_device)
{
    lines l = {""};
    eqat_context_options o = defaults();
    o.log = keep;
    o.log_user = &l;
    o.log_level = EQAT_LOG_WARN;
    eqat_context_free(open_context(&o));
    ck_assert_str_eq(l.text, "");
    o.log_level = EQAT_LOG_DEBUG;
    o.device = "cpu:generic";
    eqat_context *ctx = open_context(&o);
    ck_assert_msg(strstr(l.text, "2 device cpu:generic, threads: 2, products: "), "%s", l.text);
    eqat_tensor_free(vector(ctx, 1000, 1));
    eqat_context_trim(ctx);
    ck_assert_msg(strstr(l.text, "3 memory: 4000 bytes"), "%s", l.text);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(amx_can_be_left_alone)
{
    lines l = {""};
    char error[256];
    eqat_context *ctx;
    eqat_context_options o = defaults();
    o.log = keep;
    o.log_user = &l;
    o.amx = false;
    eqat_context_free(open_context(&o));
    ck_assert_msg(!strstr(l.text, "cpu:amx"), "%s", l.text);
    o.device = "cpu:amx";
    ck_assert_int_eq(eqat_context_create(&ctx, &o, error, sizeof error), EQAT_UNSUPPORTED);
    ck_assert_msg(strstr(error, "amx is off"), "%s", error);
}
END_TEST

START_TEST(the_processor_has_no_streams_or_limits)
{
    static const char *const devices[] = {"cpu", "cpu:generic", "ref"};
    char error[256], expected[256];
    eqat_context *ctx;
    for (int i = 0; i < 3; i++) {
        eqat_context_options o = defaults();
        o.device = devices[i];
        o.stream = &o;
        ck_assert_int_eq(eqat_context_create(&ctx, &o, error, sizeof error), EQAT_INVALID_ARGUMENT);
        snprintf(expected, sizeof expected,
                 "stream: found one for device %s, expected NULL: only cuda:N has streams",
                 devices[i]);
        ck_assert_str_eq(error, expected);
        o.stream = NULL;
        o.device_memory = 1000;
        ck_assert_int_eq(eqat_context_create(&ctx, &o, error, sizeof error), EQAT_INVALID_ARGUMENT);
        snprintf(expected, sizeof expected,
                 "device_memory: found 1000 for device %s, expected 0: only cuda:N has memory of "
                 "its own",
                 devices[i]);
        ck_assert_str_eq(error, expected);
        ck_assert_ptr_null(ctx);
    }
}
END_TEST

START_TEST(bytes_of_the_device_are_the_hosts)
{
    eqat_context *ctx = open_context(NULL);
    eqat_tensor *t = vector(ctx, 1 << 20, 1);
    ck_assert_uint_ge(eqat_context_bytes(ctx), 4 << 20);
    ck_assert_uint_eq(eqat_context_device_bytes(ctx), eqat_context_bytes(ctx));
    eqat_tensor_free(t);
    eqat_context_trim(ctx);
    ck_assert_uint_lt(eqat_context_device_bytes(ctx), 4 << 20);
    ck_assert_uint_ge(eqat_context_device_bytes_peak(ctx), 4 << 20);
    ck_assert_uint_eq(eqat_context_device_bytes_peak(ctx), eqat_context_bytes_peak(ctx));
    eqat_context_reset_peak(ctx);
    ck_assert_uint_eq(eqat_context_device_bytes_peak(ctx), eqat_context_bytes(ctx));
    ck_assert_uint_eq(eqat_context_device_bytes(NULL), 0);
    ck_assert_uint_eq(eqat_context_device_bytes_peak(NULL), 0);
    ck_assert_uint_eq(eqat_context_device_bytes_left(ctx), SIZE_MAX);
    ck_assert_uint_eq(eqat_context_device_bytes_left(NULL), SIZE_MAX);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(recipes_are_options)
{
    eqat_context *ctx = open_context(NULL);
    eqat_block_ap_options o, before;
    eqat_data_options d;
    eqat_e2e_qp_options e;
    const char *field, *value;
    ck_assert_str_eq(eqat_recipe_name(0), "paper");
    ck_assert_str_eq(eqat_recipe_name(1), "best");
    ck_assert_ptr_null(eqat_recipe_name(2));
    eqat_block_ap_options_init(&before, sizeof before);
    eqat_block_ap_options_init(&o, sizeof o);
    OK(eqat_recipe_take(ctx, "paper", "block_ap", &o));
    ck_assert_mem_eq(&o, &before, sizeof o);
    OK(eqat_recipe_take(NULL, "best", "block_ap", &o));
    ck_assert_int_eq(o.lr_unit, EQAT_LR_RELATIVE);
    ck_assert_double_eq(o.decay_ratio, 0.5);
    eqat_e2e_qp_options_init(&e, sizeof e);
    OK(eqat_recipe_take(ctx, "best", "e2e_qp", &e));
    ck_assert_double_eq(e.teacher_share, 0.5);
    for (size_t r = 0; eqat_recipe_name(r); r++) {
        eqat_data_options_init(&d, sizeof d);
        OK(eqat_recipe_take(ctx, eqat_recipe_name(r), "e2e_data", &d));
        ck_assert_int_eq(d.seq_len, 4096); /* the paper's, of E2E-QP */
        ck_assert_int_eq(d.val_size, 0);
    }
    OK(eqat_recipe_option("best", "run", 0, &field, &value));
    ck_assert_str_eq(field, "teacher");
    ck_assert_str_eq(value, "source");
    ck_assert_int_eq(eqat_recipe_option("best", "run", 1, &field, &value), EQAT_NOT_FOUND);
    ck_assert_int_eq(eqat_recipe_option("paper", "run", 0, &field, &value), EQAT_NOT_FOUND);
    ck_assert_int_eq(eqat_recipe_option("best", NULL, 0, &field, &value), EQAT_INVALID_ARGUMENT);
    ck_assert_int_eq(eqat_recipe_take(ctx, "best", "run", &d), EQAT_NOT_FOUND);
    ck_assert_int_eq(eqat_recipe_take(ctx, "worst", "data", &d), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "recipe: found \"worst\", expected paper or best");
    eqat_context_free(ctx);
}
END_TEST

TCase *options_case(void)
{
    TCase *c = tcase_create("options");
    tcase_add_test(c, what_is_not_known_is_refused);
    tcase_add_test(c, what_is_not_known_of_a_sample_is_refused);
    tcase_add_test(c, reserved_members_stay_zero);
    tcase_add_test(c, sizes_by_name);
    tcase_add_test(c, fields_cover_their_structs);
    tcase_add_test(c, recipes_are_options);
    tcase_add_test(c, versions_agree);
    tcase_add_test(c, the_log_names_the_device);
    tcase_add_test(c, amx_can_be_left_alone);
    tcase_add_test(c, the_processor_has_no_streams_or_limits);
    tcase_add_test(c, bytes_of_the_device_are_the_hosts);
    return c;
}
