"""Calibration and training data."""

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import numpy as np

from . import callbacks, memory, options, prototypes, sources, structs
from .calls import call_long, create, interruptible
from .handle import Handle
from .library import lib
from .tokenizer import Tokenizer

OPTIONS = options.Group("data")
FIELDS = {
    "ids": 1,
    "labels": 2,
    "positions": 4,
    "segments": 8,
    "embeddings": 16,
}  # eqat_sample_field
Fill = Callable[[bool, int], Mapping[str, Any]]


def _enough(values: Mapping[str, Any]) -> int:
    """Tokens from which all windows can be cut apart from one another: validation windows take a
    tenth of a stream at most.  0: all there are."""
    train, val, skipped = values["train_size"], values["val_size"], values["skip_tokens"]
    return skipped + max(train + val, 10 * val) * values["seq_len"] if train else 0


class CalibrationData(Handle):
    """Samples of seq_len tokens.

    `source` is a path (.txt, .jsonl, .npy, .u16, .u32), a list of strings, an array of token ids,
    a generator of strings, or a Hugging Face dataset (an iterable of records with `text_key`, or
    with "input_ids").  From these, windows of one long stream of tokens are taken; an iterable
    without a length is read until there are tokens for all windows.  An array of ids [N, T], or a
    dict of arrays of ids, labels, positions, segments [N, T] and embeddings [N, T, H], gives its
    rows one by one, the last val_size of them for validation.

    Text needs a tokenizer, which `model` has; ids are held against its vocabulary."""

    _kind = "data"

    @options.options(OPTIONS)
    def __init__(
        self,
        source: sources.PathOrSource,
        model: Any = None,
        *,
        context: Any = None,
        tokenizer: Optional[Tokenizer] = None,
        vocab_size: Optional[int] = None,
        **keywords: Any,
    ):
        parent = model or tokenizer
        if context is None and parent is None:
            raise TypeError("CalibrationData: expected a model, a tokenizer or a context")
        if model is not None and not hasattr(model, "info"):
            raise TypeError(f"model: found {type(model).__name__}, expected Model (or context=)")
        context = context or parent.context  # type: ignore[union-attr]
        tokenizer = tokenizer or (model and model.tokenizer)
        if vocab_size is None:
            vocab_size = model.info.vocab_size if model else 0
        values = {**{f.name: f.default for f in OPTIONS.fields()}, **OPTIONS.take(keywords)}
        if isinstance(source, (str, os.PathLike)):
            self._open(context, os.fsencode(source), tokenizer, vocab_size, keywords)
            return
        records = sources.records(source)
        if records is not None:
            self._from_arrays(context, records, vocab_size, keywords)
            return

        def encode(text: str) -> np.ndarray:
            if tokenizer is None:
                raise ValueError("calibration data: found text, but no tokenizer")
            return tokenizer.encode(text)

        ids = sources.stream(source, encode, values["text_key"] or "text", _enough(values))
        self._from_ids(context, ids, vocab_size, keywords)

    def _open(
        self, context: Any, path: bytes, tokenizer: Any, vocab_size: int, keywords: Any
    ) -> None:
        struct = options.fill(context, "data", keywords).struct
        arguments = (context, path, tokenizer, vocab_size, ctypes.byref(struct))
        self._take(
            context, interruptible(context, lambda: create(context, lib.eqat_data_open, *arguments))
        )

    def _from_ids(self, context: Any, ids: np.ndarray, vocab_size: int, keywords: Any) -> None:
        struct = options.fill(context, "data", keywords).struct
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        arguments = (context, pointer, ids.size, vocab_size, ctypes.byref(struct))
        self._take(context, create(context, lib.eqat_data_from_tokens, *arguments))

    def _from_arrays(
        self, context: Any, arrays: dict[str, np.ndarray], vocab_size: int, keywords: Any
    ) -> None:
        """Rows in order: for training first, for validation behind them."""
        sizes = {name: array.shape[:2] for name, array in arrays.items()}
        rows, time = next(iter(sizes.values()))
        if set(sizes.values()) != {(rows, time)}:
            raise ValueError(f"calibration data: found arrays of {sizes}, expected one [N, T]")
        val = keywords.get("val_size", 0)
        train = min(keywords.get("train_size") or rows, rows - val)
        hidden = arrays["embeddings"].shape[2] if "embeddings" in arrays else 0

        def fill(validation: bool, index: int) -> Mapping[str, Any]:
            row = train + index if validation else index
            return {name: array[row] for name, array in arrays.items()}

        wanted = {**keywords, "train_size": train, "val_size": val, "seq_len": time}
        self._from_records(context, fill, list(arrays), vocab_size, hidden, wanted)

    @classmethod
    def from_records(
        cls,
        fill: Fill,
        fields: Sequence[str],
        model: Any,
        *,
        hidden_size: int = 0,
        **keywords: Any,
    ) -> "CalibrationData":
        """Records that fill(validation, index) makes: a dict of arrays for each of `fields` ("ids",
        "labels", "positions", "segments", "embeddings"), the same whenever it is asked.  Options
        are those of the class."""
        self = cls.__new__(cls)
        vocab_size = model.info.vocab_size
        self._from_records(model.context, fill, fields, vocab_size, hidden_size, keywords)
        return self

    def _from_records(
        self,
        context: Any,
        fill: Fill,
        fields: Sequence[str],
        vocab_size: int,
        hidden: int,
        keywords: Any,
    ) -> None:
        struct = options.fill(context, "data", keywords).struct
        shapes = {
            name: (struct.seq_len, hidden) if name == "embeddings" else (struct.seq_len,)
            for name in fields
        }
        hold = memory.Hold(callbacks.Given(shapes, fill))
        mask = sum(FIELDS[name] for name in shapes)
        arguments = (_FILL, hold.number, mask, vocab_size, hidden, ctypes.byref(struct))
        made = create(context, lib.eqat_data_from_records, context, *arguments)
        self._take(context, made, hold)

    @property
    def train_size(self) -> int:
        """Training samples of this rank."""
        return lib.eqat_data_train_size(self._reference)

    @property
    def val_size(self) -> int:
        return lib.eqat_data_val_size(self._reference)

    @property
    def seq_len(self) -> int:
        return lib.eqat_data_seq_len(self._reference)

    @property
    def token_count(self) -> int:
        """Tokens in the stream; 0 for records."""
        return lib.eqat_data_token_count(self._reference)

    @property
    def fields(self) -> Sequence[str]:
        """What the records hold."""
        mask = lib.eqat_data_fields(self._reference)
        return tuple(name for name, bit in FIELDS.items() if mask & bit)

    def order(self, epoch: int, position: int) -> int:
        """Which training sample stands at a position of an epoch; -1: out of range."""
        return lib.eqat_data_order(self._reference, epoch, position)

    def sample(
        self, index: int, validation: bool = False, fields: Sequence[str] = ("ids",)
    ) -> dict[str, np.ndarray]:
        """The fields of a sample; labels, positions and segments are made up where there are
        none."""
        struct = structs.structs["sample"]()
        arrays = {}
        for name in fields:
            hidden = lib.eqat_data_hidden_size(self._reference)
            shape = (self.seq_len, hidden) if name == "embeddings" else (self.seq_len,)
            arrays[name] = np.empty(shape, sources.DTYPES.get(name, np.float32))
            setattr(struct, name, arrays[name].ctypes.data)
        call_long(self.context, lib.eqat_data_sample, self, validation, index, ctypes.byref(struct))
        return arrays

    def batch(self, start: int, size: int, fields: Sequence[str] = ("ids",)) -> dict[str, Any]:
        """Training samples [start, start + size), stacked: keywords of eqat.Batch."""
        samples = [self.sample(start + i, fields=fields) for i in range(size)]
        return {name: np.stack([sample[name] for sample in samples]) for name in fields}


@callbacks.guarded
def _fill(number: int, validation: bool, index: int, sample: Any) -> None:
    shapes, function = memory.held(number)
    values = function(validation, index)
    for name, shape in shapes.items():
        address = getattr(sample.contents, name)
        if not address:
            continue
        dtype = sources.DTYPES.get(name, np.float32)
        kind = np.ctypeslib.as_ctypes_type(dtype)
        array = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(kind)), shape)
        array[...] = values[name]


_FILL = prototypes.sample_fn(_fill)
