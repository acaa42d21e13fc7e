"""Figures of a saved folder's linears: scales, zero points, errors."""

import math
from typing import Callable, Optional

import numpy as np

from . import units
from .figure import (
    Array,
    Axis,
    Cell,
    Figure,
    Heat,
    Missing,
    Panel,
    Section,
    Series,
    Shade,
    Shown,
    Table,
)
from .linears import SCALE_EDGES, Linear, Weights
from .result import Result

Pick = Callable[[Linear], Array]


def _span(counts: Array) -> slice:
    """From the first to the last bin that holds anything, and one more at each side."""
    used = np.flatnonzero(counts)
    if not len(used):
        return slice(0, 1)
    return slice(max(0, used[0] - 1), min(len(counts), used[-1] + 2))


def _sum(linears: list[Linear], pick: Pick, length: int) -> Array:
    total = np.zeros(length)
    for linear in linears:
        counts = pick(linear)
        total[: len(counts)] += counts
    return total


def _histograms(
    weights: Weights, pick: Pick, edges: Array, axis: Callable[[], Axis]
) -> list[Panel]:
    """One panel a role, all blocks together, in percent of the groups."""
    panels = []
    middles = np.sqrt(edges[:-1] * edges[1:]) if axis().log else (edges[:-1] + edges[1:]) / 2
    for number, role in enumerate(weights.roles):
        of_role = [linear for linear in weights.linears if linear.role == role]
        counts = _sum(of_role, pick, len(edges) - 1)
        share = 100 * counts / max(1.0, counts.sum())
        bars = Series("", middles, share, 0, kind="bars", edges=edges)
        panels.append(Panel([bars], axis(), Axis("groups (%)"), title=role))
    top = max((float(panel.series[0].y.max()) for panel in panels), default=1.0)
    for panel in panels:
        panel.y.high = top
    return panels


def _heat(weights: Weights, role: str, pick: Pick, edges: Array, axis: Axis) -> Heat:
    """A row a block: the histogram of one linear."""
    rows = sorted((one for one in weights.linears if one.role == role), key=lambda one: one.block)
    counts = np.array([_sum([one], pick, len(edges) - 1) for one in rows])
    totals = counts.sum(axis=1, keepdims=True)
    share = np.where(counts > 0, counts / np.maximum(totals, 1), math.nan)
    tips = np.array(
        [
            [f"{int(n)} groups, {units.percent(s)}" for n, s in zip(*row)]
            for row in zip(counts, share)
        ]
    )
    return Heat(share, [str(one.block) for one in rows], title=role, edges=edges, x=axis, tips=tips)


def _heats(key: str, title: str, weights: Weights, pick: Pick, edges: Array, axis: Axis) -> Figure:
    heats = [_heat(weights, role, pick, edges, axis) for role in weights.roles]
    high = max(float(np.nanmax(heat.values, initial=0.0)) for heat in heats)
    return Figure(
        key,
        title,
        "A row is the histogram of one linear; block 0 is on top.",
        heats,
        shade=Shade(0.0, high, "share of the linear's groups", unit="%"),
        small=True,
    )


def _quantile(counts: Array, edges: Array, share: float) -> float:
    """The middle of the bin in which that share of the values is reached."""
    total = counts.sum()
    if not total:
        return math.nan
    at = int(np.searchsorted(np.cumsum(counts), share * total))
    return float(math.sqrt(edges[at] * edges[at + 1]))


def _scale_table(weights: Weights) -> Table:
    rows: list[list[Cell]] = []
    for one in sorted(weights.linears, key=lambda one: (one.block, weights.roles.index(one.role))):
        quantiles = [_quantile(one.scales, SCALE_EDGES, share) for share in (0.05, 0.5, 0.95)]
        numbers = [units.quantity(value, 3) for value in quantiles]
        rows.append([units.whole(one.block), one.role, units.whole(one.groups), *numbers])
    head = ["block", "linear", "groups", "5% are below", "median", "5% are above"]
    return Table(head, rows)


