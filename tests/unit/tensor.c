#include "tensor/tensor.h"
#include "each_test.h"
#include "unit.h"

START_TEST(layout)
{
    eqi_tensor *t = make(ctx, EQI_BF16, DIMS(2, 3, 4));
    ck_assert_int_eq(t->v.stride[0], 12);
    ck_assert_int_eq(t->v.stride[1], 4);
    ck_assert_int_eq(t->v.stride[2], 1);
    ck_assert_int_eq(eqi_view_count(&t->v), 24);
    ck_assert_int_eq(eqi_view_rows(&t->v), 6);
    ck_assert_uint_eq(t->storage->size, 48);
    ck_assert(eqi_view_is_contiguous(&t->v));
    char text[EQI_SHAPE_TEXT];
    ck_assert_str_eq(eqi_view_shape_text(&t->v, text, sizeof text), "[2, 3, 4]");
    char tiny[5];
    eqi_view_shape_text(&t->v, tiny, sizeof tiny);
    ck_assert_uint_lt(strlen(tiny), sizeof tiny);
    eqi_tensor_unref(t);
    t = make(ctx, EQI_F32, DIMS(3, 0));
    ck_assert_int_eq(eqi_view_count(&t->v), 0);
    OK(ctx, eqi_tensor_fill(t, 1));
    OK(ctx, eqi_tensor_upload(t, NULL, 0));
    eqi_tensor_unref(t);
    eqi_tensor_unref(NULL);
}
END_TEST

START_TEST(shapes_that_are_none)
{
    eqi_tensor *t = (eqi_tensor *)ctx;
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found 0 dimensions, expected 1 to 4",
          eqi_tensor_create(ctx, &t, EQI_F32, 0, DIMS(1).at));
    ck_assert_ptr_null(t);
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found 5 dimensions, expected 1 to 4",
          eqi_tensor_create(ctx, &t, EQI_F32, 5, DIMS(1).at));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found size -3 in dimension 1, expected at least 0",
          eqi_tensor_create(ctx, &t, EQI_F32, 2, DIMS(2, -3).at));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: the sizes multiply to more than memory can hold",
          eqi_tensor_create(ctx, &t, EQI_F32, 2, DIMS(INT64_C(1) << 40, INT64_C(1) << 40).at));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: the sizes multiply to more than memory can hold",
          eqi_tensor_create(ctx, &t, EQI_F32, 3, DIMS(INT64_C(1) << 40, 0, INT64_C(1) << 40).at));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found dtype 99, which is unknown",
          eqi_tensor_create(ctx, &t, (eqi_dtype)99, 1, DIMS(1).at));
    memory.fail_at = memory.requests + 1;
    ck_assert_int_eq(eqi_tensor_create(ctx, &t, EQI_F32, 1, DIMS(8).at), EQAT_OUT_OF_MEMORY);
    memory.fail_at = 0;
    ck_assert_ptr_null(t);
}
END_TEST

START_TEST(dtypes)
{
    const struct {
        const char *name;
        size_t size;
        bool is_float;
    } expected[EQI_DTYPE_COUNT] = {{"f32", 4, true}, {"bf16", 2, true}, {"f16", 2, true},
                                   {"f64", 8, true}, {"i32", 4, false}, {"u8", 1, false},
                                   {"u32", 4, false}};
    for (int i = 0; i < EQI_DTYPE_COUNT; i++) {
        ck_assert_str_eq(eqi_dtype_name((eqi_dtype)i), expected[i].name);
        ck_assert_uint_eq(eqi_dtype_size((eqi_dtype)i), expected[i].size);
        ck_assert_int_eq(eqi_dtype_is_float((eqi_dtype)i), expected[i].is_float);
    }
    ck_assert_uint_eq(eqi_dtype_size(EQI_DTYPE_COUNT), 0);
    ck_assert_str_eq(eqi_dtype_name((eqi_dtype)-1), "unknown");
}
END_TEST

