/** @file
 * libeqat for C++17: the whole interface, header-only.  SPDX-License-Identifier: Apache-2.0
 *
 *     auto context = eqat::context::create();
 *     auto model = eqat::model::open(context, "SmolLM2-135M-Instruct.gguf");
 *     auto quantizer = eqat::quantizer::create(context); // 2 bits, groups of 64
 *     auto data = eqat::data::open(context, "text.jsonl", model.tokenizer());
 *     eqat::block_ap::quantize(model, quantizer, data);
 *     eqat::e2e_qp::train(model, data);
 *     model.save("SmolLM2-w2g64");
 *
 * Thin: every call is one of C, whose header is the reference for shapes, units, ranges and
 * threads. What C++ adds:
 *
 * Handles are move-only objects, destroyed in any order; what is borrowed in C (the tokenizer of a
 * model, the optimizer of a job) keeps its owner alive.  A tensor is one reference; share() takes
 * another.  get() gives the C handle, and T(context.shared(), raw) takes one over.
 *
 * Options are the C structs, initialised with the library's defaults; callbacks are their members
 * on_..., any callable.
 *
 * Failures are thrown as eqat::error, with status() and the library's line as what().  Without
 * exceptions (-fno-exceptions), or where EQAT_NO_EXCEPTIONS is defined before the header, every
 * fallible call returns eqat::result<T> instead: test it, then use *result or result.error().  The
 * headers write both as outcome<T>.
 *
 * Callbacks may throw (or return an error, where they return an outcome): no exception crosses C.
 * The call that ran the callback ends as it does when cancelled, with everything consistent, and
 * the very exception comes out of it. */
#ifndef EQAT_EQAT_HPP
#define EQAT_EQAT_HPP

#include "allocate.hpp"
#include "context.hpp"
#include "data.hpp"
#include "error.hpp"
#include "generate.hpp"
#include "model.hpp"
#include "optimizer.hpp"
#include "options.hpp"
#include "quantizer.hpp"
#include "tape.hpp"
#include "tensor.hpp"
#include "tokenizer.hpp"
#include "train.hpp"

#endif
