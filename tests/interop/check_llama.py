#!/usr/bin/env python3
"""GGUF files held against llama.cpp, as the wheels of xllamacpp or llama-cpp-python carry it.

    check_llama.py EQAT     stories260K of the folder that EQAT_SHARED names, trained by Block-AP

Of each file: ggml's own values of every quantized tensor are (q - z) s of the gptq_v2 folder of the
same model, bit for bit; llama.cpp's perplexity is that of `eqat eval` in f32 within 0.5% (its
products round activations to 8 bits); greedy text of 32 tokens is the same as that of the same
model with its weights as F32, or until the two best logits are within 0.1. Exit code 77: a package
or the model is missing.
"""

import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError as error:
    print("SKIP:", error)
    sys.exit(77)

import llama

TIME, WINDOWS, GREEDY = 256, 32, 32
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


def safetensors(path):
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        header, data = json.loads(f.read(n)), f.read()
    kinds = {"I32": "<i4", "F16": "<f2", "F32": "<f4"}
    return {
        name: np.frombuffer(data[slice(*t["data_offsets"])], kinds[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
        if name != "__metadata__"
    }


def fields(words, bits, count):
    """`count` numbers from each row of int32 words [rows, words], one stream, lowest bits first."""
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(words.shape[0], -1)
    stream = np.unpackbits(raw, axis=1, bitorder="little")[:, : count * bits]
    stream = stream.reshape(words.shape[0], count, bits).astype(np.int64)
    return (stream << np.arange(bits)).sum(-1)


def plain_weight(tensors, name):
    """(q - z) s of a gptq_v2 linear, F32 [out, in]; None: it is not quantized."""
    if f"{name}.qweight" not in tensors:
        return None
    words, zeros, scales, index = (
        tensors[f"{name}.{k}"] for k in ("qweight", "qzeros", "scales", "g_idx")
    )
    bits = words.shape[0] * 32 // len(index)
    q = fields(words.T, bits, len(index))
    z = fields(zeros, bits, scales.shape[1])[index].T
    return (q - z).astype(np.float32) * scales.astype(np.float32)[index].T


def interleaved(weight, heads):
    """Rows as llama.cpp wants those of q and k: the two halves of each head, turn by turn."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def check_weights(lib, reader, tensors):
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
        want = plain_weight(tensors, f"model.layers.{name.split('.')[1]}.{PLACES[part]}")
        assert (want is None) == (kind == "F32"), f"{name}: {kind}"
        if want is None:
            continue
        if part in heads:
            want = interleaved(want, heads[part])
        got = llama.dequantize(lib, kind, reader.rows(name), *shape)
        assert np.array_equal(got, want), f"{name}: weights differ by {abs(got - want).max()}"
    return found


def perplexity(model, ids):
    loss = 0.0
    for row in ids:
        x = model.logits(row).astype(np.float64)
        x -= x.max(1, keepdims=True)
        logs = x - np.log(np.exp(x).sum(1, keepdims=True))
        loss -= logs[np.arange(TIME - 1), row[1:]].mean() / len(ids)
    return np.exp(loss)


def check_greedy(model, plain, start):
    """Both write the same until the two best are close; the number of tokens."""
    ids = list(start)
    for n in range(GREEDY):
        a, b = model.logits(ids)[-1], plain.logits(ids)[-1]
        best = np.sort(b)[-2:]
        if best[1] - best[0] <= 0.1:
            return n
        assert a.argmax() == b.argmax(), f"token {n}: {a.argmax()}, expected {b.argmax()}"
        ids.append(int(b.argmax()))
    return GREEDY


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


def run(*command):
    r = subprocess.run(command, capture_output=True, text=True)
    assert r.returncode == 0, f"{' '.join(command)}: {r.stderr}"
    return r.stdout


def check_case(lib, eqat, source, flags, types, where):
    folder, path = os.path.join(where, "folder"), os.path.join(where, "model.gguf")
    tokens = os.path.join(source, "tokens-valid.u16")
    training = ["--calib", os.path.join(source, "tokens-train.u16"), "--seq-len", str(TIME)]
    training += ["--train-size", "32", "--val-size", "2", "--epochs", "1"]
    run(eqat, "quantize", source, "--out", folder, *flags, *training)
    run(eqat, "convert", folder, path, "--format", "gguf")
    reader = Reader(path)
    found = check_weights(lib, reader, safetensors(os.path.join(folder, "model.safetensors")))
    assert found <= types and (len(types) < 3 or found == types), f"{flags}: found {found}"
    write_plain(os.path.join(where, "plain.gguf"), reader, lib)
    ids = np.fromfile(tokens, np.uint16)[: TIME * WINDOWS].astype(np.int64)
    ids = ids.reshape(WINDOWS, TIME)
    model = llama.Llama(lib, path, TIME)
    plain = llama.Llama(lib, os.path.join(where, "plain.gguf"), TIME)
    got, same = perplexity(model, ids), check_greedy(model, plain, [1])
    model.close(), plain.close()
    options = ["--seq-len", str(TIME), "--max-windows", str(WINDOWS), "--compute-dtype", "f32"]
    want = json.loads(run(eqat, "eval", folder, "--text", tokens, *options, "--json"))["perplexity"]
    print(
        f"{' '.join(flags)}: {', '.join(sorted(found))}, perplexity {got:.4f}, eqat {want:.4f} "
        f"({100 * (got / want - 1):+.3f}%), {same} tokens the same"
    )
    assert abs(got / want - 1) < 0.005


def main():
    lib, shared = llama.find_library(), os.environ.get("EQAT_SHARED")
    if not lib:
        print("SKIP: xllamacpp and llama-cpp-python are missing")
        return 77
    source = os.path.join(shared or "", "stories260K")
    if not shared or not os.path.isdir(source):
        print("SKIP: EQAT_SHARED names no folder with stories260K")
        return 77
    for flags, types in CASES:
        with tempfile.TemporaryDirectory() as where:
            check_case(lib, sys.argv[1], source, flags, types, where)
    return 0


sys.exit(main())
