/* Logits, loss and the gradient of every parameter against transformers, family by family. */
#include <sys/stat.h>

#include "engine.h"
#include "model/model.h"

static const char *const families[] = {"llama",   "llama3",      "llama-linear", "llama-dynamic",
                                       "mistral", "qwen2",       "qwen3",        "smollm2",
                                       "gemma3",  "gemma3-full", "qwen3_moe",    "qwen3_moe-mixed"};
static const char *const devices[] = {"ref", "cpu"};

static eqi_source *expected;
static eqi_ctx *ctx;

static eqi_tensor *reference(const char *name)
{
    const eqi_source_entry *e = eqi_source_find(expected, name);
    ck_assert_msg(e != NULL, "%s", name);
    eqi_tensor *t;
    OK(ctx,
       eqi_tensor_create(ctx, &t, e->stored == EQI_STORED_I32 ? EQI_I32 : EQI_F32, e->ndim,
                         e->shape));
    OK(ctx, eqi_source_read_raw(expected, e, 0, (size_t)e->bytes, t->v.data));
    return t;
}

/* Largest difference over the largest value; 0 where both are 0 throughout, as are the gradients of
 * an expert without tokens. */
static double difference(const eqi_tensor *found, const eqi_tensor *wanted)
{
    double worst = 0, largest = 0;
    ck_assert(eqi_view_same_shape(&found->v, &wanted->v));
    for (int64_t i = 0; i < count(wanted); i++) {
        double d = fabs(get(found, i) - get(wanted, i));
        if (!(d <= worst)) worst = d;
        largest = fmax(largest, fabs(get(wanted, i)));
    }
    return worst == 0 ? 0 : worst / largest;
}

static void compare(const char *family, const char *what, const eqi_tensor *found, const char *name,
                    double bound)
{
    eqi_tensor *wanted = reference(name);
    double d = difference(found, wanted);
    ck_assert_msg(d <= bound, "%s on %s: %s: relative difference %g, expected at most %g", family,
                  ctx->device, what, d, bound);
    eqi_tensor_unref(wanted);
}

/* No token reached it: a missing gradient is one of zeros. */
static void expect_zeros(const char *family, const char *name)
{
    eqi_tensor *wanted = reference(name);
    for (int64_t i = 0; i < eqi_view_count(&wanted->v); i++)
        ck_assert_msg(get(wanted, i) == 0, "%s: found no %s", family, name);
    eqi_tensor_unref(wanted);
}

START_TEST(logits_and_gradients)
{
    const char *family = families[_i / 2], *root = getenv("EQAT_GOLDEN");
    char dir[1024], file[1100], name[160];
    ctx = open_ctx(devices[_i % 2]);
    snprintf(dir, sizeof dir, "%s/%s", root ? root : ".", family);
    snprintf(file, sizeof file, "%s/expected.safetensors", dir);
    OK(ctx, eqi_source_open_safetensors_file(ctx, &expected, file));
    eqat_model_options options;
    eqat_model_options_init(&options, sizeof options);
    options.compute_dtype = EQAT_F32;
    eqat_model *m;
    OK(ctx, eqat_model_open(ctx, &m, dir, &options));

    eqi_tensor *ids = reference("ids"), *logits, *loss, *n;
    eqat_batch batch;
    eqat_batch_init(&batch, sizeof batch);
    batch.batch = ids->v.shape[0];
    batch.time = ids->v.shape[1];
    batch.ids = ids->v.data;
    OK(ctx, eqat_model_forward(m, NULL, &batch, &logits));
    compare(family, "logits", logits, "logits", 1e-5);

    size_t parameters = 0;
    eqat_tensor *p;
    while (eqat_model_parameter_name(m, parameters)) {
        OK(ctx, eqat_model_parameter(m, eqat_model_parameter_name(m, parameters++), &p));
        OK(ctx, eqat_tensor_set_requires_grad(p, true));
    }
    ck_assert_uint_ge(parameters, 20);
    eqat_tape *tape;
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_model_loss(m, tape, &batch, &loss, &n));
    compare(family, "loss", loss, "loss", 1e-5);
    ck_assert(get(n, 0) == (double)(batch.batch * (batch.time - 1)));
    OK(ctx, eqat_tape_backward(tape, loss, 1));
    for (size_t i = 0; i < parameters; i++) {
        const char *parameter = eqat_model_parameter_name(m, i);
        OK(ctx, eqat_model_parameter(m, parameter, &p));
        snprintf(name, sizeof name, "grad.%s", parameter);
        if (p->grad)
            compare(family, name, p->grad, name, 1e-4);
        else
            expect_zeros(family, name);
    }
    /* Nothing that the reference has was left out. */
    size_t gradients = 0;
    for (size_t i = 0; i < eqi_source_count(expected); i++)
        gradients += !strncmp(eqi_source_at(expected, i)->name, "grad.", 5);
    ck_assert_uint_eq(gradients, parameters);

    eqi_tensor_unref(ids);
    eqi_tensor_unref(logits);
    eqi_tensor_unref(loss);
    eqi_tensor_unref(n);
    eqat_tape_free(tape);
    eqat_model_free(m);
    eqi_source_close(expected);
    eqi_ctx_unref(ctx);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("families");
    tcase_add_loop_test(tc, logits_and_gradients, 0,
                        (int)(EQI_COUNT(families) * EQI_COUNT(devices)));
    return run_case("golden model", tc, CK_NOFORK);
}
