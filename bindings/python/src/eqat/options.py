"""Keyword arguments from the library's tables: signatures, help, names and values."""

import ctypes
import difflib
import inspect
import os
import re
import textwrap
from typing import Any, Callable, NamedTuple, Optional, TypeVar

from . import callbacks, errors, memory, structs
from .calls import call
from .handle import Handle
from .library import lib

F = TypeVar("F", bound=Callable[..., Any])

TYPES = {
    structs.BOOL: "bool",
    structs.I32: "int",
    structs.I64: "int",
    structs.U64: "int",
    structs.F64: "float",
    structs.ENUM: "str",
    structs.STRING: "path or str",
    structs.CALLBACK: "callable",
}
HANDLES = {("e2e_qp", "teacher"): "Model"}  # options that are objects of this package
ADDRESSES = {("context", "stream")}  # options that are addresses of what others made
Recipes = dict[str, dict[str, Any]]  # of each its options: keyword and value
UNBOUNDED = 1 << 20  # what is allowed beyond is no limit for a reader


class Group(NamedTuple):
    """Options of one struct as a function takes them: which, under which prefix, other defaults."""

    struct: str
    defaults: dict[str, Any] = {}
    prefix: str = ""
    only: Optional[list[str]] = None
    without: list[str] = []

    def fields(self) -> list[structs.Field]:
        """Callbacks that Python cannot give, such as an allocator, and user pointers stay out."""
        made = callbacks.MADE.get(self.struct, {})
        return [
            field
            for field in structs.fields[self.struct]
            if (
                field.type != structs.CALLBACK
                or field.name in made
                or (self.struct, field.name) in HANDLES
                or (self.struct, field.name) in ADDRESSES
            )
            and (self.only is None or field.name in self.only)
            and field.name not in self.without
        ]

    def take(self, keywords: dict[str, Any]) -> dict[str, Any]:
        """The keywords that are this group's and not None, under the members' own names."""
        taken = dict(self.defaults)
        for field in self.fields():
            value = keywords.get(self.prefix + field.name)
            if value is not None:
                taken[field.name] = value
        return taken


def _default(group: Group, field: structs.Field) -> Any:
    return group.defaults.get(field.name, field.default)


def _range(field: structs.Field) -> str:
    if field.names:
        return ", ".join(field.names)
    if field.type in (structs.I32, structs.I64, structs.F64):
        if field.maximum < UNBOUNDED:
            return f"{field.minimum:g} to {field.maximum:g}"
        return f"from {field.minimum:g} on"
    return ""


def _defaults(group: Group, field: structs.Field, recipes: Recipes) -> dict[str, Any]:
    """By recipe; one without a name where all agree."""
    name, default = group.prefix + field.name, _default(group, field)
    said = {recipe: rows.get(name, default) for recipe, rows in recipes.items()}
    if len(set(map(repr, said.values()))) > 1:
        return said
    return {"": next(iter(said.values()), default)}


def _told_default(group: Group, field: structs.Field, recipes: Recipes) -> str:
    if field.type == structs.CALLBACK:
        return ""
    said = _defaults(group, field, recipes).items()
    each = (f"{value!r} with {recipe}" if recipe else repr(value) for recipe, value in said)
    return f" Default {', '.join(each)}."


def _describe(group: Group, field: structs.Field, recipes: Recipes) -> str:
    where = (group.struct, field.name)
    kind = "int" if where in ADDRESSES else HANDLES.get(where, TYPES[field.type])
    about = "; ".join(filter(None, [kind, _range(field)]))
    default = _told_default(group, field, recipes)
    names = {f.name for f in group.fields()}
    told = re.sub(
        "[a-z]+(_[a-z]+)+", lambda m: (group.prefix if m[0] in names else "") + m[0], field.help
    )
    line = f"{group.prefix}{field.name} ({about}): {told}.{default}"
    return textwrap.fill(line, 92, initial_indent="    ", subsequent_indent="        ")