START_TEST(slices_and_reshapes)
{
    double values[24];
    for (int i = 0; i < 24; i++) values[i] = i;
    eqi_tensor *t = make_from(ctx, EQI_F32, DIMS(2, 3, 4), values), *s, *r;
    OK(ctx, eqi_tensor_slice(t, &s, 1, 1, 2));
    ck_assert(!eqi_view_is_contiguous(&s->v));
    ck_assert_double_eq(get(s, 0), 4);
    ck_assert_double_eq(get(s, 8), 16);
    ck_assert_int_eq(eqi_tensor_reshape(s, &r, 1, DIMS(16).at), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(ctx->error, "reshape: [2, 2, 4] is not contiguous");
    ck_assert_int_eq(eqi_tensor_slice(s, &r, 1, 1, 2), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(
        ctx->error,
        "slice: found 2 elements from 1 on, expected a part of dimension 1 of [2, 2, 4]");
    ck_assert_int_eq(eqi_tensor_slice(s, &r, 3, 0, 1), EQAT_INVALID_ARGUMENT);
    ck_assert_int_eq(eqi_tensor_slice(s, &r, 0, INT64_MAX, 1), EQAT_INVALID_ARGUMENT);
    ck_assert_int_eq(eqi_tensor_slice(s, &r, 0, 1, INT64_MAX), EQAT_INVALID_ARGUMENT);
    eqi_tensor_unref(s);
    FAILS(ctx, EQAT_INVALID_ARGUMENT,
          "reshape: [2, 3, 4] and [5, 5] differ in their number of elements",
          eqi_tensor_reshape(t, &r, 2, DIMS(5, 5).at));
    OK(ctx, eqi_tensor_reshape(t, &r, 2, DIMS(6, 4).at));
    /* A view outlives what it was taken from. */
    eqi_tensor_unref(t);
    ck_assert_double_eq(get(r, 23), 23);
    OK(ctx, eqi_tensor_slice(r, &s, 0, 6, 0));
    ck_assert_int_eq(count(s), 0);
    eqi_tensor_unref(s);
    /* One row of one column: strides of single entries do not matter. */
    OK(ctx, eqi_tensor_slice(r, &s, 0, 2, 1));
    ck_assert(eqi_view_is_contiguous(&s->v));
    eqi_tensor_unref(s);
    eqi_tensor_unref(r);
}
END_TEST

static int freed;
static void count_delete(void *user, void *data) { freed += user == &freed && data != NULL; }

START_TEST(foreign_memory)
{
    float data[12];
    for (int i = 0; i < 12; i++) data[i] = (float)i;
    eqi_tensor *t, *s;
    freed = 0;
    OK(ctx,
       eqi_tensor_wrap(ctx, &t, EQI_F32, 2, DIMS(4, 3).at, DIMS(1, 4).at, data, sizeof data,
                       count_delete, &freed));
    ck_assert_double_eq(get(t, 1), 4); /* row 0, column 1 of a transposed matrix */
    ck_assert(!eqi_view_is_contiguous(&t->v));
    OK(ctx, eqi_tensor_slice(t, &s, 0, 1, 2));
    eqi_tensor_unref(t);
    ck_assert_int_eq(freed, 0);
    ck_assert_double_eq(get(s, 2), 9);
    eqi_tensor_unref(s);
    ck_assert_int_eq(freed, 1);
    ck_assert_ptr_null(ctx->recycled);
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found 47 bytes of memory, expected at least 48",
          eqi_tensor_wrap(ctx, &t, EQI_F32, 2, DIMS(4, 3).at, DIMS(1, 4).at, data, 47, count_delete,
                          &freed));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found stride -1 in dimension 0, expected at least 0",
          eqi_tensor_wrap(ctx, &t, EQI_F32, 1, DIMS(4).at, DIMS(-1).at, data, 48, count_delete,
                          &freed));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: the strides reach further than memory can",
          eqi_tensor_wrap(ctx, &t, EQI_F32, 2, DIMS(4, 4).at, DIMS(INT64_MAX / 2, 1).at, data, 48,
                          count_delete, &freed));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found memory that is not aligned to 4 bytes",
          eqi_tensor_wrap(ctx, &t, EQI_F32, 1, DIMS(4).at, NULL, (char *)data + 1, 47, count_delete,
                          &freed));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "tensor: found no memory, expected 16 bytes",
          eqi_tensor_wrap(ctx, &t, EQI_F32, 1, DIMS(4).at, NULL, NULL, 16, count_delete, &freed));
    /* When wrapping fails the memory stays the caller's. */
    ck_assert_int_eq(freed, 1);
    OK(ctx, eqi_tensor_wrap(ctx, &t, EQI_F32, 1, DIMS(12).at, NULL, data, sizeof data, NULL, NULL));
    eqi_tensor_unref(t);
}
END_TEST

