#!/usr/bin/env python3
"""Holds C sources against .clang-format and every text file against 100 columns."""

import pathlib
import shutil
import subprocess
import sys

COLUMNS = 100
VERSION = "14."  # other versions lay the same style out differently
SOURCES = ("*.c", "*.h", "*.cpp", "*.hpp", "*.cu", "*.cuh")
TEXTS = ("*.py", "*.md", "*.sh", "*meson.build", "meson_options.txt")


def tracked(root, *patterns):
    out = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", *patterns], capture_output=True, check=True
    ).stdout
    return [pathlib.Path(root, name) for name in out.decode().split("\0") if name]


def find_clang_format():
    for name in ("clang-format-14", "clang-format"):
        path = shutil.which(name)
        if path and VERSION in subprocess.check_output([path, "--version"], text=True):
            return path
    return None


def unbreakable(path, line):
    """Rows of a table in Markdown, and a line that holds a long address."""
    return path.suffix == ".md" and line.startswith("| ") or "://" in line


def long_lines(paths):
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if len(line) > COLUMNS and not unbreakable(path, line):
                yield f"{path}:{number}: {len(line)} columns, expected at most {COLUMNS}"


def misformatted(tool, sources):
    run = subprocess.run(
        [tool, "--dry-run", "--Werror", *map(str, sources)], capture_output=True, text=True
    )
    return run.stderr.splitlines()[:60] if run.returncode else []


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    tool = find_clang_format()
    if not tool or not shutil.which("git") or not (root / ".git").exists():
        print("skipped: needs clang-format 14 and a git checkout")
        return 77
    sources = tracked(root, *SOURCES)
    texts = tracked(root, *TEXTS)
    findings = [*long_lines(sources + texts), *misformatted(tool, sources)]
    print("\n".join([*findings, f"{len(sources)} sources, {len(texts)} texts"]))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