def _check_names(function: Any, known: dict[str, Any], keywords: dict[str, Any]) -> None:
    for name in keywords:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise TypeError(f"{function.__qualname__}() has no option {name}{hint}")


def options(*groups: Group, recipes: Optional[Recipes] = None) -> Callable[[F], F]:
    """Decorates a function that ends in **options: its signature and help name them one by one, and
    others are refused.  Where recipes differ, the signature has None."""
    recipes = recipes or {}

    def decorate(function: F) -> F:
        known = {
            group.prefix + field.name: _defaults(group, field, recipes).get("")
            for group in groups
            for field in group.fields()
        }
        own = inspect.signature(function)
        kept = [p for p in own.parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in known.items()
        ]

        def checked(*arguments: Any, **keywords: Any) -> Any:
            options = {k: v for k, v in keywords.items() if k not in own.parameters}
            _check_names(function, known, options)
            return function(*arguments, **keywords)

        checked.__name__, checked.__qualname__ = function.__name__, function.__qualname__
        checked.__module__ = function.__module__
        checked.__signature__ = own.replace(parameters=kept + added)  # type: ignore[attr-defined]
        lines = [_describe(group, field, recipes) for group in groups for field in group.fields()]
        checked.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Options:", *lines])
        return checked  # type: ignore[return-value]

    return decorate


def _as_text(field: structs.Field, value: Any) -> str:
    """As eqat_options_set reads it."""
    if field.type == structs.BOOL and value in (True, False):
        return "true" if value else "false"
    if isinstance(value, (bool, str)):
        return str(value)
    return repr(float(value)) if field.type == structs.F64 else str(value)


def _set(context: Any, name: str, struct: structs.Struct, field: structs.Field, value: Any) -> None:
    text = _as_text(field, value)
    where = (name.encode(), ctypes.byref(struct), field.name.encode(), text.encode())
    if context is not None:
        call(context, lib.eqat_options_set, context, *where)
        return
    status = lib.eqat_options_set(None, *where)
    if status != errors.OK:  # nobody there to keep the library's line
        line = f"{field.name}: found {text}, expected {_range(field) or TYPES[field.type]}"
        raise errors.error_of(status, line)


def _reference_of(name: str, member: str, value: Any) -> Any:
    expected = HANDLES[name, member]
    if not isinstance(value, Handle) or type(value).__name__ != expected:
        raise TypeError(f"{member}: found {type(value).__name__}, expected {expected}")
    return value._reference


class Filled(NamedTuple):
    """A struct, and what holds the callbacks in it."""

    struct: structs.Struct
    keep: list[Any]


def fill(context: Any, name: str, values: dict[str, Any]) -> Filled:
    """The struct with the library's defaults and these values, each checked by the library."""
    struct = structs.structs[name]()
    getattr(lib, f"eqat_{name}_options_init")(ctypes.byref(struct), ctypes.sizeof(struct))
    keep: list[Any] = []
    for member, value in values.items():
        field = structs.field_of(name, member)
        if field is None:
            raise TypeError(f"{name}: no option {member}")
        if (name, member) in HANDLES:
            if value is not None:
                keep.append(_reference_of(name, member, value))
                setattr(struct, member, keep[-1].value)
        elif (name, member) in ADDRESSES:
            setattr(struct, member, value or None)
        elif field.type == structs.CALLBACK:
            if value is not None:
                hold = memory.Hold(callbacks.Given(context, value))
                keep.append(hold)
                setattr(struct, member, ctypes.cast(callbacks.MADE[name][member], ctypes.c_void_p))
                setattr(struct, f"{member}_user", hold.number)
        elif field.type == structs.STRING:
            setattr(struct, member, None if value is None else os.fsencode(value))
        elif value is not None:
            _set(context, name, struct, field, value)
    return Filled(struct, keep)
