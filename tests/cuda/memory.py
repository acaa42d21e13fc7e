#!/usr/bin/env python3
"""The most bytes of a GPU that Block-AP and E2E-QP take, counted from the tensors that live at
once, for models of the Llama family with w2g64, bf16, recipe paper.

    memory.py                  the table of docs/cuda.md
    memory.py --check PROGRAM  holds the count against where PROGRAM, fits_memory.c, no longer fits
"""

import re
import subprocess
import sys

from shapes import BF16, F16, F32, MODEL, MODELS, ROWS, U8, linears, weights

BITS, GROUP = 2, 64
MIB = 1 << 20
WORKSPACE, CHUNK, LOGITS = 32 * MIB, 64 * MIB, 256 * MIB  # of cuda/: matmul.cpp, operand.h, ...

# What the paper says it took, and what is aimed at; GB.
PAPER = {"7B": {"Block-AP": 8.5, "E2E-QP": 5.6}, "70B": {"Block-AP": 29.9, "E2E-QP": 34.2}}
GOAL = {"7B": {"Block-AP": 4.5, "E2E-QP": 4.9}, "70B": {"Block-AP": 15, "E2E-QP": 32}}


def rows_of(rows, each, limit):
    """Rows of a chunk, as eqi_cuda_chunk cuts it."""
    most = limit // each
    return rows if most >= rows else most // 16 * 16 if most >= 16 else max(most, 1)


def scratch(m, rows, logits):
    """What kernels keep: w^ of the largest linear in bf16, the gradient of a weight, in F32 and by
    chunks of rows, or logits and their gradient, and the workspace of cuBLASLt."""
    operand = max(n * k for n, k in linears(m)) * BF16
    result = max(rows_of(n, k * F32, CHUNK) * k * F32 for n, k in linears(m))
    other = rows * m.heads * 2 * F32  # two numbers of a row of attention
    if logits:
        chunk = rows_of(rows, m.vocab * (F32 + BF16), LOGITS)
        result = max(result, chunk * m.vocab * F32)
        other = max(other, chunk * m.vocab * BF16)
    return {"scratch": WORKSPACE + operand + result + other}


def saved(m, rows):
    """Of a block, when its forward pass has ended: both norms, q, k, v and what attention makes of
    them, the residual between, gate, up and their product; its output; without its input."""
    h, kv, i = m.hidden, m.kv_width, m.mlp
    return rows * BF16 * (3 * h + 2 * h + 2 * kv + 3 * i + h) + rows * F32 * (m.heads + 2)


def packed(m, blocks):
    """Codes, scales and zero points."""
    p = weights(m) * blocks
    return {"codes": p * BITS // 8, "scales and zero points": p // GROUP * (F32 + U8)}


def block_ap(m, rows, on_host):
    """A step on its way back: the loss's gradient is there, or that of what the down projection
    reads. Finished blocks are on the host."""
    p, tokens = weights(m), rows * BF16
    groups = p // GROUP
    down = (m.mlp * m.hidden) // GROUP
    first = tokens * m.hidden
    then = tokens * (m.mlp - m.hidden) + 2 * F32 * down
    return {
        "masters": F32 * p,
        "their moments": 2 * F32 * p,
        "scales and zero points, moments": 2 * 3 * F32 * groups,
        "activations": tokens * 2 * m.hidden + saved(m, rows) + max(first, then),
        **scratch(m, rows, False),
    }


def e2e_qp(m, rows, on_host):
    """A micro-batch behind the first, on the way back through the last block."""
    groups = weights(m) * m.layers // GROUP
    tokens = rows * BF16
    inputs = tokens * m.hidden * m.layers
    here = 2 * tokens * m.hidden  # of the first block and of the last
    return {
        **packed(m, m.layers),
        "embedding and head": m.vocab * m.hidden * BF16 * (1 if m.tied else 2),
        "gradients of scales": F32 * groups,
        "their moments": 0 if on_host else 2 * F32 * groups,
        "undo copies": 0 if on_host else (F16 + F32) * groups,
        "inputs of blocks": min(here, inputs) if on_host else inputs,
        "activations": saved(m, rows) + tokens * (m.hidden + m.mlp),
        **scratch(m, rows, True),
    }


ROWS_OF_TABLE = [
    ("Block-AP", block_ap, False),
    ("E2E-QP", e2e_qp, False),
    ("E2E-QP", e2e_qp, True),
]


def table():
    lines = ["| | counted | goal | the paper | most of it |", "|---|---|---|---|---|"]
    for name, m in MODELS.items():
        for phase, count, on_host in ROWS_OF_TABLE:
            parts = count(m, ROWS, on_host)
            most = sorted(parts, key=parts.get, reverse=True)[:4]
            most = ", ".join(f"{part} {parts[part] / 1e9:.1f}" for part in most)
            lines.append(
                f"| {name} {phase}{', host_state' if on_host else ''} "
                f"| {sum(parts.values()) / 1e9:.1f} | {GOAL[name][phase]} | {PAPER[name][phase]} "
                f"| {most} |"
            )
    print("\n".join(lines))


# hidden, mlp, layers, heads, heads of keys, vocabulary, tokens of a sample, samples of a batch
SHAPES = [(256, 768, 2, 4, 2, 512, 64, 2), (384, 1152, 3, 6, 6, 1024, 160, 1)]
WITHIN = 0.01  # of what is no constant


def fits(program, phase, on_host, shape, size):
    arguments = [str(size), phase.__name__, str(int(on_host)), *map(str, shape)]
    run = subprocess.run([program, *arguments], capture_output=True, text=True)
    if run.returncode or not re.search("^fits$|^out of memory on ", run.stdout, re.M):
        sys.exit(run.stdout + run.stderr)
    return "\nfits\n" in run.stdout


def check(program):
    """Freed tensors that wait for a request of their size are given back before memory runs out, so
    that a limit tells what is needed."""
    failed = 0
    for shape in SHAPES:
        h, mlp, layers, heads, kv_heads, vocab, time, batch = shape
        m = MODEL(h, mlp, layers, heads, h // heads * kv_heads, vocab, True)
        for phase, count, on_host in ROWS_OF_TABLE:
            parts = count(m, time * batch, on_host)
            whole = sum(parts.values())
            more = int((whole - WORKSPACE) * WITHIN)
            found = [fits(program, count, on_host, shape, whole + d) for d in (-more, more)]
            name = phase + (", host_state" if on_host else "")
            print(f"{shape} {name}: counted {whole}, fits in {more} bytes less, more: {found}")
            if found != [False, True]:
                print("expected [False, True]; counted:", parts)
                failed = 1
    return failed


def main():
    if sys.argv[1:2] == ["--check"]:
        return check(sys.argv[2])
    table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
