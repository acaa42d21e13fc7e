#!/usr/bin/env python3
"""No exported function crashes when its pointers are NULL.

    check_null.py LIBRARY INCLUDE HERE

Each is called in a process of its own: with nothing but NULL, and with a handle that works in front
of NULL.  Where the answer is a status and there is a context to hold a line, the line names the
argument.  Handles that a function gives back are NULL after its refusal, whatever was there before.
"""

import ctypes
import os
import re
import sys

INVALID_ARGUMENT = 1
DECLARED = re.compile(r"EQAT_API\s+([\w\s]+?\*?)\s*\b(eqat_\w+)\(([^;]*)\);")
library_path, include, here = sys.argv[1:4]


def declarations():
    """{function: (what it returns, [parameter types])}"""
    found = {}
    for header in os.listdir(os.path.join(include, "eqat")):
        text = open(os.path.join(include, "eqat", header)).read()
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        for result, name, parameters in DECLARED.findall(text):
            parameters = re.sub(r"\([^()]*\)\s*\([^()]*\)", "* callback", parameters)
            types = [p.strip() for p in parameters.split(",")]
            found[name] = (result.strip(), [] if types == ["void"] else types)
    return found


def argument(kind):
    """What stands for a parameter besides the first: NULL or 1."""
    if "*" in kind or re.match(r"eqat_\w+_fn\b", kind):
        return ctypes.c_void_p(None)
    return ctypes.c_double(1) if kind.startswith("double") else ctypes.c_int64(1)


GIVEN_BACK = re.compile(r"eqat_\w+ \*\*(?!sum)")  # eqat_op_scatter_rows takes its sum, too


def call(library, name, kinds, first=None, outs=()):
    """outs: {index: what that parameter points to}"""
    values = [argument(k) for k in kinds]
    for i, out in dict(outs).items():
        values[i] = ctypes.byref(out)
    if first is not None:
        values[0] = first
    return getattr(library, name)(*values)


def check_outs(library, name, kinds, first=None):
    """Calls once more, with something where handles are given back."""
    outs = {
        i: ctypes.c_void_p(64) for i, kind in enumerate(kinds) if i and GIVEN_BACK.match(kind)
    }
    if outs and call(library, name, kinds, first, outs) and any(o.value for o in outs.values()):
        return "found a handle after a refusal, expected NULL"
    return ""


class Handles:
    """One of each kind that can be made without a model."""

    def __init__(self, library):
        self.library = library
        self.context = self.make("eqat_context_create", None, None, ctypes.c_size_t(0))
        shape = (ctypes.c_int64 * 2)(4, 32)
        self.by_kind = {
            "eqat_context": self.context,
            "eqat_tape": self.of_context("eqat_tape_create", out_last=True),
            "eqat_tensor": self.of_context("eqat_tensor_create", 0, 2, shape, None),
            "eqat_quantizer": self.of_context("eqat_quantizer_create", None),
            "eqat_optimizer": self.of_context("eqat_optimizer_create", None),
            "eqat_data": self.data(),
        }

    def make(self, name, *rest):
        out = ctypes.c_void_p()
        status = getattr(self.library, name)(ctypes.byref(out), *rest)
        assert status == 0, f"{name}: {status}"
        return out

    def of_context(self, name, *rest, out_last=False):
        out = ctypes.c_void_p()
        status = getattr(self.library, name)(self.context, ctypes.byref(out), *rest)
        assert status == 0, f"{name}: {self.line()}"
        return out

    def data(self):
        ids = (ctypes.c_int32 * 8192)()
        return self.of_context(
            "eqat_data_from_tokens", ids, ctypes.c_size_t(8192), ctypes.c_int64(0), None
        )

    def line(self):
        self.library.eqat_context_error.restype = ctypes.c_char_p
        return self.library.eqat_context_error(self.context).decode()


def probe(name, result, kinds, handle_kind):
    """Runs in the child; what it returns goes to the parent as text."""
    library = ctypes.CDLL(library_path)
    if handle_kind is None:
        status = call(library, name, kinds)
        wrong = result == "eqat_status" and status == 0 and any("*" in k for k in kinds)
        return "found ok, expected a refusal" if wrong else check_outs(library, name, kinds)
    handles = Handles(library)
    status = call(library, name, kinds, handles.by_kind[handle_kind])
    if result == "eqat_status" and status == INVALID_ARGUMENT and not handles.line():
        return "found no line that names the argument"
    return check_outs(library, name, kinds, handles.by_kind[handle_kind])


def in_child(*task):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            text = probe(*task)
        except BaseException as e:  # the parent tells it
            text = f"the test failed: {e!r}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return f"died of signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else text


HANDLES = ("context", "tape", "tensor", "quantizer", "optimizer", "data")


def handle_in_front(kinds):
    kind = re.match(r"(?:const )?eqat_(\w+) \*\w", kinds[0]) if kinds else None
    return f"eqat_{kind[1]}" if kind and kind[1] in HANDLES else None


def main():
    declared = declarations()
    exports = open(os.path.join(here, "exports.txt")).read().split()
    failed = 0
    for name in exports:
        result, kinds = declared[name]
        tasks = [None]
        front = handle_in_front(kinds)
        if front and not name.endswith("_free"):
            tasks.append(front)
        problems = [p for p in (in_child(name, result, kinds, t) for t in tasks) if p]
        failed += bool(problems)
        for problem in problems:
            print(f"{name}: {problem}")
    print(f"{len(exports)} functions, {failed} findings")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
