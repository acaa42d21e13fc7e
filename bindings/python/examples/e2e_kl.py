"""E2E-QP with a loss of one's own: scales learn to give the next-token distributions of the
full-precision model, by the mean Kullback-Leibler divergence over all positions.

    python e2e_kl.py FULL QUANTIZED TEXT OUT
"""

import sys

import numpy as np

import eqat

STEPS, BATCH, TIME = 32, 4, 64


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(p, q):
    """Mean of sum p (ln p - ln q), and its gradient by the logits of q."""
    p, q = log_softmax(p), log_softmax(q)
    rows = p.size // p.shape[-1]
    return (np.exp(p) * (p - q)).sum() / rows, (np.exp(q) - np.exp(p)) / rows


def scales(model):
    names = [name for name in model.parameter_names() if name.endswith(".scales")]
    for scale in map(model.parameter, names):
        scale.requires_grad = True
        yield scale


def main(full_path, quantized_path, text, out):
    full = eqat.open(full_path)
    model = eqat.open(quantized_path, context=full.context)
    data = eqat.CalibrationData(text, model, train_size=STEPS * BATCH, val_size=0, seq_len=TIME)
    adamw = eqat.Optimizer(model.context)
    group = adamw.add_group(lr=1e-3)
    for scale in scales(model):
        adamw.add(group, scale)
    tape = eqat.Tape(model.context)
    for step in range(STEPS):
        batch = data.batch(step * BATCH, BATCH)
        logits = model.forward(batch, tape)
        loss, grad = divergence(full.forward(batch).numpy(), logits.numpy())
        tape.backward_from(logits, eqat.Tensor(grad, model.context))
        adamw.step()
        print(f"step {step}: loss {loss:.6f}")
    model.save(out)  # scales rounded to fp16


if __name__ == "__main__":
    main(*sys.argv[1:])
