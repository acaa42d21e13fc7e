/* Models saved as GGUF files and opened again. */
#include "base/file.h"
#include "cases.h"
#include "each_test.h"
#include "model/formats.h"

static eqat_save_options as_gguf(const char *type, bool lossy)
{
    eqat_save_options o;
    eqat_save_options_init(&o, sizeof o);
    o.format = "gguf";
    o.gguf_type = type;
    o.allow_lossy = lossy;
    return o;
}

static eqat_model *tiny_model(const char *name, const char *from, const char *to, eqi_stored stored,
                              eqat_dtype compute)
{
    char config[2048];
    const char *text = tiny_find(name)->config, *at = from ? strstr(text, from) : NULL;
    ck_assert(!from || at);
    if (at)
        snprintf(config, sizeof config, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    else
        snprintf(config, sizeof config, "%s", text);
    const char *folder = fresh_dir();
    write_model(ctx, folder, config, stored, NULL);
    return open_model(ctx, folder, compute);
}

static void quantize(eqat_model *m, int bits, int group, const char *except)
{
    eqat_quantizer *q = make_quantizer(ctx, bits, group);
    if (except) OK(ctx, eqat_quantizer_add_rule(q, except, NULL));
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    eqat_quantizer_free(q);
}

static eqat_model *through_file(eqat_model *m, const char *name, const char *type, bool lossy,
                                eqat_dtype compute)
{
    const eqat_save_options o = as_gguf(type, lossy);
    OK(ctx, eqat_model_check_save(m, NULL, &o));
    OK(ctx, eqat_model_save(m, scratch(name), &o));
    return open_model(ctx, scratch(name), compute);
}

/* What becomes of a model that GGUF can say: {family, changed from, to}. */
static const char *const said[][3] = {
    {"llama", NULL, NULL},
    {"mistral", NULL, NULL},
    {"qwen2", "\"use_sliding_window\": true", "\"use_sliding_window\": false"},
    {"qwen3", NULL, NULL},
    {"gemma3", NULL, NULL},
    {"qwen3_moe", NULL, NULL},
};

/* Not quantized, and of two bits, whose linears are read as codes again. */
START_TEST(the_same_logits)
{
    const char *const *which = said[_i / 4];
    const eqat_dtype compute = _i % 2 ? EQAT_F32 : EQAT_BF16;
    eqat_model *m = tiny_model(which[0], which[1], which[2],
                               _i % 2 ? EQI_STORED_F32 : EQI_STORED_BF16, compute);
    if (_i / 2 % 2) quantize(m, 2, 64, "*.down_proj");
    eqat_model *again = through_file(m, "a.gguf", NULL, false, compute);
    same_logits(m, again, 11);
    eqat_model_info a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
    OK(ctx, eqat_model_inspect(m, &a));
    OK(ctx, eqat_model_inspect(again, &b));
    ck_assert_str_eq(a.family, b.family);
    ck_assert(a.parameters == b.parameters && a.quantized == b.quantized && a.window == b.window &&
              a.max_positions == b.max_positions);
    /* And out of the file into a folder, and into another file of the same bytes. */
    eqat_model *folder = open_model(ctx, save_as(ctx, again, "folder"), compute);
    same_logits(m, folder, 11);
    eqat_model *third = through_file(again, "b.gguf", NULL, false, compute);
    same_logits(m, third, 11);
    eqat_model_free(m);
    eqat_model_free(again);
    eqat_model_free(folder);
    eqat_model_free(third);
}
END_TEST

static float code_of(const eqi_packed *p, const eqi_layout_linear *l, int64_t row, int64_t i)
{
    const int64_t bits = l->q.bits, first = i % 32 * bits;
    const uint32_t *words = p->codes + (row * (l->in / 32) + i / 32) * bits;
    uint32_t code = 0;
    for (int64_t b = 0; b < bits; b++)
        code |= (words[(first + b) / 32] >> (first + b) % 32 & 1) << b;
    const int64_t g = row * (l->in / l->q.group) + i / l->q.group;
    return (float)((int)code - p->z[g]) * p->s[g];
}

/* Every weight of the packed linears, in Hugging Face's order, from the file. */
static void same_weights(eqat_model *m, eqat_model *again)
{
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int k = 0; k < m->blocks[b].n_linears; k++) {
            const eqi_linear *l = &m->blocks[b].linears[k];
            const eqi_layout_linear d = eqi_linear_described(l, eqi_linear_quantization(l));
            if (!d.q.bits) continue;
            char name[128];
            eqi_packed p;
            snprintf(name, sizeof name, "%s.weight", l->name);
            const eqi_source_entry *e = eqi_source_find(again->source, name);
            ck_assert(e && e->elements == l->out * l->in);
            float *w = malloc((size_t)e->elements * sizeof *w);
            OK(ctx, eqi_source_read_f32(again->source, e, 0, e->elements, w));
            OK(ctx, eqi_model_packed(m, l, &d, &p));
            for (int64_t i = 0; i < e->elements; i++)
                ck_assert_msg(w[i] == code_of(&p, &d, i / l->in, i % l->in), "%s %lld", name,
                              (long long)i);
            eqi_packed_free(ctx, &p);
            free(w);
        }
}

