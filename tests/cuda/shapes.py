"""Shapes of the models that predict.py and memory.py count for, and what their weights have."""

from collections import namedtuple

# `tied`: the head is the embedding.
MODEL = namedtuple("MODEL", "hidden mlp layers heads kv_width vocab tied")
MODELS = {
    "7B": MODEL(4096, 11008, 32, 32, 4096, 32000, False),
    "70B": MODEL(8192, 28672, 80, 64, 1024, 32000, False),
}
ROWS = 4096  # tokens of a step of Block-AP and of a micro-batch of E2E-QP
F32, BF16, F16, U8 = 4, 2, 2, 1


def linears(m):
    """[outputs, inputs] of a block's."""
    h, kv = m.hidden, m.kv_width
    return [(h, h), (kv, h), (kv, h), (h, h), (m.mlp, h), (m.mlp, h), (h, m.mlp)]


def weights(m):
    """Of a block."""
    return sum(n * k for n, k in linears(m))
