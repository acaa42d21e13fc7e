"""Continuing texts, token by token."""

import ctypes
from typing import Any

import numpy as np

from . import options, sources
from .calls import call, create, interruptible
from .handle import Handle
from .library import lib
from .tensor import Tensor

CHOICE = options.Group("choose")


class Generation(Handle):
    """Sequences of one length that grow, with the keys and values of their tokens, so that a
    further token costs no pass over those before it.  The model's weights stay in memory until the
    object goes."""

    _kind = "generation"

    def __init__(self, model: Any, batch_size: int = 1):
        make = lib.eqat_generation_create
        self._take(model.context, create(model.context, make, model, batch_size))
        self.batch_size = batch_size

    def feed(self, ids: Any, last_n: int = 1) -> Tensor:
        """Puts ids [B, T] (or [T], of one sequence) behind the sequences.  Logits F32 [B, n, V] of
        the last n of these positions."""
        array = np.atleast_2d(sources.as_ids(ids))
        if array.ndim != 2 or len(array) != self.batch_size:
            raise ValueError(
                f"ids: found shape {list(array.shape)}, expected [{self.batch_size}, T]"
            )
        pointer = array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        out = ctypes.c_void_p()

        def work() -> Tensor:
            arguments = (pointer, array.shape[1], last_n, ctypes.byref(out))
            call(self.context, lib.eqat_generation_feed, self, *arguments)
            return Tensor._adopt(self.context, out.value)

        return interruptible(self.context, work)

    @options.options(CHOICE)
    def choose(self, logits: Tensor, **keywords: Any) -> np.ndarray:
        """A next token for each sequence, int32 [B], which is not fed, from logits [B, n, V] of its
        last position: the likeliest, or one that is drawn.  The same logits, seed of the context
        and length of the sequences give the same."""
        filled = options.fill(self.context, "choose", CHOICE.take(keywords))
        ids = np.empty(self.batch_size, np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        struct = ctypes.byref(filled.struct)
        call(self.context, lib.eqat_generation_choose, self, logits, struct, pointer)
        return ids

    def __len__(self) -> int:
        """Tokens of each sequence so far."""
        return lib.eqat_generation_length(self._reference)

    def __bool__(self) -> bool:
        return True

    def rewind(self, length: int) -> None:
        """Keeps the first tokens of each sequence."""
        call(self.context, lib.eqat_generation_rewind, self, length)
