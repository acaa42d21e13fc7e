#include <string.h>

#include "model/folder.h"
#include "quant/freeze.h"
#include "quant/quantizer.h"

/* z may be an F32 master: the products round and clamp it, and so does a file. */
static eqat_status take(eqi_ctx *ctx, const eqi_layout_linear *l, eqi_weight w, eqi_packed *out)
{
    eqi_tensor *rounded = NULL;
    if (w.z->v.dtype != EQI_U8) EQI_RETURN_IF(eqi_quant_round_z(w.z, w.q.bits, &rounded));
    if (rounded) w.z = rounded;
    eqat_status st = eqi_packed_take(ctx, out, l, &w);
    eqi_tensor_unref(rounded);
    return st;
}

eqat_status eqi_model_packed(eqat_model *m, const eqi_linear *l, const eqi_layout_linear *linear,
                             eqi_packed *out)
{
    *out = (eqi_packed){0};
    if (l->weight.codes) return take(m->ctx, linear, l->weight, out);
    eqi_weight w = {0};
    EQI_RETURN_IF(eqi_load_packed(m, l, &w));
    eqat_status st = take(m->ctx, linear, w, out);
    eqi_weight_release(&w);
    return st;
}

/* What a quantizer would do is judged by its kind: only fixed zero points are sure to be in the
 * middle. */
static eqat_status describe(eqat_model *m, const eqi_folder *f, const eqi_linear *l,
                            const eqat_quantizer *quantizer, eqi_layout_linear *out)
{
    eqi_quant_desc q = eqi_linear_quantization(l);
    eqi_quant quant = {.kind = NULL};
    if (!q.bits && quantizer) EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
    *out = eqi_linear_described(l, quant.kind ? quant.desc : q);
    if (!out->q.bits) return EQAT_OK;
    EQI_RETURN_IF(f->layout->check(m->ctx, out));
    if (!quant.kind || !f->layout->symmetric_alone || f->options->allow_asymmetric) return EQAT_OK;
    if (quant.kind == eqi_quant_kinds[EQAT_ZERO_POINT_FIXED]) return EQAT_OK;
    return eqi_fail(m->ctx, EQAT_UNSUPPORTED,
                    "%s: found zero_point trained, expected fixed for the format %s, or "
                    "allow_asymmetric",
                    l->name, f->layout->name);
}

static eqat_status check_uniform(eqat_model *m, const eqi_folder *f)
{
    const eqi_layout_linear *first = NULL;
    for (size_t i = 0; i < f->n && f->layout->uniform; i++) {
        const eqi_layout_linear *l = &f->linears[i];
        if (!l->q.bits) continue;
        if (!first) first = l;
        bool rows = l->q.group == l->in && first->q.group == first->in;
        if (l->q.bits != first->q.bits || (l->q.group != first->q.group && !rows))
            return eqi_fail(m->ctx, EQAT_UNSUPPORTED,
                            "%s: found %d bits in groups of %lld, expected %d in groups of %lld as "
                            "before it: the format %s has one pair for all",
                            l->name, l->q.bits, (long long)l->q.group, first->q.bits,
                            (long long)first->q.group, f->layout->name);
    }
    return EQAT_OK;
}

static bool surveys(const eqi_layout *layout)
{
    return layout->symmetry != EQI_SYMMETRY_NONE || layout->judge;
}

static eqat_status survey(eqat_model *m, const eqi_folder *f, const eqi_linear *l,
                          eqi_layout_linear *linear)
{
    eqi_packed p;
    EQI_RETURN_IF(eqi_check_cancel(m->ctx));
    EQI_RETURN_IF(eqi_model_packed(m, l, linear, &p));
    eqat_status st = eqi_layout_survey(m->ctx, f->layout, linear, &p);
    eqi_packed_free(m->ctx, &p);
    if (st != EQAT_OK || linear->symmetric || !f->layout->symmetric_alone ||
        f->options->allow_asymmetric)
        return st;
    return eqi_fail(m->ctx, EQAT_UNSUPPORTED,
                    "%s: found zero points that cannot be moved to %d, expected only such for the "
                    "format %s, or allow_asymmetric",
                    l->name, 1 << (linear->q.bits - 1), f->layout->name);
}

static eqat_status survey_all(eqat_model *m, eqi_folder *f)
{
    bool all = f->layout->symmetry == EQI_SYMMETRY_ALL, symmetric = true;
    size_t at = 0;
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++) {
            eqi_layout_linear *linear = &f->linears[at++];
            if (!linear->q.bits || (all && !symmetric)) continue;
            EQI_RETURN_IF(survey(m, f, &m->blocks[b].linears[i], linear));
            symmetric &= linear->symmetric;
        }
    for (size_t i = 0; i < f->n && all && !symmetric; i++) f->linears[i].symmetric = false;
    return EQAT_OK;
}

eqat_status eqi_folder_plan(eqat_model *m, const eqat_quantizer *quantizer,
                            const eqat_save_options *o, eqi_folder *f)
{
    *f = (eqi_folder){.layout = eqi_layout_find(o->format), .options = o};
    size_t n = 0;
    for (int64_t b = 0; b < m->config.blocks; b++) n += (size_t)m->blocks[b].n_linears;
    f->linears = eqi_calloc(m->ctx, n ? n : 1, sizeof *f->linears, "the quantization of a model");
    if (!f->linears) return EQAT_OUT_OF_MEMORY;
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++) {
            eqi_layout_linear *linear = &f->linears[f->n++];
            EQI_RETURN_IF(describe(m, f, &m->blocks[b].linears[i], quantizer, linear));
            f->packed |= linear->q.bits != 0;
        }
    EQI_RETURN_IF(check_uniform(m, f));
    return quantizer || !surveys(f->layout) ? EQAT_OK : survey_all(m, f);
}

void eqi_folder_release(eqat_model *m, eqi_folder *f) { eqi_free(m->ctx, f->linears); }

eqat_status eqi_folder_check(eqat_model *m, const eqat_quantizer *quantizer,
                             const eqat_save_options *o)
{
    eqi_folder f;
    eqat_status st = eqi_folder_plan(m, quantizer, o, &f);
    eqi_folder_release(m, &f);
    return st;
}

/* ---- what is said ---- */

/* Servers fuse q, k and v, and gate and up. */
static void warn_fused(eqat_model *m, const eqi_block *block)
{
    for (int i = 0; i < block->n_linears; i++) {
        const eqi_linear *with = &block->linears[i], *l = with;
        for (int k = i; k >= 0; k--)
            if (eqi_linear_shares_input(&block->linears[k], with)) l = &block->linears[k];
        eqi_quant_desc a = eqi_linear_quantization(l), b = eqi_linear_quantization(with);
        if (a.bits != b.bits || a.group != b.group)
            eqi_log(m->ctx, EQI_LOG_WARN,
                    "%s and %s differ in bits or group: servers that fuse them refuse the model",
                    l->name, with->name);
    }
}

static bool is_bfloat16(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    return value && !strcmp(value, "bfloat16");
}

void eqi_folder_warn(eqat_model *m, const eqi_folder *f)
{
    if (!f->packed) return;
    for (int64_t b = 0; b < m->config.blocks; b++) warn_fused(m, &m->blocks[b]);
    if (!f->layout->dtype && (is_bfloat16(m->json, "torch_dtype") || is_bfloat16(m->json, "dtype")))
        eqi_log(
            m->ctx, EQI_LOG_WARN,
            "torch_dtype: bfloat16: engines that follow it round the scales, which are float16");
    if (f->layout->warn) f->layout->warn(m->ctx, f->linears, f->n);
}
