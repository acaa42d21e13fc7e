"""Runs the tests of a folder, by default this one's, with the library that EQAT_LIBRARY names.

    run.py [FOLDER | pytest's arguments]

Where this Python lacks NumPy or pytest, the system's does it; when that lacks them, too, the exit
code is 77."""

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
    arguments = sys.argv[1:]
    folder = here
    if len(arguments) == 1 and os.path.isdir(arguments[0]):
        folder = pathlib.Path(arguments.pop()).resolve()
    paths = [str(here.parent / "src"), str(folder)]
    sys.dont_write_bytecode = True
    sys.path[:0] = paths
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    tests = sorted(map(str, folder.glob("test_*.py")))
    options = ["-q", "-p", "no:cacheprovider", "-rs", f"--confcutdir={folder}"]
    return pytest.main([*options, *(arguments or tests)])


if __name__ == "__main__":
    sys.exit(main())
