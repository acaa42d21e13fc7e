"""EfficientQAT in plain PyTorch: the reference that libeqat is compared with.

    python oracle.py quantize MODEL --bits 2 --group-size 64 --calib FILE --e2e FILE --eval FILE ...
    python oracle.py eval MODEL --eval FILE

Decoder layers are transformers' own; only their linears are replaced. One JSON object goes to
standard output.
"""

import argparse
import copy
import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

from inputs import load_model, load_tokens, windows

S_MIN, S_MAX = 2.0**-24, 65504.0  # what fp16 stores
S_OF_ZEROS = 1e-4


# ---- the quantizer -------------------------------------------------------------------------------


def _replace_value(x, value):
    """x with another value and an unchanged gradient; exact, where x + (value - x) would round."""
    return _Replace.apply(x, value)


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value):
        return value.clone()

    @staticmethod
    def backward(ctx, g):
        return g, None


def fake_quant(w, s, z, bits):
    """w [out, in], s and z [out, in/g] -> w^ [out, in], with straight-through gradients of all."""
    qmax = 2**bits - 1
    shape = w.shape
    w = w.reshape(*s.shape, -1)
    s1 = _replace_value(s, s.detach().clamp(S_MIN, S_MAX)).unsqueeze(-1)
    z1 = _replace_value(z, z.detach().round().clamp(0, qmax)).unsqueeze(-1)
    t = w / s1
    u = _replace_value(t, t.detach().round()) + z1
    # Not clamp(): whether its gradient is 1 or 0 at the two ends differs between releases of
    # PyTorch.
    q = torch.where((u >= 0) & (u <= qmax), u, u.detach().clamp(0, qmax))
    return ((q - z1) * s1).reshape(shape)


def minmax(w, bits, group):
    """s and z from the range of each group, which always includes 0."""
    qmax = 2**bits - 1
    g = w.shape[1] if group == -1 else group
    if w.shape[1] % g:
        raise SystemExit(f"a group of {g} does not divide a row of {w.shape[1]}")
    w = w.reshape(w.shape[0], -1, g)
    lo, hi = w.amin(-1).clamp(max=0), w.amax(-1).clamp(min=0)
    s = (hi - lo) / qmax
    # An all-zero group has no step; any positive one represents it.
    s = torch.where(s > 0, s, torch.full_like(s, S_OF_ZEROS))
    return s, (-lo / s).round()


def freeze(w, s, z, bits, clamp):
    """Codes for storage: s is rounded to fp16 first, then z, then the codes; all in w's dtype."""
    qmax = 2**bits - 1
    if clamp:
        s = s.clamp(S_MIN, S_MAX)
    s = s.half().to(w.dtype)
    z = z.round().clamp(0, qmax)
    t = w.reshape(*s.shape, -1) / s.unsqueeze(-1)
    q = (t.round() + z.unsqueeze(-1)).clamp(0, qmax)
    return q.reshape(w.shape), s, z


class QuantLinear(nn.Module):
    """A linear in one of two states: learning (w, s, z) or frozen to (q, s, z)."""

    def __init__(self, linear, bits, group):
        super().__init__()
        self.bits = bits
        self.weight = nn.Parameter(linear.weight.detach().clone())
        self.bias = linear.bias
        s, z = minmax(self.weight.detach(), bits, group)
        self.s, self.z = nn.Parameter(s), nn.Parameter(z)
        self.q = None

    def freeze(self, clamp):
        with torch.no_grad():
            q, s, z = freeze(self.weight, self.s, self.z, self.bits, clamp)
            self.s.copy_(s)
            self.z.copy_(z)
        self.q = q.to(torch.uint8)
        self.weight = None
        self.requires_grad_(False)

    def quantized_weight(self):
        if self.q is None:
            return fake_quant(self.weight, self.s, self.z, self.bits)
        z = _replace_value(self.z, self.z.detach().round().clamp(0, 2**self.bits - 1))
        q = self.q.reshape(*self.s.shape, -1).to(self.s.dtype)
        return ((q - z.unsqueeze(-1)) * self.s.unsqueeze(-1)).reshape(self.q.shape)

    def forward(self, x):
        return F.linear(x, self.quantized_weight(), self.bias)


