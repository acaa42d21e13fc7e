#include "quant/quantizer.h"

#include <fnmatch.h>
#include <string.h>

#include "api/options.h"

typedef struct rule {
    char *pattern;
    int bits;
    int group_size;
} rule;

struct eqat_quantizer {
    eqi_ctx *ctx;
    int refs;
    eqat_quantizer_options options;
    rule *rules;
    size_t n_rules;
};

static const char *const init_names[] = {"minmax", "mse", NULL};

static const eqat_field fields[] = {
    EQI_FIELD_I32(eqat_quantizer_options, bits, 2, 2, 8, "bits of a weight, 2 to 8"),
    EQI_FIELD_I32(eqat_quantizer_options, group_size, 64, -1, 256,
                  "inputs that share a step size: 16, 32, 64, 128, 256, or -1 for the whole row"),
    EQI_FIELD_ENUM(eqat_quantizer_options, init, EQAT_INIT_MINMAX, init_names,
                   "initial step sizes: minmax, or mse (least squared error)"),
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

eqat_status eqat_quantizer_create(eqat_context *ctx, eqat_quantizer **out,
                                  const eqat_quantizer_options *options)
{
    *out = NULL;
    eqat_quantizer_options o;
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_quantizer, &o, options));
    EQI_RETURN_IF(check_group_size(ctx, o.group_size));
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

void eqat_quantizer_free(eqat_quantizer *q)
{
    if (!q || --q->refs) return;
    eqi_ctx *ctx = q->ctx;
    for (size_t i = 0; i < q->n_rules; i++) eqi_free(ctx, q->rules[i].pattern);
    eqi_free(ctx, q->rules);
    eqi_free(ctx, q);
    eqi_ctx_unref(ctx);
}

eqat_status eqat_quantizer_add_rule(eqat_quantizer *q, const char *pattern, int32_t bits,
                                    int32_t group_size)
{
    if (bits != 0 && (bits < 2 || bits > 8))
        return eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                        "rule %s: bits: found %d, expected 2 to 8, or 0 for none", pattern, bits);
    if (bits != 0) EQI_RETURN_IF(check_group_size(q->ctx, group_size));
    rule *rules =
        eqi_realloc(q->ctx, q->rules, (q->n_rules + 1) * sizeof *rules, "quantizer rules");
    if (!rules) return EQAT_OUT_OF_MEMORY;
    q->rules = rules;
    char *copy = eqi_strdup(q->ctx, pattern);
    if (!copy) return EQAT_OUT_OF_MEMORY;
    rules[q->n_rules++] = (rule){.pattern = copy, .bits = bits, .group_size = group_size};
    return EQAT_OK;
}

void eqat_quantizer_lookup(const eqat_quantizer *q, const char *name, int32_t *bits,
                           int32_t *group_size)
{
    *bits = q->options.bits;
    *group_size = q->options.group_size;
    for (size_t i = q->n_rules; i-- > 0;)
        if (fnmatch(q->rules[i].pattern, name, 0) == 0) {
            *bits = q->rules[i].bits;
            *group_size = q->rules[i].group_size;
            return;
        }
}

bool eqi_quantizer_uses_mse(const eqat_quantizer *q) { return q->options.init == EQAT_INIT_MSE; }

eqat_status eqi_quantizer_desc(const eqat_quantizer *q, const char *name, int64_t in_features,
                               eqi_quant_desc *desc, bool *selected)
{
    int32_t bits, group_size;
    eqat_quantizer_lookup(q, name, &bits, &group_size);
    *selected = bits != 0;
    if (!*selected) return EQAT_OK;
    *desc = (eqi_quant_desc){
        .bits = bits, .group = group_size < 0 ? in_features : group_size, .clamp = bits <= 4};
    eqat_status st = eqi_quant_desc_check(q->ctx, desc, in_features);
    if (st == EQAT_OK && in_features % 32)
        st = eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                      "found rows of %lld, expected a multiple of 32", (long long)in_features);
    return st == EQAT_OK ? st : eqi_fail_in(q->ctx, st, "%s", name);
}

/* The descriptor for a tensor at hand: no name, so no rule. */
static eqat_status plain_desc(const eqat_quantizer *q, int64_t in_features, eqi_quant_desc *desc)
{
    *desc =
        (eqi_quant_desc){.bits = q->options.bits,
                         .group = q->options.group_size < 0 ? in_features : q->options.group_size};
    return eqi_quant_desc_check(q->ctx, desc, in_features);
}

static eqat_status desc_of(const eqat_quantizer *q, const eqat_tensor *w, eqi_quant_desc *desc)
{
    if (w->v.ndim != 2)
        return eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                        "quantizer: found a weight of %d dimensions, expected 2", w->v.ndim);
    return plain_desc(q, w->v.shape[1], desc);
}

eqat_status eqat_quantizer_init(const eqat_quantizer *q, eqat_tensor *w, bool round_s,
                                eqat_tensor **s, eqat_tensor **z)
{
    *s = *z = NULL;
    eqi_quant_desc desc;
    EQI_RETURN_IF(desc_of(q, w, &desc));
    EQI_RETURN_IF(eqi_quant_init(w, &desc, eqi_quantizer_uses_mse(q), s, z));
    eqat_status st = round_s ? eqi_quant_round_s(*s) : EQAT_OK;
    if (st != EQAT_OK) {
        eqi_tensor_unref(*s);
        eqi_tensor_unref(*z);
        *s = *z = NULL;
    }
    return st;
}

eqat_status eqat_quantizer_quantize(const eqat_quantizer *q, eqat_tensor *w, eqat_tensor **s,
                                    eqat_tensor **z, eqat_tensor **codes)
{
    *s = *z = *codes = NULL;
    eqi_quant_desc desc;
    eqi_weight packed;
    EQI_RETURN_IF(desc_of(q, w, &desc));
    EQI_RETURN_IF(eqi_quant_round_to_nearest(w, &desc, eqi_quantizer_uses_mse(q), &packed));
    *s = packed.s;
    *z = packed.z;
    *codes = packed.codes;
    return EQAT_OK;
}

eqat_status eqat_quantizer_pack(const eqat_quantizer *q, eqat_tensor *w, eqat_tensor *s,
                                eqat_tensor *z, eqat_tensor **codes)
{
    *codes = NULL;
    eqi_quant_desc desc;
    EQI_RETURN_IF(desc_of(q, w, &desc));
    return eqi_quantize(w, s, z, &desc, codes);
}

eqat_status eqat_quantizer_dequantize(const eqat_quantizer *q, eqat_tensor *codes, eqat_tensor *s,
                                      eqat_tensor *z, eqat_dtype dtype, eqat_tensor **out)
{
    *out = NULL;
    if (codes->v.ndim != 2 || codes->v.dtype != EQI_U32)
        return eqi_fail(q->ctx, EQAT_INVALID_ARGUMENT,
                        "codes: found %s of %d dimensions, expected u32 of 2",
                        eqi_dtype_name(codes->v.dtype), codes->v.ndim);
    eqi_weight packed = {.codes = codes, .s = s, .z = z};
    EQI_RETURN_IF(plain_desc(q, codes->v.shape[1] * 32 / q->options.bits, &packed.q));
    return eqi_dequantize(&packed, (eqi_dtype)dtype, out);
}
