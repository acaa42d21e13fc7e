/** @file
 * libeqat for C++17: what all handles have in common.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_HANDLE_HPP
#define EQAT_HANDLE_HPP

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eqat/context.h"
#include "error.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{
namespace detail
{

#ifdef EQAT_NO_EXCEPTIONS
using failure = std::optional<error>;
template <class T> outcome<T> give_up(error e) { return e; }
/** f of what r holds. */
template <class T, class F> outcome<void> then(result<T> r, F f)
{
    if (!r) return r.error();
    f(*r);
    return {};
}
#else
using failure = std::exception_ptr;
template <class T> [[noreturn]] T give_up(error e) { throw e; }
template <class T, class F> void then(T r, F f) { f(r); }
#endif

/** The context, what it calls back, and what a callback threw.  Every handle holds it, so that it
 * goes with the last of them. */
class home : public std::enable_shared_from_this<home>
{
  public:
    eqat_context *raw = nullptr;
    std::function<void(eqat_log_level, std::string_view)> log;
    std::function<void *(std::size_t size, std::size_t align)> alloc;
    std::function<void(void *p, std::size_t size)> free;
    std::function<void(std::size_t count, const std::function<void(std::size_t)> &task)> parallel;

    home() = default;
    home(const home &) = delete;
    home &operator=(const home &) = delete;
    ~home() { eqat_context_free(raw); }

    /** Runs what the caller gave; no exception leaves it.  The first failure waits until the C call
     * around it has returned. */
    template <class F> eqat_status guard(F &&f) noexcept
    {
#ifdef EQAT_NO_EXCEPTIONS
        outcome<void> r = f();
        if (r) return EQAT_OK;
        if (!pending_) pending_ = r.error();
        return r.error().status() == EQAT_OK ? EQAT_CANCELLED : r.error().status();
#else
        try {
            f();
            return EQAT_OK;
        } catch (const error &e) {
            if (!pending_) pending_ = std::current_exception();
            return e.status() == EQAT_OK ? EQAT_CANCELLED : e.status();
        } catch (...) {
            if (!pending_) pending_ = std::current_exception();
            return EQAT_CANCELLED;
        }
#endif
    }
    bool has_pending() const noexcept { return static_cast<bool>(pending_); }

    /** Why a C call failed: what a callback threw, else the context's line. */
    template <class T> outcome<T> give_up(eqat_status status)
    {
        failure first = std::exchange(pending_, failure());
#ifdef EQAT_NO_EXCEPTIONS
        if (first) return *first;
#else
        if (first) std::rethrow_exception(first);
#endif
        return detail::give_up<T>(error(status, raw ? eqat_context_error(raw) : ""));
    }

  private:
    failure pending_{};
};

/** What keeps the C handle alive: the wrapper and everything that was borrowed from it. */
struct anchor {
    std::shared_ptr<home> where;
    void *owned = nullptr;
    void (*free)(void *) = nullptr;
    std::shared_ptr<void> callbacks; /**< of the C handle; outlive it */
    std::shared_ptr<void> gradient;  /**< of its optimizer */

    anchor(std::shared_ptr<home> h, void *raw, void (*f)(void *))
        : where(std::move(h)), owned(raw), free(f)
    {
    }
    anchor(const anchor &) = delete;
    anchor &operator=(const anchor &) = delete;
    ~anchor()
    {
        if (owned) free(owned);
    }
};

/** A C handle of one kind.  Move-only; a wrapper that was moved from holds nothing, and its calls
 * fail.  Destroyed in any order and on any thread, as eqat_..._free. */
template <class Raw, void (*Free)(Raw *)> class handle
{
  public:
    handle(handle &&other) noexcept
        : anchor_(std::move(other.anchor_)), raw_(std::exchange(other.raw_, nullptr))
    {
    }
    handle &operator=(handle &&other) noexcept
    {
        anchor_ = std::move(other.anchor_);
        raw_ = std::exchange(other.raw_, nullptr);
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;

    /** The C handle, borrowed: for calls of the C interface. */
    Raw *get() const noexcept { return raw_; }
    explicit operator bool() const noexcept { return raw_ != nullptr; }

    /** Takes the caller's reference over: tensor(context.shared(), raw). */
    handle(std::shared_ptr<home> where, Raw *raw)
        : anchor_(std::make_shared<anchor>(std::move(where), raw,
                                           [](void *p) { Free(static_cast<Raw *>(p)); })),
          raw_(raw)
    {
    }
    /** Borrowed from `owner`, which stays alive as long. */
    handle(std::shared_ptr<anchor> owner, Raw *raw) : anchor_(std::move(owner)), raw_(raw) {}

    /** The rest is for these headers alone. */
    std::shared_ptr<home> where() const { return anchor_ ? anchor_->where : nullptr; }
    const std::shared_ptr<anchor> &owner() const { return anchor_; }
    template <class T> outcome<T> failed(eqat_status status) const
    {
        if (!anchor_)
            return give_up<T>(error(EQAT_INVALID_ARGUMENT, "a handle that was moved from"));
        return anchor_->where->template give_up<T>(status);
    }
    bool went_well(eqat_status status) const
    {
        return status == EQAT_OK && anchor_ && !anchor_->where->has_pending();
    }
    outcome<void> done(eqat_status status) const
    {
        if (!went_well(status)) return failed<void>(status);
        return outcome<void>();
    }
    /** `value` was written by the call that gave `status`. */
    template <class T> outcome<T> value(eqat_status status, T &value) const
    {
        if (!went_well(status)) return failed<T>(status);
        return outcome<T>(std::move(value));
    }
    /** The same for a new C handle. */
    template <class T, class Other> outcome<T> made(eqat_status status, Other *&raw) const
    {
        T made(where(), std::exchange(raw, nullptr));
        return value(status, made);
    }
    void replace(Raw *raw) { anchor_->owned = raw_ = raw; }

  private:
    std::shared_ptr<anchor> anchor_;
    Raw *raw_ = nullptr;
};

} // namespace detail
} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
