/** @file
 * libeqat for C++17: tensors.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TENSOR_HPP
#define EQAT_TENSOR_HPP

#include <cstdint>

#include "context.hpp"
#include "eqat/tensor.h"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{
namespace detail
{

template <class T> struct dtype_of; /* float, double, int32_t, uint8_t, uint32_t */
template <> struct dtype_of<float> {
    static constexpr eqat_dtype value = EQAT_F32;
};
template <> struct dtype_of<double> {
    static constexpr eqat_dtype value = EQAT_F64;
};
template <> struct dtype_of<std::int32_t> {
    static constexpr eqat_dtype value = EQAT_I32;
};
template <> struct dtype_of<std::uint8_t> {
    static constexpr eqat_dtype value = EQAT_U8;
};
template <> struct dtype_of<std::uint32_t> {
    static constexpr eqat_dtype value = EQAT_U32;
};

/** uint16_t stands for the bits of BF16 and of F16. */
template <class T> bool holds(eqat_dtype dtype)
{
    if constexpr (std::is_same_v<T, std::uint16_t>)
        return dtype == EQAT_BF16 || dtype == EQAT_F16;
    else
        return dtype == dtype_of<T>::value;
}

inline error mismatch(const char *what, std::size_t found, std::size_t expected)
{
    return error(EQAT_INVALID_ARGUMENT,
                 std::string(what) + ": found " + std::to_string(found) + " values, expected " +
                     std::to_string(expected));
}

} // namespace detail

/** A strided array of at most 4 dimensions: one reference on an eqat_tensor.  C++ types of
 * elements: float, double, int32_t, uint8_t, uint32_t, and uint16_t for the bits of BF16 and F16.
 */
class tensor : public detail::handle<eqat_tensor, eqat_tensor_free>
{
  public:
    using handle::handle;

    static outcome<tensor> zeros(const context &c, eqat_dtype dtype, span<const std::int64_t> shape)
    {
        return create(c, dtype, shape, nullptr);
    }
    /** Copies a vector, array or span of the tensor's type. */
    template <class C>
    static outcome<tensor> from(const context &c, span<const std::int64_t> shape, const C &values)
    {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(values))>>;
        if (std::size(values) != count(shape))
            return detail::give_up<tensor>(
                detail::mismatch("tensor", std::size(values), count(shape)));
        return create(c, detail::dtype_of<T>::value, shape, std::data(values));
    }
    /** Memory of the caller's, in use until release(), which runs once and must not throw. */
    template <class T>
    static outcome<tensor> wrap(const context &c, span<const std::int64_t> shape, span<T> memory,
                                std::function<void()> release = nullptr,
                                span<const std::int64_t> stride = {})
    {
        return wrap_bytes(c, detail::dtype_of<T>::value, shape, memory.data(),
                          memory.size() * sizeof(T), std::move(release), stride);
    }
    static outcome<tensor> wrap_bytes(const context &c, eqat_dtype dtype,
                                      span<const std::int64_t> shape, void *memory,
                                      std::size_t bytes, std::function<void()> release = nullptr,
                                      span<const std::int64_t> stride = {});

    /** One more reference on the same tensor. */
    tensor share() const { return tensor(where(), eqat_tensor_ref(get())); }

    eqat_dtype dtype() const noexcept { return eqat_tensor_dtype(get()); }
    std::int32_t ndim() const noexcept { return eqat_tensor_ndim(get()); }
    std::int64_t size(std::int32_t dim) const noexcept { return eqat_tensor_size(get(), dim); }
    std::int64_t stride(std::int32_t dim) const noexcept { return eqat_tensor_stride(get(), dim); }
    std::int64_t count() const noexcept { return eqat_tensor_count(get()); }
    std::vector<std::int64_t> shape() const
    {
        std::vector<std::int64_t> sizes;
        for (std::int32_t d = 0; d < ndim(); d++) sizes.push_back(size(d));
        return sizes;
    }

    /** The elements where they are; of a contiguous tensor, as long as the tensor.  On "cuda:N"
     * that is memory of the device, which the host must not touch: read copies. */
    template <class T> outcome<span<T>> data() const
    {
        if (!detail::holds<T>(dtype())) return wrong_type<span<T>>();
        return outcome<span<T>>(
            span<T>(static_cast<T *>(eqat_tensor_data(get())), static_cast<std::size_t>(count())));
    }
    /** Copies out; read_into wants as many as there are. */
    template <class T> outcome<std::vector<T>> read() const
    {
        std::vector<T> values(static_cast<std::size_t>(count()));
        if (!detail::holds<T>(dtype())) return wrong_type<std::vector<T>>();
        return value(eqat_tensor_read(get(), values.data(), values.size() * sizeof(T)), values);
    }
    template <class T> outcome<void> read_into(span<T> values) const
    {
        if (!detail::holds<T>(dtype())) return wrong_type<void>();
        return done(eqat_tensor_read(get(), values.data(), values.size() * sizeof(T)));
    }
    /** The value of a tensor that has one, such as a loss. */
    template <class T> outcome<T> item() const
    {
        T one{};
        if (!detail::holds<T>(dtype())) return wrong_type<T>();
        return value(eqat_tensor_read(get(), &one, sizeof one), one);
    }
    /** Copies in a vector, array or span. */
    template <class C> outcome<void> write(const C &values)
    {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(values))>>;
        if (!detail::holds<T>(dtype())) return wrong_type<void>();
        return done(eqat_tensor_write(get(), std::data(values), std::size(values) * sizeof(T)));
    }
    outcome<void> fill(double value) { return done(eqat_tensor_fill(get(), value)); }
    /** Elements of the same shape, converted. */
    outcome<void> copy_from(const tensor &source)
    {
        return done(eqat_tensor_copy(get(), source.get()));
    }

    /** Views of the same memory. */
    outcome<tensor> reshape(span<const std::int64_t> shape) const
    {
        eqat_tensor *out = nullptr;
        return made<tensor>(
            eqat_tensor_reshape(get(), static_cast<std::int32_t>(shape.size()), shape.data(), &out),
            out);
    }
    outcome<tensor> slice(std::int32_t dim, std::int64_t start, std::int64_t length) const
    {
        eqat_tensor *out = nullptr;
        return made<tensor>(eqat_tensor_slice(get(), dim, start, length, &out), out);
    }

    outcome<void> set_requires_grad(bool on)
    {
        return done(eqat_tensor_set_requires_grad(get(), on));
    }
    bool requires_grad() const noexcept { return eqat_tensor_requires_grad(get()); }
    /** The accumulated gradient, if there is one. */
    std::optional<tensor> grad() const
    {
        eqat_tensor *g = eqat_tensor_ref(eqat_tensor_grad(get()));
        return g ? std::optional<tensor>(tensor(where(), g)) : std::nullopt;
    }
    void zero_grad() noexcept { eqat_tensor_zero_grad(get()); }

  private:
    friend class tape;
    static std::size_t count(span<const std::int64_t> shape)
    {
        std::int64_t n = 1;
        for (std::int64_t size : shape) n *= size;
        return static_cast<std::size_t>(n);
    }
    static outcome<tensor> create(const context &c, eqat_dtype dtype,
                                  span<const std::int64_t> shape, const void *data)
    {
        eqat_tensor *out = nullptr;
        eqat_status status = eqat_tensor_create(
            c.get(), &out, dtype, static_cast<std::int32_t>(shape.size()), shape.data(), data);
        return c.made<tensor>(status, out);
    }
    template <class T> outcome<T> wrong_type() const
    {
        return detail::give_up<T>(error(EQAT_INVALID_ARGUMENT,
                                        std::string("tensor: found ") + eqat_dtype_name(dtype()) +
                                            ", expected the type asked for"));
    }
};

