#!/usr/bin/env python3
"""Folders of the formats mlx and awq in mlx-lm on the CPU.

    check_mlx.py EQAT

Weights are (q - z) s of a plain unpacking bit for bit, in f32; perplexity and greedy text are those
of the plain model in mlx-lm. Exit code 77: a package or the model is missing.
"""

import sys

import folders

folders.need("mlx", "mlx_lm")
source = folders.stories()

from pathlib import Path  # noqa: E402

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from mlx_lm.utils import load_model  # noqa: E402

mx.set_default_device(mx.cpu)


def load(folder):
    """The model in f32, and its logits."""
    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32)
    return model, lambda ids: np.array(model(mx.array(ids[None]))[0].astype(mx.float32))


def check_weights(model, case, exact):
    """mlx-lm makes of awq what mlx has and rounds s z to fp16, which is exact in the middle."""
    modules = dict(model.named_modules())
    for name, want in case.weights.items():
        m = modules[name]
        got = mx.dequantize(m.weight, m.scales, m.biases, group_size=m.group_size, bits=m.bits)
        if exact:
            folders.same_weights(f"{case.name}: {name}", got, want)
        else:
            bound = abs(np.array(m.biases)).max() / 2048
            assert abs(np.array(got) - want).max() <= bound, f"{case.name}: {name}"


ids = folders.windows(source)
for case in folders.cases(sys.argv[1], source):
    plain = load(case.plain)[1]
    for name in ("mlx", "awq"):
        folder = case.saved_as(name)
        if folder:
            model, logits = load(folder)
            exact = name == "mlx" or case.fixed
            check_weights(model, case, exact)
            bound = 1e-4 if exact else 5e-3
            folders.compare(f"{name}, {case.name}", logits, plain, ids, bound)
