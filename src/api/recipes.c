#include <string.h>

#include "api/options.h"
#include "base/entry.h"

/* What a recipe gives in place of the defaults of options. */
static const struct {
    const char *recipe, *group, *field, *value;
} rows[] = {
    {"paper", "e2e_data", "seq_len", "4096"},   {"paper", "e2e_data", "val_size", "0"},
    {"best", "quantizer", "init", "descent"},   {"best", "block_ap", "lr_unit", "relative"},
    {"best", "block_ap", "decay_ratio", "0.5"}, {"best", "e2e_data", "seq_len", "4096"},
    {"best", "e2e_data", "val_size", "0"},      {"best", "e2e_qp", "batch_size", "1"},
    {"best", "e2e_qp", "train_norms", "on"},    {"best", "e2e_qp", "lr_unit", "relative"},
    {"best", "e2e_qp", "teacher_share", "0.5"}, {"best", "run", "teacher", "source"},
};

static const char *const names[] = {"paper", "best", NULL};

/* Groups whose options are those of a struct with another name. */
static const char *struct_of(const char *group)
{
    return strcmp(group, "e2e_data") ? group : "data";
}

const char *eqat_recipe_name(size_t index)
{
    return index < EQI_COUNT(names) ? names[index] : NULL;
}

eqat_status eqat_recipe_option(const char *recipe, const char *group, size_t index,
                               const char **field, const char **value)
{
    if (!recipe || !group || !field || !value) return EQAT_INVALID_ARGUMENT;
    for (size_t i = 0; i < EQI_COUNT(rows); i++) {
        if (strcmp(rows[i].recipe, recipe) != 0 || strcmp(rows[i].group, group) != 0) continue;
        if (index-- > 0) continue;
        *field = rows[i].field;
        *value = rows[i].value;
        return EQAT_OK;
    }
    return EQAT_NOT_FOUND;
}

static eqat_status check_name(eqi_ctx *ctx, const char *recipe)
{
    char expected[EQI_WORDS_TEXT] = "";
    for (size_t i = 0; names[i]; i++)
        if (!strcmp(names[i], recipe)) return EQAT_OK;
    eqi_list_words(names, expected, sizeof expected);
    return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "recipe: found \"%s\", expected %s", recipe,
                    expected);
}

eqat_status eqat_recipe_take(eqat_context *ctx, const char *recipe, const char *group,
                             void *options)
{
    const char *field, *value;
    EQI_NEED(ctx, recipe, group, options);
    EQI_RETURN_IF(check_name(ctx, recipe));
    for (size_t i = 0; eqat_recipe_option(recipe, group, i, &field, &value) == EQAT_OK; i++)
        EQI_RETURN_IF(eqat_options_set(ctx, struct_of(group), options, field, value));
    return EQAT_OK;
}