def _zero_table(weights: Weights, length: int) -> Table:
    rows: list[list[Cell]] = []
    for one in sorted(weights.linears, key=lambda one: (one.block, weights.roles.index(one.role))):
        counts = _sum([one], lambda linear: linear.zeros, length)
        rows.append([units.whole(one.block), one.role, *map(units.whole, counts)])
    return Table(["block", "linear", *map(str, range(length))], rows)


def scales(weights: Weights) -> list[Shown]:
    total = _sum(weights.linears, lambda one: one.scales, len(SCALE_EDGES) - 1)
    if not total.any():
        return [Missing("Scales", "no scale is above zero")]
    span = _span(total)
    edges = SCALE_EDGES[span.start : span.stop + 1]

    def pick(linear: Linear) -> Array:
        return linear.scales[span]

    def axis() -> Axis:
        return Axis("scale", log=True)

    left_out = sum(one.not_positive for one in weights.linears)
    more = f" {left_out} scales are not above zero and are left out." if left_out else ""
    first = Figure(
        "scales",
        "Scales, by kind of linear",
        "Step sizes of all blocks together, a bin a quarter of an octave." + more,
        _histograms(weights, pick, edges, axis),
        _scale_table(weights),
        small=True,
    )
    return [first, _heats("scales-by-block", "Scales, by block", weights, pick, edges, axis())]


def zero_points(weights: Weights) -> list[Shown]:
    length = max(len(one.zeros) for one in weights.linears)
    edges = np.arange(length + 1) - 0.5

    def pick(linear: Linear) -> Array:
        return linear.zeros

    def axis() -> Axis:
        return Axis("zero point", whole=True)

    first = Figure(
        "zero-points",
        "Zero points, by kind of linear",
        "Of all blocks together.",
        _histograms(weights, pick, edges, axis),
        _zero_table(weights, length) if length <= 16 else None,
        small=True,
    )
    heats = _heats("zero-points-by-block", "Zero points, by block", weights, pick, edges, axis())
    return [first, heats]


def _error_grid(weights: Weights) -> Array:
    grid = np.full((len(weights.blocks), len(weights.roles)), math.nan)
    for one in weights.linears:
        grid[weights.blocks.index(one.block), weights.roles.index(one.role)] = one.error
    return grid


def _error_shade(grid: Array) -> Optional[Shade]:
    positive = grid[np.isfinite(grid) & (grid > 0)]
    if not len(positive):
        return None
    low, high = float(positive.min()), float(positive.max())
    return Shade(low, high, "relative squared error", log=high > 3 * low, unit="%")


def errors(weights: Weights) -> Shown:
    title = "Error of every linear"
    if weights.no_errors:
        return Missing(title, weights.no_errors)
    grid = _error_grid(weights)
    shade = _error_shade(grid)
    if shade is None:
        return Missing(title, "every dequantized weight equals the source's")
    names = [role.split(".", 1)[-1] for role in weights.roles]
    rows: list[list[Cell]] = [
        [units.whole(block), *map(units.percentage, grid[i])]
        for i, block in enumerate(weights.blocks)
    ]
    heat = Heat(grid, [str(b) for b in weights.blocks], columns=names, numbers=True)
    return Figure(
        "errors",
        title,
        "Squared difference between dequantized weights and those of the source model, relative "
        "to the source's. Block-AP moves the weights themselves, so this is a distance, not a "
        "loss of quality.",
        [heat],
        Table(["block", *weights.roles], rows),
        shade,
    )


def distribution(result: Result) -> Section:
    section = Section("weights", "Scales, zero points and errors")
    if result.weights is None:
        section.shown = [Missing("Weights", result.no_weights)]
        return section
    section.shown = [
        *scales(result.weights),
        *zero_points(result.weights),
        errors(result.weights),
    ]
    return section
