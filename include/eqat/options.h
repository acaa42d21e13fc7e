/** @file
 * libeqat: options structs by name, for tools and bindings.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_OPTIONS_H
#define EQAT_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include "eqat/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** @file
 * Every options struct of the library is described by one table, which drives its defaults, its
 * validation, the tool's --help and the bindings.  Members called reserved, and all bytes of a
 * longer struct that this library does not know, must be 0: anything else is EQAT_UNSUPPORTED, in
 * options as in a batch or a sample.  All
 * functions here may be called from any thread and return static storage. */

/** Types of members. */
typedef enum eqat_field_type {
    EQAT_FIELD_BOOL = 0,   /**< bool */
    EQAT_FIELD_I32 = 1,    /**< int32_t */
    EQAT_FIELD_I64 = 2,    /**< int64_t */
    EQAT_FIELD_U64 = 3,    /**< uint64_t */
    EQAT_FIELD_F64 = 4,    /**< double */
    EQAT_FIELD_ENUM = 5,   /**< int32_t with names */
    EQAT_FIELD_STRING = 6, /**< const char *, borrowed from the caller; NULL: not set */
    EQAT_FIELD_POINTER = 7 /**< callbacks, user pointers, handles: not settable by string */
} eqat_field_type;

/** One member of an options struct. */
typedef struct eqat_field {
    size_t struct_size; /**< set by the caller before eqat_options_field */
    const char *name;   /**< C name of the member: "train_size" (the tool's flag is --train-size) */
    const char *help;   /**< one line, with the unit */
    const char *const *names;   /**< ENUM: NULL-terminated names; the value is the index.
                                   STRING: the words that there are; NULL: any */
    int32_t type;               /**< eqat_field_type */
    int32_t reserved;           /**< 0 */
    size_t offset;              /**< in the struct */
    double minimum;             /**< inclusive; of numbers */
    double maximum;             /**< inclusive; of numbers */
    double default_number;      /**< of numbers, bools (0 or 1) and enums */
    const char *default_string; /**< of strings; may be NULL */
} eqat_field;

/** Names of all structs, NULL past the last: options ("attention", "context", "model", "quantizer",
 * "data", "block_ap", "e2e_qp", "eval", "save", "optimizer", "rtn", "allocate", "choose"), and what
 * else begins with struct_size ("batch", "sample"; "model_info", "linear_info", "progress",
 * "epoch_report", "stage_report", "perplexity"), for bindings that lay them out: of the latter,
 * fields have no bounds, and no defaults but 0. */
EQAT_API const char *eqat_options_struct(size_t index);
/** Fields of a struct in order; struct_size itself is not counted.  0 for an unknown struct. */
EQAT_API size_t eqat_options_count(const char *struct_name);
/** sizeof the struct in this library; 0 for an unknown struct. */
EQAT_API size_t eqat_options_size(const char *struct_name);
/** Describes field `index`.  Errors: EQAT_NOT_FOUND (past the last, an unknown struct),
 * EQAT_INVALID_ARGUMENT (out->struct_size is not set). */
EQAT_API eqat_status eqat_options_field(const char *struct_name, size_t index, eqat_field *out);
/** Parses text into the member: numbers in C notation, bools as on/off/true/false/1/0, enums by
 * name.  *options must have been initialised.  context may be NULL (then no message).
 * Errors: EQAT_NOT_FOUND (no such struct; no such field inside struct_size that text can set),
 * EQAT_INVALID_ARGUMENT (no such value, or one out of range, told with the bounds). */
EQAT_API eqat_status eqat_options_set(eqat_context *context, const char *struct_name, void *options,
                                      const char *field, const char *text);

/** @file
 * A recipe is a set of options that go together, in place of the defaults: "paper" is the paper to
 * the letter, the defaults of options structs but for the samples of E2E-QP; "best", which the tool
 * and Python's one-call functions take when nothing is said, is what ended at the least
 * perplexity where we have measured (docs/results.md); it starts from
 * EQAT_INIT_DESCENT.  The options of a recipe stand in groups, each of which is an options struct:
 * "quantizer", "data", "block_ap", "e2e_data" (an eqat_data_options, of the samples of E2E-QP) and
 * "e2e_qp".  The group "run" is no struct: its option "teacher" is "source" where E2E-QP is to
 * learn from the model before quantization. */

/** Names of all recipes, NULL past the last. */
EQAT_API const char *eqat_recipe_name(size_t index);
/** What a recipe says of a group, in order: *field and *value are texts as eqat_options_set takes
 * them, static.  Errors: EQAT_NOT_FOUND (past the last, no such recipe or group),
 * EQAT_INVALID_ARGUMENT (a NULL). */
EQAT_API eqat_status eqat_recipe_option(const char *recipe, const char *group, size_t index,
                                        const char **field, const char **value);
/** Sets what the recipe says of a group in options, which must have been initialised.  context may
 * be NULL (then no message).  Errors: EQAT_INVALID_ARGUMENT (no such recipe), EQAT_NOT_FOUND (the
 * group is no struct, or options are of an older header without a member that the recipe sets). */
EQAT_API eqat_status eqat_recipe_take(eqat_context *context, const char *recipe, const char *group,
                                      void *options);

#ifdef __cplusplus
}
#endif
#endif
