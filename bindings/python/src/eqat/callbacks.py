"""Python functions as callbacks of the library.

C calls one function for each kind, which is never freed, with the number of what Python holds.  An
exception does not pass through C: it is remembered, the callback fails, and the call that ran it
raises the exception."""

import functools
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from . import errors, prototypes, structs
from .calls import remember
from .memory import held


class Given(NamedTuple):
    """What a number stands for."""

    context: Any
    function: Callable[..., Any]


def guarded(function: Callable[..., Any]) -> Callable[..., int]:
    """A callback that returns a status (or, of progress, whether to cancel)."""

    @functools.wraps(function)
    def call(*arguments: Any) -> int:
        try:
            return function(*arguments) or errors.OK
        except BaseException as error:
            remember(error)
            return errors.CANCELLED

    return call


def tensors(context: Any, pointers: Any, count: int) -> list[Any]:
    from .tensor import Tensor

    return [Tensor._borrow(context, pointers[index]) for index in range(count)]


def give(out: Any, tensor: Any) -> None:
    """Stores a tensor where the library takes a reference over."""
    from .tensor import Tensor

    if not isinstance(tensor, Tensor):
        raise TypeError(f"callback: found {type(tensor).__name__}, expected a Tensor")
    out[0] = tensor._another_reference()


def with_tape(context: Any, address: Any, function: Callable[[Any], Any]) -> Any:
    """function(tape), for which the tape is lent."""
    from .tape import Tape

    tape = Tape._lent(context, address)
    try:
        return function(tape)
    finally:
        tape.close()


@guarded
def _progress(number: Optional[int], report: Any) -> bool:
    return bool(held(number).function(structs.read("progress", report.contents)))


@guarded
def _block_loss(number: Optional[int], tape: Any, y: Any, target: Any, out: Any) -> None:
    context, function = held(number)
    both = tensors(context, (y, target), 2)
    give(out, with_tape(context, tape, lambda lent: function(lent, *both)))


@guarded
def _e2e_loss(number: Optional[int], tape: Any, logits: Any, batch: Any, out: Any) -> None:
    from .model import Batch

    context, function = held(number)
    given = (*tensors(context, [logits], 1), Batch._copied(context, batch.contents))
    give(out, with_tape(context, tape, lambda lent: function(lent, *given)))


@guarded
def _gradient(number: Optional[int], parameters: Any, count: int) -> None:
    context, function = held(number)
    function(tensors(context, parameters, count))


@guarded
def _reduce(number: Optional[int], sums: Any, count: int) -> None:
    array = np.ctypeslib.as_array(sums, (count,))
    result = held(number).function(array)
    if result is not None:
        array[:] = result


# Members of options that hold a callback, by struct, and what C calls for each.
_PROGRESS = {"progress": prototypes.progress_fn(_progress)}
_JOB = {
    **_PROGRESS,
    "between": _PROGRESS["progress"],
    "gradient": prototypes.grad_fn(_gradient),
    "reduce": prototypes.reduce_fn(_reduce),
}
MADE: dict[str, dict[str, Any]] = {
    "allocate": _PROGRESS,
    "eval": _PROGRESS,
    "rtn": _PROGRESS,
    "save": _PROGRESS,
    "block_ap": {**_JOB, "loss": prototypes.block_loss_fn(_block_loss)},
    "e2e_qp": {**_JOB, "loss": prototypes.e2e_loss_fn(_e2e_loss)},
}
GRADIENT = _JOB["gradient"]
