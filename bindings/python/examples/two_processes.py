"""Two processes train one model, each on samples of its own: gradients are averaged and losses
added up over multiprocessing.  Both end with the same bytes.

    python two_processes.py MODEL TEXT OUT
"""

import multiprocessing
import sys

import numpy as np

import eqat

WORLD = 2
OPTIONS = {"bits": 2, "batch_size": 4, "train_size": 64, "val_size": 8, "seq_len": 64}


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
    eqat.block_ap(model, text, rank=rank, world=WORLD, **OPTIONS, **callbacks)
    model.save(f"{out}-{rank}")


def main(*arguments):
    sizes = [(n.in_features, n.out_features) for n in eqat.open(arguments[0]).linears(0)]
    largest = max(i * max(i, o) for i, o in sizes)  # of weights, and of the moments of inputs
    given = (Exchange(largest), *arguments)
    ranks = [multiprocessing.Process(target=work, args=(rank, *given)) for rank in range(WORLD)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    sys.exit(any(rank.exitcode for rank in ranks))


if __name__ == "__main__":
    main(*sys.argv[1:])
