#!/usr/bin/env python3
"""No circle of files: a.c needs b.c when it refers to a symbol that b.c defines. And lib/base names
nothing above it.

    check_circles.py SOURCE_ROOT BUILD_ROOT ARCHIVE...

The archives are static libraries of the build: what they were made of is held against itself.
"""

import pathlib
import re
import subprocess
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
GROUND = ("lib/base", ("base/", "eqat/status.h"))  # a folder, and all that it may include


def objects_of(archive, build, root):
    """(source, {symbols it defines}, {symbols it wants}) of every object."""
    folder = archive.parent.relative_to(build)
    names = {
        str(path.relative_to(root / folder)).replace("/", "_") + ".o": path.relative_to(root)
        for path in (root / folder).rglob("*.c")
    }
    nm = ["nm", "-A", "-g", "-P", archive]
    objects = {}
    for line in subprocess.run(nm, capture_output=True, text=True, check=True).stdout.splitlines():
        where, symbol, kind = re.match(r"\S*?([^\s/\[]+\.o)\]?: (\S+) (\S)", line).groups()
        objects.setdefault(names[where], (set(), set()))[kind in "Uvw"].add(symbol)
    return [(file, defined, wanted) for file, (defined, wanted) in objects.items()]


def arrows_of(root, build, archives):
    """{file: {file that it needs: a symbol}}"""
    objects = [o for a in archives for o in objects_of(a, build, root)]
    home = {symbol: file for file, defined, _ in objects for symbol in defined}
    arrows = {file: {} for file, _, _ in objects}
    for file, _, wanted in objects:
        for symbol in sorted(wanted & home.keys()):
            if home[symbol] != file:
                arrows[file].setdefault(home[symbol], symbol)
    return arrows


def circles_in(arrows):
    """Sets of files that reach each other (Tarjan 1972)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in arrows[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            circle = stack[stack.index(v) :]
            del stack[stack.index(v) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for v in sorted(arrows):
        if v not in index:
            visit(v)
    return found


def strays(root):
    folder, allowed = GROUND
    for path in sorted((root / folder).rglob("*.[ch]")):
        for name in INCLUDE.findall(path.read_text()):
            if not name.startswith(allowed):
                yield f"{path.relative_to(root)} includes {name}, which stands above it"


def main():
    root, build, *archives = (pathlib.Path(a).resolve() for a in sys.argv[1:])
    arrows = arrows_of(root, build, archives)
    problems = list(strays(root))
    for circle in circles_in(arrows):
        problems.append("circle: " + " ".join(map(str, circle)))
        problems += [
            f"    {a} -> {b}: {arrows[a][b]}" for a in circle for b in arrows[a] if b in circle
        ]
    print("\n".join(problems))
    print(f"{len(arrows)} files, {sum(map(len, arrows.values()))} arrows, {len(problems)} findings")
    return bool(problems)


if __name__ == "__main__":
    sys.setrecursionlimit(10000)
    sys.exit(main())
