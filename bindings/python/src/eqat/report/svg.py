"""Draws panels and heat maps as SVG; colours and fonts are classes of style.py."""

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import units
from .figure import Axis, Heat, Panel, Series, Shade
from .scale import Scale, x_range, y_range

Array = npt.NDArray[Any]


def escape(text: str) -> str:
    return html.escape(text, quote=True)


def _px(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _text(x: float, y: float, text: str, kind: str = "", extra: str = "") -> str:
    return f'<text x="{_px(x)}" y="{_px(y)}" class="{kind}"{extra}>{escape(text)}</text>'


def _line(x0: float, y0: float, x1: float, y1: float, kind: str) -> str:
    ends = zip(("x1", "y1", "x2", "y2"), (x0, y0, x1, y1))
    return f'<line {" ".join(f"{k}={chr(34)}{_px(v)}{chr(34)}" for k, v in ends)} class="{kind}"/>'


@dataclass
class Frame:
    """The size of a drawing and the room around its plot."""

    width: float
    height: float
    left: float = 72
    right: float = 16
    top: float = 10
    bottom: float = 40

    @property
    def x1(self) -> float:
        return self.width - self.right

    @property
    def y1(self) -> float:
        return self.height - self.bottom


LARGE = Frame(1040, 300)
SMALL = Frame(204, 128, left=44, right=8, top=20, bottom=20)


def _wrap(frame: Frame, title: str, parts: Iterable[str], data: Optional[dict[str, Any]]) -> str:
    about = escape(title)
    more = f' data-chart="{escape(json.dumps(data, separators=(",", ":")))}"' if data else ""
    size = f'width="{_px(frame.width)}" height="{_px(frame.height)}"'
    return (
        f'<svg {size} viewBox="0 0 {_px(frame.width)} {_px(frame.height)}" role="img" '
        f'aria-label="{about}"{more}><title>{about}</title>{"".join(parts)}</svg>'
    )


def _path(xs: Array, ys: Array) -> str:
    """A line that breaks where a value is missing."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys):
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        parts.append(f"{pen}{_px(x)} {_px(y)}")
        pen = "L"
    return "".join(parts)


def _band(series: Series, sx: Scale, sy: Scale, floor: float) -> str:
    if series.low is None or series.high is None:
        return ""
    low = np.nan_to_num(sy(series.low), nan=floor, neginf=floor, posinf=floor)
    high = np.nan_to_num(sy(series.high), nan=floor, neginf=floor, posinf=floor)
    xs = sx(series.x)
    outline = _path(np.append(xs, xs[::-1]), np.append(high, low[::-1]))
    return f'<path d="{outline}Z" class="band s{series.color}"/>'


def _bars(series: Series, sx: Scale, sy: Scale) -> str:
    zero = float(sy(0.0))
    parts = []
    lefts, rights = (sx(side) for side in series.sides())
    if series.edges is None:  # no histogram: bars stand apart
        half = np.minimum((rights - lefts) * 0.4, 28)
        middles = (lefts + rights) / 2
        lefts, rights = middles - half, middles + half
    for left, right, y in zip(lefts, rights, sy(series.y)):
        if math.isfinite(y):
            gap = 1.0 if right - left > 4 and series.edges is not None else 0.0
            box = f'x="{_px(left + gap / 2)}" width="{_px(max(0.5, right - left - gap))}"'
            top, tall = min(y, zero), abs(y - zero)
            parts.append(f'<rect {box} y="{_px(top)}" height="{_px(tall)}"/>')
    return f'<g class="bar s{series.color}">{"".join(parts)}</g>'


def _points(series: Series, sx: Scale, sy: Scale, radius: float) -> str:
    parts = [
        f'<circle cx="{_px(x)}" cy="{_px(y)}" r="{_px(radius)}"/>'
        for x, y in zip(sx(series.x), sy(series.y))
        if math.isfinite(x) and math.isfinite(y)
    ]
    return f'<g class="point s{series.color}">{"".join(parts)}</g>'


def _series(series: Series, sx: Scale, sy: Scale, frame: Frame) -> str:
    if series.kind == "bars":
        return _bars(series, sx, sy)
    small = frame.width < 400
    points = _points(series, sx, sy, 2 if small else 5 if series.kind == "points" else 2.6)
    if series.kind == "points":
        return points
    kind = "line faint" if series.kind == "faint" else "line"
    line = f'<path d="{_path(sx(series.x), sy(series.y))}" class="{kind} s{series.color}"/>'
    if series.kind == "faint":
        return line
    few = np.isfinite(series.y).sum() <= (4 if small else 40)
    return _band(series, sx, sy, frame.y1) + line + (points if few else "")


def _x_axis(axis: Axis, sx: Scale, frame: Frame, y_top: Optional[float] = None) -> str:
    small = frame.width < 400
    parts = []
    for tick in sx.ticks(12 if not small else 4 if axis.whole else 3):
        x, words = float(sx(tick)), units.tick(tick)
        over = x + 3.3 * len(words) > frame.width
        place, kind = (frame.width - 1, "tick end") if over else (x, "tick mid")
        parts.append(_text(place, frame.y1 + 15, words, kind))
        if y_top is not None:
            parts.append(_line(x, y_top, x, frame.y1, "grid"))
    parts.append(_line(frame.left, frame.y1, frame.x1, frame.y1, "axis"))
    if not small:
        middle = (frame.left + frame.x1) / 2
        parts.append(_text(middle, frame.height - 6, axis.label, "label mid"))
    return "".join(parts)


def _y_axis(axis: Axis, sy: Scale, frame: Frame) -> str:
    small = frame.width < 400
    parts = []
    for tick in sy.ticks(3 if small else 6):
        y = float(sy(tick))
        parts.append(_line(frame.left, y, frame.x1, y, "grid"))
        parts.append(_text(frame.left - 6, y + 4, units.tick(tick), "tick end"))
    if not small:
        middle = (frame.top + frame.y1) / 2
        turn = f' transform="rotate(-90 14 {_px(middle)})"'
        parts.append(_text(14, middle, axis.label, "label mid", turn))
    return "".join(parts)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights of labels as near to the wanted ones as they can be gap apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [0.0] * len(wanted)
    floor = low
    for i in order:
        placed[i] = max(wanted[i], floor)
        floor = placed[i] + gap
    ceiling = high
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def _end_labels(panel: Panel, sx: Scale, sy: Scale, frame: Frame) -> str:
    """Each line's name at its right end, each point's beside it."""
    named = []
    for series in panel.series:
        at = np.flatnonzero(np.isfinite(sy(series.y)))
        if series.name and series.kind in ("line", "points") and len(at):
            x = float(sx(series.x)[at[-1]]) if series.kind == "points" else frame.x1
            named.append((series, x, float(sy(series.y)[at[-1]])))
    heights = spread([y for _, _, y in named], 14, frame.top + 4, frame.y1)
    return "".join(
        _text(x + 8, y + 4, series.name, f"name t{series.color}")
        for (series, x, _), y in zip(named, heights)
    )


def _data(panel: Panel, sx: Scale, sy: Scale, frame: Frame) -> dict[str, Any]:
    """What the page's script needs to tell the values under the pointer."""
    xs = sorted({float(x) for s in panel.series for x in s.x if math.isfinite(x)})
    rows = []
    for series in panel.series:
        at = dict(zip(map(float, series.x), zip(sy(series.y), series.y)))
        points = [at.get(x, (math.nan, math.nan)) for x in xs]
        rows.append(
            [
                series.name or panel.y.label,
                [round(float(y), 1) if math.isfinite(y) else None for y, _ in points],
                [units.plain(float(v)) for _, v in points],
            ]
        )
    return {
        "kind": "plot",
        "x": [round(float(sx(x)), 1) for x in xs],
        "at": [units.plain(x, 6).rstrip("0").rstrip(".") if x % 1 else f"{x:.0f}" for x in xs],
        "label": panel.x.label,
        "box": [frame.left, frame.top, frame.x1, frame.y1],
        "series": rows,
    }


def panel(panel: Panel, frame: Frame, about: str) -> str:
    if frame.width > 400 and any(s.name and s.kind in ("line", "points") for s in panel.series):
        longest = max(len(s.name) for s in panel.series)
        frame = replace(frame, right=min(220.0, 24 + 7 * longest))
    (x_low, x_high), (y_low, y_high) = x_range(panel), y_range(panel)
    sx = Scale(x_low, x_high, frame.left, frame.x1, panel.x)
    sy = Scale(y_low, y_high, frame.y1, frame.top, panel.y)
    parts = [_y_axis(panel.y, sy, frame), _x_axis(panel.x, sx, frame)]
    for mark in panel.marks:
        x = float(sx(mark))
        parts.append(_line(x, frame.top, x, frame.y1, "mark"))
    parts += [_series(series, sx, sy, frame) for series in panel.series]
    if frame.width > 400:
        parts.append(_end_labels(panel, sx, sy, frame))
    if panel.title:
        parts.append(_text(frame.left, frame.top - 6, panel.title, "panel"))
    return _wrap(frame, about, parts, _data(panel, sx, sy, frame))


def _cells(levels: Array, xs: Array, ys: Array) -> str:
    """One path for each colour: thousands of cells stay small."""
    parts = []
    for level in range(Shade.LEVELS):
        boxes = [
            f"M{_px(xs[c])} {_px(ys[r])}H{_px(xs[c + 1])}V{_px(ys[r + 1])}H{_px(xs[c])}Z"
            for r, c in zip(*np.nonzero(levels == level))
        ]
        if boxes:
            parts.append(f'<path d="{"".join(boxes)}" class="h{level}"/>')
    return "".join(parts)


def _cell_numbers(heat: Heat, levels: Array, xs: Array, ys: Array, shade: Shade) -> str:
    parts = []
    for (r, c), level in np.ndenumerate(levels):
        if level >= 0:
            x, y = (xs[c] + xs[c + 1]) / 2, (ys[r] + ys[r + 1]) / 2 + 3.5
            text = cell_text(float(heat.values[r, c]), shade)
            parts.append(_text(x, y, text, f"cell mid on{level}"))
    return "".join(parts)


def cell_text(value: float, shade: Shade) -> str:
    return units.percent(value) if shade.unit == "%" else units.plain(value, 3)


def _row_labels(heat: Heat, ys: Array, frame: Frame) -> str:
    tall = ys[1] - ys[0] if len(ys) > 1 else 1
    every = max(1, math.ceil(11 / tall))
    if every > 1:
        every = next(n for n in (2, 5, 10, 20, 50, 100, 1 << 30) if n >= every)
    return "".join(
        _text(frame.left - 6, (ys[i] + ys[i + 1]) / 2 + 3.5, name, "tick end")
        for i, name in enumerate(heat.rows)
        if i % every == 0
    )


def _column_labels(heat: Heat, xs: Array, frame: Frame) -> str:
    return "".join(
        _text((xs[i] + xs[i + 1]) / 2, frame.top - 6, name, "tick mid")
        for i, name in enumerate(heat.columns)
    )


def heat_frame(heat: Heat, small: bool) -> Frame:
    rows = len(heat.rows)
    if small:
        row = min(14.0, max(2.5, 200 / max(1, rows)))
        frame = Frame(250, 0, left=34, right=8, top=22, bottom=22)
    else:
        row = min(22.0, max(13.0 if heat.numbers else 5.0, 420 / max(1, rows)))
        top = 24 if len(heat.columns) else 10
        frame = Frame(1040, 0, left=64, right=16, top=top, bottom=12 if len(heat.columns) else 40)
        if len(heat.columns):
            frame.width = min(1040, frame.left + frame.right + 132 * len(heat.columns))
    frame.height = frame.top + frame.bottom + row * rows
    return frame


def heat(heat: Heat, shade: Shade, small: bool, about: str) -> str:
    frame = heat_frame(heat, small)
    count = len(heat.columns) if heat.edges is None else len(heat.edges) - 1
    ys = np.linspace(frame.top, frame.y1, len(heat.rows) + 1)
    parts = []
    if heat.edges is None or heat.x is None:
        xs = np.linspace(frame.left, frame.x1, count + 1)
        parts.append(_column_labels(heat, xs, frame))
    else:
        low, high = float(heat.edges[0]), float(heat.edges[-1])
        sx = Scale(low, high, frame.left, frame.x1, heat.x)
        xs = sx(heat.edges)
        parts.append(_x_axis(heat.x, sx, frame))
    levels = shade.level(heat.values)
    box = f'x="{_px(frame.left)}" y="{_px(frame.top)}" width="{_px(frame.x1 - frame.left)}" '
    parts.append(f'<rect {box}height="{_px(frame.y1 - frame.top)}" class="empty"/>')
    parts += [_cells(levels, xs, ys), _row_labels(heat, ys, frame)]
    if heat.numbers:
        parts.append(_cell_numbers(heat, levels, xs, ys, shade))
    if heat.title:
        parts.append(_text(frame.left, 13, heat.title, "panel"))
    if not small and heat.title == "":
        middle = (frame.top + frame.y1) / 2
        turn = f' transform="rotate(-90 14 {_px(middle)})"'
        parts.append(_text(14, middle, heat.row_label, "label mid", turn))
    return _wrap(frame, about, parts, _heat_data(heat, shade, xs, ys))


def _heat_data(heat: Heat, shade: Shade, xs: Array, ys: Array) -> dict[str, Any]:
    if len(heat.columns):
        names: Sequence[str] = heat.columns
    else:
        edges = [] if heat.edges is None else [units.plain(e, 3) for e in heat.edges]
        names = [f"{a} to {b}" for a, b in zip(edges, edges[1:])]
    tips = heat.tips
    return {
        "kind": "heat",
        "x": [round(float(x), 1) for x in xs],
        "y": [round(float(y), 1) for y in (ys[0], ys[-1])],
        "rows": [f"{heat.row_label} {row}" for row in heat.rows],
        "columns": list(names),
        "v": [
            [
                ""
                if math.isnan(value)
                else str(tips[r, c])
                if tips is not None
                else cell_text(float(value), shade)
                for c, value in enumerate(row)
            ]
            for r, row in enumerate(heat.values)
        ],
    }


def shade_key(shade: Shade) -> str:
    """The legend of a heat map: its colours between its ends."""
    frame = Frame(420, 34, left=0, right=0, top=0, bottom=20)
    wide = 24.0
    boxes = "".join(
        f'<rect x="{_px(i * wide)}" y="0" width="{_px(wide)}" height="12" class="h{i}"/>'
        for i in range(Shade.LEVELS)
    )
    low, high = (cell_text(v, shade) for v in (shade.low, shade.high))
    end = wide * Shade.LEVELS
    words = [
        _text(0, 27, low, "tick"),
        _text(end, 27, high, "tick end"),
        _text(end + 10, 10, shade.label, "label"),
    ]
    return _wrap(frame, f"colours from {low} to {high}: {shade.label}", [boxes, *words], None)


Drawable = Union[Panel, Heat]
