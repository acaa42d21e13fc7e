"""Scales, zero points and errors of a saved folder's quantized linears (docs/formats.md)."""

import json
import math
import pathlib
import re
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from .errors import ReportError
from .safetensors import Folder

Array = npt.NDArray[Any]

BINS_PER_OCTAVE = 4
# What a positive fp16 can hold: from 2^-24 to below 2^16.
SCALE_EDGES: Array = 2.0 ** (np.arange(-24 * BINS_PER_OCTAVE, 16 * BINS_PER_OCTAVE + 1) / 4)
_CHUNK = 1 << 22  # weights dequantized at a time
_NAME = re.compile(r"^(?:.*\.)?layers\.(\d{1,6})\.(.+)$")


@dataclass
class Linear:
    """One quantized linear, or the experts of one role together."""

    block: int
    role: str
    bits: int
    groups: int = 0
    scales: Array = field(default_factory=lambda: np.zeros(len(SCALE_EDGES) - 1, np.int64))
    not_positive: int = 0
    zeros: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    square_error: float = 0.0  # against the source
    square: float = 0.0  # of the source

    @property
    def error(self) -> float:
        """Relative squared error; NaN without a source."""
        return self.square_error / self.square if self.square > 0 else math.nan


@dataclass
class Weights:
    linears: list[Linear] = field(default_factory=list)
    no_errors: str = ""  # why there are none; "": there are

    @property
    def blocks(self) -> list[int]:
        return sorted({linear.block for linear in self.linears})

    @property
    def roles(self) -> list[str]:
        """In the order of a block: attention before the MLP, inputs before outputs."""
        order = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        rank = {name: place for place, name in enumerate(order)}
        roles = {linear.role for linear in self.linears}
        return sorted(roles, key=lambda r: ("mlp" in r, rank.get(r.split(".")[-1], 99), r))


def unpack(words: Array, bits: int, count: int) -> Array:
    """The first count values along axis 0, as uint8; each column is a stream of bits."""
    period, step = 32 // math.gcd(bits, 32), bits // math.gcd(bits, 32)
    words = words.view(np.uint32).reshape(-1, step, *words.shape[1:])
    values = np.empty((len(words), period, *words.shape[2:]), np.uint8)
    for i in range(period):
        word, shift = divmod(i * bits, 32)
        value = words[:, word] >> np.uint32(shift)
        if shift + bits > 32:
            value = value | (words[:, word + 1] << np.uint32(32 - shift))
        values[:, i] = value & np.uint32((1 << bits) - 1)
    return values.reshape(-1, *values.shape[2:])[:count]


class _Tensors:
    """The four tensors of a linear, their shapes held against each other."""

    def __init__(self, folder: Folder, name: str, zero_offset: int):
        self.name = name
        self.codes = folder.raw(name + ".qweight", "I32", 2)
        self.scales = folder.floats(name + ".scales")
        inputs = len(folder.raw(name + ".g_idx", "I32", 1))
        rows, outputs = self.codes.shape
        self.bits = rows * 32 // inputs if inputs else 0
        zeros = folder.raw(name + ".qzeros", "I32", 2)
        groups = len(zeros)
        whole = self.bits in range(2, 9) and rows * 32 == inputs * self.bits
        if not whole or not groups or inputs % groups or self.scales.shape != (groups, outputs):
            raise ReportError(
                f"{folder.path}: {name}: found qweight {list(self.codes.shape)}, g_idx [{inputs}], "
                f"scales {list(self.scales.shape)}, expected shapes of one linear"
            )
        if zeros.shape[1] * 32 != outputs * self.bits:
            raise ReportError(
                f"{folder.path}: {name}.qzeros: found {list(zeros.shape)}, "
                f"expected [{groups}, {outputs * self.bits // 32}]"
            )
        self.inputs, self.outputs, self.group = inputs, outputs, inputs // groups
        stored = unpack(np.ascontiguousarray(zeros.T), self.bits, outputs).T
        self.zeros = (stored + zero_offset) & ((1 << self.bits) - 1)

    def dequantized(self, outputs: slice) -> Array:
        """Rows of w^, [outputs, inputs]."""
        codes = unpack(np.ascontiguousarray(self.codes[:, outputs]), self.bits, self.inputs)
        grouped = codes.reshape(len(self.scales), self.group, -1).astype(np.float32)
        grouped -= self.zeros[:, None, outputs]
        grouped *= self.scales[:, None, outputs]
        return grouped.reshape(self.inputs, -1).T


def _add_histograms(linear: Linear, tensors: _Tensors) -> None:
    scales = tensors.scales[tensors.scales > 0]
    linear.groups += tensors.scales.size
    linear.not_positive += tensors.scales.size - scales.size
    linear.scales += np.histogram(scales, SCALE_EDGES)[0]
    zeros = np.bincount(tensors.zeros.ravel(), minlength=1 << tensors.bits)
    if len(linear.zeros) < len(zeros):
        linear.zeros = np.pad(linear.zeros, (0, len(zeros) - len(linear.zeros)))
    linear.zeros[: len(zeros)] += zeros


def _add_error(linear: Linear, tensors: _Tensors, source: Folder) -> None:
    name = tensors.name + ".weight"
    expected = (tensors.outputs, tensors.inputs)
    if name not in source:
        raise ReportError(
            f"{source.path}: found no {name}, expected the weights before quantization"
        )
    if source.shape(name) != expected:
        raise ReportError(
            f"{source.path}: {name}: found {list(source.shape(name))}, expected {list(expected)}"
        )
    step = max(32, _CHUNK // tensors.inputs // 32 * 32)
    for first in range(0, tensors.outputs, step):
        rows = slice(first, first + step)
        weight = source.floats(name, rows)
        difference = tensors.dequantized(rows) - weight
        linear.square_error += float(np.sum(np.square(difference), dtype=np.float64))
        linear.square += float(np.sum(np.square(weight), dtype=np.float64))


def _zero_offset(folder: pathlib.Path) -> int:
    """What the layout stores of a zero point is less one in the classic one."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        quantization = config["quantization_config"]
        return 0 if quantization.get("checkpoint_format") == "gptq_v2" else 1
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ReportError(f"{folder}: found no config.json with a quantization_config") from None


def open_source(path: Optional[pathlib.Path]) -> tuple[Optional[Folder], str]:
    """The model before quantization, or why it cannot be read."""
    if path is None:
        return None, "the log does not say which model was quantized; --source names it"
    if path.is_file():
        return None, f"{path} is no folder of safetensors; --source names one with the same weights"
    try:
        return Folder(path), ""
    except ReportError as error:
        return None, f"{error}; --source names another"


def read(folder: pathlib.Path, source_path: Optional[pathlib.Path]) -> Weights:
    """Raises ReportError when the folder holds no quantized linear that can be read."""
    offset = _zero_offset(folder)
    tensors = Folder(folder)
    source, reason = open_source(source_path)
    found: dict[tuple[int, str], Linear] = {}
    for name in (n[: -len(".qweight")] for n in tensors.names() if n.endswith(".qweight")):
        place = _NAME.match(name)
        if not place:
            continue
        block, role = int(place[1]), re.sub(r"\.\d+\.", ".*.", place[2])
        one = _Tensors(tensors, name, offset)
        linear = found.setdefault((block, role), Linear(block, role, one.bits))
        _add_histograms(linear, one)
        if source:
            try:
                _add_error(linear, one, source)
            except ReportError as error:
                source, reason = None, str(error)
    if not found:
        raise ReportError(f"{folder}: found no quantized linear")
    return Weights(list(found.values()), reason)
