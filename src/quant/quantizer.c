#include "quant/quantizer.h"

#include <fnmatch.h>
#include <string.h>

#include "api/options.h"
#include "base/entry.h"
#include "quant/freeze.h"

typedef struct rule {
    char *pattern;
    bool leave; /* as it is */
    eqat_quantizer_options options;
} rule;

struct eqat_quantizer {
    eqi_ctx *ctx;
    eqi_handle handle;
    int refs;
    eqat_quantizer_options options;
    rule *rules;
    size_t n_rules;
};

static const char *const init_names[] = {"minmax", "mse", "wmse", "gptq", "descent", NULL};
static const char *const zero_point_names[] = {"trained", "fixed", NULL};

static const eqat_field fields[] = {
    EQI_FIELD_I32(eqat_quantizer_options, bits, 2, 2, 8, "bits of a weight, 2 to 8"),
    EQI_FIELD_I32(eqat_quantizer_options, group_size, 64, -1, 256,
                  "inputs that share a scale: 16, 32, 64, 128, 256, or -1 for the whole row"),
    EQI_FIELD_ENUM(
        eqat_quantizer_options, init, EQAT_INIT_MINMAX, init_names,
        "initial scales: minmax, mse (least squared error of weights), wmse (the same, each "
        "weight's error weighted by the mean square of its input), gptq (of wmse, and weights "
        "that start from error feedback), or descent (of gptq, and then scales and weights of "
        "coordinate descent)"),
    EQI_FIELD_ENUM(eqat_quantizer_options, zero_point, EQAT_ZERO_POINT_TRAINED, zero_point_names,
                   "zero points: trained, or fixed in the middle (2 bits: 1 or 2, 3: 3 or 4, 4: 7 "
                   "or 8), from a start of least squared error"),
};

const eqi_struct eqi_struct_quantizer = EQI_STRUCT(eqat_quantizer_options, "quantizer", fields);

void eqat_quantizer_options_init(eqat_quantizer_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_quantizer, options, struct_size);
}

static eqat_status check_group_size(eqi_ctx *ctx, int group_size)
{
    static const int allowed[] = {-1, 16, 32, 64, 128, 256};
    for (size_t i = 0; i < EQI_COUNT(allowed); i++)
        if (group_size == allowed[i]) return EQAT_OK;
    return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                    "group_size: found %d, expected 16, 32, 64, 128, 256 or -1", group_size);
}

static eqat_status take_options(eqi_ctx *ctx, eqat_quantizer_options *out,
                                const eqat_quantizer_options *options)
{
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_quantizer, out, options));
    return check_group_size(ctx, out->group_size);
}

eqat_status eqat_quantizer_create(eqat_context *ctx, eqat_quantizer **out,
                                  const eqat_quantizer_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out);
    eqat_quantizer_options o;
    EQI_RETURN_IF(take_options(ctx, &o, options));
    eqat_quantizer *q = eqi_calloc(ctx, 1, sizeof *q, "a quantizer");
    if (!q) return EQAT_OUT_OF_MEMORY;
    q->ctx = eqi_ctx_ref(ctx);
    q->refs = 1;
    q->options = o;
    *out = q;
    return EQAT_OK;
}

eqat_quantizer *eqi_quantizer_ref(eqat_quantizer *q)
{
    q->refs++;
    return q;
}

static void unref(void *quantizer)
{
    eqat_quantizer *q = quantizer;
    if (--q->refs) return;
    eqi_ctx *ctx = q->ctx;
    for (size_t i = 0; i < q->n_rules; i++) eqi_free(ctx, q->rules[i].pattern);
    eqi_free(ctx, q->rules);
    eqi_free(ctx, q);
    eqi_ctx_unref(ctx);
}

void eqat_quantizer_free(eqat_quantizer *q)
{
    if (q) eqi_handle_free(q->ctx, &q->handle, unref, q);
}

