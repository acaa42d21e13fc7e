"""Reads safetensors files with NumPy alone."""

import json
import mmap
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ReportError

Array = npt.NDArray[Any]

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # widened by Folder.floats
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
}
_FLOATS = ("F64", "F32", "F16", "BF16")


def _header(path: pathlib.Path, data: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The tensors' entries and where their bytes begin."""
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= len(data) - 8:
        raise ReportError(f"{path}: found a header of {size} bytes in a file of {len(data)} bytes")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ReportError(f"{path}: found no JSON object, expected the header of safetensors")
    header.pop("__metadata__", None)
    return header, 8 + size


class _File:
    def __init__(self, path: pathlib.Path):
        self.path = path
        try:
            with open(path, "rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ReportError(f"{path}: cannot read it: {error}") from None
        self.header, self._start = _header(path, self._data)

    def _bad(self, name: str, found: Any) -> ReportError:
        return ReportError(f"{self.path}: {name}: found {found}, expected a tensor")

    def read(self, name: str) -> tuple[str, Array]:
        """The name of its type, and its values as they lie in the file."""
        entry = self.header[name]
        try:
            kind, shape = entry["dtype"], [int(n) for n in entry["shape"]]
            begin, end = (int(n) for n in entry["data_offsets"])
            dtype = np.dtype(_DTYPES[kind])
        except (TypeError, ValueError, KeyError, OverflowError):
            raise self._bad(name, "an entry of another kind") from None
        count = 1
        for n in shape:
            count *= n
        begin, end = begin + self._start, end + self._start
        inside = self._start <= begin <= end <= len(self._data)
        if min(shape, default=1) < 0 or not inside or end - begin != count * dtype.itemsize:
            raise self._bad(name, f"{end - begin} bytes at {begin} for shape {shape}")
        flat = np.frombuffer(self._data, dtype, count, begin)
        return kind, flat.reshape(shape)


class Folder:
    """All tensors of a Hugging Face folder."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        paths = sorted(path.glob("*.safetensors")) if path.is_dir() else []
        if not paths:
            raise ReportError(f"{path}: found no safetensors file, expected a Hugging Face folder")
        self._where = {name: file for file in map(_File, paths) for name in file.header}

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def names(self) -> list[str]:
        return sorted(self._where)

    def _file(self, name: str) -> _File:
        if name not in self._where:
            raise ReportError(f"{self.path}: found no tensor {name}")
        return self._where[name]

    def raw(self, name: str, dtype: str, dimensions: int) -> Array:
        file = self._file(name)
        kind, values = file.read(name)
        if kind != dtype or values.ndim != dimensions:
            raise ReportError(
                f"{file.path}: {name}: found {kind} {list(values.shape)}, "
                f"expected {dtype} of {dimensions} dimensions"
            )
        return values

    def floats(self, name: str, rows: slice = slice(None)) -> Array:
        """Some rows of a tensor as float32."""
        file = self._file(name)
        kind, values = file.read(name)
        if kind not in _FLOATS:
            raise ReportError(f"{file.path}: {name}: found {kind}, expected floats")
        part = values[rows]
        if kind == "BF16":
            return (part.astype(np.uint32) << 16).view(np.float32)
        return part.astype(np.float32)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file(name).read(name)[1].shape