START_TEST(the_same_weights)
{
    const char *const *which = said[_i / 4];
    const int bits = (const int[]){2, 3, 4, 7}[_i % 4];
    eqat_model *m = tiny_model(which[0], which[1], which[2], EQI_STORED_BF16, EQAT_BF16);
    quantize(m, bits, 32, "*.layers.1.*.up_proj");
    eqat_model *again = through_file(m, "a.gguf", NULL, false, EQAT_BF16);
    same_weights(m, again);
    eqat_model_free(m);
    eqat_model_free(again);
}
END_TEST

static void refuses(eqat_model *m, const eqat_save_options *o, const char *message)
{
    says(ctx, eqat_model_check_save(m, NULL, o), EQAT_UNSUPPORTED, message);
    says(ctx, eqat_model_save(m, scratch("no.gguf"), o), EQAT_UNSUPPORTED, message);
    ck_assert(!eqi_path_exists(scratch("no.gguf")));
}

START_TEST(what_gguf_cannot_say)
{
    static const char *const cases[][4] = {
        {"llama-dynamic", NULL, NULL, "rope_scaling: found dynamic"},
        {"qwen2", NULL, NULL, "sliding_window: found it in some blocks"},
        {"qwen3_moe-mixed", NULL, NULL, "mlp_only_layers"},
        {"qwen3_moe", "\"norm_topk_prob\": true", "\"norm_topk_prob\": false", "norm_topk_prob"},
        {"gemma3", "\"query_pre_attn_scalar\": 32", "\"query_pre_attn_scalar\": 31",
         "query_pre_attn_scalar"},
        {"gemma3", "\"sliding_window_pattern\": 2",
         "\"layer_types\": [\"full_attention\", \"sliding_attention\"]", "layer_types"},
    };
    const char *const *c = cases[_i];
    const eqat_save_options o = as_gguf(NULL, false);
    eqat_model *m = tiny_model(c[0], c[1], c[2], EQI_STORED_F32, EQAT_F32);
    refuses(m, &o, c[3]);
    eqat_model_free(m);
}
END_TEST

