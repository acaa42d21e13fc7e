#!/usr/bin/env python3
"""Dequantization held against the PyPI package gguf, bit for bit.

compare_gguf.py DUMP_GGUF           compare; exit 77 when the package is missing
compare_gguf.py --fixture FOLDER    write blocks.gguf and blocks.f32, which the C tests read
compare_gguf.py DUMP_GGUF FILE...   compare on existing files (types that gguf can dequantize)
"""

import os, subprocess, sys, tempfile

try:
    import numpy as np
    import gguf
    from gguf import GGMLQuantizationType as T
except ImportError:
    print("the package gguf is missing")
    sys.exit(77)

BLOCKS = {
    T.Q4_0: (32, 18, [0]),
    T.Q4_1: (32, 20, [0, 2]),
    T.Q5_0: (32, 22, [0]),
    T.Q5_1: (32, 24, [0, 2]),
    T.Q8_0: (32, 34, [0]),
    T.Q4_K: (256, 144, [0, 2]),
    T.Q5_K: (256, 176, [0, 2]),
    T.Q6_K: (256, 210, [208]),
    T.TQ2_0: (256, 66, [64]),
}
QUANTIZE = [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.BF16]


def random_blocks(rng, kind, rows, blocks, finite):
    """Random bytes; with `finite`, the f16 scales (at the listed places) are finite numbers."""
    _, size, scales = BLOCKS[kind]
    data = rng.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    for at in scales if finite else []:
        data[:, at : at + 2] = (
            (rng.standard_normal(rows * blocks) * 0.05)
            .astype(np.float16)
            .view(np.uint8)
            .reshape(-1, 2)
        )
    return data.reshape(rows, blocks * size)


def add(writer, name, data, kind):
    if kind in (T.F32, T.F16):
        writer.add_tensor(name, data)
    else:
        writer.add_tensor(name, data, raw_dtype=kind)


def fixture(folder):
    rng = np.random.default_rng(7)
    path = os.path.join(folder, "blocks.gguf")
    writer = gguf.GGUFWriter(path, "fixture")
    for kind in BLOCKS:
        add(writer, kind.name.lower(), random_blocks(rng, kind, 2, 1, True), kind)
    halves = np.array([0x0001, 0x83FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x3C00, 0xB555], np.uint16)
    add(writer, "f16", halves.view(np.float16), T.F16)
    add(
        writer,
        "bf16",
        np.array([0x0001, 0x807F, 0x0080, 0x7F7F, 0x7F80, 0x3F80], np.uint16).view(np.uint8),
        T.BF16,
    )
    add(writer, "f32", rng.standard_normal(6).astype(np.float32).reshape(2, 3), T.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(os.path.join(folder, "blocks.f32"), "wb") as out:
        for tensor in in_file_order(gguf.GGUFReader(path)):
            out.write(expected(tensor).tobytes())


def in_file_order(reader):
    return sorted(reader.tensors, key=lambda t: t.data_offset)


def expected(tensor):
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(
            gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32
        )


def build(path, seed, alignment, finite):
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "random")
    if alignment != 32:
        writer.add_custom_alignment(alignment)
    writer.add_array("some.strings", ["a", "", "\u00e9" * 300])
    for kind in BLOCKS:
        add(writer, f"random.{kind.name}", random_blocks(rng, kind, 37, 5, finite), kind)
    for kind in QUANTIZE:
        values = (rng.standard_normal((11, 64)) * np.exp(rng.standard_normal((11, 64)) * 3)).astype(
            np.float32
        )
        add(writer, f"quantized.{kind.name}", gguf.quants.quantize(values, kind), kind)
    bits = rng.integers(0, 1 << 16, (3, 5, 7), dtype=np.uint16)
    add(writer, "f16", bits.view(np.float16), T.F16)
    add(writer, "bf16", bits.view(np.uint8), T.BF16)
    add(
        writer,
        "f32",
        rng.integers(0, 1 << 32, (4, 3, 5, 7), dtype=np.uint32).view(np.float32),
        T.F32,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def compare(dump, path):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.f32")
        lines = subprocess.run(
            [dump, path, out], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.splitlines()
        got = np.fromfile(out, np.float32)
    at = elements = 0
    tensors = in_file_order(gguf.GGUFReader(path))
    assert len(lines) == len(tensors), (
        f"{path}: found {len(lines)} tensors, expected {len(tensors)}"
    )
    for line, tensor in zip(lines, tensors):
        shape = [str(int(n)) for n in reversed(tensor.shape)]
        assert line.split() == [tensor.name, tensor.tensor_type.name, *shape], (
            f"{path}: {line}: expected {tensor.name} {shape}"
        )
        want = expected(tensor).reshape(-1)
        have = got[at : at + want.size]
        at += want.size
        both_nan = np.isnan(want) & np.isnan(have)
        different = (want.view(np.uint32) != have.view(np.uint32)) & ~both_nan
        assert not different.any(), (
            f"{path}: {tensor.name}: {int(different.sum())} of {want.size} values differ, "
            f"first at {int(different.argmax())}"
        )
        elements += want.size
    assert at == got.size
    return elements


def main():
    if sys.argv[1] == "--fixture":
        return fixture(sys.argv[2])
    dump, files, total = sys.argv[1], sys.argv[2:], 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(0 if files else 6):
            path = os.path.join(folder, f"{seed}.gguf")
            build(path, seed, (32, 64, 8)[seed % 3], seed % 2 == 0)
            if seed == 5:
                with open(path, "r+b") as f:  # version 2 has the same layout
                    f.seek(4)
                    f.write(b"\x02")
            files.append(path)
        for path in files:
            total += compare(dump, path)
    print(f"{total} values of {len(files)} files: every bit equal")


main()
