"""Decoder language models."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional, Union

import numpy as np

from . import options, progress, sources, structs
from .calls import call, call_long, create, interruptible
from .context import OPTIONS as CONTEXT
from .context import Context
from .data import CalibrationData
from .handle import Handle
from .library import lib
from .quantizer import OPTIONS as QUANTIZER
from .quantizer import Quantizer
from .tensor import Tensor
from .tokenizer import Tokenizer

OPTIONS = options.Group("model")
EVAL = options.Group("eval")
SAVE = options.Group("save")
CHECK_SAVE = options.Group("save", without=["progress"])
RTN = options.Group("rtn")
EVAL_DATA = options.Group("data", only=["seq_len"])
Path = Union[str, "os.PathLike[str]"]


class Batch:
    """Several sequences of equal length: arrays [B, T] of ids (or a tensor of embeddings [B, T, H]
    in the compute dtype), labels, positions and segments."""

    def __init__(
        self,
        ids: Any = None,
        *,
        embeddings: Optional[Tensor] = None,
        labels: Any = None,
        positions: Any = None,
        segments: Any = None,
        keep_activations: bool = False,
    ):
        given = {"ids": ids, "labels": labels, "positions": positions, "segments": segments}
        self._arrays = {
            name: np.atleast_2d(sources.as_ids(array))
            for name, array in given.items()
            if array is not None
        }
        self.embeddings = embeddings
        shapes = {array.shape for array in self._arrays.values()}
        if embeddings is not None:
            shapes.add(embeddings.shape[:2])
        if len(shapes) != 1:
            raise ValueError(f"batch: found shapes {sorted(shapes)}, expected one [B, T]")
        self.shape: tuple[int, int] = shapes.pop()
        self.keep_activations = keep_activations

    @property
    def ids(self) -> Optional[np.ndarray]:
        return self._arrays.get("ids")

    @property
    def labels(self) -> Optional[np.ndarray]:
        """What position t should predict; negative: masked."""
        return self._arrays.get("labels")

    @property
    def positions(self) -> Optional[np.ndarray]:
        return self._arrays.get("positions")

    @property
    def segments(self) -> Optional[np.ndarray]:
        return self._arrays.get("segments")

    @classmethod
    def _copied(cls, context: Any, struct: Any) -> "Batch":
        """Of the library's, whose arrays are there during a callback alone."""
        shape = (struct.batch, struct.time)
        arrays: dict[str, Any] = {}
        for name in ("ids", "labels", "positions", "segments"):
            pointer = ctypes.cast(getattr(struct, name), ctypes.POINTER(ctypes.c_int32))
            if pointer:
                arrays[name] = np.ctypeslib.as_array(pointer, shape).copy()
        return cls(embeddings=Tensor._borrow(context, struct.embeddings), **arrays)

    def _struct(self) -> Any:
        struct = structs.structs["batch"]()
        lib.eqat_batch_init(ctypes.byref(struct), ctypes.sizeof(struct))
        struct.batch, struct.time = self.shape
        struct.keep_activations = self.keep_activations
        for name, array in self._arrays.items():
            setattr(struct, name, array.ctypes.data)
        if self.embeddings is not None:
            struct.embeddings = self.embeddings._reference.value
        return struct


def _as_batch(batch: Any) -> Batch:
    if isinstance(batch, Batch):
        return batch
    return Batch(**batch) if isinstance(batch, Mapping) else Batch(batch)