START_TEST(what_no_type_holds)
{
    eqat_save_options o = as_gguf(NULL, false);
    eqat_model *m = tiny_model("llama", NULL, NULL, EQI_STORED_F32, EQAT_F32);
    /* Before the work, by what a quantizer is about to do. */
    static const struct {
        int bits, group;
        eqat_zero_point zero;
        const char *type, *message;
    } futures[] = {{2, 16, EQAT_ZERO_POINT_FIXED, NULL, "found 2 bits in groups of 16, which no"},
                   {8, 32, EQAT_ZERO_POINT_TRAINED, NULL,
                    "found 8 bits in groups of 32 with zero points that train, which no GGUF type"},
                   {8, 32, EQAT_ZERO_POINT_FIXED, NULL, NULL},
                   {2, 32, EQAT_ZERO_POINT_TRAINED, NULL, NULL},
                   {2, 32, EQAT_ZERO_POINT_FIXED, "q2_0", "which q2_0 does not hold exactly"},
                   {4, 32, EQAT_ZERO_POINT_TRAINED, "q4_0", "which q4_0 does not hold exactly"},
                   {4, 32, EQAT_ZERO_POINT_FIXED, "q4_0", NULL}};
    for (size_t i = 0; i < EQI_COUNT(futures); i++) {
        eqat_quantizer_options q;
        eqat_quantizer *quantizer;
        eqat_quantizer_options_init(&q, sizeof q);
        q.bits = futures[i].bits;
        q.group_size = futures[i].group;
        q.zero_point = futures[i].zero;
        OK(ctx, eqat_quantizer_create(ctx, &quantizer, &q));
        o.gguf_type = futures[i].type;
        if (futures[i].message)
            says(ctx, eqat_model_check_save(m, quantizer, &o), EQAT_UNSUPPORTED,
                 futures[i].message);
        else
            OK(ctx, eqat_model_check_save(m, quantizer, &o));
        o.allow_lossy = true;
        OK(ctx, eqat_model_check_save(m, quantizer, &o));
        o.allow_lossy = false;
        eqat_quantizer_free(quantizer);
    }
    /* By the values that are there. */
    quantize(m, 4, 32, NULL);
    o.gguf_type = "q2_0";
    refuses(m, &o, "which q2_0 does not hold exactly (allow_lossy rounds them)");
    eqat_model *rounded = through_file(m, "lossy.gguf", "q4_0", true, EQAT_F32);
    ck_assert(logits_distance(m, rounded) > 0);
    eqat_model_free(rounded);
    o.gguf_type = "tq2_0";
    o.allow_lossy = true;
    refuses(m, &o, "found 64 inputs, expected a multiple of 256 for TQ2_0");
    eqat_model_free(m);
}
END_TEST

/* Experts of a block share one tensor. */
START_TEST(experts_alike)
{
    const eqat_save_options o = as_gguf(NULL, false);
    eqat_model *m = tiny_model("qwen3_moe", NULL, NULL, EQI_STORED_F32, EQAT_F32);
    quantize(m, 4, 32, "*.0.mlp.experts.2.up_proj");
    refuses(m, &o, "model.layers.0.mlp.experts.2.up_proj: found it not quantized and the first");
    eqat_model_free(m);
}
END_TEST

START_TEST(places)
{
    const eqat_save_options o = as_gguf(NULL, false);
    eqat_model *m = tiny_model("llama", NULL, NULL, EQI_STORED_F32, EQAT_F32);
    write_text(scratch("there.gguf"), "mine");
    says(ctx, eqat_model_save(m, scratch("there.gguf"), &o), EQAT_EXISTS, "there.gguf");
    says(ctx, eqat_model_save(m, scratch("none/out.gguf"), &o), EQAT_NOT_FOUND, "none/out.gguf");
    char *text = read_text(scratch("there.gguf"));
    ck_assert_str_eq(text, "mine");
    free(text);
    eqat_model_free(m);
}
END_TEST

TCase *case_save_gguf(void)
{
    TCase *tc = tcase_create("save_gguf");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, the_same_logits, 0, 4 * (int)EQI_COUNT(said));
    tcase_add_loop_test(tc, the_same_weights, 0, 4 * (int)EQI_COUNT(said));
    tcase_add_loop_test(tc, what_gguf_cannot_say, 0, 6);
    tcase_add_test(tc, what_no_type_holds);
    tcase_add_test(tc, experts_alike);
    tcase_add_test(tc, places);
    return tc;
}