inline outcome<tensor> tensor::wrap_bytes(const context &c, eqat_dtype dtype,
                                          span<const std::int64_t> shape, void *memory,
                                          std::size_t bytes, std::function<void()> release,
                                          span<const std::int64_t> stride)
{
    if (!stride.empty() && stride.size() != shape.size())
        return detail::give_up<tensor>(detail::mismatch("stride", stride.size(), shape.size()));
    auto user = std::make_unique<std::function<void()>>(std::move(release));
    auto let_go = [](void *u, void *) noexcept {
        std::unique_ptr<std::function<void()>> f(static_cast<std::function<void()> *>(u));
        if (*f) (*f)();
    };
    eqat_tensor *out = nullptr;
    eqat_status status =
        eqat_tensor_wrap(c.get(), &out, dtype, static_cast<std::int32_t>(shape.size()),
                         shape.data(), stride.data(), memory, bytes, let_go, user.get());
    if (status == EQAT_OK) static_cast<void>(user.release()); /* now the tensor's */
    return c.made<tensor>(status, out);
}

/** Bytes of one element, and the name: "f32". */
inline std::size_t dtype_size(eqat_dtype dtype) { return eqat_dtype_size(dtype); }
inline std::string_view dtype_name(eqat_dtype dtype) { return eqat_dtype_name(dtype); }

namespace detail
{

inline eqat_tensor *raw(const tensor *t) { return t ? t->get() : nullptr; }

/** Tensors that C lends for a callback, each with a reference of its own. */
inline std::vector<tensor> lent(const std::shared_ptr<home> &where, eqat_tensor *const *raw,
                                std::size_t count)
{
    std::vector<tensor> tensors;
    for (std::size_t i = 0; i < count; i++) tensors.emplace_back(where, eqat_tensor_ref(raw[i]));
    return tensors;
}

inline std::vector<eqat_tensor *> raw(span<const tensor *const> tensors)
{
    std::vector<eqat_tensor *> pointers;
    for (const tensor *t : tensors) pointers.push_back(raw(t));
    return pointers;
}

} // namespace detail
} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