class Model(Handle):
    """A decoder-only transformer, full precision or quantized: see eqat.open.

    Where a batch is asked for, a Batch, a dict of its arguments, or an array of ids [B, T] is
    fine."""

    _kind = "model"

    @options.options(OPTIONS)
    def __init__(self, path: Path, context: Any, **keywords: Any):
        struct = options.fill(context, "model", OPTIONS.take(keywords)).struct
        arguments = (context, os.fsencode(path), ctypes.byref(struct))
        make = lib.eqat_model_open
        self._opened = path, keywords
        self._take(context, interruptible(context, lambda: create(context, make, *arguments)))

    def __repr__(self) -> str:
        if self.closed:
            return "<eqat.Model, closed>"
        info = self.info
        kind = f"{info.linear_bits:.2f} bits" if info.quantized else "full precision"
        return f"<eqat.Model {info.family}, {info.parameters:,} parameters, {kind}>"

    # ---- what it is ----

    @property
    def info(self) -> Any:
        """Family, sizes, bits: the members of eqat_model_info."""
        struct = structs.structs["model_info"]()
        call(self.context, lib.eqat_model_inspect, self, ctypes.byref(struct))
        return structs.read("model_info", struct)

    @property
    def tokenizer(self) -> Optional[Tokenizer]:
        """The tokenizer that came with the model; None when it has none."""
        reference = self._reference
        address = lib.eqat_model_tokenizer(reference)
        return Tokenizer._lent(self.context, address, reference) if address else None

    def linears(self, block: int) -> list[Any]:
        """Name, sizes, bits and group size of the linears of a block."""
        count = lib.eqat_model_linear_count(self._reference, block)
        return [self._linear(block, index) for index in range(count)]

    def _linear(self, block: int, index: int) -> Any:
        struct = structs.structs["linear_info"]()
        call(self.context, lib.eqat_model_linear, self, block, index, ctypes.byref(struct))
        return structs.read("linear_info", struct)

    def parameter_names(self) -> Iterator[str]:
        """Embeddings, block after block, final norm, head."""
        index = 0
        while True:
            name = lib.eqat_model_parameter_name(self._reference, index)
            if name is None:
                return
            yield name.decode()
            index += 1

    def parameter(self, name: str) -> Tensor:
        """A tensor of the model, which loads its block and keeps it in memory.  With requires_grad
        set, `loss` on a tape computes its gradient."""
        out = ctypes.c_void_p()
        call_long(self.context, lib.eqat_model_parameter, self, name.encode(), ctypes.byref(out))
        tensor = Tensor._borrow(self.context, out.value)
        assert tensor is not None
        return tensor

    # ---- passes ----

    def _pass(self, function: Any, *arguments: Any, outs: int = 1) -> tuple[Tensor, ...]:
        made = [ctypes.c_void_p() for _ in range(outs)]

        def work() -> tuple[Tensor, ...]:
            call(self.context, function, self, *arguments, *[ctypes.byref(out) for out in made])
            return tuple(Tensor._adopt(self.context, out.value) for out in made)

        return interruptible(self.context, work)

    def forward(self, batch: Any, tape: Any = None) -> Tensor:
        """Logits F32 [B, T, V]; with a tape that records, gradients reach what is trainable."""
        struct = (batch := _as_batch(batch))._struct()
        return self._pass(lib.eqat_model_forward, tape, ctypes.byref(struct))[0]

    def loss(self, batch: Any, tape: Any = None) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy F32 [1] over the batch's labels, and their number; tape as in
        `forward`."""
        struct = (batch := _as_batch(batch))._struct()
        loss, count = self._pass(lib.eqat_model_loss, tape, ctypes.byref(struct), outs=2)
        return loss, count

    def embed(self, tape: Any, batch: Any) -> Tensor:
        """What enters the first block, [B, T, H] in the compute dtype."""
        struct = (batch := _as_batch(batch))._struct()
        return self._pass(lib.eqat_model_embed, tape, ctypes.byref(struct))[0]

    def block(self, tape: Any, block: int, x: Tensor, batch: Any = None) -> Tensor:
        """x through a block."""
        batch = None if batch is None else _as_batch(batch)
        struct = None if batch is None else batch._struct()
        pointer = None if struct is None else ctypes.byref(struct)
        return self._pass(lib.eqat_model_block, tape, block, x, pointer)[0]

    def logits(self, tape: Any, x: Tensor, last_n: int = 0) -> Tensor:
        """Final norm and head: logits F32 [B, n, V] of the last n positions; 0: of all."""
        return self._pass(lib.eqat_model_logits, tape, x, last_n)[0]

    # ---- quantization and saving ----

    def set_linear(self, block: int, linear: int, codes: Tensor, s: Tensor, z: Tensor) -> None:
        """Replaces the weight of a linear by codes from elsewhere."""
        call(self.context, lib.eqat_model_set_linear, self, block, linear, codes, s, z)

    @options.options(SAVE)
    def save(self, path: Path, **keywords: Any) -> None:
        """Writes a Hugging Face folder, new or empty: it opens again and gives the same logits, bit
        for bit."""
        with progress.shown(SAVE.take(keywords)) as values:
            filled = options.fill(self.context, "save", values)
            struct = ctypes.byref(filled.struct)
            call_long(self.context, lib.eqat_model_save, self, os.fsencode(path), struct)

    @options.options(CHECK_SAVE)
    def check_save(self, quantizer: Optional[Quantizer] = None, **keywords: Any) -> None:
        """Raises Unsupported, naming why, when the model cannot be saved so: as it is now, and what
        is not quantized, as the quantizer would make it."""
        filled = options.fill(self.context, "save", CHECK_SAVE.take(keywords))
        struct = ctypes.byref(filled.struct)
        call(self.context, lib.eqat_model_check_save, self, quantizer, struct)

    # ---- evaluation ----

    @options.options(EVAL_DATA, EVAL)
    def evaluate(self, data: Any, **keywords: Any) -> Any:
        """Perplexity, sum of -ln p, tokens and windows over `data`: whatever CalibrationData takes,
        cut into consecutive windows of seq_len, or such data."""
        if not isinstance(data, CalibrationData):
            whole = {"sampling": "consecutive", "train_size": 0, "val_size": 0, "shuffle": False}
            data = CalibrationData(data, self, **{**whole, **EVAL_DATA.take(keywords)})
        report = structs.structs["perplexity"]()
        with progress.shown(EVAL.take(keywords)) as values:
            filled = options.fill(self.context, "eval", values)
            arguments = (data, ctypes.byref(filled.struct), ctypes.byref(report))
            call_long(self.context, lib.eqat_eval_perplexity, self, *arguments)
        return structs.read("perplexity", report)

    @options.options(EVAL_DATA, EVAL)
    def perplexity(self, data: Any, **keywords: Any) -> float:
        """`evaluate`, of which the perplexity alone."""
        return self.evaluate(data, **keywords).perplexity


@options.options(OPTIONS, CONTEXT)
def open(path: Path, *, context: Optional[Context] = None, **keywords: Any) -> Model:
    """Opens a Hugging Face folder or a GGUF file, full precision or quantized.  Without a context
    it makes one with the options that are a context's."""
    of_context = CONTEXT.take(keywords)
    if context is None:
        context = Context(**of_context)
    elif of_context:
        raise TypeError(f"open(): found a context and its options {', '.join(of_context)}")
    return Model(path, context, **OPTIONS.take(keywords))


@options.options(QUANTIZER, RTN)
def rtn(
    model: Model,
    *,
    quantizer: Optional[Quantizer] = None,
    rules: Any = None,
    **keywords: Any,
) -> Model:
    """Rounds the model's linears to nearest, in place, without training; returns the model."""
    own = quantizer or Quantizer(model.context, rules, **QUANTIZER.take(keywords))
    with progress.shown(RTN.take(keywords)) as values:
        filled = options.fill(model.context, "rtn", values)
        struct = ctypes.byref(filled.struct)
        call_long(model.context, lib.eqat_model_quantize_rtn, model, own, struct)
    return model
