"""What is compared, and how much work it is."""

from collections import Counter
from dataclasses import dataclass

from models import SHAPES, linears


@dataclass
class Case:
    name: str
    kind: str  # block_ap, advance (measured along with block_ap), e2e_qp, eval
    shape: dict
    time: int  # tokens of a sequence
    batch: int  # sequences of a step
    together: int  # sequences of a product
    passes: int  # of the blocks' linears: 1 forward, 3 with both gradients
    head: int  # passes of the head
    group: int = 64
    seconds: float = 20
    keep: int = 0  # activations of all blocks, as PyTorch does

    @property
    def tokens(self):
        return self.batch * self.time

    def products(self):
        """(M, N, K) of every matrix product of a step, with how often it occurs."""
        rows, times, out = self.together * self.time, self.batch // self.together, Counter()

        def add(n, k, passes, often):
            # A weight's gradient comes last: the frozen head has none.
            for shape in ((rows, n, k), (rows, k, n), (n, k, rows))[:passes]:
                out[shape] += often * times

        for _, n, k in linears(self.shape):
            add(n, k, self.passes, self.shape["layers"])
        if self.head:
            add(self.shape["vocab"], self.shape["hidden"], self.head, 1)
        return out

    def attention_flops(self):
        s = self.shape
        forward = (
            4 * self.time * self.time / 2 * s["heads"] * s["head_dim"] * self.batch * s["layers"]
        )
        return forward * (3.5 if self.passes == 3 else 1)

    def flops(self):
        return (
            sum(2 * m * n * k * often for (m, n, k), often in self.products().items())
            + self.attention_flops()
        )


def cases(group, smoke=False):
    out = []
    for name in ("tiny",) if smoke else ("smollm2", "qwen0.5b", "llama1b", "llama7b"):
        # A step looks at one block (the model has two, see Bench.model), and not at the vocabulary:
        # a small one keeps it out of the memory figures.
        shape = dict(SHAPES[name], layers=1, vocab=1024)
        for time in (64,) if smoke else (512, 2048):
            slow = 60 if name == "llama7b" else 20
            out.append(
                Case(f"block-ap/{name}/{time}", "block_ap", shape, time, 2, 2, 3, 0, group, slow)
            )
            out.append(
                Case(f"advance/{name}/{time}", "advance", shape, time, 2, 2, 1, 0, group, slow)
            )
    whole, four = (
        SHAPES["tiny" if smoke else "smollm2"],
        dict(SHAPES["tiny" if smoke else "llama7b"], layers=2 if smoke else 4),
    )
    for name, shape, times in (("smollm2", whole, (512, 2048)), ("llama7b-4", four, (512, 2048))):
        for time in (64,) if smoke else times:
            for keep, ending in enumerate(("", "/kept")):
                out.append(
                    Case(
                        f"e2e-qp/{name}/{time}{ending}",
                        "e2e_qp",
                        shape,
                        time,
                        2,
                        1,
                        3,
                        2,
                        group,
                        60,
                        keep,
                    )
                )
    for name in ("smollm2", "llama1b"):
        time = 64 if smoke else 2048
        out.append(
            Case(
                f"eval/{name}/{time}",
                "eval",
                SHAPES["tiny" if smoke else name],
                time,
                4,
                1,
                1,
                1,
                group,
                60,
            )
        )
    return out


QUICK = (
    "block-ap/smollm2/512",
    "advance/smollm2/512",
    "block-ap/llama1b/512",
    "advance/llama1b/512",
    "e2e-qp/smollm2/512",
    "eval/smollm2/2048",
    "pack",
    "tokenizer",
)