eqat_status eqat_quantizer_add_rule(eqat_quantizer *q, const char *pattern,
                                    const eqat_quantizer_options *options)
{
    EQI_ENTER_OF(q);
    EQI_NEED(q->ctx, pattern);
    rule added = {.leave = !options};
    if (options) {
        eqat_status st = take_options(q->ctx, &added.options, options);
        if (st != EQAT_OK) return eqi_fail_in(q->ctx, st, "rule %s", pattern);
    }
    rule *rules =
        eqi_realloc(q->ctx, q->rules, (q->n_rules + 1) * sizeof *rules, "quantizer rules");
    if (!rules) return EQAT_OUT_OF_MEMORY;
    q->rules = rules;
    added.pattern = eqi_strdup(q->ctx, pattern);
    if (!added.pattern) return EQAT_OUT_OF_MEMORY;
    rules[q->n_rules++] = added;
    return EQAT_OK;
}

eqi_ctx *eqi_quantizer_ctx(const eqat_quantizer *q) { return q->ctx; }

size_t eqi_quantizer_rules(const eqat_quantizer *q) { return q->n_rules; }

void eqi_quantizer_drop_rules(eqat_quantizer *q, size_t count)
{
    while (q->n_rules > count) eqi_free(q->ctx, q->rules[--q->n_rules].pattern);
}

/* NULL: a rule leaves it as it is. */
static const eqat_quantizer_options *options_of(const eqat_quantizer *q, const char *name)
{
    for (size_t i = q->n_rules; i-- > 0;)
        if (fnmatch(q->rules[i].pattern, name, 0) == 0)
            return q->rules[i].leave ? NULL : &q->rules[i].options;
    return &q->options;
}

bool eqat_quantizer_lookup(const eqat_quantizer *q, const char *name,
                           eqat_quantizer_options *options)
{
    const eqat_quantizer_options *found = q && name ? options_of(q, name) : NULL;
    if (found && options) {
        size_t size = options->struct_size;
        memcpy(options, found, size < sizeof *found ? size : sizeof *found);
        options->struct_size = size;
    }
    return found != NULL;
}

static eqi_quant quant_of(const eqat_quantizer_options *o, int64_t in_features)
{
    return (eqi_quant){.kind = eqi_quant_kinds[o->zero_point],
                       .desc = {.bits = o->bits,
                                .group = o->group_size < 0 ? in_features : o->group_size,
                                .clamp = true},
                       .init = &eqi_starts[o->init]};
}

eqat_status eqi_quantizer_choose(const eqat_quantizer *q, const char *name, int64_t in_features,
                                 eqi_quant *quant)
{
    const eqat_quantizer_options *o = options_of(q, name);
    *quant = (eqi_quant){.kind = NULL};
    if (!o) return EQAT_OK;
    *quant = quant_of(o, in_features);
    eqat_status st = eqi_quant_desc_check(q->ctx, &quant->desc, in_features);
    if (st == EQAT_OK && in_features % 32)
        st = eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                      "found rows of %lld, expected a multiple of 32", (long long)in_features);
    return st == EQAT_OK ? st : eqi_fail_in(q->ctx, st, "%s", name);
}

/* ---- one tensor: no name, so no rule ---- */

eqat_status eqi_quantizer_own(const eqat_quantizer *q, const eqi_tensor *w, eqi_quant *quant)
{
    if (w->v.ndim != 2)
        return eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                        "quantizer: found a weight of %d dimensions, expected 2", w->v.ndim);
    *quant = quant_of(&q->options, w->v.shape[1]);
    return eqi_quant_desc_check(q->ctx, &quant->desc, w->v.shape[1]);
}

eqat_status eqat_quantizer_init(const eqat_quantizer *q, eqat_tensor *w, eqat_tensor *moments,
                                bool round_s, eqat_tensor **s, eqat_tensor **z)
{
    if (s) *s = NULL;
    if (z) *z = NULL;
    EQI_ENTER_OF(q);
    EQI_NEED(q->ctx, w, s, z);
    eqi_quant quant;
    eqi_tensor *tensors[EQI_KIND_TENSORS] = {NULL};
    EQI_RETURN_IF(eqi_quantizer_own(q, w, &quant));
    EQI_RETURN_IF(quant.kind->start(&quant, w, moments, tensors));
    eqat_status st = round_s ? eqi_quant_round_s(tensors[0]) : EQAT_OK;
    if (st != EQAT_OK) {
        for (int i = 0; i < EQI_KIND_TENSORS; i++) eqi_tensor_unref(tensors[i]);
        return st;
    }
    *s = tensors[0];
    *z = tensors[1];
    return EQAT_OK;
}

