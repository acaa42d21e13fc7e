"""Failures of the library as exceptions, each with the line that the library left."""

import ctypes
from typing import Optional

from .library import lib

lib.eqat_status_name.restype = ctypes.c_char_p
lib.eqat_status_name.argtypes = [ctypes.c_int]


class Error(Exception):
    """What a call of the library failed with; `status` is its eqat_status."""

    status: Optional[int] = None


class InvalidArgument(Error, ValueError):
    """An option, shape or handle outside its documented range."""


class OutOfMemory(Error, MemoryError):
    """The context's allocator had no more."""


class FileError(Error, OSError):
    """The operating system refused a file operation."""


class FormatError(Error, ValueError):
    """A file is damaged, or not what its name says."""


class Unsupported(Error, NotImplementedError):
    """Valid, but not implemented: an architecture, a bit width, a device."""


class NotFound(Error, LookupError):
    """A named tensor, option or file does not exist."""


class Exists(Error, FileExistsError):
    """An output would overwrite something."""


class NumericError(Error, ArithmeticError):
    """A value is not finite."""


class Cancelled(Error):
    """`Context.cancel` was called, or a progress callback asked to stop."""


class BackendError(Error, RuntimeError):
    """The compute backend or a library under it failed."""


OK = 0
INVALID_ARGUMENT = 1
CANCELLED = 9
CLASSES: dict[int, type[Error]] = {
    1: InvalidArgument,
    2: OutOfMemory,
    3: FileError,
    4: FormatError,
    5: Unsupported,
    6: NotFound,
    7: Exists,
    8: NumericError,
    9: Cancelled,
    10: BackendError,
}


def error_of(status: int, message: str) -> Error:
    error = CLASSES.get(status, Error)(message or lib.eqat_status_name(status).decode())
    error.status = status
    return error
