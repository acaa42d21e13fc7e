#!/usr/bin/env python3
"""Holds the sources against .clang-format and every text file against 100 columns."""

import pathlib
import shutil
import subprocess
import sys

COLUMNS = 100
VERSION = "14."  # other versions lay the same style out differently


def tracked(root, *patterns):
    out = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", *patterns], capture_output=True, check=True
    ).stdout
    return [pathlib.Path(root, name) for name in out.decode().split("\0") if name]


def find_clang_format():
    for name in ("clang-format-14", "clang-format"):
        path = shutil.which(name)
        if (
            path
            and VERSION
            in subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        ):
            return path
    return None


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    tool = find_clang_format()
    if not tool or not shutil.which("git") or not (root / ".git").exists():
        print("skipped: needs clang-format 14 and a git checkout")
        return 77
    failed = 0
    for path in tracked(root, "*.c", "*.h"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if len(line) > COLUMNS and not line.startswith("| "):
                failed += 1
                print(
                    f"{path.relative_to(root)}:{number}: {len(line)} columns, "
                    f"expected at most {COLUMNS}"
                )
    sources = tracked(root, "*.c", "*.h")
    run = subprocess.run(
        [tool, "--dry-run", "--Werror", *map(str, sources)], capture_output=True, text=True
    )
    if run.returncode:
        failed += 1
        print("\n".join(run.stderr.splitlines()[:60]))
    print(f"{len(sources)} sources, {failed} findings")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
