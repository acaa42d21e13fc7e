"""Two processes train one model, each on samples of its own: gradients are averaged and losses
added up over multiprocessing.  Both end with the same bytes.

    python two_processes.py MODEL TEXT OUT
"""

import multiprocessing
import sys

import numpy as np

import eqat

WORLD = 2
SAMPLES = {"train_size": 64, "val_size": 8, "seq_len": 64}
STEPS = {"recipe": "paper", "bits": 2, "group_size": 64, "batch_size": 4, "weight_lr": 1e-3}


class Exchange:
    """Sums of arrays over all ranks in memory that they share, always in the order of ranks."""

    def __init__(self, values):
        self.shared = [multiprocessing.RawArray("d", values) for _ in range(WORLD)]
        self.barrier = multiprocessing.Barrier(WORLD)

    def sum(self, rank, array):
        views = [np.frombuffer(shared)[: array.size] for shared in self.shared]
        views[rank][:] = array.ravel()
        self.barrier.wait()
        total = np.sum(views, axis=0).reshape(array.shape)
        self.barrier.wait()
        return total


def work(rank, exchange, path, text, out):
    def average(parameters):
        for parameter in parameters:
            gradient = parameter.grad.numpy()
            gradient[...] = exchange.sum(rank, gradient) / WORLD

    model = eqat.open(path, threads=1)
    callbacks = {"gradient": average, "reduce": lambda sums: exchange.sum(rank, sums)}
    eqat.block_ap(model, text, rank=rank, world=WORLD, **SAMPLES, **STEPS, **callbacks)
    model.save(f"{out}-{rank}")


def main(*arguments):
    largest = max(n.out_features * n.in_features for n in eqat.open(arguments[0]).linears(0))
    given = (Exchange(largest), *arguments)
    ranks = [multiprocessing.Process(target=work, args=(rank, *given)) for rank in range(WORLD)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    sys.exit(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    main(*sys.argv[1:])
