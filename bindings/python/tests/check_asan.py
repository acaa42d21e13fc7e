"""The tests of the package with a library built with AddressSanitizer, which is loaded in front of
Python: use after free and leaks, whichever side owns the memory.

    EQAT_PYTHON_ASAN=1 check_asan.py [arguments of run.py]

Python allocates by malloc here, so that a buffer it gave to the library and freed is seen, too.
Takes minutes, so that EQAT_PYTHON_ASAN=1 must ask for it; exit code 77 without."""

import os
import pathlib
import subprocess
import sys
import tempfile

RUN = pathlib.Path(__file__).resolve().parent / "run.py"
SYSTEM = "/usr/bin/python3"
# Objects of the interpreter and of NumPy that live as long as the process.
LEFT = ["python3", "libpython", "_ctypes", "numpy", "multiarray", "dl-init"]


def library(name):
    found = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True)
    path = found.stdout.strip()
    return path if os.path.isabs(path) else None


def main():
    loaded = [library(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so")]
    if not os.environ.get("EQAT_PYTHON_ASAN") or not all(loaded):
        print("skipped: needs EQAT_PYTHON_ASAN=1 and gcc's sanitizers")
        return 77
    with tempfile.NamedTemporaryFile("w", suffix=".supp") as suppressions:
        suppressions.writelines(f"leak:{name}\n" for name in LEFT)
        suppressions.flush()
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(loaded),
            "EQAT_PATIENCE": "60",  # seconds, of tests that wait for an interrupt
            "PYTHONMALLOC": "malloc",
            "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "LSAN_OPTIONS": f"suppressions={suppressions.name}:print_suppressions=0",
        }
        python = SYSTEM if os.path.exists(SYSTEM) else sys.executable
        return subprocess.run([python, RUN, *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