START_TEST(tensors_outlive_the_context_handle)
{
    eqi_tensor *t = make_from(ctx, EQI_F32, DIMS(2), (double[]){3, 4});
    eqi_ctx_unref(ctx);
    ck_assert_double_eq(get(t, 1), 4);
    eqi_tensor_unref(t);
    ck_assert_uint_eq(memory.live, 0);
    ctx = open_counted("ref", &memory);
}
END_TEST

START_TEST(transfers)
{
    float in[6] = {1, 2, 3, 4, 5, 6}, out[6] = {0};
    eqi_tensor *t = make(ctx, EQI_F32, DIMS(2, 3)), *s;
    OK(ctx, eqi_tensor_upload(t, in, sizeof in));
    OK(ctx, eqi_tensor_download(t, out, sizeof out));
    ck_assert_mem_eq(in, out, sizeof in);
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "upload: found 20 bytes, expected 24 for f32 [2, 3]",
          eqi_tensor_upload(t, in, 20));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "download: found 28 bytes, expected 24 for f32 [2, 3]",
          eqi_tensor_download(t, out, 28));
    OK(ctx, eqi_tensor_upload_part(t, 16, in, 8));
    OK(ctx, eqi_tensor_download_part(t, 12, out, 12));
    ck_assert_mem_eq(out, ((float[]){4, 1, 2}), 12);
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "upload: found 8 bytes from 20 on, expected a part of 24",
          eqi_tensor_upload_part(t, 20, in, 8));
    OK(ctx, eqi_tensor_slice(t, &s, 1, 0, 2));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "upload: [2, 2] is not contiguous",
          eqi_tensor_upload(s, in, 16));
    eqi_tensor_unref(s);
    eqi_tensor_unref(t);
}
END_TEST

START_TEST(conversions)
{
    /* 1 + 2^-8 lies between two bf16 values and goes to the even one; so does 1 + 3 * 2^-8. */
    double values[4] = {1.00390625, 1.01171875, -2.5, 300};
    eqi_tensor *t = make_from(ctx, EQI_F32, DIMS(4), values), *b, *w;
    OK(ctx, eqi_tensor_cast(t, EQI_BF16, &b));
    ck_assert_double_eq(get(b, 0), 1);
    ck_assert_double_eq(get(b, 1), 1.015625);
    eqi_tensor_unref(b);
    OK(ctx, eqi_tensor_cast(t, EQI_U8, &b));
    ck_assert_double_eq(get(b, 2), 0);
    ck_assert_double_eq(get(b, 3), 255);
    OK(ctx, eqi_tensor_cast(b, EQI_F32, &w));
    ck_assert_double_eq(get(w, 3), 255);
    eqi_tensor_unref(w);
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "copy: u8 does not convert to i32",
          eqi_tensor_cast(b, EQI_I32, &w));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "copy: u8 does not convert to bf16",
          eqi_tensor_cast(b, EQI_BF16, &w));
    ck_assert_ptr_null(w);
    eqi_tensor_unref(b);
    eqi_tensor *s = scattered(t);
    OK(ctx, eqi_tensor_cast(s, EQI_F32, &w));
    ck_assert(eqi_view_is_contiguous(&w->v) && same_bits(t, w));
    eqi_tensor_unref(w);
    w = make(ctx, EQI_F32, DIMS(2, 2));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "copy: found [4], expected [2, 2]", eqi_tensor_copy(w, t));
    eqi_ctx *other = open_ctx("ref");
    eqi_tensor *far = make(other, EQI_F32, DIMS(4));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "copy: the tensors belong to two contexts",
          eqi_tensor_copy(t, far));
    eqi_tensor_unref(far);
    eqi_ctx_unref(other);
    eqi_tensor_unref(w);
    eqi_tensor_unref(s);
    eqi_tensor_unref(t);
    OK(ctx, eqi_tensor_zeros(ctx, &t, EQI_U32, 2, DIMS(3, 3).at));
    for (int i = 0; i < 9; i++) ck_assert_double_eq(get(t, i), 0);
    eqi_tensor_unref(t);
}
END_TEST

TCase *case_tensor(void)
{
    TCase *t = tcase_create("tensor");
    tcase_add_checked_fixture(t, setup_ref, teardown);
    tcase_add_test(t, layout);
    tcase_add_test(t, shapes_that_are_none);
    tcase_add_test(t, dtypes);
    tcase_add_test(t, slices_and_reshapes);
    tcase_add_test(t, foreign_memory);
    tcase_add_test(t, tensors_outlive_the_context_handle);
    tcase_add_test(t, transfers);
    tcase_add_test(t, conversions);
    return t;
}
