"""Python objects that C refers to: by a number, as its `user` pointer, until nobody needs them.  A
number that has gone finds nothing; a pointer would find anything."""

import itertools
from typing import Any, Callable, Optional

from . import prototypes

_held: dict[int, Any] = {}
_numbers = itertools.count(1)


def hold(thing: Any) -> int:
    number = next(_numbers)
    _held[number] = thing
    return number


def held(number: Optional[int]) -> Any:
    return _held[number or 0]


def drop(number: int, things: dict[int, Any] = _held) -> None:
    things.pop(number, None)


class Hold:
    """Holds a thing as long as this object exists."""

    def __init__(self, thing: Any):
        self.number = hold(thing)

    def __del__(self, drop: Callable[[int], None] = drop) -> None:
        drop(self.number)  # bound here: at the end of the process the module's names are gone


# The library tells when it has done with these.
release = prototypes.release_fn(drop)
release_memory = prototypes.release_memory_fn(lambda number, _data: drop(number))
