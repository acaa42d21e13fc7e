/** @file
 * libeqat for C++17: options by name.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_OPTIONS_HPP
#define EQAT_OPTIONS_HPP

#include <utility>

#include "eqat/allocate.h"
#include "eqat/generate.h"
#include "eqat/options.h"
#include "train.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{
namespace detail
{

inline const char *name_of(const eqat_context_options &) { return "context"; }
inline const char *name_of(const eqat_model_options &) { return "model"; }
inline const char *name_of(const eqat_quantizer_options &) { return "quantizer"; }
inline const char *name_of(const eqat_data_options &) { return "data"; }
inline const char *name_of(const eqat_block_ap_options &) { return "block_ap"; }
inline const char *name_of(const eqat_e2e_qp_options &) { return "e2e_qp"; }
inline const char *name_of(const eqat_eval_options &) { return "eval"; }
inline const char *name_of(const eqat_rtn_options &) { return "rtn"; }
inline const char *name_of(const eqat_choose_options &) { return "choose"; }
inline const char *name_of(const eqat_allocate_options &) { return "allocate"; }
inline const char *name_of(const eqat_save_options &) { return "save"; }
inline const char *name_of(const eqat_optimizer_options &) { return "optimizer"; }
inline const char *name_of(const eqat_attention_options &) { return "attention"; }

} // namespace detail

/** Names of all structs that the library describes. */
inline std::vector<std::string_view> option_structs()
{
    std::vector<std::string_view> names;
    while (const char *name = eqat_options_struct(names.size())) names.emplace_back(name);
    return names;
}

/** Its fields, with bounds, defaults and help; none of a struct that is unknown. */
inline std::vector<eqat_field> option_fields(const std::string &struct_name)
{
    std::vector<eqat_field> fields(eqat_options_count(struct_name.c_str()));
    for (std::size_t i = 0; i < fields.size(); i++) {
        fields[i].struct_size = sizeof fields[i];
        eqat_options_field(struct_name.c_str(), i, &fields[i]);
    }
    return fields;
}

/** Bytes of the struct in the library; 0: unknown. */
inline std::size_t option_size(const std::string &struct_name)
{
    return eqat_options_size(struct_name.c_str());
}

/** A field from text: set_option(context, options, "train_size", "512").  A string stays borrowed.
 */
template <class Options>
outcome<void> set_option(const context &c, Options &options, const char *field, const char *text)
{
    eqat_status status = eqat_options_set(c.get(), detail::name_of(options), &options, field, text);
    if (status != EQAT_OK)
        return detail::give_up<void>(error(status, c ? eqat_context_error(c.get()) : ""));
    return outcome<void>();
}

/** The names of all recipes. */
inline std::vector<std::string> recipe_names()
{
    std::vector<std::string> names;
    while (const char *name = eqat_recipe_name(names.size())) names.emplace_back(name);
    return names;
}

/** What a recipe says of a group, as fields and texts; none of a recipe or group that is unknown.
 */
inline std::vector<std::pair<std::string, std::string>> recipe_options(const std::string &recipe,
                                                                       const std::string &group)
{
    std::vector<std::pair<std::string, std::string>> options;
    const char *field, *value;
    while (eqat_recipe_option(recipe.c_str(), group.c_str(), options.size(), &field, &value) ==
           EQAT_OK)
        options.emplace_back(field, value);
    return options;
}

/** What a recipe says of a group: take_recipe(context, "best", "block_ap", options). */
template <class Options>
outcome<void> take_recipe(const context &c, const char *recipe, const char *group, Options &options)
{
    eqat_status status = eqat_recipe_take(c.get(), recipe, group, &options);
    if (status != EQAT_OK)
        return detail::give_up<void>(error(status, c ? eqat_context_error(c.get()) : ""));
    return outcome<void>();
}

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