def quantize_linears(block, bits, group):
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, QuantLinear(child, bits, group))
    return block


def quant_linears(module):
    return {n: m for n, m in module.named_modules() if isinstance(m, QuantLinear)}


# ---- running blocks ------------------------------------------------------------------------------


class Runner:
    """A transformers causal model taken apart: embed -> blocks -> head, in one compute dtype."""

    def __init__(self, model, compute=torch.float32):
        self.model, self.compute = model, compute
        self._layer_args = {}

    @property
    def blocks(self):
        return self.model.model.layers

    def _cast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.compute == torch.bfloat16)

    def layer_args(self, index, length):
        """What the model hands to a layer (mask, rotary tables), seen in one forward pass."""
        if length not in self._layer_args:
            seen, hooks = {}, []
            for i, layer in enumerate(self.blocks):
                hooks.append(
                    layer.register_forward_pre_hook(
                        lambda m, a, kw, i=i: seen.__setitem__(i, kw), with_kwargs=True
                    )
                )
            with torch.no_grad():
                self.model.model(
                    input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False
                )
            for h in hooks:
                h.remove()
            self._layer_args[length] = seen
        return self._layer_args[length][index]

    def embed(self, ids):
        x = self.model.model.embed_tokens(ids)
        return x.to(self.compute) if self.compute == torch.bfloat16 else x

    def block(self, index, x, block=None):
        args = self.layer_args(index, x.shape[1])
        with self._cast():
            y = (self.blocks[index] if block is None else block)(x, **args)
        y = y[0] if isinstance(y, tuple) else y
        return y.to(x.dtype)

    def logits(self, x):
        h, w = self.model.model.norm(x), self.model.lm_head.weight
        if self.compute == torch.bfloat16:
            # bf16 operands, sums and results in f32
            return F.linear(h.bfloat16().float(), w.bfloat16().float())
        return F.linear(h, w)

    def forward(self, ids):
        x = self.embed(ids)
        for i in range(len(self.blocks)):
            x = self.block(i, x)
        return self.logits(x)

    def nll(self, ids):
        """Sum of the next-token losses of ids [B, T], and their number."""
        logits = self.forward(ids)[:, :-1]
        loss = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="sum"
        )
        return loss, ids.shape[0] * (ids.shape[1] - 1)


@torch.no_grad()
def perplexity(runner, ids):
    """ids [N, T]: consecutive windows."""
    total, count = 0.0, 0
    for row in ids.split(1):
        loss, n = runner.nll(row)
        total, count = total + loss.item(), count + n
    return math.exp(total / count)


def cosine(step, total, peak, factor):
    """Cosine from peak to peak/factor."""
    low = peak / factor
    return low + (peak - low) * (1 + math.cos(math.pi * step / total)) / 2


def warmup_cosine(step, total, peak, ratio=0.03):
    """Linear warm-up from 0 over ceil(ratio * total) steps, then cosine to 0."""
    warm = math.ceil(ratio * total)
    if step < warm:
        return peak * step / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def adamw(groups):
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, foreach=True)


# ---- Block-AP ------------------------------------------------------------------------------------


def order(n, shuffle, generator):
    return torch.randperm(n, generator=generator) if shuffle else torch.arange(n)


def mse(a, b):
    # bf16 streams are compared in f32; f64 stays f64.
    if a.dtype == torch.bfloat16:
        a, b = a.float(), b.float()
    return F.mse_loss(a, b)


