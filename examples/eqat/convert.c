#include "output.h"
#include "record.h"

int command_convert(int argc, char **argv)
{
    tool t = {.keeps = true};
    output out = {0};
    eqat_save_options save;
    eqat_context_options_init(&t.context, sizeof t.context);
    eqat_save_options_init(&save, sizeof save);
    const flag_own own[] = {FORCE_FLAG(&out), TOOL_FLAGS(&t)};
    const flag_group groups[] = {
        {"Saving", "save", "", &save, NULL},
        {"Context", "context", "", &t.context, tool_context_fields},
    };
    const flag_set set = {.usage = "convert IN OUT [--format WORD] ...",
                          .about = "Writes a model, quantized or not, in another format, with the "
                                   "same weights.",
                          .own = own,
                          .n_own = sizeof own / sizeof *own,
                          .groups = groups,
                          .n_groups = sizeof groups / sizeof *groups,
                          .second = &out.path};
    int code = flags_parse(&set, argc, argv, &out.model);
    if (code >= 0) return code;
    if (!out.model) return flags_refuse("convert: expected a model to read, IN");
    if (!out.path || !*out.path)
        return flags_refuse("convert: expected a place for the result, OUT");
    t.run = record_new("convert", argc, argv);
    json_object_set_new(t.run, "model", tool_text(out.model));
    json_object_set_new(t.run, "out", tool_text(out.path));
    record_options(t.run, "save", "save", &save);
    code = tool_open(&t);
    if (code) return code;
    eqat_model *model = NULL;
    eqat_status st = output_check(&t, &out, &save);
    eqat_model_info info = {.struct_size = sizeof info};
    if (st == EQAT_OK) st = eqat_model_open(t.ctx, &model, out.model, NULL);
    if (st == EQAT_OK) st = eqat_model_inspect(model, &info);
    t.input_bytes = info.bytes;
    if (st == EQAT_OK) st = output_save(&t, &out, model, &save);
    eqat_model_free(model);
    return tool_close(&t, st);
}
