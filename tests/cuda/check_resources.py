#!/usr/bin/env python3
"""What ptxas says of every kernel: no stack frame, no spills, no more shared memory than every
device has without being asked; and the library exports one function.

    check_resources.py LIBRARY RESOURCES...
"""

import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
SHARED = re.compile(r"(\d+) bytes smem")
SHARED_MOST = 48 * 1024


def faults_of(text):
    """Of what ptxas said of one file: the number of kernels, and what is wrong with them."""
    kernels, faults, where = 0, [], "?"
    for line in text.splitlines():
        if found := ENTRY.search(line):
            kernels += 1
            where = "%s for %s" % found.groups()
        if (found := FRAME.search(line)) and any(int(n) for n in found.groups()):
            faults.append(f"{where}: {line.strip()}")
        if (found := SHARED.search(line)) and int(found.group(1)) > SHARED_MOST:
            faults.append(f"{where}: {found.group(0)}, at most {SHARED_MOST} are allowed")
    return kernels, faults


def main(library, *resources):
    faults, kernels = [], 0
    for path in resources:
        n, wrong = faults_of(pathlib.Path(path).read_text())
        kernels += n
        faults += wrong
    if not kernels:
        faults.append("no kernel at all")
    nm = ["nm", "-D", "--defined-only", library]
    names = subprocess.run(nm, capture_output=True, text=True, check=True).stdout.split()[2::3]
    if names != ["eqi_backend_of_library"]:
        faults.append(f"{library}: it exports {names}")
    print("\n".join(faults) or f"{kernels} kernels, nothing on the stack, nothing spilled")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
