"""Block-AP with a loss in PyTorch: a block's output goes to torch and the gradient comes back, both
through DLPack and without copies.

    python torch_loss.py MODEL TEXT OUT
"""

import sys

import torch

import eqat


def huber(y, target):
    return torch.nn.functional.huber_loss(y.float(), target.float(), delta=0.1)


def in_torch(loss):
    """loss(y, target) of torch tensors as a loss of Block-AP."""

    def recorded(tape, y, target):
        leaf = torch.from_dlpack(y).requires_grad_()
        value = loss(leaf, torch.from_dlpack(target))
        out = eqat.Tensor([value.item()], tape.context, "f32")

        def backward(tape, out_grad, inputs):
            value.backward(torch.tensor(out_grad.item()))
            tape.add_grad(inputs[0], eqat.from_dlpack(leaf.grad, tape.context))

        tape.custom([y], out, backward, "torch")
        return out

    return recorded


def main(path, text, out):
    model = eqat.open(path)
    eqat.block_ap(
        model,
        text,
        recipe="paper",
        bits=2,
        group_size=64,
        train_size=128,
        val_size=8,
        seq_len=64,
        batch_size=8,
        quant_lr=1e-3,
        weight_lr=1e-3,
        loss=in_torch(huber),
        progress=lambda p: print(f"block {p.block}: loss {p.loss:.6f}") if p.step % 16 == 0 else 0,
    )
    model.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
