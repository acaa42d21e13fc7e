"""Perplexities and sizes over all results."""

import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from . import units
from .figure import Axis, Cell, Figure, Missing, Panel, Series, Shown, Table
from .log import NAN, Run, number, text
from .result import Result

Key = tuple[str, float, float]  # file, seq_len, windows: what makes perplexities comparable


@dataclass
class Row:
    """One model."""

    name: str
    method: str = ""
    bits: float = NAN
    group: float = NAN
    bits_per_parameter: float = NAN
    size: float = NAN
    perplexities: dict[Key, float] = field(default_factory=dict)


def _same(path: str, other: Optional[pathlib.Path], log: pathlib.Path) -> bool:
    if other is None or not path:
        return False
    here = pathlib.Path(path)
    candidates = (here, log.parent / here, log.parent.parent / here)
    return any(c.exists() and c.resolve() == other.resolve() for c in candidates)


def _of_result(result: Result) -> Row:
    return Row(
        result.name,
        result.phases,
        result.option("quantizer", "bits"),
        result.option("quantizer", "group_size"),
        number(result.saved.get("bits_per_linear_parameter")),
        number(result.saved.get("bytes")),
    )


def _is_own(result: Result, run: Run, model: str) -> bool:
    """Whether an evaluation is of the result itself: by its folder, or by the name it was saved."""
    outs = (text(r.saved.get("path")) or text(r.header.get("out")) for r in result.runs)
    last = next((out for out in list(outs)[::-1] if out), None)
    return _same(model, result.folder, result.log.path) or (bool(model) and model == last)


def _source_row(result: Result, model: str) -> Row:
    """Another model than the result: the one that was quantized, or any other."""
    row = Row(model)
    for run in result.runs:
        if run.command == "quantize" and text(run.header.get("model")) == model:
            row.method, row.size = "source", number(run.saved.get("input_bytes"))
    return row


def _evals(result: Result) -> Iterator[tuple[Run, dict[str, Any]]]:
    for run in result.runs:
        for event in run.evals:
            if not math.isnan(number(event.get("perplexity"))):
                yield run, event


def rows(results: list[Result]) -> list[Row]:
    """Source models first, then the results, each with the newest perplexity of every kind."""
    sources: dict[str, Row] = {}
    own: list[Row] = []
    for result in results:
        row = _of_result(result)
        own.append(row)
        for run, event in _evals(result):
            model = text(event.get("model")) or text(run.header.get("model"))
            key = (
                pathlib.PurePath(text(event.get("file")) or "text").name,
                number(event.get("seq_len")),
                number(event.get("windows")),
            )
            target = row
            if not _is_own(result, run, model):
                target = sources.setdefault(model, _source_row(result, model))
            target.perplexities[key] = number(event.get("perplexity"))
    return [*sources.values(), *own]


def _keys(found: list[Row]) -> list[Key]:
    return list(dict.fromkeys(key for row in found for key in row.perplexities))


def _head(key: Key) -> str:
    name, length, windows = key
    parts = [f"{windows:.0f} windows" if windows == windows else "windows"]
    parts += [f"of {length:.0f} tokens"] if length == length else []
    return f"perplexity on {name}, {' '.join(parts)}"


def table(found: list[Row]) -> Table:
    keys = _keys(found)
    lines: list[list[Cell]] = []
    for row in found:
        group: Cell = "row" if row.group == -1 else units.whole(row.group)
        line: list[Cell] = [row.name, row.method, units.whole(row.bits), group]
        line += [units.quantity(row.bits_per_parameter, 3), units.bytes_(row.size)]
        line += [units.quantity(row.perplexities.get(key, NAN)) for key in keys]
        lines.append(line)
    head = ["model", "made by", "bits", "group", "bits per weight", "size", *map(_head, keys)]
    return Table(head, lines)


def _panel(found: list[Row], key: Key) -> Optional[Panel]:
    shown = [row for row in found if row.perplexities.get(key, NAN) > 0 and row.size > 0]
    if len(shown) < 2:
        return None
    series = [
        Series(
            row.name.rstrip("/").rsplit("/", 1)[-1],
            np.array([row.size / 1e6]),
            np.array([row.perplexities[key]]),
            place % 6,
            kind="points",
        )
        for place, row in enumerate(shown)
    ]
    widest = max(row.size for row in shown) / 1e6
    axis = Axis("size of all tensors (MB)", low=0.0, high=widest * 1.05)
    return Panel(series, axis, Axis("perplexity", log=True), title=_head(key))


def against_size(found: list[Row]) -> Shown:
    title = "Perplexity against size"
    panels = [panel for panel in (_panel(found, key) for key in _keys(found)) if panel]
    if not panels:
        return Missing(title, "no two models were evaluated on the same text and have a known size")
    return Figure("perplexity", title, "Lower and further left is better.", panels)


def overview(results: list[Result]) -> list[Shown]:
    found = rows(results)
    if not any(row.perplexities for row in found):
        reason = (
            "no log holds one; `eqat eval OUT --text FILE --log-file OUT/eqat_log.jsonl` adds it"
        )
        return [Missing("Perplexity", reason)]
    return [against_size(found)] if len(found) > 1 else []
