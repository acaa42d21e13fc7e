#include "record.h"
#include "tool.h"

static json_t *linears_json(eqat_model *model, int64_t block)
{
    json_t *list = json_array();
    int64_t n = eqat_model_linear_count(model, block);
    for (int64_t i = 0; i < n; i++) {
        eqat_linear_info l = {.struct_size = sizeof l};
        if (eqat_model_linear(model, block, i, &l) != EQAT_OK) break;
        json_array_append_new(list,
                              json_pack("{s:s,s:I,s:I,s:i,s:i}", "name", l.name, "out_features",
                                        (json_int_t)l.out_features, "in_features",
                                        (json_int_t)l.in_features, "bits", l.bits, "group_size",
                                        l.group_size));
    }
    return list;
}

static void say_linears(tool *t, eqat_model *model, int64_t block)
{
    int64_t n = eqat_model_linear_count(model, block);
    for (int64_t i = 0; i < n; i++) {
        eqat_linear_info l = {.struct_size = sizeof l};
        if (eqat_model_linear(model, block, i, &l) != EQAT_OK) break;
        if (l.bits)
            tool_say(t, "  %-44s %6lld x %-6lld %d bits, groups of %d", l.name,
                     (long long)l.out_features, (long long)l.in_features, l.bits, l.group_size);
        else
            tool_say(t, "  %-44s %6lld x %-6lld", l.name, (long long)l.out_features,
                     (long long)l.in_features);
    }
}

int command_inspect(int argc, char **argv)
{
    tool t = {0};
    const char *path;
    bool all = false;
    eqat_context_options_init(&t.context, sizeof t.context);
    t.context.threads = 1;
    const flag_own own[] = {
        {.name = "all", .help = "the linears of every block, not of the first alone", .on = &all},
        TOOL_FLAGS(&t),
    };
    const flag_group groups[] = {{"Context", "context", "", &t.context, tool_context_fields}};
    const flag_set set = {"inspect MODEL",
                          "Family, shapes, bits per parameter, bytes.",
                          own,
                          sizeof own / sizeof *own,
                          groups,
                          1};
    int code = flags_parse(&set, argc, argv, &path);
    if (code >= 0) return code;
    if (!path) return flags_refuse("inspect: expected a MODEL");
    t.run = record_new("inspect", argc, argv);
    json_object_set_new(t.run, "model", tool_text(path));
    code = tool_open(&t);
    if (code) return code;
    eqat_model *model = NULL;
    eqat_model_info m = {.struct_size = sizeof m};
    eqat_status st = eqat_model_open(t.ctx, &model, path, NULL);
    if (st == EQAT_OK) st = eqat_model_inspect(model, &m);
    if (st == EQAT_OK) {
        double bits = m.parameters ? 8.0 * (double)m.bytes / (double)m.parameters : 0;
        json_t *linears = json_array();
        int64_t shown = all ? m.blocks : m.blocks > 0;
        for (int64_t b = 0; b < shown; b++) {
            json_t *list = linears_json(model, b);
            json_array_extend(linears, list);
            json_decref(list);
        }
        json_t *o = json_pack(
            "{s:o,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "model", tool_text(path), "family",
            m.family, "blocks", (json_int_t)m.blocks, "hidden_size", (json_int_t)m.hidden_size,
            "intermediate_size", (json_int_t)m.intermediate_size, "heads", (json_int_t)m.heads,
            "kv_heads", (json_int_t)m.kv_heads, "head_dim", (json_int_t)m.head_dim, "vocab_size",
            (json_int_t)m.vocab_size, "max_positions", (json_int_t)m.max_positions, "window",
            (json_int_t)m.window);
        json_t *more = json_pack(
            "{s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:b,s:b,s:o}", "experts_per_token",
            (json_int_t)m.experts_per_token, "parameters", (json_int_t)m.parameters,
            "linear_parameters", (json_int_t)m.linear_parameters, "bytes", (json_int_t)m.bytes,
            "bits_per_parameter", bits, "bits_per_linear_parameter", m.linear_bits, "rms_norm_eps",
            m.rms_norm_eps, "rope_theta", m.rope_theta, "tied_embeddings", m.tied_embeddings,
            "quantized", m.quantized, "linears", linears);
        json_object_update(t.report, o);
        json_object_update(t.report, more);
        json_decref(o);
        json_decref(more);
        tool_say(&t,
                 "%s: %s, %lld blocks, hidden %lld, intermediate %lld, %lld heads (%lld KV) of "
                 "%lld, vocabulary %lld%s",
                 path, m.family, (long long)m.blocks, (long long)m.hidden_size,
                 (long long)m.intermediate_size, (long long)m.heads, (long long)m.kv_heads,
                 (long long)m.head_dim, (long long)m.vocab_size,
                 m.tied_embeddings ? " (tied)" : "");
        tool_say(&t, "%lld parameters, %lld bytes, %.2f bits per parameter, %.2f in the linears",
                 (long long)m.parameters, (long long)m.bytes, bits, m.linear_bits);
        for (int64_t b = 0; b < shown; b++) say_linears(&t, model, b);
    }
    eqat_model_free(model);
    return tool_close(&t, st);
}
