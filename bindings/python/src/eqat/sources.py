"""What calibration data can be given as, turned into one array of token ids or into records."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional, Union

import numpy as np

Encode = Callable[[str], np.ndarray]
ID_KEYS = ("input_ids", "ids")  # of records that are tokenized
RECORD_FIELDS = ("ids", "labels", "positions", "segments", "embeddings")
DTYPES = {name: np.int32 for name in RECORD_FIELDS[:-1]}


def _array_of_ids(source: Any) -> Optional[np.ndarray]:
    """An array, a tensor of another library, or a sequence of whole numbers."""
    if isinstance(source, (list, tuple)):
        if not source or not all(isinstance(item, (int, np.integer)) for item in source):
            return None
    elif not hasattr(source, "__array__"):
        return None
    array = np.asarray(source)
    return array if array.dtype.kind in "iu" else None


def as_ids(array: Any) -> np.ndarray:
    """int32; what does not fit is refused, not cut off."""
    array = np.asarray(array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids: found {array.dtype}, expected whole numbers")
    if array.size and (array.max() > 2**31 - 1 or array.min() < -(2**31)):
        raise ValueError("ids: found one that is no int32")
    return np.ascontiguousarray(array, np.int32)


def records(source: Any) -> Optional[dict[str, np.ndarray]]:
    """Samples one by one: an array of ids [N, T], or a dict of arrays [N, T] (embeddings
    [N, T, H])."""
    if isinstance(source, dict) and source and set(source) <= set(RECORD_FIELDS):
        return {
            name: as_ids(value) if name in DTYPES else np.ascontiguousarray(value, np.float32)
            for name, value in source.items()
        }
    array = _array_of_ids(source)
    return {"ids": as_ids(array)} if array is not None and array.ndim == 2 else None


def _ids_of(item: Any, encode: Encode, key: str) -> np.ndarray:
    """Of one text or record of a stream."""
    if isinstance(item, str):
        return encode(item)
    if isinstance(item, dict) or hasattr(item, "keys"):
        if key in item:
            return encode(item[key])
        for name in ID_KEYS:
            if name in item:
                return as_ids(item[name]).ravel()
        raise KeyError(f"calibration data: found a record of {sorted(item)}, expected {key!r}")
    return as_ids(item).ravel()


def _pieces(source: Iterable[Any], encode: Encode, key: str, enough: int) -> Iterator[np.ndarray]:
    """What has a length is read in full, what has none until there is enough (0: in full)."""
    taken = 0
    limit = 0 if hasattr(source, "__len__") else enough
    for item in source:
        ids = _ids_of(item, encode, key)
        yield ids
        taken += ids.size
        if limit and taken >= limit:
            return


def stream(source: Any, encode: Encode, key: str, enough: int) -> np.ndarray:
    """One stream of ids: an array of ids, or the texts and records of an iterable behind one
    another, each tokenized on its own."""
    array = _array_of_ids(source)
    if array is not None:
        return as_ids(array).ravel()
    if isinstance(source, dict):
        raise TypeError(
            f"calibration data: found a dict of {', '.join(map(str, source))}, expected arrays "
            f"called {', '.join(RECORD_FIELDS)} (of a dataset in parts, give one part)"
        )
    if not isinstance(source, Iterable) or isinstance(source, (bytes, bytearray)):
        raise TypeError(
            f"calibration data: found {type(source).__name__}, expected a path, strings, ids, or "
            "an iterable of strings, of ids or of records with text"
        )
    pieces = list(_pieces(source, encode, key, enough))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int32)


PathOrSource = Union[str, "os.PathLike[str]", Iterable[Any], np.ndarray]
