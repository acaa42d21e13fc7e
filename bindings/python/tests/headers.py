"""Reads the declarations of include/eqat/*.h: enough of C for them, and nothing of the package."""

import ctypes
import pathlib
import re
from typing import NamedTuple

SCALARS = {
    "bool": ctypes.c_bool,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint8_t": ctypes.c_uint8,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "double": ctypes.c_double,
}


class Variable(NamedTuple):
    type: str  # "const eqat_model *"
    name: str
    count: int = 1


class Function(NamedTuple):
    result: str
    arguments: list[str]


def _split(text: str) -> list[str]:
    """At commas outside of parentheses."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in parts + [text[start:]]]


def _type(text: str) -> str:
    """One spelling: "const char *const *" as "char**"."""
    return re.sub(r"\s*\*\s*", "*", re.sub(r"\bconst\b", "", text)).strip()


def _argument(text: str) -> str:
    inner = re.fullmatch(r"(.*?)\(\*\w+\)\((.*)\)", text)
    if inner:
        return f"{_type(inner[1])}(*)({', '.join(map(_argument, _split(inner[2])))})"
    return _type(re.sub(r"\b\w+$", "", text) if re.search(r"[\s*]\w+$", text) else text)


def _arguments(text: str) -> list[str]:
    return [] if text.strip() == "void" else [_argument(part) for part in _split(text)]


def _members(body: str) -> list[Variable]:
    members = []
    for line in filter(None, (part.strip() for part in body.split(";"))):
        kind, rest = re.fullmatch(r"((?:const )?\w+ )(.*)", line).groups()
        for name in rest.split(","):
            stars, name, count = re.fullmatch(
                r"\s*([* ]*(?:const \*)?)(\w+)(?:\[(\d+)\])?\s*", name
            ).groups()
            members.append(Variable(_type(kind + stars), name, int(count or 1)))
    return members


class Headers:
    def __init__(self, folder: pathlib.Path):
        text = "\n".join(path.read_text() for path in sorted(folder.glob("*.h")))
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        text = " ".join(line for line in text.splitlines() if not line.startswith("#"))
        text = re.sub(r"\s+", " ", text)
        self.enums: dict[str, dict[str, int]] = {
            name: {
                k.strip(): int(v) for k, v in (e.split("=") for e in body.split(",") if "=" in e)
            }
            for body, name in re.findall(r"typedef enum \w+ \{(.*?)\} (\w+);", text)
        }
        self.structs = {
            name: _members(body)
            for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", text)
        }
        self.handles = set(re.findall(r"typedef struct (\w+) \1;", text))
        self.callbacks = {
            name: Function(_type(result), _arguments(arguments))
            for result, name, arguments in re.findall(
                r"typedef ([\w *]+?)\(\*(\w+)\)\((.*?)\);",
                text.replace("void (*task)(void *arg, size_t index)", "eqat_task_fn task"),
            )
        }
        self.functions = {
            name: Function(_type(result), _arguments(arguments))
            for result, name, arguments in re.findall(r"EQAT_API ([\w *]+?)(\w+)\((.*?)\);", text)
        }

    def ctype(self, kind: str):
        """How a member of this type lies in memory."""
        if kind.endswith("*") or kind in self.callbacks:
            return ctypes.c_char_p if kind == "char*" else ctypes.c_void_p
        return ctypes.c_int if kind in self.enums else SCALARS[kind]

    def layout(self, name: str):
        """The struct as a C compiler lays it out."""
        members = [
            (m.name, self.ctype(m.type) * m.count if m.count > 1 else self.ctype(m.type))
            for m in self.structs[name]
        ]
        return type(name, (ctypes.Structure,), {"_fields_": members})
