#!/usr/bin/env python3
"""Writes src/data/tokenizer/unicode_news.c: where Hugging Face `tokenizers` and the C libraries
know different Unicode versions.

    make_unicode_news.py > src/data/tokenizer/unicode_news.c

Needs the packages tokenizers and unicodedata2 (the newest Unicode) and a Python whose own
unicodedata is Unicode 14, the oldest that a supported PCRE2 has.
"""

import sys
import unicodedata

import unicodedata2
from tokenizers import Regex, __version__, normalizers, pre_tokenizers

if unicodedata.unidata_version != "14.0.0":
    sys.exit("this Python has Unicode %s, expected 14.0.0" % unicodedata.unidata_version)
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
CATEGORIES = (
    "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
)


def category_rows():
    text = "".join(map(chr, SCALARS))
    rows = []
    found = {}
    for category in CATEGORIES:
        for piece, _ in pre_tokenizers.Split(
            Regex(r"\P{%s}+" % category), "removed"
        ).pre_tokenize_str(text):
            found.update((ord(c), category) for c in piece)
    for c in sorted(found):
        if unicodedata.category(chr(c)) != "Cn":
            continue
        if rows and rows[-1][1] == c - 1 and rows[-1][2] == found[c]:
            rows[-1][1] = c
        else:
            rows.append([c, c, found[c]])
    return rows


def form_rows():
    nfd, nfkd, nfc = (getattr(normalizers, f)().normalize_str for f in ("NFD", "NFKD", "NFC"))
    pairs = {}
    for c in SCALARS:
        parts = unicodedata2.decomposition(chr(c)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            pairs[c] = [int(p, 16) for p in parts]
    known, unknown = set(range(0x1100, 0x1200)) | set(range(0xAC00, 0xD7A4)), set()
    for c in SCALARS:
        s = chr(c)
        if unicodedata2.combining(s):
            tries = [
                t
                for m in "\u0327\u0301\u0334\u0345"
                for t in ("a" + s + m, "a" + m + s)
                if unicodedata2.normalize("NFD", t) != t
            ]
            (
                known if any(nfd(t) == unicodedata2.normalize("NFD", t) for t in tries) else unknown
            ).add(c)
        elif unicodedata2.decomposition(s):
            (known if nfkd(s) == unicodedata2.normalize("NFKD", s) else unknown).add(c)
    for c, parts in pairs.items():
        if c in known:
            known.update(parts)
    for c, parts in pairs.items():
        if c not in known:
            unknown.update(p for p in parts if p not in known)
    rows = []
    for c in sorted(unknown - known):
        if rows and not any(k in known for k in range(rows[-1][1] + 1, c)):
            rows[-1][1] = c
        else:
            rows.append([c, c])
    return rows


def table(cells, width):
    return ["    " + " ".join(cells[i : i + width]) for i in range(0, len(cells), width)]


HEAD = """\
/* Made by tests/tokenizer/make_unicode_news.py from tokenizers %s: not edited by hand.
 * Ids must not depend on the Unicode version of the libraries at hand, and the reference knows two
 * versions itself: its patterns a newer one than PCRE2 may have, its normalizers an older one than
 * utf8proc. */"""


def main():
    out = [
        HEAD % __version__,
        '#include "data/tokenizer/unicode_news.h"',
        "",
        "const eqi_char_news eqi_chars_new_to_patterns[] = {",
    ]
    rows = category_rows()
    out += table(['{0x%x, 0x%x, "%s"},' % tuple(r) for r in rows], 5)
    out += [
        "};",
        "const size_t eqi_chars_new_to_patterns_count =",
        "    sizeof eqi_chars_new_to_patterns / sizeof *eqi_chars_new_to_patterns;",
        "",
        "static const uint32_t foreign[][2] = {",
    ]
    out += table(["{0x%x, 0x%x}," % tuple(r) for r in form_rows()], 6)
    out += [
        "};",
        "",
        "bool eqi_char_is_foreign_to_forms(uint32_t c)",
        "{",
        "    size_t low = 0, high = sizeof foreign / sizeof *foreign;",
        "    while (low < high) {",
        "        size_t middle = (low + high) / 2;",
        "        if (foreign[middle][1] < c)",
        "            low = middle + 1;",
        "        else",
        "            high = middle;",
        "    }",
        "    return low < sizeof foreign / sizeof *foreign && foreign[low][0] <= c;",
        "}",
    ]
    print("\n".join(out))


if __name__ == "__main__":
    main()
