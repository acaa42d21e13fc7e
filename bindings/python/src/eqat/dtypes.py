"""Element types: the library's, NumPy's and DLPack's."""

from typing import Any, NamedTuple, Optional

import numpy


class DType(NamedTuple):
    """NumPy has no bf16: its memory is seen as uint16 there."""

    name: str
    value: int  # eqat_dtype
    numpy: Any
    code: int  # DLDataTypeCode
    bits: int


DTYPES: list[DType] = [
    DType("f32", 0, numpy.dtype("f4"), 2, 32),
    DType("bf16", 1, numpy.dtype("u2"), 4, 16),
    DType("f16", 2, numpy.dtype("f2"), 2, 16),
    DType("f64", 3, numpy.dtype("f8"), 2, 64),
    DType("i32", 4, numpy.dtype("i4"), 0, 32),
    DType("u8", 5, numpy.dtype("u1"), 1, 8),
    DType("u32", 6, numpy.dtype("u4"), 1, 32),
]
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in DTYPES}
F32, BF16 = BY_NAME["f32"], BY_NAME["bf16"]


def of_numpy(found: Any) -> DType:
    for dtype in DTYPES:
        if dtype.numpy == found and dtype is not BF16:
            return dtype
    if str(found) == "bfloat16":  # of the package ml_dtypes
        return BF16
    known = ", ".join(str(d.numpy) for d in DTYPES if d is not BF16)
    raise TypeError(f"array: found {found}, expected {known}")


def of_dlpack(code: int, bits: int, lanes: int) -> DType:
    for dtype in DTYPES:
        if (dtype.code, dtype.bits, 1) == (code, bits, lanes):
            return dtype
    known = ", ".join(d.name for d in DTYPES)
    raise TypeError(f"DLPack: found type {code} of {bits} bits, expected {known}")


def named(name: Optional[str]) -> DType:
    if name not in BY_NAME:
        raise ValueError(f"dtype: found {name}, expected {', '.join(BY_NAME)}")
    return BY_NAME[name]