eqat_status eqat_quantizer_quantize(const eqat_quantizer *q, eqat_tensor *w, eqat_tensor **s,
                                    eqat_tensor **z, eqat_tensor **codes)
{
    if (s) *s = NULL;
    if (z) *z = NULL;
    if (codes) *codes = NULL;
    EQI_ENTER_OF(q);
    EQI_NEED(q->ctx, w, s, z, codes);
    eqi_quant quant;
    eqi_weight packed;
    EQI_RETURN_IF(eqi_quantizer_own(q, w, &quant));
    EQI_RETURN_IF(quant.kind->round(&quant, w, &packed));
    *s = packed.s;
    *z = packed.z;
    *codes = packed.codes;
    return EQAT_OK;
}

static eqat_status check_master(eqi_ctx *ctx, const char *name, const eqi_tensor *t)
{
    if (t->v.dtype == EQI_F32) return EQAT_OK;
    return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "freeze: %s: found %s, expected f32", name,
                    eqi_dtype_name(t->v.dtype));
}

eqat_status eqat_quantizer_freeze(const eqat_quantizer *q, eqat_tensor *w, eqat_tensor *s,
                                  eqat_tensor *z, eqat_tensor **stored_s, eqat_tensor **stored_z,
                                  eqat_tensor **codes)
{
    if (stored_s) *stored_s = NULL;
    if (stored_z) *stored_z = NULL;
    if (codes) *codes = NULL;
    EQI_ENTER_OF(q);
    EQI_NEED(q->ctx, w, s, z, stored_s, stored_z, codes);
    eqi_quant quant;
    eqi_weight packed;
    EQI_RETURN_IF(eqi_quantizer_own(q, w, &quant));
    EQI_RETURN_IF(check_master(q->ctx, "s", s));
    EQI_RETURN_IF(check_master(q->ctx, "z", z));
    EQI_RETURN_IF(quant.kind->freeze(&quant, w, (eqi_tensor *[EQI_KIND_TENSORS]){s, z}, &packed));
    *stored_s = packed.s;
    *stored_z = packed.z;
    *codes = packed.codes;
    return EQAT_OK;
}

eqat_status eqat_quantizer_pack(const eqat_quantizer *q, eqat_tensor *w, eqat_tensor *s,
                                eqat_tensor *z, eqat_tensor **codes)
{
    if (codes) *codes = NULL;
    EQI_ENTER_OF(q);
    EQI_NEED(q->ctx, w, s, z, codes);
    eqi_quant quant;
    EQI_RETURN_IF(eqi_quantizer_own(q, w, &quant));
    return eqi_quantize(w, s, z, &quant.desc, codes);
}

eqat_status eqat_quantizer_dequantize(const eqat_quantizer *q, eqat_tensor *codes, eqat_tensor *s,
                                      eqat_tensor *z, eqat_dtype dtype, eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(q);
    EQI_NEED(q->ctx, codes, s, z, out);
    if (codes->v.ndim != 2 || codes->v.dtype != EQI_U32)
        return eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                        "codes: found %s of %d dimensions, expected u32 of 2",
                        eqi_dtype_name(codes->v.dtype), codes->v.ndim);
    int64_t in_features = codes->v.shape[1] * 32 / q->options.bits;
    eqi_weight packed = {
        .codes = codes, .s = s, .z = z, .q = quant_of(&q->options, in_features).desc};
    EQI_RETURN_IF(eqi_quant_desc_check(q->ctx, &packed.q, in_features));
    return eqi_dequantize(&packed, (eqi_dtype)dtype, out);
}
