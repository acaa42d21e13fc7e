"""Figures of time and memory."""

import math

import numpy as np

from . import units
from .figure import Axis, Cell, Figure, Missing, Panel, Section, Series, Shown, Table
from .log import NAN, number, text
from .result import Result


def _byte_unit(most: float) -> tuple[str, float]:
    return ("GB", 1e9) if most >= 2e9 else ("MB", 1e6)


def by_block(result: Result) -> Shown:
    title = "Time and memory, by block"
    blocks = result.blocks
    xs = np.array(list(blocks), float)
    seconds = np.array([block.seconds for block in blocks.values()], float)
    memory = np.array([block.peak_rss for block in blocks.values()], float)
    panels = []
    if np.isfinite(seconds).any():
        bars = Series("", xs, seconds, 0, kind="bars")
        panels.append(Panel([bars], Axis("block", whole=True), Axis("time (s)"), title="time"))
    if np.isfinite(memory).any():
        unit, scale = _byte_unit(float(np.nanmax(memory)))
        line = Series("", xs, memory / scale, 2)
        axis = Axis(f"peak memory ({unit})", low=0.0)
        panels.append(Panel([line], Axis("block", whole=True), axis, title="peak memory so far"))
    if not panels:
        return Missing(title, "the log has no end of a block of Block-AP")
    rows: list[list[Cell]] = [
        [units.whole(index), units.seconds(block.seconds), units.bytes_(block.peak_rss)]
        for index, block in blocks.items()
    ]
    caption = "Time includes the block's share of moving the streams; memory is the process's peak."
    return Figure("time-and-memory", title, caption, panels, Table(["block", "time", "peak"], rows))


def by_phase(result: Result) -> Table:
    rows: list[list[Cell]] = []
    for run in result.runs:
        for event in [*run.phases, run.end]:
            if event:
                seconds, peak = (number(event.get(k)) for k in ("seconds", "peak_rss_bytes"))
                phase = text(event.get("phase")) or "the whole run"
                rows.append([run.command, phase, units.seconds(seconds), units.bytes_(peak)])
    return Table(["command", "phase", "time", "peak memory"], rows)


def needs(result: Result) -> Table:
    """What the tool said beforehand, and what it came to."""
    rows: list[list[Cell]] = []
    for run in result.runs:
        wanted = (
            ("time", "seconds", run.seconds, units.seconds),
            ("memory", "memory_bytes", run.peak_rss, units.bytes_),
            ("output", "out_bytes", number(run.saved.get("bytes")), units.bytes_),
            ("disk for activations", "disk_bytes", NAN, units.bytes_),
        )
        for name, key, measured, write in wanted:
            said = number(run.need.get(key))
            if not math.isnan(said) and (said or measured > 0):
                rows.append([run.command, name, write(said), write(measured)])
    return Table(["command", "what", "said before", "measured"], rows)


def cost(result: Result) -> Section:
    return Section("cost", "Time and memory", [by_block(result)])
