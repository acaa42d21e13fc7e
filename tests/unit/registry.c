#include "engine/engine.h"
#include "unit.h"

static eqat_status open_device(const char *device, char *error, size_t size)
{
    eqi_ctx_config config = {.device = device, .threads = 1};
    eqi_ctx *ctx;
    eqat_status st = eqi_ctx_create(&ctx, &config, error, size);
    if (st == EQAT_OK) eqi_ctx_unref(ctx);
    return st;
}

START_TEST(devices)
{
    char error[200] = "";
    ck_assert_int_eq(open_device("ref", error, sizeof error), EQAT_OK);
    ck_assert_int_eq(open_device("cpu", error, sizeof error), EQAT_OK);
    ck_assert_int_eq(open_device(NULL, error, sizeof error), EQAT_OK);
    ck_assert_int_eq(open_device("tpu", error, sizeof error), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(error, "device: found \"tpu\", expected cpu, ref or cuda:N");
    eqat_status cuda = open_device("cuda:0", error, sizeof error);
    ck_assert(cuda == EQAT_OK ||
              (cuda == EQAT_UNSUPPORTED && !strncmp(error, "device cuda:0: ", 15)));
    ck_assert_int_eq(open_device("cudart", error, sizeof error), EQAT_INVALID_ARGUMENT);
    ck_assert_int_eq(open_device("", error, sizeof error), EQAT_INVALID_ARGUMENT);
}
END_TEST

/* Every entry of the table in turn is taken out. */
START_TEST(incomplete_tables)
{
    eqi_ctx *ctx = open_ctx("ref");
    OK(ctx, eqi_backend_check(ctx, &eqi_backend_ref));
    OK(ctx, eqi_backend_check(ctx, eqi_backend_cpu()));
    size_t first = offsetof(eqi_backend, open), size = sizeof(void (*)(void));
    size_t n = (sizeof(eqi_backend) - first) / size;
    ck_assert_uint_ge(n, 40);
    static char seen[sizeof(eqi_backend) / sizeof(void (*)(void))][EQI_ERROR_MAX];
    for (size_t i = 0; i < n; i++) {
        eqi_backend b = eqi_backend_ref;
        memset((char *)&b + first + i * size, 0, size);
        ck_assert_int_eq(eqi_backend_check(ctx, &b), EQAT_BACKEND);
        snprintf(seen[i], sizeof seen[i], "%s", ctx->error);
        for (size_t j = 0; j < i; j++) ck_assert_str_ne(seen[i], seen[j]);
    }
    eqi_backend b = eqi_backend_ref;
    b.rope = NULL;
    FAILS(ctx, EQAT_BACKEND, "backend ref: found no rope, expected every entry",
          eqi_backend_check(ctx, &b));
    b = eqi_backend_ref;
    b.version++;
    char other[128];
    snprintf(other, sizeof other,
             "device ref: found version %u of the backend's table, expected %u",
             EQI_BACKEND_VERSION + 1, EQI_BACKEND_VERSION);
    FAILS(ctx, EQAT_BACKEND, other, eqi_backend_check(ctx, &b));
    eqi_ctx_unref(ctx);
}
END_TEST

TCase *case_registry(void)
{
    TCase *t = tcase_create("registry");
    tcase_add_test(t, devices);
    tcase_add_test(t, incomplete_tables);
    return t;
}
