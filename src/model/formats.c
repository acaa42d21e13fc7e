#include "model/formats.h"

#include <string.h>

#include "api/options.h"
#include "base/entry.h"

/* Names as the option lists them, and the rows in the same order. */
static const char *const names[] = {
    "gptq_v2", "gptq", "compressed-tensors", "auto-round", "mlx", "awq", "fp16", "gguf", NULL};
static const eqi_format formats[] = {
    {"gptq_v2", eqi_folder_check, eqi_folder_save},
    {"gptq", eqi_folder_check, eqi_folder_save},
    {"compressed-tensors", eqi_folder_check, eqi_folder_save},
    {"auto-round", eqi_folder_check, eqi_folder_save},
    {"mlx", eqi_folder_check, eqi_folder_save},
    {"awq", eqi_folder_check, eqi_folder_save},
    {"fp16", eqi_folder_check, eqi_folder_save},
    {"gguf", eqi_gguf_file_check, eqi_gguf_file_save},
};
_Static_assert(EQI_COUNT(names) == EQI_COUNT(formats) + 1, "a name for every format");

static const char *const gguf_types[] = {"q2_0", "q4_0", "q5_0", "q8_0", "tq2_0", NULL};

static const eqat_field fields[] = {
    EQI_FIELD_WORD(eqat_save_options, format, "gptq_v2", names, "what to write"),
    EQI_FIELD_WORD(eqat_save_options, gguf_type, NULL, gguf_types,
                   "gguf: the type of all quantized tensors; none: the smallest exact one of each"),
    EQI_FIELD_I64(eqat_save_options, max_shard_size, 0, 0, 1e15,
                  "bytes of a weight file at most, with an index beside; 0: one file"),
    EQI_FIELD_BOOL(eqat_save_options, allow_lossy, false,
                   "gguf: round what no type holds exactly; the largest error is told"),
    EQI_FIELD_BOOL(eqat_save_options, allow_asymmetric, false,
                   "gptq: zero points that some engines misread"),
    EQI_FIELD_POINTER(eqat_save_options, progress, "called before every block and at the end"),
    EQI_FIELD_POINTER(eqat_save_options, progress_user, "its first argument"),
};

const eqi_struct eqi_struct_save = EQI_STRUCT_RESERVED(eqat_save_options, "save", fields);

void eqat_save_options_init(eqat_save_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_save, options, struct_size);
}

/* The options have let known names pass alone. */
static const eqi_format *find(const char *name)
{
    size_t i = 0;
    while (strcmp(formats[i].name, name) != 0) i++;
    return &formats[i];
}

static eqat_status take(eqat_model *m, const eqat_save_options *options, eqat_save_options *o,
                        const eqi_format **format)
{
    EQI_RETURN_IF(eqi_options_take(m->ctx, &eqi_struct_save, o, options));
    if (!o->format) o->format = formats[0].name;
    *format = find(o->format);
    return EQAT_OK;
}

eqat_status eqat_model_check_save(eqat_model *m, const eqat_quantizer *quantizer,
                                  const eqat_save_options *options)
{
    EQI_ENTER_OF(m);
    eqat_save_options o;
    const eqi_format *format;
    EQI_RETURN_IF(take(m, options, &o, &format));
    return format->check(m, quantizer, &o);
}

eqat_status eqat_model_save(eqat_model *m, const char *path, const eqat_save_options *options)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, path);
    eqat_save_options o;
    const eqi_format *format;
    EQI_RETURN_IF(take(m, options, &o, &format));
    return format->save(m, path, &o);
}
