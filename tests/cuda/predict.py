#!/usr/bin/env python3
"""Hours that Block-AP and E2E-QP take on a GPU, by counting the bytes and operations of the kernels
as docs/cuda.md lists them. Nothing is measured: shares of the device's limits are assumptions.

    predict.py
"""

import sys
from collections import namedtuple

from shapes import BF16, F32, MODELS, ROWS, weights

GPU = namedtuple("GPU", "name flops bytes products attention")

# The shares of its operations that products of cuBLASLt and attention on mma.sync reach: its shared
# memory feeds two mma an access, and a Hopper has faster instructions than mma.sync.
GPUS = [GPU("A100-80GB", 312e12, 2.0e12, 0.75, 0.40), GPU("H100", 989e12, 3.35e12, 0.66, 0.25)]
MEMORY, LAUNCH = 0.85, 2.5e-6  # the share of its bandwidth, seconds
SAMPLES = 4096  # of the paper, in both phases
BLOCK_AP_TIME, E2E_TIME = 2048, 4096  # tokens of a sample


def activations(m, backward):
    """Bytes for each token of a block beside the products: norms, RoPE, gate, residuals."""
    h, i, kv = m.hidden * BF16, m.mlp * BF16, m.kv_width * BF16
    if not backward:
        return 2 * 2 * h + 2 * (h + kv) + 3 * i + 2 * 3 * h
    return 2 * 3.5 * h + 2 * (h + kv) + 5 * i + 2 * 3 * h


def pairs(m, time):
    """Operations of one product of attention for each token, causal, tiles of 64 at the edge."""
    return 2 * m.hidden * (time + 64) / 2


def time_of(gpu, products, attention, traffic, launches):
    return (
        products / (gpu.products * gpu.flops)
        + attention / (gpu.attention * gpu.flops)
        + traffic / (MEMORY * gpu.bytes)
        + launches * LAUNCH
    )


def block_ap_hours(gpu, m):
    """Two epochs of steps in every block, and both streams through it."""
    p, a, f = weights(m), pairs(m, BLOCK_AP_TIME), activations(m, False)
    expand = p * (F32 + BF16)  # w^ of the masters
    look = ROWS * BF16 * (4 * m.hidden + 2 * m.kv_width + 2 * m.mlp + 6 * m.hidden + m.mlp)
    update = p * (F32 + 28) + look  # dw written; read with w, m, v; w, m, v written
    step = time_of(
        gpu,
        6 * p * ROWS,
        (2 + 7) * a * ROWS,  # forward 2 products, backward 3 of dq and 4 of dk and dv
        2 * expand + update + ROWS * (f + activations(m, True) + 5 * m.hidden * BF16),
        7 * 6 + 30,
    )
    batch = time_of(gpu, 2 * p * ROWS, 2 * a * ROWS, p * 2 * BF16 + ROWS * f, 30)
    batches = SAMPLES * BLOCK_AP_TIME / ROWS
    return m.layers * batches * (2 * step + 2 * batch) / 3600


def e2e_hours(gpu, m):
    """One epoch; blocks are run again on the way back."""
    p, a = weights(m), pairs(m, E2E_TIME)
    dequantize = p * (0.33 + BF16)  # 2 bits, a scale and a zero point for 64
    sums = p * (F32 + F32 + 0.33)
    traffic = 3 * dequantize + sums + ROWS * (2 * activations(m, False) + activations(m, True))
    block = time_of(gpu, 8 * p * ROWS, (2 * 2 + 7) * a * ROWS, traffic, 90)
    head = time_of(gpu, 4 * m.vocab * m.hidden * ROWS, 0, ROWS * m.vocab * (4 * F32 + 3 * BF16), 9)
    return SAMPLES * E2E_TIME / ROWS * (m.layers * block + head) / 3600


def main():
    lines = ["| | " + " | ".join(g.name for g in GPUS) + " |", "|---" * (1 + len(GPUS)) + "|"]
    for name, m in MODELS.items():
        for phase, hours in ("Block-AP", block_ap_hours), ("E2E-QP", e2e_hours):
            figures = " | ".join(f"{hours(g, m):.2f} h" for g in GPUS)
            lines.append(f"| {name} {phase} | {figures} |")
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
