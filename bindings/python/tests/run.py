"""Runs this folder's tests with the library that EQAT_LIBRARY names.  Where this Python lacks NumPy
or pytest, the system's does it; when that lacks them, too, the exit code is 77."""

import importlib.util
import os
import pathlib
import sys

NEEDED = ("numpy", "pytest")
SYSTEM = "/usr/bin/python3"


def main():
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing and os.path.exists(SYSTEM) and not os.path.samefile(sys.executable, SYSTEM):
        os.execv(SYSTEM, [SYSTEM, __file__, *sys.argv[1:]])
    if missing:
        print(f"skipped: needs the Python packages {' and '.join(missing)}")
        return 77
    import pytest

    here = pathlib.Path(__file__).resolve().parent
    paths = [str(here.parent / "src"), str(here)]
    sys.dont_write_bytecode = True
    sys.path[:0] = paths
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    tests = sorted(map(str, here.glob("test_*.py")))
    return pytest.main(["-q", "-p", "no:cacheprovider", "-rs", *(sys.argv[1:] or tests)])


if __name__ == "__main__":
    sys.exit(main())
