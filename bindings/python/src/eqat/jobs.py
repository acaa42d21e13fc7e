"""Block-AP and E2E-QP as jobs: one call, or the steps of which it is made."""

import contextlib
import ctypes
import os
from typing import Any, Optional, Union

from . import options, progress, structs
from .calls import call, call_long, create, interruptible
from .data import CalibrationData
from .handle import Handle, references
from .library import lib
from .model import Model
from .optimizer import Optimizer
from .quantizer import Quantizer
from .tensor import Tensor

BLOCK_AP = options.Group("block_ap")
E2E_QP = options.Group("e2e_qp")
CALLBACKS = ["progress", "between", "gradient", "reduce", "loss"]
Path = Union[str, "os.PathLike[str]"]


class Job(Handle):
    """What both kinds of jobs share."""

    _bar: Any = None

    def _begin(self, model: Model, group: options.Group, keywords: Any, *parents: Handle) -> None:
        values, self._bar = progress.take(group.take(keywords), between=True)
        filled = options.fill(model.context, self._kind, values)
        function = getattr(lib, f"eqat_{self._kind}_create")
        arguments = (model, *parents, ctypes.byref(filled.struct))
        address = interruptible(model.context, lambda: create(model.context, function, *arguments))
        held = [handle._reference for handle in (model, *parents)]
        self._take(model.context, address, (held, filled.keep))

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(lib, f"eqat_{self._kind}_{name}")
        call_long(self.context, function, self, *arguments)

    def _get(self, name: str, *arguments: Any) -> Any:
        return getattr(lib, f"eqat_{self._kind}_{name}")(self._reference, *arguments)

    def _loss(self, name: str, *arguments: Any) -> float:
        loss = ctypes.c_double()
        self._call(name, *arguments, ctypes.byref(loss))
        return loss.value

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of what is in work."""

        def ask() -> Any:
            job = self._reference
            address = getattr(lib, f"eqat_{self._kind}_optimizer")(job)
            if not address:
                return None
            reference = references["optimizer"](address)
            reference.keep = job
            return reference

        return Optimizer._lent_by(self.context, ask)

    def run(self) -> None:
        """The loop over what remains.  Cancelled or interrupted, it may be called again and ends
        with the same bytes."""
        with contextlib.closing(self._bar) if self._bar else contextlib.nullcontext():
            self._call("run")

    def save(self, path: Path) -> None:
        """Writes all that a new job needs to go on from here with the same bytes."""
        self._call("save", os.fsencode(path))

    def load(self, path: Path) -> None:
        """Brings a job that was just made to where `save` has left another one."""
        self._call("load", os.fsencode(path))


class BlockAP(Job):
    """Block-AP in steps: for each block `begin`, a `step` for every epoch and batch (or `forward`,
    a loss of one's own and `optimizer.backward`), `finish`; or `run`."""

    _kind = "block_ap"

    @options.options(BLOCK_AP)
    def __init__(self, model: Model, quantizer: Quantizer, data: CalibrationData, **keywords: Any):
        self._begin(model, BLOCK_AP, keywords, quantizer, data)

    @property
    def block(self) -> int:
        """Number of the block in work or next to begin."""
        return self._get("block")

    @property
    def steps(self) -> int:
        """Steps of an epoch of the current block."""
        return self._get("steps")

    @property
    def stage(self) -> int:
        """The stage that the block in work is in."""
        return self._get("stage")

    def stages(self, block: int) -> int:
        """Stages of a block; each takes all epochs, one stage after another."""
        return self._get("stages", block)

    def begin(self) -> None:
        """Loads the next block, starts scales and zero points, makes the targets."""
        self._call("begin")

    def step(self, epoch: int, step: int) -> float:
        """A training step; returns its loss."""
        return self._loss("step", epoch, step)

    def forward(self, tape: Any, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """The forward pass of a step alone: y, recorded on the tape, and target."""
        y, target = ctypes.c_void_p(), ctypes.c_void_p()

        def work() -> tuple[Tensor, Tensor]:
            function = lib.eqat_block_ap_forward
            outs = (ctypes.byref(y), ctypes.byref(target))
            call(self.context, function, self, tape, epoch, step, *outs)
            adopt = Tensor._adopt
            return adopt(self.context, y.value), adopt(self.context, target.value)

        return interruptible(self.context, work)

    def validate(self) -> float:
        """Mean loss over the validation samples; NaN without any."""
        return self._loss("validate")

    def finish(self) -> None:
        """Freezes the block and moves on behind it."""
        self._call("finish")

    def abandon(self) -> None:
        """Gives the block in work up."""
        lib.eqat_block_ap_abandon(self._reference)

    def parameter(self, name: str) -> Optional[Tensor]:
        """A trainable tensor of the block in work, in its present stage ("self_attn.q_proj.weight",
        ".scales", ".zeros", "input_layernorm.weight"); None when there is none of that name."""
        return Tensor._borrow(self.context, self._get("parameter", name.encode()))

    def epoch(self, block: int, epoch: int) -> Any:
        """Losses of an epoch of a block that `run` has trained."""
        struct = structs.structs["epoch_report"]()
        call(self.context, lib.eqat_block_ap_epoch, self, block, epoch, ctypes.byref(struct))
        return structs.read("epoch_report", struct)

    def stage_report(self, block: int, stage: int = 0) -> Any:
        """Which state is kept of a stage of a block that `run` has trained."""
        struct = structs.structs["stage_report"]()
        function = lib.eqat_block_ap_stage_report
        call(self.context, function, self, block, stage, ctypes.byref(struct))
        return structs.read("stage_report", struct)


class E2EQP(Job):
    """E2E-QP in steps: `accumulate` the micro-batches of every step, then `step`; `finish` at the
    end; or `run`.  Closed before that, training is undone."""

    _kind = "e2e_qp"

    @options.options(E2E_QP)
    def __init__(self, model: Model, data: CalibrationData, **keywords: Any):
        self._begin(model, E2E_QP, keywords, data)

    @staticmethod
    @options.options(E2E_QP)
    def check(
        model: Model,
        data: CalibrationData,
        quantizer: Optional[Quantizer] = None,
        **keywords: Any,
    ) -> None:
        """Raises what a job would, before Block-AP with the quantizer has trained for hours."""
        values = {name: v for name, v in E2E_QP.take(keywords).items() if name not in CALLBACKS}
        filled = options.fill(model.context, "e2e_qp", values)
        struct = ctypes.byref(filled.struct)
        call(model.context, lib.eqat_e2e_qp_check, model, quantizer, data, struct)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self._get("steps")

    def micro_steps(self, step: int) -> int:
        """Micro-batches of an optimizer step."""
        return self._get("micro_steps", step)

    def accumulate(self, step: int, micro: int) -> float:
        """Forward and backward of a micro-batch; returns its loss."""
        return self._loss("accumulate", step, micro)

    def step(self) -> None:
        """Update from what was accumulated."""
        self._call("step")

    def finish(self) -> None:
        """Rounds what was trained to its stored type, inside the model."""
        self._call("finish")

    def validate(self) -> float:
        """Mean loss over the validation samples of what would be stored; NaN without any."""
        return self._loss("validate")

    def loss(self, step: int) -> float:
        """Mean loss of an optimizer step; NaN when it was not taken."""
        return self._get("loss", step)

    def val_loss(self, step: int) -> float:
        """Loss of the validation that `run` has made behind a step; NaN when it made none."""
        return self._get("val_loss", step)

    def stage_report(self) -> Any:
        """Which state `run` has kept."""
        struct = structs.structs["stage_report"]()
        call(self.context, lib.eqat_e2e_qp_stage_report, self, ctypes.byref(struct))
        return structs.read("stage_report", struct)
