"""Draws figures as PNG through matplotlib, where it is installed."""

import importlib
import math
import pathlib
from typing import Any

import numpy as np

from . import units
from .errors import ReportError
from .figure import Axis, Figure, Heat, Panel, Series, Shade
from .scale import Scale, x_range, y_range
from .svg import cell_text

_COLORS = ("#1f6fb4", "#b8500a", "#2b7a3d", "#8a3fa0", "#ad2f4f", "#66717c")


def _matplotlib() -> tuple[Any, Any]:
    try:
        canvas = importlib.import_module("matplotlib.figure").Figure
        colors = importlib.import_module("matplotlib.colors")
    except ImportError:
        raise ReportError(
            "--png: found no matplotlib, expected it installed: pip install 'eqat[report]'"
        ) from None
    return canvas, colors


def check() -> None:
    """Raises ReportError when PNGs cannot be drawn."""
    _matplotlib()


def _draw_series(axes: Any, series: Series) -> None:
    color = _COLORS[series.color % len(_COLORS)]
    if series.kind == "bars":
        left, right = series.sides()
        wide = (right - left) * (1.0 if series.edges is not None else 0.8)
        axes.bar((left + right) / 2, series.y, wide, color=color, linewidth=0)
        return
    if series.low is not None:
        axes.fill_between(series.x, series.low, series.high, color=color, alpha=0.2, linewidth=0)
    if series.kind == "faint":
        axes.plot(series.x, series.y, color=color, alpha=0.4, lw=0.8)
        return
    style = "o" if series.kind == "points" else "-"
    axes.plot(series.x, series.y, style, color=color, label=series.name or None, ms=4, lw=1.5)


def _ticks(drawn: Any, axis: Axis, ends: tuple[float, float], count: int) -> None:
    """Those of the page."""
    at = Scale(*ends, 0.0, 1.0, axis).ticks(count)
    drawn.set_ticks(at, labels=[units.tick(value) for value in at])
    drawn.set_ticks([], minor=True)


def _draw_panel(axes: Any, panel: Panel, small: bool) -> None:
    for series in panel.series:
        _draw_series(axes, series)
    for mark in panel.marks:
        axes.axvline(mark, color="0.6", lw=0.8, ls=":")
    axes.set_xscale("log" if panel.x.log else "linear")
    axes.set_yscale("log" if panel.y.log else "linear")
    axes.set_xlim(x_range(panel))
    axes.set_ylim(y_range(panel))
    _ticks(axes.xaxis, panel.x, x_range(panel), 4 if small else 10)
    _ticks(axes.yaxis, panel.y, y_range(panel), 3 if small else 6)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7 if small else 9)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if not small:
        axes.set_xlabel(panel.x.label)
        axes.set_ylabel(panel.y.label)


def _draw_numbers(axes: Any, heat: Heat, shade: Shade) -> None:
    for (row, column), level in np.ndenumerate(shade.level(heat.values)):
        if level >= 0:
            words = cell_text(float(heat.values[row, column]), shade)
            color = "white" if level > 4 else "black"
            axes.text(
                column + 0.5, row + 0.5, words, ha="center", va="center", fontsize=7, color=color
            )


def _draw_heat(axes: Any, heat: Heat, shade: Shade, colors: Any) -> Any:
    ends = (shade.low, shade.high if shade.high > shade.low else shade.low * 1.01 + 1e-12)
    norm = (colors.LogNorm if shade.log else colors.Normalize)(*ends)
    edges = np.arange(heat.values.shape[1] + 1) if heat.edges is None else heat.edges
    rows = np.arange(len(heat.rows) + 1)
    drawn = axes.pcolormesh(edges, rows, np.ma.masked_invalid(heat.values), norm=norm, cmap="Blues")
    axes.invert_yaxis()
    every = max(1, math.ceil(len(heat.rows) / 20))
    axes.set_yticks(rows[:-1:every] + 0.5, heat.rows[::every], fontsize=7)
    axes.set_title(heat.title, fontsize=9, loc="left")
    if heat.x is not None and heat.edges is not None:
        axes.set_xscale("log" if heat.x.log else "linear")
        _ticks(axes.xaxis, heat.x, (float(edges[0]), float(edges[-1])), 4)
        axes.tick_params(labelsize=8)
        axes.set_xlabel(heat.x.label, fontsize=8)
    if len(heat.columns):
        axes.set_xticks(edges[:-1] + 0.5, heat.columns, fontsize=8)
        axes.xaxis.tick_top()
    if heat.numbers:
        _draw_numbers(axes, heat, shade)
    return drawn


def _size(figure: Figure, rows: int, columns: int) -> tuple[float, float]:
    if figure.small:
        return 2.4 * columns, (2.6 if figure.shade else 1.6) * rows + 0.6
    panel = figure.panels[0]
    tall = 0.22 * len(panel.rows) + 1.2 if isinstance(panel, Heat) else 2.8 * rows
    return 10.0, max(3.0, min(tall, 40.0))


def _legend(canvas: Any, axes: list[Any]) -> None:
    named: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels()):
            named.setdefault(label, handle)
    if named:
        canvas.legend(
            named.values(),
            named.keys(),
            loc="outside lower center",
            ncols=4,
            fontsize=8,
            frameon=False,
        )


def draw(figure: Figure, path: pathlib.Path) -> None:
    canvas_class, colors = _matplotlib()
    columns = min(5, len(figure.panels)) if figure.small else 1
    rows = math.ceil(len(figure.panels) / columns)
    canvas = canvas_class(figsize=_size(figure, rows, columns), dpi=120, layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False).ravel()
    drawn = None
    for axes, panel in zip(grid, figure.panels):
        if isinstance(panel, Heat):
            drawn = _draw_heat(axes, panel, figure.shade or Shade(0, 1, ""), colors)
        else:
            _draw_panel(axes, panel, figure.small)
    for axes in grid[len(figure.panels) :]:
        axes.remove()
    used = list(grid[: len(figure.panels)])
    if drawn is not None and figure.shade:
        canvas.colorbar(drawn, ax=used, label=figure.shade.label)
    _legend(canvas, used)
    canvas.suptitle(figure.title, fontsize=11, fontweight="bold")
    canvas.savefig(path)
