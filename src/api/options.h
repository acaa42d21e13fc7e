/* One table per options struct: defaults, validation, --help, string setters and bindings all read
 * it. */
#ifndef EQI_API_OPTIONS_H
#define EQI_API_OPTIONS_H

#include "base/context.h"
#include "eqat/options.h"

typedef struct eqi_struct {
    const char *name; /* "block_ap" */
    size_t size;
    const eqat_field *fields;
    size_t count;
    size_t reserved, reserved_size; /* of a member `reserved` in front of fields; 0, 0: none */
} eqi_struct;

/* Rows of a table; T is the struct type, m the member. */
#define EQI_FIELD_BOOL(T, m, value, text)                                                          \
    {                                                                                              \
        .name = #m, .help = text, .type = EQAT_FIELD_BOOL, .offset = offsetof(T, m), .maximum = 1, \
        .default_number = (value)                                                                  \
    }
#define EQI_FIELD_I32(T, m, value, lo, hi, text)                                    \
    {                                                                               \
        .name = #m, .help = text, .type = EQAT_FIELD_I32, .offset = offsetof(T, m), \
        .minimum = (lo), .maximum = (hi), .default_number = (value)                 \
    }
#define EQI_FIELD_I64(T, m, value, lo, hi, text)                                    \
    {                                                                               \
        .name = #m, .help = text, .type = EQAT_FIELD_I64, .offset = offsetof(T, m), \
        .minimum = (lo), .maximum = (hi), .default_number = (value)                 \
    }
#define EQI_FIELD_U64(T, m, value, text)                                            \
    {                                                                               \
        .name = #m, .help = text, .type = EQAT_FIELD_U64, .offset = offsetof(T, m), \
        .maximum = 18446744073709551615.0, .default_number = (value)                \
    }
#define EQI_FIELD_F64(T, m, value, lo, hi, text)                                    \
    {                                                                               \
        .name = #m, .help = text, .type = EQAT_FIELD_F64, .offset = offsetof(T, m), \
        .minimum = (lo), .maximum = (hi), .default_number = (value)                 \
    }
#define EQI_FIELD_ENUM(T, m, value, list, text) /* list: a NULL-terminated array in scope */ \
    {                                                                                        \
        .name = #m, .help = text, .names = (list), .type = EQAT_FIELD_ENUM,                  \
        .offset = offsetof(T, m), .maximum = (double)EQI_COUNT(list) - 2,                    \
        .default_number = (value)                                                            \
    }
#define EQI_FIELD_STRING(T, m, value, text)                                            \
    {                                                                                  \
        .name = #m, .help = text, .type = EQAT_FIELD_STRING, .offset = offsetof(T, m), \
        .default_string = (value)                                                      \
    }
#define EQI_FIELD_WORD(T, m, value, list, text) /* a string among the words of a list, as above */ \
    {                                                                                              \
        .name = #m, .help = text, .names = (list), .type = EQAT_FIELD_STRING,                      \
        .offset = offsetof(T, m), .default_string = (value)                                        \
    }
#define EQI_FIELD_POINTER(T, m, text)                                                  \
    {                                                                                  \
        .name = #m, .help = text, .type = EQAT_FIELD_POINTER, .offset = offsetof(T, m) \
    }
/* Of batches, samples, infos and reports: no default but 0 and no bounds. */
#define EQI_FIELD_PLAIN(T, m, kind, text)                                  \
    {                                                                      \
        .name = #m, .help = text, .type = (kind), .offset = offsetof(T, m) \
    }
#define EQI_STRUCT(T, text, table)                                                    \
    {                                                                                 \
        .name = text, .size = sizeof(T), .fields = (table), .count = EQI_COUNT(table) \
    }
#define EQI_STRUCT_RESERVED(T, text, table)                                            \
    {                                                                                  \
        .name = text, .size = sizeof(T), .fields = (table), .count = EQI_COUNT(table), \
        .reserved = offsetof(T, reserved), .reserved_size = sizeof((T *)0)->reserved   \
    }

extern const eqi_struct eqi_struct_attention, eqi_struct_context, eqi_struct_model,
    eqi_struct_quantizer, eqi_struct_optimizer, eqi_struct_data, eqi_struct_block_ap,
    eqi_struct_e2e_qp, eqi_struct_eval, eqi_struct_rtn, eqi_struct_allocate, eqi_struct_save,
    eqi_struct_choose, eqi_struct_batch, eqi_struct_sample, eqi_struct_model_info,
    eqi_struct_linear_info, eqi_struct_progress, eqi_struct_epoch_report, eqi_struct_stage_report,
    eqi_struct_perplexity;

/* Body of every eqat_..._options_init: defaults and struct_size into at most struct_size bytes. */
void eqi_options_defaults(const eqi_struct *table, void *options, size_t struct_size);

/* "minmax or mse", of NULL-terminated words. */
#define EQI_WORDS_TEXT 256
void eqi_list_words(const char *const *words, char *text, size_t size);

/* Bytes of the member, and its value in a number's type; nothing for strings and pointers. */
size_t eqi_field_size(const eqat_field *field);
void eqi_field_write(const eqat_field *field, void *member, double value);

/* What a call works with: *out (the full struct) gets defaults, then the members that lie wholly
 * inside the caller's struct_size (caller may be NULL), then every number is checked against its
 * bounds, if it has any (NaN is out of bounds), every string against its words, if it has any
 * (EQAT_UNSUPPORTED). Anything but 0 beyond the last member
 * or in `reserved` is EQAT_UNSUPPORTED. */
eqat_status eqi_options_take(eqi_ctx *ctx, const eqi_struct *table, void *out, const void *caller);

/* The member of a bool, i32, i64, f64 or enum; 0 of others. */
double eqi_options_number(const eqat_field *field, const void *options);

/* Fills the caller's info or report struct `name` as far as the struct_size that the caller has set
 * reaches. */
eqat_status eqi_options_give(eqi_ctx *ctx, const char *name, void *caller, const void *full,
                             size_t full_size);

#endif
