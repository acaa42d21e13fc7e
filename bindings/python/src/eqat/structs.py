"""The library's structs, laid out from its own tables (eqat/options.h)."""

import collections
import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_uint64
from typing import Any, NamedTuple, Optional

from .library import lib

BOOL, I32, I64, U64, F64, ENUM, STRING, CALLBACK = range(8)  # eqat_field_type
CTYPES = (c_bool, c_int32, c_int64, c_uint64, c_double, c_int32, c_char_p, ctypes.c_void_p)


class CField(ctypes.Structure):
    """eqat_field, by which the library describes all other structs."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("name", c_char_p),
        ("help", c_char_p),
        ("names", POINTER(c_char_p)),
        ("type", c_int32),
        ("reserved", c_int32),
        ("offset", c_size_t),
        ("minimum", c_double),
        ("maximum", c_double),
        ("default_number", c_double),
        ("default_string", c_char_p),
    ]


REFLECTION = {
    "eqat_options_struct": (c_char_p, [c_size_t]),
    "eqat_options_count": (c_size_t, [c_char_p]),
    "eqat_options_size": (c_size_t, [c_char_p]),
    "eqat_options_field": (c_int, [c_char_p, c_size_t, POINTER(CField)]),
    "eqat_recipe_name": (c_char_p, [c_size_t]),
    "eqat_recipe_option": (
        c_int,
        [c_char_p, c_char_p, c_size_t, POINTER(ctypes.c_void_p), POINTER(ctypes.c_void_p)],
    ),
}
for _name, (_restype, _argtypes) in REFLECTION.items():
    getattr(lib, _name).restype = _restype
    getattr(lib, _name).argtypes = _argtypes


class Field(NamedTuple):
    """A member of a struct, in Python's terms."""

    name: str
    help: str
    type: int
    offset: int
    minimum: float
    maximum: float
    names: list[str]
    default: Any


def _names(pointer) -> list[str]:
    names: list[str] = []
    while pointer and pointer[len(names)]:
        names.append(pointer[len(names)].decode())
    return names


def _default(c: CField, names: list[str]) -> Any:
    if c.type == ENUM:
        return names[int(c.default_number)]
    if c.type == STRING:
        return c.default_string.decode() if c.default_string else None
    if c.type == CALLBACK:
        return None
    return {BOOL: bool, F64: float}.get(c.type, int)(c.default_number)


def _read_fields(struct: str) -> list[Field]:
    fields = []
    for index in range(lib.eqat_options_count(struct.encode())):
        c = CField(struct_size=ctypes.sizeof(CField))
        lib.eqat_options_field(struct.encode(), index, ctypes.byref(c))
        names = _names(c.names)
        fields.append(
            Field(
                c.name.decode(),
                c.help.decode(),
                c.type,
                c.offset,
                c.minimum,
                c.maximum,
                names,
                _default(c, names),
            )
        )
    return fields


class Struct(ctypes.Structure):
    """Base of all that begin with struct_size."""

    def __init__(self, **members):
        super().__init__(struct_size=ctypes.sizeof(self), **members)


def _padding(name: str, size: int):
    return [(name, ctypes.c_uint8 * size)] if size else []


def _layout(name: str, fields: list[Field]) -> type[Struct]:
    """Members the table does not tell (reserved ones) become padding."""
    members: list[Any] = [("struct_size", c_size_t)]
    end = ctypes.sizeof(c_size_t)
    for field in fields:
        members += _padding(f"_before_{field.name}", field.offset - end)
        members.append((field.name, CTYPES[field.type]))
        end = field.offset + ctypes.sizeof(CTYPES[field.type])
    members += _padding("_tail", lib.eqat_options_size(name.encode()) - end)
    return type(f"eqat_{name}", (Struct,), {"_fields_": members})


def _all_names() -> list[str]:
    names: list[str] = []
    while True:
        name = lib.eqat_options_struct(len(names))
        if not name:
            return names
        names.append(name.decode())


fields: dict[str, list[Field]] = {name: _read_fields(name) for name in _all_names()}
structs: dict[str, type[Struct]] = {name: _layout(name, fields[name]) for name in fields}
_records = {
    name: collections.namedtuple(  # type: ignore[misc]
        "".join(part.title() for part in name.split("_")), [field.name for field in fields[name]]
    )
    for name in fields
}


def _member(struct: Struct, field: Field) -> Any:
    value = getattr(struct, field.name)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def read(name: str, struct: Struct) -> Any:
    """What an info, report or progress struct says, as a named tuple of the same members."""
    return _records[name](*[_member(struct, field) for field in fields[name]])


def field_of(name: str, member: str) -> Optional[Field]:
    return next((field for field in fields[name] if field.name == member), None)
