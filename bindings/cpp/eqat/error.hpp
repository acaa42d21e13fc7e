/** @file
 * libeqat for C++17: how calls fail, and views of the caller's arrays.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_ERROR_HPP
#define EQAT_ERROR_HPP

#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "eqat/status.h"

/* Without exceptions, or where EQAT_NO_EXCEPTIONS is defined, every fallible call returns an
 * eqat::result.  The two kinds are different types, so that one program may hold both. */
#if !defined(EQAT_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define EQAT_NO_EXCEPTIONS
#endif
#ifdef EQAT_NO_EXCEPTIONS
#define EQAT_CPP_MODE returning
#else
#define EQAT_CPP_MODE throwing
#endif

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

/** What went wrong: the status and the library's line, which names the file, tensor or option at
 * fault, what was found and what was expected.  Thrown, or held by a result. */
class error : public std::runtime_error
{
  public:
    error(eqat_status status, const std::string &message)
        : std::runtime_error(message.empty() ? eqat_status_name(status) : message), status_(status)
    {
    }
    eqat_status status() const noexcept { return status_; }
    /** Whether the call was told to stop: by context::cancel() or a progress callback. */
    bool is_cancelled() const noexcept { return status_ == EQAT_CANCELLED; }

  private:
    eqat_status status_;
};

/** A value or an error, after std::expected. */
template <class T> class [[nodiscard]] result
{
    using stored = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

  public:
    using value_type = T;
    /** T, or nothing for result<void>. */
    template <class U = stored,
              class = std::enable_if_t<std::is_constructible_v<stored, U &&> &&
                                       !std::is_same_v<std::decay_t<U>, result> &&
                                       !std::is_same_v<std::decay_t<U>, error>>>
    result(U &&value) : held_(std::in_place_index<0>, std::forward<U>(value))
    {
    }
    template <class U = stored, class = std::enable_if_t<std::is_same_v<U, std::monostate>>>
    result() : held_(std::in_place_index<0>)
    {
    }
    result(class error e) : held_(std::in_place_index<1>, std::move(e)) {}

    bool has_value() const noexcept { return held_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    /** Only with a value. */
    stored &operator*() & { return *std::get_if<0>(&held_); }
    const stored &operator*() const & { return *std::get_if<0>(&held_); }
    stored &&operator*() && { return std::move(*std::get_if<0>(&held_)); }
    stored *operator->() { return std::get_if<0>(&held_); }
    const stored *operator->() const { return std::get_if<0>(&held_); }
    /** Only without one. */
    const class error &error() const { return *std::get_if<1>(&held_); }
    /** The value; without one throws the error, or ends the program where exceptions are off. */
    T value() &&
    {
        if (!has_value()) raise();
        if constexpr (!std::is_void_v<T>) return std::move(**this);
    }
    stored value_or(stored other) && { return has_value() ? std::move(**this) : std::move(other); }

  private:
    [[noreturn]] void raise() const
    {
#ifdef __cpp_exceptions
        throw error();
#else
        std::abort();
#endif
    }
    std::variant<stored, class error> held_;
};

/** What a fallible call returns: T, with failures thrown; or result<T> without exceptions.  And
 * what a callback of the caller's returns: it throws, or returns an error. */
#ifdef EQAT_NO_EXCEPTIONS
template <class T> using outcome = result<T>;
#else
template <class T> using outcome = T;
#endif

#ifndef EQAT_NO_EXCEPTIONS
/** Calls f and catches eqat::error: for the one call whose failure is expected.
 *     auto model = eqat::attempt([&] { return eqat::model::open(context, path); });
 *     if (!model) puts(model.error().what()); */
template <class F> auto attempt(F &&f) -> result<decltype(f())>
{
    try {
        if constexpr (std::is_void_v<decltype(f())>) {
            f();
            return {};
        } else {
            return f();
        }
    } catch (const error &e) {
        return e;
    }
}
#endif

/** A view of consecutive values, after std::span: of a vector, an array, an initializer list (const
 * T alone, for the length of a call), or a pointer and a count. */
template <class T> class span
{
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    span() noexcept = default;
    span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N> span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class C,
              class = std::enable_if_t<std::is_convertible_v<
                  std::remove_pointer_t<decltype(std::data(std::declval<C &>()))> (*)[], T (*)[]>>>
    span(C &&values) : data_(std::data(values)), size_(std::size(values))
    {
    }
    template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
    span(std::initializer_list<value_type> values)
    {
        data_ = values.begin();
        size_ = values.size();
    }
    T *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size_; }
    T &operator[](std::size_t i) const { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
