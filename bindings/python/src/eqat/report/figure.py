"""What a figure shows, apart from how it is drawn: svg.py and png.py draw it, page.py tabulates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass
class Axis:
    label: str
    log: bool = False
    whole: bool = False  # ticks at whole numbers alone
    low: Optional[float] = None
    high: Optional[float] = None


@dataclass
class Series:
    name: str
    x: Array
    y: Array
    color: int = 0
    kind: str = "line"  # line, faint (a line behind others), points, bars
    low: Optional[Array] = None  # a band behind the line
    high: Optional[Array] = None
    edges: Optional[Array] = None  # of bars, one more than x; else from x - 0.5 to x + 0.5

    def sides(self) -> tuple[Array, Array]:
        """Of bars: their left and right ends."""
        if self.edges is None:
            return self.x - 0.5, self.x + 0.5
        return self.edges[:-1], self.edges[1:]


@dataclass
class Panel:
    series: list[Series]
    x: Axis
    y: Axis
    title: str = ""
    marks: Sequence[float] = ()  # vertical lines, where epochs begin


@dataclass
class Heat:
    """Cells in rows and columns. Either columns has a name for each column, or edges and x say
    where on an axis they lie."""

    values: Array  # [rows, columns], NaN where there is none
    rows: list[str]
    title: str = ""
    columns: Sequence[str] = ()
    edges: Optional[Array] = None
    x: Optional[Axis] = None
    row_label: str = "block"
    tips: Optional[Array] = None  # of strings: what a cell is called; else its value
    numbers: bool = False  # values written into their cells


@dataclass
class Shade:
    """The colour scale of heat maps: equal steps of a linear or logarithmic axis."""

    low: float
    high: float
    label: str
    log: bool = False
    unit: str = ""  # "%" or nothing

    LEVELS = 9

    def level(self, values: Array) -> Array:
        """0 to LEVELS - 1; -1 for NaN, and for what has no logarithm."""
        low, high = (math.log(v) if self.log else v for v in (self.low, self.high))
        with np.errstate(invalid="ignore", divide="ignore"):
            at = np.log(values) if self.log else np.asarray(values, float)
            share = (at - low) / (high - low) if high > low else np.where(np.isnan(at), at, 0.5)
        levels = np.clip(
            np.floor(np.nan_to_num(share, nan=0, posinf=1, neginf=0) * self.LEVELS), 0, 8
        )
        return np.where(np.isfinite(at), levels, -1).astype(int)


@dataclass(frozen=True)
class Quantity:
    """A number of a table: exactly, and as it is written."""

    value: float
    text: str


Cell = Union[str, Quantity]


@dataclass
class Table:
    head: list[str]
    rows: list[list[Cell]]


@dataclass
class Figure:
    key: str  # of its place in the page and its PNG
    title: str
    caption: str
    panels: Sequence[Union[Panel, Heat]]
    table: Optional[Table] = None
    shade: Optional[Shade] = None  # of heat maps
    small: bool = False  # small multiples
    folded: bool = False  # shown on request


def binned(x: Sequence[float], y: Sequence[float], count: int) -> tuple[Array, Array, Array, Array]:
    """At most count points: middle of x, mean, least and greatest of y. NaN are left out."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    keep = np.isfinite(xs) & np.isfinite(ys)
    xs, ys = xs[keep], ys[keep]
    if len(xs) <= count:
        return xs, ys, ys, ys
    starts = np.arange(count) * len(xs) // count
    sizes = np.diff(np.append(starts, len(xs)))
    return (
        np.add.reduceat(xs, starts) / sizes,
        np.add.reduceat(ys, starts) / sizes,
        np.minimum.reduceat(ys, starts),
        np.maximum.reduceat(ys, starts),
    )


def curve(
    name: str, x: Sequence[float], y: Sequence[float], color: int = 0, count: int = 120
) -> Series:
    """A line of at most count points, with a band of least and greatest where steps share one."""
    xs, mean, low, high = binned(x, y, count)
    several = len(xs) < len(x) and len(xs) == count
    return Series(
        name, xs, mean, color, low=low if several else None, high=high if several else None
    )


def smoothed(values: Union[Sequence[float], Array], window: int) -> Array:
    """Running means over a window that shrinks at both ends; NaN are left out."""
    ys = np.asarray(values, float)
    known = np.isfinite(ys)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, ys, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    at = np.arange(len(ys))
    reach = np.minimum(np.minimum(at, len(ys) - 1 - at), window // 2)
    left, right = at - reach, at + reach + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = (sums[right] - sums[left]) / (counts[right] - counts[left])
    return means


@dataclass
class Missing:
    """A figure that cannot be drawn, and why."""

    title: str
    reason: str


Shown = Union[Figure, Missing]


@dataclass
class Section:
    key: str
    title: str
    shown: list[Shown] = field(default_factory=list)
