/** @file
 * libeqat: EfficientQAT (Chen et al., ACL 2025) as a library.  SPDX-License-Identifier: Apache-2.0
 */
#ifndef EQAT_EQAT_H
#define EQAT_EQAT_H

#include "eqat/allocate.h"
#include "eqat/context.h"
#include "eqat/data.h"
#include "eqat/eval.h"
#include "eqat/generate.h"
#include "eqat/model.h"
#include "eqat/optimizer.h"
#include "eqat/options.h"
#include "eqat/progress.h"
#include "eqat/quantizer.h"
#include "eqat/status.h"
#include "eqat/tape.h"
#include "eqat/tensor.h"
#include "eqat/tokenizer.h"
#include "eqat/train.h"

#endif
