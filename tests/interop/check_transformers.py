#!/usr/bin/env python3
"""Folders in transformers on the CPU, with the package of others that reads the format.

    check_transformers.py FORMAT EQAT

FORMAT: gptq_v2, gptq and awq (optimum, gptqmodel), compressed-tensors, auto-round (auto-round,
auto-round-lib), fp16 (nothing else). The engine's weights, as what its linears make of unit
vectors, are (q - z) s of a plain unpacking bit for bit; perplexity and greedy text are those of the
plain model in f32, with weights as fp16 where the engine has them so. auto-round's kernels round
activations. Exit code 77: a package or the model is missing.
"""

import sys

import folders

PACKAGES = {
    "gptq_v2": ("optimum", "gptqmodel"),
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed_tensors",),
    "auto-round": ("auto_round", "auto_round_kernel"),
    "fp16": (),
}
ROUNDED = ("gptq_v2", "gptq", "awq", "compressed-tensors", "fp16")  # weights come to be fp16
FORMAT = sys.argv[1]
folders.need("torch", "transformers", *PACKAGES[FORMAT])
source = folders.stories()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()


def load(folder, **options):
    """The model in f32, and its logits."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map="cpu", **options
    ).eval()

    def logits(ids):
        with torch.no_grad():
            return model(torch.from_numpy(ids)[None]).logits[0].float().numpy()

    return model, logits


def options():
    if FORMAT == "compressed-tensors":  # the default way takes no zero points, and fails otherwise
        return {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)}
    if FORMAT in ("gptq", "gptq_v2"):  # other kernels compile for minutes, or round to bf16
        return {"quantization_config": transformers.GPTQConfig(bits=4, backend="gptq_torch")}
    return {}


def takes_one_kind():
    """transformers has no mixed bits under gptq, nor where it dequantizes compressed-tensors."""
    return FORMAT in ("gptq", "gptq_v2", "compressed-tensors")


def check_pack(case):
    """The words are those of the package's own functions."""
    from compressed_tensors.compressors.pack_quantized.helpers import (
        pack_to_int32,
        unpack_from_int32,
    )

    tensors = folders.safetensors(f"{case.saved_as(FORMAT)}/model.safetensors")
    for name, want in case.weights.items():
        words = torch.from_numpy(tensors[f"{name}.weight_packed"].copy())
        bits = words.shape[1] * 32 // want.shape[1]
        q = unpack_from_int32(words, bits, torch.Size(want.shape))
        assert torch.equal(pack_to_int32(q, bits), words), f"{case.name}: {name}: other words"


def check_weights(model, case):
    """How far the weights are from what they should be, in the least steps of the largest."""
    worst = 0.0
    for name, want in case.weights.items():
        linear = model.get_submodule(name)
        with torch.no_grad():
            got = linear(torch.eye(want.shape[1])).T.float().numpy()
        if FORMAT in ROUNDED:
            want = want.astype(np.float16).astype(np.float32)
        worst = max(worst, float(abs(got - want).max() / abs(want).max()))
    return worst


ids = folders.windows(source)
for case in folders.cases(sys.argv[2], source):
    folder = case.saved_as(FORMAT)
    if not folder or (case.mixed and takes_one_kind()):
        continue
    model, logits = load(folder, **options())
    worst = check_weights(model, case)
    kind = type(model.get_submodule(next(iter(case.weights)))).__name__
    if FORMAT == "compressed-tensors":
        check_pack(case)
    assert worst <= (5e-3 if FORMAT == "auto-round" else 0), f"{case.name}: weights {worst} apart"
    bound = 5e-3 if FORMAT == "auto-round" else 1e-4
    plain_model, plain = load(case.plain)
    for name in case.weights if FORMAT in ROUNDED else ():
        weight = plain_model.get_submodule(name).weight
        weight.data = weight.data.half().float()
    folders.compare(
        f"{FORMAT} ({kind}, weights {worst:.1e}), {case.name}", logits, plain, ids, bound
    )
