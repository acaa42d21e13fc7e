"""DLPack capsules in pure ctypes, both ways."""

import ctypes
from typing import Any, NamedTuple, Optional

import numpy

from . import dtypes

CPU, CUDA = 1, 2  # DLDeviceType


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_NAME = b"dltensor"
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def _inside(capsule: Any) -> DLTensor:
    return DLTensor.from_address(_pointer(capsule, _NAME))


def export(array: numpy.ndarray, dtype: dtypes.DType) -> Any:
    """A capsule of the array's memory, which counts as dtype: NumPy makes and frees it."""
    capsule = array.__dlpack__()
    inside = _inside(capsule)
    inside.code, inside.bits = dtype.code, dtype.bits
    return capsule


class Foreign(NamedTuple):
    """Memory of somebody else's array; `capsule` keeps it."""

    data: int
    dtype: dtypes.DType
    device: tuple[int, int]
    shape: list[int]
    strides: Optional[list[int]]
    capsule: Any


def receive(array: Any) -> Foreign:
    """The capsule is not marked as used, so that its own destructor gives the array back when it
    goes."""
    capsule = array.__dlpack__()
    inside = _inside(capsule)
    dims = range(inside.ndim)
    return Foreign(
        (inside.data or 0) + inside.byte_offset,
        dtypes.of_dlpack(inside.code, inside.bits, inside.lanes),
        (inside.device_type, inside.device_id),
        [inside.shape[i] for i in dims],
        [inside.strides[i] for i in dims] if inside.strides else None,
        capsule,
    )
