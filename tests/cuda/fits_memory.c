/* Whether a phase of training, on a random model, fits in so many bytes of the device: prints
 * "fits", or the line that it fails with. For memory.py, which counts the bytes.
 *
 *     fits_memory BYTES block_ap|e2e_qp 0|1 HIDDEN MLP BLOCKS HEADS KV_HEADS VOCAB TIME BATCH
 *
 * 1: with host_state of E2E-QP. */
#include <stdlib.h>
#include <string.h>

#include "public.h"

enum { BATCHES = 2 };

static uint64_t limit;
static const char *phase;
static bool host_state;
static llama_shape shape;
static int64_t of_sample, of_batch;

static eqat_context *limited_context(void)
{
    eqat_context_options o;
    eqat_context *ctx;
    eqat_context_options_init(&o, sizeof o);
    o.device = getenv("EQAT_TEST_DEVICE");
    o.threads = 2;
    o.device_memory = limit;
    ck_assert_int_eq(eqat_context_create(&ctx, &o, NULL, 0), EQAT_OK);
    return ctx;
}

static eqat_data *data_of(eqat_context *ctx)
{
    const eqat_data_options o = consecutive(BATCHES * of_batch, 0, of_sample);
    eqat_data *data;
    size_t n = (size_t)(BATCHES * of_batch * of_sample);
    int32_t *ids = malloc(n * sizeof *ids);
    ck_assert_ptr_nonnull(ids);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(i * 7 % (size_t)shape.vocab);
    OK(ctx, eqat_data_from_tokens(ctx, &data, ids, n, shape.vocab, &o));
    free(ids);
    return data;
}

static eqat_status block_ap(eqat_model *model, eqat_quantizer *quantizer, eqat_data *data)
{
    eqat_block_ap_options o = fast_options();
    o.epochs = 1;
    o.batch_size = of_batch;
    return eqat_block_ap_quantize(model, quantizer, data, &o);
}

static eqat_status e2e_qp(eqat_model *model, eqat_quantizer *quantizer, eqat_data *data)
{
    eqat_e2e_qp_options o = fast_e2e_options();
    o.host_state = host_state;
    o.micro_batch_size = of_batch;
    o.batch_size = BATCHES * of_batch;
    o.epochs = 2; /* the second step has all that the first one leaves */
    eqat_status st = eqat_model_quantize_rtn(model, quantizer, NULL);
    return st == EQAT_OK ? eqat_e2e_qp_train(model, data, &o) : st;
}

START_TEST(a_phase)
{
    write_llama("model", &shape, NULL);
    eqat_context *ctx = limited_context();
    eqat_model *model = open_model(ctx, "model", EQAT_BF16);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 64);
    eqat_data *data = data_of(ctx);
    eqat_status st = !strcmp(phase, "block_ap") ? block_ap(model, quantizer, data)
                                                : e2e_qp(model, quantizer, data);
    printf("%s\n", st == EQAT_OK ? "fits" : eqat_context_error(ctx));
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

static int64_t number(const char *text) { return strtoll(text, NULL, 10); }

int main(int argc, char **argv)
{
    if (argc != 12) return 2;
    limit = (uint64_t)number(argv[1]);
    phase = argv[2];
    host_state = number(argv[3]);
    shape = (llama_shape){.hidden = number(argv[4]),
                          .intermediate = number(argv[5]),
                          .blocks = number(argv[6]),
                          .heads = number(argv[7]),
                          .kv_heads = number(argv[8]),
                          .vocab = number(argv[9]),
                          .bf16 = true};
    of_sample = number(argv[10]);
    of_batch = number(argv[11]);
    TCase *c = tcase_create("memory");
    tcase_add_unchecked_fixture(c, NULL, scratch_clean);
    tcase_add_test(c, a_phase);
    return run_case("memory", c, CK_NOFORK);
}
