"""Block-AP with a loss of one's own: the squared error of a block's output as a share of the
squared size of what it should be, so that blocks with large outputs count like others.

    python block_ap_loss.py MODEL TEXT OUT
"""

import sys

import numpy as np

import eqat


def relative_error(tape, y, target):
    """Made of ops on the tape: the library takes the gradient."""
    size = np.square(target.numpy(), dtype=np.float64).mean()
    return tape.scale(tape.mse(y, target), 1 / (size + 1e-12))


def tell(progress):
    if progress.step % 16 == 0:
        print(f"block {progress.block}: loss {progress.loss:.6f}")


def main(path, text, out):
    model = eqat.open(path)
    eqat.block_ap(
        model,
        text,
        recipe="paper",
        bits=2,
        group_size=64,
        train_size=128,
        val_size=0,
        seq_len=64,
        batch_size=8,
        quant_lr=1e-3,
        weight_lr=1e-3,
        loss=relative_error,
        progress=tell,
    )
    model.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
