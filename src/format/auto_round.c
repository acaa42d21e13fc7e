#include <string.h>

#include "eqat/context.h"
#include "format/gptq.h"

#define TRUE_ZEROS "auto_round:gptqmodel"
#define LESS_ONE "auto_round:auto_gptq"

static eqat_status parse(eqi_ctx *ctx, const json_t *q, const char *path, eqi_packing *out)
{
    const json_t *type = json_object_get(q, "data_type");
    const char *packing = json_string_value(json_object_get(q, "packing_format"));
    if (json_is_string(type) && strcmp(json_string_value(type), "int") != 0)
        return eqi_layout_refuse(ctx, path, "data_type", type, "int");
    out->less_one = packing && !strcmp(packing, LESS_ONE);
    EQI_RETURN_IF(eqi_gptq_parse_v2(ctx, q, path, out));
    out->varies = json_object_size(json_object_get(q, "extra_config")) > 0;
    return EQAT_OK;
}

/* Other writers' files may have a g_idx. */
static int tensors(const eqi_layout_linear *l, eqi_layout_tensor list[EQI_LAYOUT_TENSORS])
{
    int n = eqi_gptq_tensors(l, list);
    list[n - 1].read_alone = true;
    return n;
}

static eqat_status write_linear(eqi_ctx *ctx, eqi_shards *out, const eqi_layout_linear *l,
                                const eqi_packed *p)
{
    return eqi_gptq_write_matrices(ctx, out, l, p, false);
}

static json_t *exception(const eqi_layout_linear *l)
{
    if (!l->q.bits) return json_pack("{s:i}", "bits", 16);
    int64_t group = l->q.group == l->in ? -1 : l->q.group;
    return json_pack("{s:i, s:I, s:b, s:s}", "bits", l->q.bits, "group_size", (json_int_t)group,
                     "sym", (int)l->symmetric, "data_type", "int");
}

static json_t *make_exceptions(const eqi_layout_linear *linears, size_t n, int bits, int64_t group,
                               bool symmetric)
{
    json_t *extra = json_object();
    bool failed = !extra;
    for (size_t i = 0; i < n && !failed; i++) {
        const eqi_layout_linear *l = &linears[i];
        if (eqi_covers(bits, group, l) && l->symmetric == symmetric) continue;
        failed = json_object_set_new(extra, l->name, exception(l)) != 0;
    }
    if (!failed) return extra;
    json_decref(extra);
    return NULL;
}

static json_t *make_config(const eqi_layout_linear *linears, size_t n)
{
    int bits = 0;
    int64_t group = 0;
    eqi_choose_common(linears, n, &bits, &group);
    bool symmetric = eqi_all_symmetric(linears, n);
    json_t *extra = make_exceptions(linears, n, bits, group, symmetric);
    json_t *out = extra
        ? json_pack("{s:i, s:I, s:s, s:b, s:s, s:s, s:s, s:O}", "bits", bits, "group_size",
                    (json_int_t)group, "data_type", "int", "sym", (int)symmetric, "quant_method",
                    "auto-round", "packing_format", TRUE_ZEROS, "block_name_to_quantize",
                    "model.layers", "extra_config", extra)
        : NULL;
    json_decref(extra);
    return out;
}

#define ROW(name_, value_)                                                                     \
    .name = (name_), .method = "auto-round", .key = "packing_format", .value = (value_),       \
    .mark = "qweight", .parse = parse, .describe = eqi_gptq_describe, .check = eqi_gptq_check, \
    .tensors = tensors, .read = eqi_gptq_read

const eqi_layout eqi_layout_auto_round = {
    ROW("auto-round", TRUE_ZEROS),
    .symmetry = EQI_SYMMETRY_ALL,
    .write = write_linear,
    .config = make_config,
};

/* Of other writers; zero points less one in the second. */
const eqi_layout eqi_layout_auto_round_plain = {ROW("auto_round", "auto_round")};
const eqi_layout eqi_layout_auto_round_gptq = {ROW(LESS_ONE, LESS_ONE)};
