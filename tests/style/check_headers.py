#!/usr/bin/env python3
"""Holds the public headers to what they promise: a comment in doxygen's form at every function,
the errors of every function that returns a status, and as many characters of comment as of code.

    check_headers.py INCLUDE
"""

import pathlib
import re
import sys

COMMENT = re.compile(r"/\*.*?\*/", re.S)
FUNCTION = re.compile(r"^EQAT_API\s+([\w\s]+?\*?)\s*\b(eqat_\w+)\(", re.M)
SHARE = 50  # per cent of a header's characters; eqat.h only includes


def comment_before(text, at):
    """The comment directly in front of `at` that is about what comes, or ""."""
    before = text[:at].rstrip()
    if not before.endswith("*/"):
        return ""
    comment = [m for m in COMMENT.finditer(before) if m.end() == len(before)][0][0]
    return "" if comment.startswith("/**<") else comment


def comment_behind(text, at):
    return re.match(r"[^;]*;[ \t]*(/\*\*<.*?\*/)?", text[at:], re.S)[1] or ""


def findings(path):
    text = path.read_text()
    share = 100 * sum(map(len, COMMENT.findall(text))) / len(text)
    if share < SHARE and path.name != "eqat.h":
        yield f"{path}: found {share:.0f}% of comments, expected at least {SHARE}%"
    if "@file" not in text[:40] and path.name != "eqat.h":
        yield f"{path}: expected /** @file in front"
    for m in FUNCTION.finditer(text):
        result, name = m[1].strip(), m[2]
        comment = comment_before(text, m.start()) or comment_behind(text, m.start())
        if not comment.startswith("/**"):
            yield f"{path}: {name}: found no comment of its own in doxygen's form"
        elif result == "eqat_status" and "Errors:" not in comment:
            yield f'{path}: {name}: found no "Errors:" in its comment'


def main():
    headers = sorted(pathlib.Path(sys.argv[1], "eqat").glob("*.h"))
    problems = [p for header in headers for p in findings(header)]
    print("\n".join([*problems, f"{len(headers)} headers, {len(problems)} findings"]))
    return bool(problems) or not headers


if __name__ == "__main__":
    sys.exit(main())
