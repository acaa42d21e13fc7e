/** @file
 * libeqat for C++17: uniform group-wise quantization.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_QUANTIZER_HPP
#define EQAT_QUANTIZER_HPP

#include "eqat/quantizer.h"
#include "tensor.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct quantizer_options : eqat_quantizer_options {
    quantizer_options() { eqat_quantizer_options_init(this, sizeof(eqat_quantizer_options)); }
};

/** How weights become codes: eqat_quantizer, whose header tells shapes and types. */
class quantizer : public detail::handle<eqat_quantizer, eqat_quantizer_free>
{
  public:
    using handle::handle;
    struct initial {
        tensor s, z;
    };
    struct packed {
        tensor s, z, codes;
    };

    static outcome<quantizer> create(const context &c,
                                     const quantizer_options &options = quantizer_options())
    {
        eqat_quantizer *out = nullptr;
        eqat_status status = eqat_quantizer_create(c.get(), &out, &options);
        return c.made<quantizer>(status, out);
    }
    /** Linears whose name matches the pattern are quantized so; or left as they are. */
    outcome<void> add_rule(const std::string &pattern, const quantizer_options &options)
    {
        return done(eqat_quantizer_add_rule(get(), pattern.c_str(), &options));
    }
    outcome<void> skip(const std::string &pattern)
    {
        return done(eqat_quantizer_add_rule(get(), pattern.c_str(), nullptr));
    }
    /** How a linear of that name is quantized; nothing when it is not. */
    std::optional<quantizer_options> lookup(const std::string &name) const
    {
        quantizer_options options;
        if (!eqat_quantizer_lookup(get(), name.c_str(), &options)) return std::nullopt;
        return options;
    }

    /** moments: of the squares of w's inputs, or of their products, for EQAT_INIT_WMSE and on. */
    outcome<initial> init(const tensor &w, bool round_s = false,
                          const tensor *moments = nullptr) const
    {
        eqat_tensor *s = nullptr, *z = nullptr;
        eqat_status status = eqat_quantizer_init(get(), w.get(), moments ? moments->get() : nullptr,
                                                 round_s, &s, &z);
        initial out{tensor(where(), s), tensor(where(), z)};
        return value(status, out);
    }
    /** From trained masters to what a file stores. */
    outcome<packed> freeze(const tensor &w, const tensor &s, const tensor &z) const
    {
        eqat_tensor *stored_s = nullptr, *stored_z = nullptr, *codes = nullptr;
        eqat_status status =
            eqat_quantizer_freeze(get(), w.get(), s.get(), z.get(), &stored_s, &stored_z, &codes);
        return three(status, stored_s, stored_z, codes);
    }
    outcome<tensor> pack(const tensor &w, const tensor &s, const tensor &z) const
    {
        eqat_tensor *codes = nullptr;
        return made<tensor>(eqat_quantizer_pack(get(), w.get(), s.get(), z.get(), &codes), codes);
    }
    /** Round to nearest in one call. */
    outcome<packed> quantize(const tensor &w) const
    {
        eqat_tensor *s = nullptr, *z = nullptr, *codes = nullptr;
        eqat_status status = eqat_quantizer_quantize(get(), w.get(), &s, &z, &codes);
        return three(status, s, z, codes);
    }
    outcome<tensor> dequantize(const tensor &codes, const tensor &s, const tensor &z,
                               eqat_dtype dtype = EQAT_F32) const
    {
        eqat_tensor *out = nullptr;
        return made<tensor>(
            eqat_quantizer_dequantize(get(), codes.get(), s.get(), z.get(), dtype, &out), out);
    }

  private:
    outcome<packed> three(eqat_status status, eqat_tensor *s, eqat_tensor *z,
                          eqat_tensor *codes) const
    {
        packed out{tensor(where(), s), tensor(where(), z), tensor(where(), codes)};
        return value(status, out);
    }
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
