#include "tensor/tensor.h"

#include "unit.h"

static const size_t MB = 1 << 20;

static eqi_tensor *bytes(eqi_ctx *ctx, size_t n) { return make(ctx, EQI_U8, DIMS((int64_t)n)); }

START_TEST(same_size_comes_back)
{
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tensor *t = bytes(ctx, 1000);
    void *data = t->v.data;
    eqi_tensor_unref(t);
    ck_assert_uint_eq(ctx->recycled_bytes, 1000);
    t = bytes(ctx, 1001);
    ck_assert_ptr_ne(t->v.data, data);
    eqi_tensor *u = bytes(ctx, 1000);
    ck_assert_ptr_eq(u->v.data, data);
    ck_assert_uint_eq(ctx->recycled_bytes, 0);
    eqi_tensor_unref(t);
    eqi_tensor_unref(u);
    ck_assert_uint_eq(ctx->recycled_bytes, 2001);
    eqi_storage_trim(ctx);
    ck_assert_uint_eq(ctx->recycled_bytes, 0);
    ck_assert_uint_eq(ctx->live_bytes, 0);
    ck_assert_ptr_null(ctx->recycled);
    eqi_ctx_unref(ctx);
}
END_TEST

/* Sizes that never repeat must not pile up above what was live at once. */
START_TEST(footprint_is_bounded)
{
    eqi_ctx *ctx = open_ctx("ref");
    size_t floor = ctx->bytes_now;
    for (size_t i = 0; i < 60; i++) eqi_tensor_unref(bytes(ctx, 8 * MB + i));
    ck_assert_uint_le(ctx->bytes_peak, floor + 26 * MB);
    eqi_tensor_unref(bytes(ctx, 100 * MB));
    ck_assert_uint_le(ctx->bytes_peak, floor + 118 * MB);
    for (size_t i = 0; i < 60; i++) eqi_tensor_unref(bytes(ctx, 9 * MB + i));
    ck_assert_uint_le(ctx->bytes_peak, floor + 118 * MB);
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(shortage_empties_the_store)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted("ref", &c);
    eqi_tensor_unref(bytes(ctx, 1000));
    eqi_tensor_unref(bytes(ctx, 2000));
    c.fail_at = c.requests + 2; /* the tensor's memory, after its header */
    c.once = true;
    eqi_tensor *t;
    OK(ctx, eqi_tensor_create(ctx, &t, EQI_U8, 1, DIMS(3000).at));
    ck_assert_ptr_null(ctx->recycled);
    eqi_tensor_unref(t);
    eqi_tensor_unref(bytes(ctx, 1000));
    c.fail_at = c.requests + 1;
    c.once = false;
    ck_assert_int_eq(eqi_tensor_create(ctx, &t, EQI_U8, 1, DIMS(4000).at), EQAT_OUT_OF_MEMORY);
    c.fail_at = 0;
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);
}
END_TEST

TCase *case_recycle(void)
{
    TCase *t = tcase_create("recycle");
    tcase_add_test(t, same_size_comes_back);
    tcase_add_test(t, footprint_is_bounded);
    tcase_add_test(t, shortage_empties_the_store);
    return t;
}
