"""Finds libeqat, loads it and holds its version against this package."""

import ctypes
import ctypes.util
import os
import pathlib

__version__ = "0.1.0"
ABI = 0  # of the soname: libeqat.so.0


def _candidates():
    """Where the library may be, the best first: what EQAT_LIBRARY names and nothing else; beside
    this file, where a wheel carries it; wherever the system's loader looks."""
    named = os.environ.get("EQAT_LIBRARY")
    if named:
        return [named]
    here = pathlib.Path(__file__).parent
    beside = [str(path) for path in sorted(here.glob("libeqat.so*"))]
    found = ctypes.util.find_library("eqat")
    return beside + [f"libeqat.so.{ABI}"] + ([found] if found else [])


def _load():
    reasons = []
    for name in _candidates():
        try:
            return name, ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    raise ImportError(
        "libeqat: not found ("
        + "; ".join(reasons)
        + "): install it, or set EQAT_LIBRARY to its path"
    )


def _check_version(name, library):
    """Before 1.0 the interface may change with every minor version."""
    try:
        version = library.eqat_version
    except AttributeError:
        raise ImportError(
            f"{name}: found a library without eqat_version, expected libeqat"
        ) from None
    version.restype = ctypes.c_char_p
    version.argtypes = []
    found = version().decode()
    expected = __version__.rsplit(".", 1)[0]
    if found.rsplit(".", 1)[0] != expected:
        raise ImportError(f"{name}: found libeqat {found}, expected {expected}.x")
    return found


path, lib = _load()
library_version = _check_version(path, lib)
