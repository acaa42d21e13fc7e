"""Handles of the library as Python objects.

A `Reference` is one reference on a C handle and gives it up when nothing in Python needs it any
more: neither the object, nor a running call, nor a view of its memory.  The library lets any thread
free any handle at any time and in any order, so that a garbage collector may do it, too.
"""

import ctypes
import weakref
from typing import Any, ClassVar, Optional, TypeVar

from .library import lib

H = TypeVar("H", bound="Handle")


class Reference(ctypes.c_void_p):
    """One reference on a handle; `keep` is what C may still use as long as it exists."""

    free: ClassVar[str] = ""
    keep: Any = None
    gradient: Any = None  # the callback that an optimizer, or a job's, was given last

    @classmethod
    def own(cls, address: Any, keep: Any = None) -> "Reference":
        self = cls(address)
        self.keep = keep
        weakref.finalize(self, getattr(lib, cls.free), ctypes.c_void_p(address)).atexit = False
        return self

    @classmethod
    def from_param(cls, value: Any) -> Any:
        if value is None or type(value) is cls:
            return value
        raise TypeError(f"expected {cls.__name__}, found {type(value).__name__}")


def _reference(name: str) -> type[Reference]:
    lib_free = f"eqat_{name}_free"
    getattr(lib, lib_free).restype = None
    getattr(lib, lib_free).argtypes = [ctypes.c_void_p]
    return type(name, (Reference,), {"free": lib_free})


NAMES = (
    "context",
    "tensor",
    "tape",
    "optimizer",
    "quantizer",
    "tokenizer",
    "data",
    "model",
    "generation",
    "block_ap",
    "e2e_qp",
)
references: dict[str, type[Reference]] = {name: _reference(name) for name in NAMES}


class Handle:
    """Base of all objects that stand for a handle.  `close()`, or the end of a `with`, gives the
    handle up early; otherwise it goes with the object."""

    _kind: ClassVar[str]
    _owned: Optional[Reference] = None
    context: Any = None

    @classmethod
    def _adopt(cls: type[H], context: Any, address: Any, keep: Any = None) -> H:
        """An object for a handle that the library has just given."""
        self = cls.__new__(cls)
        self._take(context, address, keep)
        return self

    def _take(self, context: Any, address: Any, keep: Any = None) -> None:
        self.context = context
        self._owned = references[self._kind].own(address, (context._anchor(), keep))

    @classmethod
    def _lent(cls: type[H], context: Any, address: Any, keep: Any = None) -> H:
        """An object for a handle that the library lends: as long as `keep` exists, or until who
        lends it closes it."""
        self = cls.__new__(cls)
        self.context = context
        self._owned = references[cls._kind](address)
        self._owned.keep = keep
        return self

    @property
    def _reference(self) -> Reference:
        if self._owned is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._owned

    @property
    def closed(self) -> bool:
        return self._owned is None

    def close(self) -> None:
        """Gives the handle up.  What was made from it, and calls that run, keep what they need."""
        self._owned = None

    def __enter__(self: H) -> H:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
