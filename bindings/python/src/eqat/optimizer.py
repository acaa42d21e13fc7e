"""AdamW with parameter groups and a schedule."""

import ctypes
from typing import Any, Callable, Optional

from . import callbacks, memory, options, prototypes
from .calls import call, call_long, create
from .handle import Handle, Reference
from .library import lib
from .tensor import Tensor

OPTIONS = options.Group("optimizer")


class Optimizer(Handle):
    """AdamW over groups of trainable tensors, each with a rate of its own, under one schedule.

    That of a job is the one of the block in work (or of the job), whichever that is: without one it
    raises ValueError."""

    _kind = "optimizer"
    _of_job: Optional[Callable[[], Optional[Reference]]] = None

    @options.options(OPTIONS)
    def __init__(self, context: Any, **keywords: Any):
        struct = options.fill(context, "optimizer", OPTIONS.take(keywords)).struct
        create_ = lib.eqat_optimizer_create
        self._take(context, create(context, create_, context, ctypes.byref(struct)))

    @classmethod
    def _lent_by(cls, context: Any, ask: Callable[[], Optional[Reference]]) -> "Optimizer":
        self = cls.__new__(cls)
        self.context, self._of_job = context, ask
        return self

    @property
    def _reference(self) -> Reference:
        if self._of_job is None:
            return super()._reference
        found = self._of_job()
        if found is None:
            raise ValueError("this Optimizer's job has nothing in work")
        return found

    def add_group(self, lr: float) -> int:
        """A new group with learning rate lr; returns its number."""
        group = ctypes.c_int32()
        call(self.context, lib.eqat_optimizer_add_group, self, lr, ctypes.byref(group))
        return group.value

    def add(self, group: int, parameter: Tensor) -> None:
        """Adds a trainable F32 tensor to a group."""
        call(self.context, lib.eqat_optimizer_add, self, group, parameter)

    def zero_grad(self) -> None:
        lib.eqat_optimizer_zero_grad(self._reference)

    def set_gradient(self, function: Optional[Callable[[list[Tensor]], None]]) -> None:
        """function(parameters) is called between backward and update, when all gradients are
        complete, and may change them; None: nothing is called."""
        reference = self._reference
        hold = memory.Hold(callbacks.Given(self.context, function)) if function else None
        made = callbacks.GRADIENT if function else prototypes.grad_fn()
        number = hold.number if hold else None
        lib.eqat_optimizer_set_grad_callback(reference, made, number)
        keeper = reference if self._of_job is None else reference.keep
        keeper.gradient = hold

    def step(self, grad_scale: float = 1.0) -> None:
        """One update from gradients multiplied by grad_scale, which are then cleared."""
        call_long(self.context, lib.eqat_optimizer_step, self, grad_scale)

    def backward(self, tape: Any, loss: Tensor) -> None:
        """`tape.backward(loss)` and `step()` in one, with less memory."""
        call_long(self.context, lib.eqat_optimizer_backward, self, tape, loss)

    def lr_factor(self, step: int) -> float:
        return lib.eqat_optimizer_lr_factor(self._reference, step)

    @property
    def steps(self) -> int:
        """Steps taken."""
        return lib.eqat_optimizer_steps(self._reference)

    @property
    def grad_norm(self) -> float:
        """Gradient norm of the last step, before clipping; NaN or infinity: it was skipped."""
        norm = ctypes.c_double()
        call(self.context, lib.eqat_optimizer_grad_norm, self, ctypes.byref(norm))
        return norm.value
