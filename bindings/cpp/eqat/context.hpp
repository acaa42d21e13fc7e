/** @file
 * libeqat for C++17: the context.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_CONTEXT_HPP
#define EQAT_CONTEXT_HPP

#include "handle.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

/** eqat_context_options with the library's defaults, and callbacks.  What on_log throws comes out
 * of the call that ran it, when that has ended; on_parallel and on_free must not throw. */
struct context_options : eqat_context_options {
    context_options() { eqat_context_options_init(this, sizeof(eqat_context_options)); }
    /** One finished line. */
    std::function<void(eqat_log_level level, std::string_view line)> on_log;
    /** Memory as of eqat_alloc_fn; nullptr: out of memory.  Given together with on_free. */
    std::function<void *(std::size_t size, std::size_t align)> on_alloc;
    std::function<void(void *p, std::size_t size)> on_free;
    /** The caller's thread pool: task(i) for every i below count, then return. */
    std::function<void(std::size_t count, const std::function<void(std::size_t)> &task)>
        on_parallel;
};

/** A device, a thread pool, an allocator, a log and a seed: eqat_context, whose header tells about
 * threads, forks and the process.  It lives as long as this object or a handle made from it. */
class context
{
  public:
    static outcome<context> create(const context_options &options = context_options());

    context(context &&) noexcept = default;
    context &operator=(context &&) noexcept = default;
    context(const context &) = delete;
    context &operator=(const context &) = delete;

    eqat_context *get() const noexcept { return home_ ? home_->raw : nullptr; }
    explicit operator bool() const noexcept { return get() != nullptr; }
    /** For wrapping C handles of this context. */
    const std::shared_ptr<detail::home> &shared() const noexcept { return home_; }

    /** Bytes given out by the allocator, now and at most. */
    std::size_t bytes() const noexcept { return eqat_context_bytes(get()); }
    std::size_t bytes_peak() const noexcept { return eqat_context_bytes_peak(get()); }
    /** Of the device: eqat_context_device_bytes. */
    std::size_t device_bytes() const noexcept { return eqat_context_device_bytes(get()); }
    std::size_t device_bytes_peak() const noexcept { return eqat_context_device_bytes_peak(get()); }
    std::size_t device_bytes_left() const noexcept { return eqat_context_device_bytes_left(get()); }
    void reset_peak() noexcept { eqat_context_reset_peak(get()); }
    void trim() noexcept { eqat_context_trim(get()); }
    std::int32_t threads() const noexcept { return eqat_context_threads(get()); }
    /** The running call, or the next one, ends with EQAT_CANCELLED.  Any thread; safe in a signal
     * handler. */
    void cancel() const noexcept { eqat_context_cancel(get()); }
    void reset_cancel() const noexcept { eqat_context_reset_cancel(get()); }

    /** How makers of handles end: see handle::made. */
    template <class T, class Raw> outcome<T> made(eqat_status status, Raw *&raw) const
    {
        if (!home_) return detail::give_up<T>(error(status, "a context that was moved from"));
        T made(home_, std::exchange(raw, nullptr));
        if (status != EQAT_OK || home_->has_pending()) return home_->give_up<T>(status);
        return outcome<T>(std::move(made));
    }

  private:
    explicit context(std::shared_ptr<detail::home> home) : home_(std::move(home)) {}
    std::shared_ptr<detail::home> home_;
};

/** Version of the library in the process; EQAT_VERSION_MAJOR and so on are the headers'. */
inline std::string_view version() { return eqat_version(); }

namespace detail
{

inline void call_log(void *user, std::int32_t level, const char *line)
{
    home *h = static_cast<home *>(user);
    h->guard([&]() -> outcome<void> {
        h->log(static_cast<eqat_log_level>(level), line);
        return outcome<void>();
    });
}

inline void *call_alloc(void *user, std::size_t size, std::size_t align)
{
    home *h = static_cast<home *>(user);
    void *p = nullptr;
    h->guard([&]() -> outcome<void> {
        p = h->alloc(size, align);
        return outcome<void>();
    });
    return p;
}

inline void call_free(void *user, void *p, std::size_t size) noexcept
{
    static_cast<home *>(user)->free(p, size);
}

inline void call_parallel(void *user, std::size_t count, void (*task)(void *, std::size_t),
                          void *arg) noexcept
{
    static_cast<home *>(user)->parallel(count, [=](std::size_t i) { task(arg, i); });
}

} // namespace detail

inline outcome<context> context::create(const context_options &options)
{
    auto home = std::make_shared<detail::home>();
    eqat_context_options o = options;
    if (options.on_log) {
        home->log = options.on_log;
        o.log = detail::call_log;
        o.log_user = home.get();
    }
    if (options.on_alloc || options.on_free) {
        home->alloc = options.on_alloc;
        home->free = options.on_free;
        o.alloc = options.on_alloc ? detail::call_alloc : nullptr;
        o.free = options.on_free ? detail::call_free : nullptr;
        o.alloc_user = home.get();
    }
    if (options.on_parallel) {
        home->parallel = options.on_parallel;
        o.parallel = detail::call_parallel;
        o.parallel_user = home.get();
    }
    char line[512];
    eqat_status status = eqat_context_create(&home->raw, &o, line, sizeof line);
    if (status == EQAT_OK && !home->has_pending()) return context(std::move(home));
    if (home->has_pending()) return home->give_up<context>(status);
    return detail::give_up<context>(error(status, line));
}

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
