"""Golden values of the quantizer alone: explicit rules on random and boundary inputs.

The rules stand here a second time, written as a table rather than as the composition in oracle.py,
and the two are held against each other before anything is written.
"""

import json
import os

import torch
from safetensors.torch import save_file

import oracle


class Table(torch.autograd.Function):
    """Fake quantization, its gradients spelled out. w [out, in/g, g]; s, z [out, in/g, 1]."""

    @staticmethod
    def forward(ctx, w, s, z, bits, s_min):
        qmax = 2**bits - 1
        s1 = s.clamp(s_min, oracle.S_MAX)
        z1 = z.round().clamp(0, qmax)
        t = w / s1
        u = t.round() + z1
        q = u.clamp(0, qmax)
        ctx.save_for_backward(t, q, z1, s1, (u >= 0) & (u <= qmax))
        return (q - z1) * s1

    @staticmethod
    def backward(ctx, g):
        t, q, z1, s1, inside = ctx.saved_tensors
        zero = torch.zeros_like(g)
        dw = torch.where(inside, g, zero)
        ds = g.double() * torch.where(inside, t.round().double() - t.double(), (q - z1).double())
        dz = torch.where(inside, zero.double(), -s1.double() * g.double())
        return dw, ds.sum(-1, keepdim=True).float(), dz.sum(-1, keepdim=True).float(), None, None


def fake_quant_case(w, s, z, g, bits):
    leaves = [x.clone().requires_grad_(True) for x in (w, s, z)]
    grouped = leaves[0].reshape(*s.shape, -1)
    y = Table.apply(grouped, leaves[1].unsqueeze(-1), leaves[2].unsqueeze(-1), bits, oracle.S_MIN)
    y = y.reshape(w.shape)
    y.backward(g)
    other = [x.clone().requires_grad_(True) for x in (w, s, z)]
    y2 = oracle.fake_quant(*other, bits)
    y2.backward(g)
    assert torch.equal(y, y2), "the table and the composition differ"
    for a, b in zip(leaves, other):
        scale = a.grad.abs().max().clamp(min=1e-30)
        assert ((a.grad - b.grad).abs().max() / scale).item() < 2e-6, "gradients differ"
    return {
        "w": w,
        "s": s,
        "z": z,
        "g": g,
        "what": y.detach(),
        "dw": leaves[0].grad,
        "ds": leaves[1].grad,
        "dz": leaves[2].grad,
    }


def random_case(bits, group, generator, rows=6, groups=4):
    def randn(*shape):
        return torch.randn(shape, generator=generator)

    qmax = 2**bits - 1
    w = randn(rows, groups * group) * 0.3
    s, z = oracle.minmax(w, bits, group)
    # Shrunk steps and moved zero points put a share of the weights outside the range.
    s = s * (0.6 + 0.5 * torch.rand(s.shape, generator=generator))
    z = z + 0.8 * randn(*z.shape)
    z[0, 0], z[1, 0] = -1.3, qmax + 1.4
    return fake_quant_case(w, s, z, randn(*w.shape), bits)


def boundary_case(bits):
    """Exact ties; codes at and one beyond each end; ties and excess in z; s beyond its clamps."""
    qmax, group = 2**bits - 1, 16
    s = torch.tensor([0.25, 0.5, 2.0**-9, 1e-9, 7e4, 0.125, -0.5, 2.0**-24])
    z = torch.tensor([0.5, 1.5, 2.5, 1.0, 0.0, qmax + 3.0, 1.0, qmax - 0.5])
    s1 = s.clamp(oracle.S_MIN, oracle.S_MAX)
    z1 = z.round().clamp(0, qmax)
    steps = torch.tensor([0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, 0.25, -0.75])
    rows = []
    for a, b in zip(s1, z1):
        ends = torch.stack([-b, -b - 0.5, -b - 1, qmax - b, qmax - b + 0.5, qmax - b + 1])
        rows.append(torch.cat([steps, ends]) * a)
    w = torch.stack(rows)
    # Only steps that are powers of two make the ties exact; elsewhere keep well away from them.
    for i, a in enumerate(s1):
        if torch.frexp(a)[0] != 0.5:
            w[i] += 0.1 * a
    g = torch.arange(w.numel(), dtype=torch.float32).reshape(w.shape).cos()
    return fake_quant_case(w, s.reshape(-1, 1), z.reshape(-1, 1), g, bits)


def frozen_case(bits, group, generator):
    """E2E-QP's view: w^ = (q - z') * s with s as it is; z on request."""
    qmax = 2**bits - 1
    q = torch.randint(0, qmax + 1, (6, 2 * group), generator=generator)
    s = torch.rand((6, 2), generator=generator) * 0.1 + 1e-3
    # An imported step is never clamped.
    s[0, 0] = 3e-5
    z = torch.randint(0, qmax + 1, s.shape, generator=generator) + 0.3 * torch.randn(
        s.shape, generator=generator
    )
    z[1, 0], z[2, 1], z[3, 1] = -0.7, qmax + 1.2, 0.5
    g = torch.randn(q.shape, generator=generator)
    z1 = z.round().clamp(0, qmax)
    delta = q.reshape(6, 2, -1).float() - z1.unsqueeze(-1)
    grouped = g.reshape(6, 2, -1).double()
    return {
        "q": q.to(torch.uint8),
        "s": s,
        "z": z,
        "g": g,
        "what": (delta * s.unsqueeze(-1)).reshape(q.shape),
        "ds": (grouped * delta).sum(-1).float(),
        "dz": (-s.double() * grouped.sum(-1)).float(),
    }


def freeze_case(bits, group, generator):
    """minmax, and the codes that follow from it."""
    w = torch.randn((8, 3 * group), generator=generator) * 0.2
    w[0] = w[0].abs() + 0.1
    w[1] = -w[1].abs() - 0.1
    s, z = oracle.minmax(w, bits, group)
    q, s16, z1 = oracle.freeze(w, s, z, bits, clamp=False)
    return {"w": w, "s": s, "z": z, "q": q.to(torch.uint8), "s16": s16.half(), "z_end": z1}


def write(folder):
    os.makedirs(folder, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    cases, tensors = [], {}

    def add(kind, bits, group, case):
        cases.append(dict(name=f"{kind}{bits}", kind=kind, bits=bits, group_size=group))
        if kind in ("random", "boundary"):
            cases[-1].update(s_min=oracle.S_MIN, s_max=oracle.S_MAX)
        tensors.update({f"{kind}{bits}.{k}": v.contiguous() for k, v in case.items()})

    for bits, group in ((2, 16), (3, 32), (4, 16), (5, 32), (8, 16)):
        add("random", bits, group, random_case(bits, group, generator))
        add("frozen", bits, group, frozen_case(bits, group, generator))
        add("freeze", bits, group, freeze_case(bits, group, generator))
        add("boundary", bits, 16, boundary_case(bits))
    save_file(
        tensors,
        os.path.join(folder, "fake_quant.safetensors"),
        metadata={"meta": json.dumps(dict(cases=cases))},
    )
    print(f"ops: {len(cases)} cases")
