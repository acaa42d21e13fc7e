"""Every function, struct and constant of the package against the C headers."""

import ctypes
import os
import pathlib

import headers
import pytest

from eqat import (
    callbacks,
    context,
    data,
    dtypes,
    errors,
    handle,
    memory,
    prototypes,
    structs,
    tape,
    tokenizer,
)
from eqat.library import lib

INCLUDE = pathlib.Path(
    os.environ.get("EQAT_INCLUDE") or pathlib.Path(__file__).parents[3] / "include" / "eqat"
)
C = headers.Headers(INCLUDE)
POINTER = ctypes.POINTER
RELEASES = {
    "void(*)(void*)": prototypes.release_fn,
    "void(*)(void*, void*)": prototypes.release_memory_fn,
}
# Pointers to numbers: what comes back through them, or arrays.
NUMBERS = {f"{name}*": POINTER(c) for name, c in headers.SCALARS.items()}
# Taken as plain addresses, because lengths go with them or no type in Python stands for them.
ADDRESSES = {"void*", "char**", "eqat_tensor**", "eqat_tensor*const*"}


def struct_name(kind):
    name = kind[len("eqat_") : -1]
    return name[: -len("_options")] if name.endswith("_options") else name


def expected(kind, result=False):
    """The ctypes type that stands for a C type in a signature."""
    if kind == "void":
        return None
    if kind in RELEASES:
        return RELEASES[kind]
    if kind in headers.SCALARS:
        return headers.SCALARS[kind]
    if kind in C.enums:
        return ctypes.c_int
    if kind in C.callbacks or kind == "eqat_task_fn":
        return getattr(prototypes, kind[len("eqat_") :])
    if kind == "char*":
        return ctypes.c_char_p
    if kind.rstrip("*") in C.handles:
        if kind.endswith("**"):
            return POINTER(ctypes.c_void_p)
        return ctypes.c_void_p if result else handle.references[kind[len("eqat_") : -1]]
    if kind == "eqat_field*":
        return POINTER(structs.CField)
    if kind[:-1] in C.structs:
        return POINTER(structs.structs[struct_name(kind)])
    return {
        "void*": ctypes.c_void_p,
        "char**": POINTER(ctypes.c_void_p),
        "int32_t**": POINTER(POINTER(ctypes.c_int32)),
    }.get(kind) or NUMBERS[kind]


def expected_in(name, kind):
    if name == "eqat_options_set" and kind == "void*":
        return ctypes.c_void_p  # of any options struct
    if name.endswith("_free") and kind.rstrip("*") in C.handles:
        return ctypes.c_void_p  # called when only the address is left
    return expected(kind)


def test_the_parser_sees_everything():
    text = "".join(path.read_text() for path in INCLUDE.glob("*.h"))
    assert len(C.functions) == text.count("\nEQAT_API ")
    assert len(C.structs) == text.count("typedef struct") - len(C.handles)
    assert len(C.callbacks) == text.count("_fn)(")


def test_no_function_is_missing_or_invented():
    known = set(prototypes.FUNCTIONS) | set(structs.REFLECTION) | {"eqat_version"}
    known |= {"eqat_status_name"} | {r.free for r in handle.references.values()}
    assert known == set(C.functions)


@pytest.mark.parametrize("name", sorted(C.functions))
def test_signature(name):
    function, declared = getattr(lib, name), C.functions[name]
    assert function.restype is expected(declared.result, result=True)
    assert list(function.argtypes) == [expected_in(name, kind) for kind in declared.arguments]


@pytest.mark.parametrize("name", sorted(C.callbacks))
def test_callback(name):
    """Inside callbacks handles are addresses: what is lent has no object yet."""
    found = getattr(prototypes, name[len("eqat_") :])
    declared = C.callbacks[name]

    def inner(kind):
        c = expected(kind)
        is_handle = isinstance(c, type) and issubclass(c, handle.Reference)
        return ctypes.c_void_p if is_handle or kind == "char**" else c

    assert found._restype_ is expected(declared.result, result=True)
    assert list(found._argtypes_) == [inner(kind) for kind in declared.arguments]


def same_layout(ours, name):
    theirs = C.layout(name)
    assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
    members = {m[0]: m[1] for m in ours._fields_ if not m[0].startswith("_")}
    for member in C.structs[name]:
        if member.name.startswith("reserved") and member.name not in members:
            continue
        c = C.ctype(member.type)
        if member.count == 1 and member.type == "char**":
            c = POINTER(ctypes.c_char_p)
        assert members.pop(member.name) is c, member
        assert getattr(ours, member.name).offset == getattr(theirs, member.name).offset, member
    assert not members


def full_name(name):
    return f"eqat_{name}" if f"eqat_{name}" in C.structs else f"eqat_{name}_options"


def test_no_struct_is_missing_or_invented():
    assert {full_name(name) for name in structs.structs} | {"eqat_field"} == set(C.structs)


@pytest.mark.parametrize("name", sorted(structs.structs))
def test_struct(name):
    same_layout(structs.structs[name], full_name(name))


def test_struct_of_fields():
    same_layout(structs.CField, "eqat_field")


def test_callbacks_in_options_have_the_types_of_their_members():
    made = {**callbacks.MADE, "context": {"log": context._LOG}}
    given_by_c = {"alloc", "free", "parallel"}  # not from Python
    for name, members in C.structs.items():
        for member in members:
            if member.type not in C.callbacks or member.name in given_by_c:
                continue
            ours = made[struct_name(name + "*")][member.name]
            assert type(ours) is expected(member.type), (name, member)
    assert type(memory.release) is prototypes.release_fn
    assert type(data._FILL) is prototypes.sample_fn


def values(enum, prefix):
    return {k[len(prefix) :].lower(): v for k, v in C.enums[enum].items()}


def test_constants():
    assert {d.name: d.value for d in dtypes.DTYPES} == values("eqat_dtype", "EQAT_")
    assert list(dtypes.DTYPES) == sorted(dtypes.DTYPES, key=lambda d: d.value)
    assert dict(zip(tape.ACTIVATIONS, range(9))) == values("eqat_activation", "EQAT_")
    assert data.FIELDS == values("eqat_sample_field", "EQAT_SAMPLE_")
    statuses = values("eqat_status", "EQAT_")
    assert set(errors.CLASSES) | {errors.OK} == set(statuses.values())
    assert (errors.OK, errors.CANCELLED) == (statuses["ok"], statuses["cancelled"])
    flags = values("eqat_tokenize_flags", "EQAT_TOKENIZE_")
    assert tokenizer.ADD_SPECIAL == flags["add_special"]
    assert tokenizer.PARSE_SPECIAL == flags["parse_special"]
    assert tokenizer.SKIP_SPECIAL == flags["skip_special"]
    kinds = values("eqat_field_type", "EQAT_FIELD_")
    kinds["callback"] = kinds.pop("pointer")
    assert {name: getattr(structs, name.upper()) for name in kinds} == kinds
    assert len(context.LEVELS) == len(C.enums["eqat_log_level"])


def test_version():
    import re

    import eqat

    text = (INCLUDE / "context.h").read_text()
    parts = re.findall(r"#define EQAT_VERSION_\w+ (\d+)", text)
    assert eqat.__version__ == ".".join(parts)
