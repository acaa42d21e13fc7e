#!/usr/bin/env python3
"""GGUF files held against llama.cpp, as the wheels of xllamacpp or llama-cpp-python carry it.

    check_llama.py EQAT     stories260K of the folder that EQAT_SHARED names, trained by Block-AP

Of each file: ggml's own values of every quantized tensor are (q - z) s of the gptq_v2 folder of the
same model, bit for bit; perplexity is that of the same model with its weights as F32 within 0.5%
(products with blocks round activations to 8 bits); greedy text of 32 tokens is the same, or until
the two best logits are within 0.1 (of models with linears of 2 bits 0.3). Exit code 77: a package
or the model is missing.
"""

import os
import sys
import tempfile

import folders

folders.need()

import numpy as np  # noqa: E402

import llama  # noqa: E402

# By how much the best logit must lead for greedy text to be compared, in place of folders.CLOSE: at
# 2 bits the rounding of activations moves logits by up to 0.19, which turns a lead of 0.18 round.
CLOSE_AT_2_BITS = 0.3
# Flags of eqat quantize, and the types that the linears must come to.
CASES = [
    (["--bits", "2", "--zero-point", "fixed"], {"Q2_0"}),
    (["--bits", "2", "--group-size", "32", "--zero-point", "trained"], {"Q4_0"}),
    (["--bits", "3", "--zero-point", "trained"], {"Q4_0"}),
    (["--bits", "3", "--zero-point", "fixed"], {"Q4_0"}),
    (["--bits", "4", "--zero-point", "trained"], {"Q4_0", "Q5_0"}),
    (["--bits", "4", "--zero-point", "fixed"], {"Q4_0"}),
    (["--bits", "8", "--zero-point", "fixed"], {"Q8_0"}),
    (
        ["--bits", "2", "--zero-point", "fixed", "--rule", "*.down_proj=4,32"]
        + ["--skip", "*.v_proj"],
        {"Q2_0", "Q4_0", "F32"},
    ),
]
TYPES = {0: "F32", 2: "Q4_0", 6: "Q5_0", 8: "Q8_0", 42: "Q2_0"}
BLOCKS = {"Q4_0": (32, 18), "Q5_0": (32, 22), "Q8_0": (32, 34), "Q2_0": (64, 18)}
PLACES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "u1", None, None, "u8", "i8", "f8"]


class Reader:
    """Metadata and tensors of a GGUF file: the package gguf does not know Q2_0."""

    def __init__(self, path):
        self.data, self.at = open(path, "rb").read(), 4
        assert self.number("u4") == 3
        n_tensors, n_values = self.number("u8"), self.number("u8")
        self.keys = {}
        for _ in range(n_values):
            key = self.text()
            self.keys[key] = self.value(self.number("u4"))
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.text()
            shape = [self.number("u8") for _ in range(self.number("u4"))][::-1]
            self.tensors[name] = (shape, TYPES[self.number("u4")], self.number("u8"))
        self.start = (self.at + 31) // 32 * 32

    def number(self, kind):
        x = np.frombuffer(self.data, "<" + kind, 1, self.at)[0]
        self.at += x.itemsize
        return x.item()

    def text(self):
        n = self.number("u8")
        self.at += n
        return self.data[self.at - n : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            element = self.number("u4")
            return [self.value(element) for _ in range(self.number("u8"))]
        return self.number(KINDS[kind])

    def rows(self, name):
        (rows, width), kind, offset = self.tensors[name]
        block, size = BLOCKS[kind]
        n = rows * width // block * size
        return np.frombuffer(self.data, np.uint8, n, self.start + offset)


def interleaved(weight, heads):
    """Rows as llama.cpp wants those of q and k: the two halves of each head, turn by turn."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def check_weights(lib, reader, weights):
    """ggml's values against the folder's; the types of the linears."""
    found = set()
    heads = {
        "attn_q": reader.keys["llama.attention.head_count"],
        "attn_k": reader.keys["llama.attention.head_count_kv"],
    }
    for name, (shape, kind, _) in reader.tensors.items():
        part = name.split(".")[2] if name.startswith("blk.") else None
        if part not in PLACES:
            continue
        found.add(kind)
        want = weights.get(f"model.layers.{name.split('.')[1]}.{PLACES[part]}")
        assert (want is None) == (kind == "F32"), f"{name}: {kind}"
        if want is None:
            continue
        if part in heads:
            want = interleaved(want, heads[part])
        folders.same_weights(name, llama.dequantize(lib, kind, reader.rows(name), *shape), want)
    return found


def write_plain(path, reader, lib):
    """The same file with its blocks as F32."""
    head, infos, data = reader.data[: reader.start], b"", b""
    for name, (shape, kind, offset) in reader.tensors.items():
        n = int(np.prod(shape))
        if kind in BLOCKS:
            values = llama.dequantize(lib, kind, reader.rows(name), *shape).tobytes()
        else:
            values = reader.data[reader.start + offset :][: 4 * n]
        raw = name.encode()
        infos += len(raw).to_bytes(8, "little") + raw + len(shape).to_bytes(4, "little")
        infos += b"".join(int(d).to_bytes(8, "little") for d in shape[::-1])
        infos += (0).to_bytes(4, "little") + len(data).to_bytes(8, "little")
        data += values + bytes(-len(values) % 32)
    first = next(iter(reader.tensors)).encode()
    keys = head[: head.index(len(first).to_bytes(8, "little") + first)]
    header = keys + infos
    with open(path, "wb") as f:
        f.write(header + bytes(-len(header) % 32) + data)


def check_case(lib, eqat, source, flags, types, where):
    folder, path = os.path.join(where, "folder"), os.path.join(where, "model.gguf")
    folders.quantize(eqat, source, flags, folder)
    folders.run(eqat, "convert", folder, path, "--format", "gguf")
    reader = Reader(path)
    found = check_weights(lib, reader, folders.weights(folder))
    assert found <= types and (len(types) < 3 or found == types), f"{flags}: found {found}"
    write_plain(os.path.join(where, "plain.gguf"), reader, lib)
    model = llama.Llama(lib, path, folders.TIME)
    plain = llama.Llama(lib, os.path.join(where, "plain.gguf"), folders.TIME)
    what = f"{' '.join(flags)}: {', '.join(sorted(found))}"
    close = CLOSE_AT_2_BITS if flags[:2] == ["--bits", "2"] else folders.CLOSE
    folders.compare(what, model.logits, plain.logits, folders.windows(source), 0.005, close)
    model.close(), plain.close()


lib = llama.find_library()
if not lib:
    folders.skip("xllamacpp and llama-cpp-python are missing")
source = folders.stories()
for flags, types in CASES:
    with tempfile.TemporaryDirectory() as where:
        check_case(lib, sys.argv[1], source, flags, types, where)
