"""E2E-QP with a loss of one's own: scales learn to give the next-token distributions of the
full-precision model.

    python e2e_kl.py FULL QUANTIZED TEXT OUT
"""

import sys

import eqat


def divergence_from(full):
    def loss(tape, logits, batch):
        """Made of ops on the tape: the library takes the gradient."""
        labels = eqat.Tensor(batch.labels, tape.context)
        return tape.kl_divergence(logits, full.forward(batch), labels)

    return loss


def main(full_path, quantized_path, text, out):
    full = eqat.open(full_path)
    model = eqat.open(quantized_path, context=full.context)
    eqat.e2e_qp(
        model,
        text,
        recipe="paper",
        train_size=128,
        seq_len=64,
        batch_size=4,
        lr=1e-3,
        loss=divergence_from(full),
        progress=lambda p: print(f"step {p.step}: loss {p.loss:.6f}"),
    )
    model.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
