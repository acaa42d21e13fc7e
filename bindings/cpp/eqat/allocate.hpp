/** @file
 * libeqat for C++17: bits by sensitivity.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_ALLOCATE_HPP
#define EQAT_ALLOCATE_HPP

#include "data.hpp"
#include "eqat/allocate.h"
#include "model.hpp"
#include "progress.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct allocate_options : eqat_allocate_options {
    allocate_options() { eqat_allocate_options_init(this, sizeof(eqat_allocate_options)); }
    explicit allocate_options(double bits) : allocate_options() { bits_per_weight = bits; }
    progress_fn on_progress;
};

/** Gives each linear that `q` selects 2, 3 or 4 bits, where they are worth most, as rules. */
inline outcome<void> allocate(quantizer &q, const model &m, const data &d,
                              const allocate_options &options)
{
    eqat_allocate_options raw = options;
    detail::progress_call call{m.where(), options.on_progress};
    call.enter(raw.progress, raw.progress_user);
    return m.done(eqat_quantizer_allocate(q.get(), m.get(), d.get(), &raw));
}

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
