/** @file
 * libeqat for C++17: what long calls tell while they run.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_PROGRESS_HPP
#define EQAT_PROGRESS_HPP

#include "context.hpp"
#include "eqat/progress.h"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

/** Whether a call goes on; no: it ends with EQAT_CANCELLED and everything consistent. */
enum class proceed { no, yes };

using progress_fn = std::function<proceed(const eqat_progress &progress)>;

namespace detail
{

struct progress_call {
    std::shared_ptr<home> where;
    progress_fn call;

    static std::int32_t run(void *user, const eqat_progress *p)
    {
        auto *own = static_cast<progress_call *>(user);
        proceed next = proceed::no;
        own->where->guard([&]() -> outcome<void> {
            next = own->call(*p);
            return outcome<void>();
        });
        return next == proceed::no;
    }
    /** Replaces the C callback, when the caller gave one. */
    void enter(eqat_progress_fn &function, void *&user)
    {
        if (!call) return;
        function = run;
        user = this;
    }
};

} // namespace detail
} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