def train_block(
    runner, index, x, target, opt, x_val=None, target_val=None, generator=None, report=None
):
    """Train w, s, z and norm gains of block `index` (linears: QuantLinears), from x to target."""
    block = runner.blocks[index]
    quant, weights = [], []
    for name, p in block.named_parameters():
        if name.endswith(".bias"):
            continue
        (quant if name.rsplit(".", 1)[1] in ("s", "z") else weights).append(p.requires_grad_(True))
    optimizer = adamw([{"params": quant}, {"params": weights}])
    peaks = (opt.quant_lr, opt.weight_lr)
    per_epoch = math.ceil(len(x) / opt.batch_size)
    total, step, losses, epochs = per_epoch * opt.epochs, 0, [], []
    for epoch in range(opt.epochs):
        total_loss = 0.0
        for rows in order(len(x), opt.shuffle == "on", generator).split(opt.batch_size):
            for group, peak in zip(optimizer.param_groups, peaks):
                group["lr"] = cosine(step, total, peak, opt.min_lr_factor)
            loss = mse(runner.block(index, x[rows]), target[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            losses.append(loss.item())
            total_loss += losses[-1] * len(rows)
        epochs.append({"train_loss": total_loss / len(x)})
        if x_val is not None and len(x_val):
            with torch.no_grad():
                val = [
                    mse(runner.block(index, a), b).item() * len(a)
                    for a, b in zip(x_val.split(opt.batch_size), target_val.split(opt.batch_size))
                ]
            epochs[-1]["val_loss"] = sum(val) / len(x_val)
    block.requires_grad_(False)
    block.zero_grad(set_to_none=True)
    if report is not None:
        report.append(epochs)
    return losses


@torch.no_grad()
def advance(runner, index, stream, block=None):
    return torch.cat([runner.block(index, rows, block) for rows in stream.split(2)])


def block_ap(runner, train, val, opt, stored, progress=lambda *a: None):
    """Quantize every block of the model in place. train and val: ids [N, T]."""
    generator = torch.Generator().manual_seed(opt.seed)
    fp = runner.embed(torch.cat([train, val])).detach()
    quant, n, report = fp, len(train), []
    for i in range(len(runner.blocks)):
        target = advance(runner, i, fp)
        quantize_linears(runner.blocks[i], opt.bits, opt.group_size)
        train_block(runner, i, quant[:n], target[:n], opt, quant[n:], target[n:], generator, report)
        freeze_block(runner.blocks[i], stored, f"model.layers.{i}.", clamp=True)
        quant = advance(runner, i, quant)
        fp = target
        progress(i, report[-1])
    return report


@torch.no_grad()
def freeze_block(block, stored, prefix, clamp):
    for linear in quant_linears(block).values():
        linear.freeze(clamp)
    for name, p in block.named_parameters():
        if name.rsplit(".", 1)[1] not in ("s", "z"):
            dtype = stored.get(prefix + name, p.dtype)
            # An f32 store leaves an f64 run's gains alone.
            if dtype in (torch.float16, torch.bfloat16):
                p.copy_(p.to(dtype))


def rtn(runner, bits, group):
    """Round to nearest: the start of Block-AP, frozen at once."""
    for block in runner.blocks:
        quantize_linears(block, bits, group)
        for linear in quant_linears(block).values():
            linear.freeze(clamp=False)


# ---- E2E-QP --------------------------------------------------------------------------------------


def e2e_qp(runner, ids, opt, progress=lambda *a: None):
    """Train s (and z) of a frozen model on ids [N, T]; returns the loss of every optimizer step."""
    params = []
    for linear in quant_linears(runner.model).values():
        params += [getattr(linear, k).requires_grad_(True) for k in opt.e2e_params]
    optimizer = adamw([{"params": params}])
    generator = torch.Generator().manual_seed(opt.seed)
    total = math.ceil(len(ids) / opt.e2e_batch_size) * opt.e2e_epochs
    losses = []
    for _ in range(opt.e2e_epochs):
        for rows in order(len(ids), opt.shuffle == "on", generator).split(opt.e2e_batch_size):
            optimizer.param_groups[0]["lr"] = warmup_cosine(len(losses), total, opt.e2e_lr)
            optimizer.zero_grad(set_to_none=True)
            whole, value = len(rows) * (ids.shape[1] - 1), 0.0
            for micro in rows.split(opt.e2e_micro_batch):
                loss, _ = runner.nll(ids[micro])
                (loss / whole).backward()
                value += loss.item() / whole
            torch.nn.utils.clip_grad_norm_(params, 0.3)
            optimizer.step()
            losses.append(value)
            progress(len(losses), total, value)
    runner.model.requires_grad_(False)
    return losses


@torch.no_grad()
def store_e2e(runner):
    """What is saved after E2E-QP: s in fp16, z as an integer."""
    for linear in quant_linears(runner.model).values():
        linear.s.copy_(linear.s.half())
        linear.z.copy_(linear.z.round().clamp(0, 2**linear.bits - 1))


# ---- the command line ----------------------------------------------------------------------------


def parse(argv):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("verb", choices=["quantize", "eval"])
    p.add_argument("model", metavar="MODEL")
    a = p.add_argument
    a("--bits", type=int, default=2)
    a("--group-size", type=int, default=64)
    a("--calib")
    a("--e2e")
    a("--eval", required=True)
    a("--eval-seq-len", type=int, default=2048)
    a("--eval-windows", type=int, help="no more than this many windows")
    a("--train-size", type=int, default=4096)
    a("--val-size", type=int, default=64)
    a("--seq-len", type=int, default=2048)
    a("--batch-size", type=int, default=2)
    a("--epochs", type=int, default=2)
    a("--quant-lr", type=float, default=1e-4)
    a("--weight-lr", type=float, help="default: 2e-5 at 2 bits, else 1e-5")
    a("--min-lr-factor", type=float, default=20)
    a("--sampling", choices=["consecutive"], default="consecutive")
    a("--shuffle", choices=["on", "off"], default="on")
    a("--e2e-train-size", type=int, default=4096)
    a("--e2e-seq-len", type=int, default=4096)
    a("--e2e-batch-size", type=int, default=32)
    a("--e2e-micro-batch", type=int, default=1)
    a("--e2e-epochs", type=int, default=1)
    a("--e2e-lr", type=float, help="default: 2e-5 at 2 bits, else 1e-5")
    a("--e2e-params", choices=["s", "z", "sz"], default="s")
    a("--compute-dtype", choices=["f32", "bf16"], default="f32")
    a("--threads", type=int, default=1)
    a("--seed", type=int, default=0)
    opt = p.parse_args(argv)
    rate = 2e-5 if opt.bits == 2 else 1e-5
    opt.weight_lr = rate if opt.weight_lr is None else opt.weight_lr
    opt.e2e_lr = rate if opt.e2e_lr is None else opt.e2e_lr
    return opt


def main(argv=None):
    opt = parse(argv)
    torch.set_num_threads(opt.threads)
    start = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - start:7.1f} s] {text}", file=sys.stderr, flush=True)

    compute = torch.bfloat16 if opt.compute_dtype == "bf16" else torch.float32
    model, stored = load_model(opt.model)
    held = load_tokens(opt.eval, opt.model)
    count = len(held) // opt.eval_seq_len
    held = windows(held, opt.eval_seq_len, min(count, opt.eval_windows or count))
    result = {"windows": len(held), "perplexity": {}}

    def measure(name, runner):
        result["perplexity"][name] = perplexity(runner, held)
        say(f"{name}: {result['perplexity'][name]:.4f}")

    runner = Runner(model, compute)
    measure("fp", runner)
    if opt.verb == "quantize":
        rounded = Runner(copy.deepcopy(model), compute)
        rtn(rounded, opt.bits, opt.group_size)
        measure("rtn", rounded)
        del rounded
        if opt.calib:
            ids = load_tokens(opt.calib, opt.model)
            result["blocks"] = block_ap(
                runner,
                windows(ids, opt.seq_len, opt.train_size),
                windows(ids, opt.seq_len, opt.val_size, opt.train_size),
                opt,
                stored,
                lambda i, epochs: say(f"block {i}: {epochs}"),
            )
            measure("block_ap", runner)
        else:
            rtn(runner, opt.bits, opt.group_size)
        if opt.e2e:
            ids = windows(load_tokens(opt.e2e, opt.model), opt.e2e_seq_len, opt.e2e_train_size)
            result["e2e_loss"] = e2e_qp(
                runner, ids, opt, lambda k, n, v: say(f"step {k}/{n}: {v:.4f}")
            )
            store_e2e(runner)
            measure("efficientqat" if opt.calib else "e2e_qp", runner)
    result["seconds"] = round(time.monotonic() - start, 1)
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
