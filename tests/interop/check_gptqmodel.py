#!/usr/bin/env python3
"""Folders of the formats gptq_v2, gptq and awq in GPTQModel on the CPU.

    check_gptqmodel.py EQAT

Mixed bits and linears that are not quantized among them. The engine's weights are (q - z) s of a
plain unpacking, bit for bit in f16; in f32, perplexity and greedy text are those of the plain
model. Exit code 77: a package or the model is missing.
"""

import json
import os
import sys
import tempfile

import folders

folders.need("torch", "transformers", "tokenizers", "gptqmodel")
source = folders.stories()

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from gptqmodel import BACKEND, GPTQModel  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

WORDS = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
TOKENIZER = json.dumps({"version": "1.0", "added_tokens": [], "model": WORDS})
# The kernels in plain PyTorch; that of 4 bits in bf16 is compiled for minutes when first loaded.
BACKENDS = {
    "gptq_v2": BACKEND.GPTQ_TORCH,
    "gptq": BACKEND.GPTQ_TORCH,
    "awq": BACKEND.AWQ_TORCH,
}


def load(folder, name):
    """GPTQModel wants a tokenizer beside the weights, whatever it is."""
    with tempfile.TemporaryDirectory() as view:
        for file in os.listdir(folder):
            os.symlink(os.path.abspath(os.path.join(folder, file)), os.path.join(view, file))
        Tokenizer.from_str(TOKENIZER).save(os.path.join(view, "tokenizer.json"))
        with open(os.path.join(view, "tokenizer_config.json"), "w") as f:
            json.dump({"tokenizer_class": "PreTrainedTokenizerFast"}, f)
        return GPTQModel.load(
            view, backend=BACKENDS[name], device="cpu", dtype=torch.float16
        ).model.eval()


def check_weights(model, case):
    for name, want in case.weights.items():
        linear = model.get_submodule(name)
        with torch.no_grad():
            if hasattr(linear, "dequantize_weight"):
                got = linear.dequantize_weight()
            else:  # of awq: what it makes of unit vectors
                got = linear(torch.eye(want.shape[1], dtype=torch.float16))
        folders.same_weights(f"{case.name}: {name}", got.numpy(), want.astype(np.float16).T)


def in_f32(model, folder):
    """With the tensors of the file: loading rounded embeddings and norm gains to f16."""
    model = model.float()
    tensors = folders.safetensors(os.path.join(folder, "model.safetensors"))
    dense = {k: v for k, v in tensors.items() if k.rsplit(".", 1)[1] in ("weight", "bias")}
    state = {k: torch.from_numpy(v.astype(np.float32)) for k, v in dense.items()}
    model.load_state_dict(state, strict=False)
    return model


def logits_of(model):
    def logits(ids):
        with torch.no_grad():
            return model(torch.from_numpy(np.asarray(ids))[None]).logits[0].numpy()

    return logits


ids = folders.windows(source)
for case in folders.cases(sys.argv[1], source):
    plain = transformers.AutoModelForCausalLM.from_pretrained(case.plain, dtype=torch.float32)
    for name in BACKENDS:
        folder = case.saved_as(name)
        if not folder:
            continue
        model = load(folder, name)
        check_weights(model, case)
        logits = logits_of(in_f32(model, folder))
        folders.compare(f"{name}, {case.name}", logits, logits_of(plain.eval()), ids, 1e-4)
