#include <math.h>
#include <stdio.h>

#include "base/half.h"
#include "format/json_text.h"
#include "format/layout_impl.h"

#define NAME 128 /* room for the full name of a tensor */

static void full_name(const eqi_layout_linear *l, const char *suffix, char name[NAME])
{
    snprintf(name, NAME, "%s.%s", l->name, suffix);
}

const eqi_source_entry *eqi_layout_tensor_of(const eqi_source *source, const eqi_layout_linear *l,
                                             const char *suffix)
{
    char name[NAME];
    full_name(l, suffix, name);
    return eqi_source_find(source, name);
}

eqi_layout_tensor eqi_layout_matrix(const char *suffix, eqi_stored stored, eqi_accepted types,
                                    int64_t rows, int64_t columns)
{
    return (eqi_layout_tensor){
        .suffix = suffix, .stored = stored, .types = types, .ndim = 2, .shape = {rows, columns}};
}

eqat_status eqi_layout_words(eqi_source *source, const eqi_layout_linear *l, const char *suffix,
                             uint32_t **out)
{
    const eqi_source_entry *e = eqi_layout_tensor_of(source, l, suffix);
    *out = eqi_alloc(source->ctx, (size_t)e->bytes, suffix);
    if (!*out) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_source_read_raw(source, e, 0, (size_t)e->bytes, *out);
    if (st == EQAT_OK) return EQAT_OK;
    eqi_free(source->ctx, *out);
    *out = NULL;
    return st;
}

eqat_status eqi_layout_refuse(eqi_ctx *ctx, const char *path, const char *key, const json_t *found,
                              const char *expected)
{
    char text[EQI_JSON_TEXT];
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: quantization_config.%s: found %s, expected %s",
                    path, key, eqi_json_text(found, text), expected);
}

eqat_status eqi_layout_expect(const eqi_layout *layout, const eqi_source *source, const char *path,
                              const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list);
    for (int i = 0; i < n; i++) {
        char name[NAME];
        full_name(l, list[i].suffix, name);
        if (list[i].optional && !eqi_source_find(source, name)) continue;
        EQI_RETURN_IF(eqi_source_expect(source, path, name, list[i].types, list[i].ndim,
                                        list[i].shape, NULL));
    }
    return EQAT_OK;
}

eqat_status eqi_layout_declare(const eqi_layout *layout, eqi_shards *out,
                               const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list);
    for (int i = 0; i < n; i++) {
        char name[NAME];
        if (list[i].read_alone) continue;
        full_name(l, list[i].suffix, name);
        EQI_RETURN_IF(eqi_shards_declare(out, name, list[i].stored, list[i].ndim, list[i].shape));
    }
    return EQAT_OK;
}

int64_t eqi_layout_bytes(const eqi_layout *layout, const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list);
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        int64_t elements = 1;
        for (int d = 0; d < list[i].ndim; d++) elements *= list[i].shape[d];
        if (!list[i].read_alone) bytes += (int64_t)eqi_stored_bytes(list[i].stored, elements);
    }
    return bytes;
}

int64_t eqi_packing_bytes(const eqi_packing *packing, const eqi_source *source,
                          const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = packing->layout->tensors(l, list);
    int64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        const eqi_source_entry *e = eqi_layout_tensor_of(source, l, list[i].suffix);
        if (e) bytes += (int64_t)e->bytes;
    }
    return bytes;
}

static eqi_zeros wanted(const eqi_layout *layout, const eqi_layout_linear *l)
{
    int middle = 1 << (l->q.bits - 1), top = (1 << l->q.bits) - 1;
    bool moves = l->symmetric || layout->symmetry == EQI_SYMMETRY_GROUPS;
    return moves ? (eqi_zeros){middle, middle} : (eqi_zeros){layout->least_zero, top};
}

eqat_status eqi_layout_survey(eqi_ctx *ctx, const eqi_layout *layout, eqi_layout_linear *l,
                              eqi_packed *p)
{
    int64_t left = 0;
    l->symmetric = layout->symmetry != EQI_SYMMETRY_NONE;
    if (l->symmetric) EQI_RETURN_IF(eqi_move_linear(ctx, p, l, wanted(layout, l), &left));
    l->symmetric &= left == 0;
    if (layout->judge) layout->judge(l, p);
    return EQAT_OK;
}

eqat_status eqi_layout_write(eqi_ctx *ctx, const eqi_layout *layout, eqi_shards *out,
                             const eqi_layout_linear *l, eqi_packed *p)
{
    eqi_zeros zeros = wanted(layout, l);
    if (zeros.least > 0) EQI_RETURN_IF(eqi_move_linear(ctx, p, l, zeros, NULL));
    return layout->write(ctx, out, l, p);
}

static const char *not_usable(float value)
{
    return isnan(value) ? "NaN" : value == 0 ? "0" : "infinity";
}

static const char *name_of_scales(const eqi_layout *layout, const eqi_layout_linear *l)
{
    eqi_layout_tensor list[EQI_LAYOUT_TENSORS];
    int n = layout->tensors(l, list), i = 0;
    while (i + 1 < n && list[i].types != EQI_ACCEPT_STEPS) i++;
    return list[i].suffix;
}

/* As a file would hold them had we written it. */
static eqat_status round_scales(const eqi_layout *layout, eqi_source *source,
                                const eqi_layout_linear *l, eqi_packed *p)
{
    const eqi_source_entry *mark = eqi_layout_tensor_of(source, l, layout->mark);
    const char *path = eqi_source_path(source, mark->file);
    int64_t groups = eqi_packed_groups(l);
    for (int64_t i = 0; i < l->out * groups; i++) {
        float s = eqi_f16_to_f32(eqi_f32_to_f16(p->s[i]));
        if (!isfinite(s) || p->s[i] == 0)
            return eqi_fail(source->ctx, EQAT_NUMERIC,
                            "%s: tensor %s.%s: found %s for group %lld of output %lld, expected "
                            "finite numbers other than 0",
                            path, l->name, name_of_scales(layout, l), not_usable(s),
                            (long long)(i % groups), (long long)(i / groups));
        p->s[i] = s == 0 ? eqi_stored_scale(p->s[i]) : s;
    }
    return EQAT_OK;
}

eqat_status eqi_packing_read(const eqi_packing *packing, eqi_source *source,
                             const eqi_layout_linear *l, eqi_weight *out)
{
    eqi_packed p;
    eqat_status st;
    EQI_GOTO(done, eqi_packed_create(source->ctx, &p, l));
    EQI_GOTO(done, packing->layout->read(packing, source, l, &p));
    EQI_GOTO(done, round_scales(packing->layout, source, l, &p));
    st = eqi_packed_give(source->ctx, &p, l, out);
done:
    eqi_packed_free(source->ctx, &p);
    return st;
}
