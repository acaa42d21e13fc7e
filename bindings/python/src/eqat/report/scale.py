"""Axes: where values lie, and the round numbers beside them."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .figure import Axis, Panel, Series

Array = npt.NDArray[Any]


def _round_step(span: float, count: int, whole: bool) -> float:
    raw = span / max(1, count)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    return max(1.0, step) if whole else step


def _linear_ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    if high <= low:
        return [low]
    step = _round_step(high - low, count, whole)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) if step >= 1e-9 else i * step for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        powers = (m * 10.0**e for e in range(first, last + 1) for m in multiples)
        ticks = [t for t in powers if low * 0.999 <= t <= high * 1.001]
        if len(ticks) <= count:
            break
    every = max(1, math.ceil(len(ticks) / count))
    return ticks[::every] if len(ticks) >= 2 else _linear_ticks(low, high, count)


class Scale:
    """From values to pixels, or to any other pair of ends."""

    def __init__(self, low: float, high: float, start: float, stop: float, axis: Axis):
        self.low, self.high, self.axis = low, high, axis
        self._ends = [math.log10(v) if axis.log else v for v in (low, high)]
        self._start, self._stop = start, stop

    def __call__(self, values: Any) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            at = np.log10(values) if self.axis.log else np.asarray(values, float)
        low, high = self._ends
        share = (at - low) / (high - low) if high > low else at * 0 + 0.5
        return self._start + share * (self._stop - self._start)

    def ticks(self, count: int) -> list[float]:
        if self.axis.log:
            return _log_ticks(self.low, self.high, count)
        return _linear_ticks(self.low, self.high, count, self.axis.whole)


def _ends(arrays: Iterable[Array], log: bool) -> tuple[float, float]:
    flat = np.concatenate([np.asarray(a, float).ravel() for a in arrays] or [np.zeros(0)])
    flat = flat[np.isfinite(flat) & (flat > 0)] if log else flat[np.isfinite(flat)]
    return (float(flat.min()), float(flat.max())) if len(flat) else (1.0, 1.0)


def _x_arrays(series: Series) -> list[Array]:
    if series.kind == "bars":
        return list(series.sides())
    return [series.x]


def _y_arrays(series: Series) -> list[Array]:
    arrays = [series.y, *(a for a in (series.low, series.high) if a is not None)]
    return [*arrays, np.zeros(1)] if series.kind == "bars" else arrays


def x_range(panel: Panel) -> tuple[float, float]:
    low, high = _ends([a for s in panel.series for a in _x_arrays(s)], panel.x.log)
    low = low if panel.x.low is None else panel.x.low
    high = high if panel.x.high is None else panel.x.high
    if low == high:
        return (low / 2, high * 2) if panel.x.log else (low - 0.5, high + 0.5)
    return low, high


def y_range(panel: Panel) -> tuple[float, float]:
    """The values and some room; of an axis that shows its zero, from there."""
    axis = panel.y
    low, high = _ends([a for s in panel.series for a in _y_arrays(s)], axis.log)
    low = low if axis.low is None else min(low, axis.low)
    high = high if axis.high is None else max(high, axis.high)
    if axis.log:
        room = max((high / low) ** 0.06, 1.05)
        return low / room, high * room
    room = (high - low) * 0.06 or abs(high) * 0.05 or 0.5
    return (low - room if low != 0 else 0.0), (high + room if high != 0 else 0.0)


def same_factor(panels: list[Panel]) -> None:
    """Gives every logarithmic y axis the same number of decades, so that slopes compare though
    losses of blocks lie orders of magnitude apart."""
    ends = [y_range(panel) for panel in panels]
    factor = max((high / low for low, high in ends), default=1.0)
    for panel, (low, high) in zip(panels, ends):
        room = math.sqrt(factor / (high / low))
        panel.y.low, panel.y.high = low / room, high * room
