"""One case on PyTorch, in a process of its own: the oracle's algorithm with what makes it fast
(SDPA, fused AdamW, bf16 products for the head, weights of frozen linears dequantized once where
they do not train, torch.compile on request).

    python torch_side.py '{"kind": "block_ap", "model": DIR, ...}'     prints one JSON object
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

import oracle


def resident(field):
    with open("/proc/self/status") as f:
        return next(1024 * int(line.split()[1]) for line in f if line.startswith(field))


def forget_peak():
    """Forgets the peak of loading, which goes through a model at f32: training is compared."""
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


class Times:
    """As bench_times in measure.h."""

    def __init__(self, a):
        self.a, self.value, self.cpu, self.begin = a, [], [], time.perf_counter()

    def more(self):
        n, warmup = len(self.value), self.a["warmup"]
        if n <= warmup:
            # Compilation is no part of the time that a case may take.
            self.begin = time.perf_counter()
            return True
        return n < warmup + self.a["steps"] and time.perf_counter() - self.begin < self.a["seconds"]

    def run(self, step):
        while self.more():
            cpu, t = time.process_time(), time.perf_counter()
            step(len(self.value))
            self.value.append(time.perf_counter() - t)
            self.cpu.append(time.process_time() - cpu)
        return {"times": self.value[self.a["warmup"] :], "times_cpu": self.cpu[self.a["warmup"] :]}


class Runner(oracle.Runner):
    """Products of the head in bf16, as autocast has them; the oracle multiplies in f32."""

    def logits(self, x):
        h, w = self.model.model.norm(x), self.model.lm_head.weight
        return (
            F.linear(h.bfloat16(), w.bfloat16()).float()
            if self.compute == torch.bfloat16
            else F.linear(h, w)
        )


def load(folder, dtype=torch.float32, layers=None):
    config = AutoConfig.from_pretrained(folder)
    if layers:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, attn_implementation="sdpa"
    )
    return model.eval().requires_grad_(False)


def tokens(a):
    ids = torch.from_numpy(np.fromfile(a["tokens"], "<u4").astype(np.int64))
    return ids[: a["samples"] * a["time"]].reshape(a["samples"], a["time"])


def fused_adamw(groups):
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)


def dense(block):
    """Frozen linears as plain ones in bf16."""
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, oracle.QuantLinear):
                w = child.quantized_weight()
                linear = torch.nn.Linear(w.shape[1], w.shape[0], bias=child.bias is not None)
                linear.weight = torch.nn.Parameter(w, requires_grad=False)
                if child.bias is not None:
                    linear.bias = child.bias
                setattr(parent, name, linear)
    return block


def block_ap(a, compute):
    runner = Runner(load(a["model"], layers=1), compute)
    ids = tokens(a)
    x = runner.embed(ids).detach()
    with torch.no_grad():
        target = oracle.advance(runner, 0, x)
    block = oracle.quantize_linears(runner.blocks[0], 2, a["group"])
    quant, weights = [], []
    for name, p in block.named_parameters():
        if not name.endswith(".bias"):
            (quant if name.rsplit(".", 1)[1] in ("s", "z") else weights).append(
                p.requires_grad_(True)
            )
    optimizer = fused_adamw([{"params": quant, "lr": 1e-4}, {"params": weights, "lr": 2e-5}])
    loss_of = lambda x, y: oracle.mse(runner.block(0, x), y)
    if a["compile"]:
        loss_of = torch.compile(loss_of)
    batches, first = a["samples"] // a["batch"], []
    forget_peak()

    def step(i):
        rows = slice(i % batches * a["batch"], (i % batches + 1) * a["batch"])
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x[rows], target[rows])
        loss.backward()
        optimizer.step()
        first.append(loss.item())

    result = dict(Times(a).run(step), loss=first[0], peak=resident("VmHWM"))
    optimizer.zero_grad(set_to_none=True)
    del optimizer
    block.requires_grad_(False)
    oracle.freeze_block(block, {}, "", clamp=True)
    with torch.no_grad():
        dense(block)
        if compute == torch.bfloat16:
            block.bfloat16()
        forward = torch.compile(runner.block) if a["compile"] else runner.block
        way = Times(dict(a, steps=batches, warmup=1)).run(
            lambda i: forward(0, x[i % batches * a["batch"] :][: a["batch"]])
        )
        result.update(
            advance=float(np.median(way["times"])), advance_cpu=float(np.median(way["times_cpu"]))
        )
    return result


def e2e_qp(a, compute):
    runner = Runner(load(a["model"]), compute)
    ids = tokens(a)
    with torch.no_grad():
        oracle.rtn(runner, 2, a["group"])
    params = [m.s.requires_grad_(True) for m in oracle.quant_linears(runner.model).values()]
    optimizer = fused_adamw([{"params": params, "lr": 2e-5}])
    for i in range(len(runner.blocks)):
        runner.layer_args(i, a["time"])
    if a["compile"]:
        for block in runner.blocks:
            block.compile()
    batches, first = a["samples"] // a["batch"], []
    forget_peak()

    def step(i):
        rows = ids[i % batches * a["batch"] :][: a["batch"]]
        optimizer.zero_grad(set_to_none=True)
        whole, value = rows.shape[0] * (rows.shape[1] - 1), 0.0
        for micro in rows.split(1):
            loss = runner.nll(micro)[0] / whole
            loss.backward()
            value += loss.item()
        torch.nn.utils.clip_grad_norm_(params, 0.3)
        optimizer.step()
        first.append(value)

    return dict(Times(a).run(step), loss=first[0], peak=resident("VmHWM"))


def evaluate(a, compute):
    model = load(a["model"], compute)
    ids, total = tokens(a), [0.0]
    if a["compile"]:
        for block in model.model.layers:
            block.compile()

    def one_pass(_):
        total[0] = 0.0
        with torch.inference_mode():
            for row in ids.split(1):
                logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
                total[0] += F.cross_entropy(logits, row[0, 1:], reduction="sum").item()

    forget_peak()
    times = Times(a).run(one_pass)
    return dict(times, loss=total[0] / (ids.shape[0] * (ids.shape[1] - 1)), peak=resident("VmHWM"))


def pack(a, _):
    """The oracle's minmax and freeze; it leaves codes as bytes, unpacked."""
    w = torch.randn(a["rows"], a["cols"]) * 0.02

    def step(_):
        s, z = oracle.minmax(w, 2, a["group"])
        return oracle.freeze(w, s, z, 2, clamp=False)[0].to(torch.uint8)

    step = torch.compile(step) if a["compile"] else step
    with torch.no_grad():
        return dict(Times(a).run(step), peak=resident("VmHWM"))


def main():
    a = json.loads(sys.argv[1])
    torch.set_num_threads(a["threads"])
    torch.manual_seed(0)
    if a["compile"]:
        # The graph of a training step is compiled when it first runs; without a C++ compiler that
        # fails here, at once.
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    base = resident("VmRSS")
    kinds = {"block_ap": block_ap, "e2e_qp": e2e_qp, "eval": evaluate, "pack": pack}
    result = kinds[a["kind"]](a, torch.bfloat16 if a["dtype"] == "bf16" else torch.float32)
    print(json.dumps(dict(result, base=base)))


if __name__ == "__main__":
    main()
