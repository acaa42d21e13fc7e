"""Runs this folder's tests, which need no library; 77 when something is missing. Where this Python
lacks NumPy or pytest, the system's does it."""

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
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.path[:0] = [str(here.parents[1] / "src"), str(here)]
    options = ["-q", "-p", "no:cacheprovider", "-rs", f"--confcutdir={here}"]
    return pytest.main([*options, *(sys.argv[1:] or [str(here)])])


if __name__ == "__main__":
    sys.exit(main())
