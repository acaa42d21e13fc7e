"""Figures of Block-AP and E2E-QP."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

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
    curve,
    smoothed,
)
from .log import NAN, Block, Epoch, Run, number
from .result import Result
from .scale import same_factor

TRAIN, VAL, START = 0, 1, 5  # colours
MANY = 40  # blocks beyond which small multiples are shown on request
PROGRESS_BINS = 40

NO_BLOCKS = "the log has no step of Block-AP"


def _array(values: Iterable[float]) -> Array:
    return np.array(list(values), float)


def _first_loss(block: Block) -> float:
    return block.steps.loss[0] if len(block.steps) else NAN


def _loss_axis(low: Optional[float] = None) -> Axis:
    return Axis("loss (mean squared error)", log=True, low=low)


def _block_axis() -> Axis:
    return Axis("block", whole=True)


def _loss_table(blocks: dict[int, Block]) -> Table:
    rows: list[list[Cell]] = []
    for index, block in blocks.items():
        for past, epoch in sorted(block.epochs.items()):
            losses = (_first_loss(block), epoch.train_loss, epoch.val_loss)
            rows.append([units.whole(index), units.whole(past + 1), *map(units.quantity, losses)])
    return Table(
        ["block", "epoch", "loss of the first step", "training loss", "validation loss"], rows
    )


def loss_by_block(blocks: dict[int, Block], last: dict[int, Epoch]) -> Shown:
    title = "Loss of every block"
    first = _array(_first_loss(block) for block in blocks.values())
    train, val = (
        _array(getattr(last.get(index, Epoch()), name) for index in blocks)
        for name in ("train_loss", "val_loss")
    )
    if not any(np.any(values > 0) for values in (first, train, val)):
        return Missing(title, "no loss in the log is a number above zero")
    xs = _array(blocks)
    series = [Series("first step", xs, first, START)]
    series += [Series("training", xs, train, TRAIN), Series("validation", xs, val, VAL)]
    shown = [s for s in series if np.isfinite(s.y).any()]
    return Figure(
        "loss-by-block",
        title,
        "At the first step, and as means over the samples in the last epoch.",
        [Panel(shown, _block_axis(), _loss_axis())],
        _loss_table(blocks),
    )


def _within(block: Block) -> list[float]:
    """Steps counted from the block's own first one."""
    first = next((step for step in block.steps.step if not math.isnan(step)), 1.0)
    return [step - first + 1 for step in block.steps.step]


def _epoch_starts(block: Block) -> list[float]:
    steps, epochs = _within(block), block.steps.epoch
    return [steps[i] - 0.5 for i in range(1, len(steps)) if epochs[i] != epochs[i - 1]]


def _curve_panel(index: int, block: Block) -> Panel:
    steps = _within(block)
    series = [curve("training", steps, block.steps.loss, TRAIN, 60)]
    val = [(s, v) for s, v in zip(steps, block.steps.val_loss) if not math.isnan(v)]
    if val:
        xs, ys = (_array(part) for part in zip(*val))
        series.append(Series("validation", xs, ys, VAL, kind="points"))
    return Panel(
        series, Axis("step"), _loss_axis(), title=f"block {index}", marks=_epoch_starts(block)
    )


def _has_loss(panel: Panel) -> bool:
    return any(np.any(series.y > 0) for series in panel.series)


def loss_curves(blocks: dict[int, Block]) -> Shown:
    title = "Loss over the steps, block by block"
    panels = [_curve_panel(index, block) for index, block in blocks.items() if len(block.steps)]
    panels = [panel for panel in panels if _has_loss(panel)]
    if not panels:
        return Missing(title, "the log has no loss of single steps")
    same_factor(panels)
    return Figure(
        "loss-curves",
        title,
        "Logarithmic; every panel spans the same factor, so slopes compare. The band spans the "
        "steps that one point stands for; vertical lines are ends of epochs.",
        panels,
        small=True,
        folded=len(panels) > MANY,
    )


def _progress_row(block: Block) -> Array:
    """Mean loss in equal parts of the steps, relative to the first part."""
    losses = _array(block.steps.loss)
    parts = np.array_split(losses, min(PROGRESS_BINS, len(losses)))
    means = _array(np.nanmean(p) if np.isfinite(p).any() else NAN for p in parts)
    row = np.full(PROGRESS_BINS, NAN)
    row[: len(means)] = means / means[0] if means[0] > 0 else NAN
    return row


def progress(blocks: dict[int, Block]) -> Shown:
    title = "How far the loss of each block fell"
    rows = {i: _progress_row(b) for i, b in blocks.items() if len(b.steps) >= PROGRESS_BINS}
    values = np.array(list(rows.values()))
    if not rows or not np.isfinite(values).any():
        return Missing(title, f"no block has {PROGRESS_BINS} steps with a loss")
    edges = np.linspace(0, 100, PROGRESS_BINS + 1)
    axis = Axis("part of the block's steps (%)")
    heat = Heat(values, [str(i) for i in rows], edges=edges, x=axis)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    shade = Shade(low, high, "loss relative to the first part", log=low > 0, unit="%")
    caption = f"Mean loss in {PROGRESS_BINS} equal parts of the steps, relative to the first part."
    return Figure("progress", title, caption, [heat], shade=shade)


def block_ap(result: Result) -> Section:
    section = Section("block-ap", "Block-AP: loss curves")
    blocks = result.blocks
    if not blocks:
        section.shown = [Missing("Loss curves", NO_BLOCKS)]
        return section
    section.shown = [loss_by_block(blocks, result.last_epochs())]
    if len(blocks) > 12:
        section.shown.append(progress(blocks))
    section.shown.append(loss_curves(blocks))
    return section


def _gaps(last: dict[int, Epoch]) -> dict[int, float]:
    """Validation loss over training loss, less one."""
    return {
        index: epoch.val_loss / epoch.train_loss - 1
        for index, epoch in last.items()
        if epoch.train_loss > 0 and not math.isnan(epoch.val_loss)
    }


def _gap_caption(gaps: dict[int, float]) -> str:
    above = sum(gap > 0 for gap in gaps.values())
    widest = max(gaps, key=lambda index: gaps[index])
    return (
        f"After the last epoch: validation loss is above training loss in {above} of {len(gaps)} "
        f"blocks; the widest gap is {units.percent(gaps[widest])}, in block {widest}. A gap "
        "that is wide in many blocks says that the samples are too few for what trains."
    )


def gap_by_block(last: dict[int, Epoch]) -> Shown:
    title = "Gap between validation and training, by block"
    gaps = _gaps(last)
    if not gaps:
        return Missing(title, "the log has no validation loss (val_size 0?)")
    bars = Series("", _array(gaps), _array(100 * gap for gap in gaps.values()), VAL, kind="bars")
    rows: list[list[Cell]] = [
        [
            units.whole(index),
            units.quantity(last[index].train_loss),
            units.quantity(last[index].val_loss),
            units.percentage(gap),
        ]
        for index, gap in gaps.items()
    ]
    return Figure(
        "gap-by-block",
        title,
        _gap_caption(gaps),
        [Panel([bars], _block_axis(), Axis("gap (%)"))],
        Table(["block", "training loss", "validation loss", "gap"], rows),
    )


def _epoch_panel(index: int, block: Block) -> Panel:
    numbers = sorted(block.epochs)
    xs = _array(n + 1 for n in numbers)
    train, val = (
        Series(name, xs, _array(getattr(block.epochs[n], member) for n in numbers), color)
        for name, member, color in (
            ("training", "train_loss", TRAIN),
            ("validation", "val_loss", VAL),
        )
    )
    shown = [series for series in (train, val) if np.isfinite(series.y).any()]
    return Panel(shown, Axis("epoch", whole=True), _loss_axis(), title=f"block {index}")


def losses_over_epochs(blocks: dict[int, Block]) -> Shown:
    title = "Training and validation loss over the epochs"
    panels = [_epoch_panel(i, block) for i, block in blocks.items() if len(block.epochs) > 1]
    panels = [panel for panel in panels if _has_loss(panel)]
    if not panels:
        return Missing(title, "no block has losses of two epochs")
    same_factor(panels)
    return Figure(
        "losses-over-epochs",
        title,
        "Means over the samples in every epoch. Logarithmic; every panel spans the same factor.",
        panels,
        small=True,
        folded=len(panels) > MANY,
    )


def validation(result: Result) -> Section:
    section = Section("validation", "Validation against training")
    blocks = result.blocks
    if not blocks:
        section.shown = [Missing("Losses of the epochs", NO_BLOCKS)]
        return section
    gap = gap_by_block(result.last_epochs())
    section.shown = [gap]
    if isinstance(gap, Figure):
        section.shown.append(losses_over_epochs(blocks))
    return section


def _with_trend(line: Series, name: str = "running mean") -> list[Series]:
    """The line itself stands back behind its running mean."""
    window = len(line.x) // 16
    if window < 2:
        return [line]
    line.kind, line.name = "faint", "step" if line.low is None else "mean of steps"
    trend = Series(name, line.x, smoothed(line.y, window), line.color)
    return [line, trend]


def _e2e_panels(result: Result) -> Sequence[Panel]:
    steps = result.e2e
    wanted = (
        ("loss", steps.loss, Axis("cross-entropy (nats)"), TRAIN),
        ("gradient norm", steps.grad_norm, Axis("gradient norm", log=True), 2),
        ("rate", steps.lr, Axis("learning rate"), 3),
    )
    panels = []
    for name, values, axis, color in wanted:
        line = curve("", steps.step, values, color, 240)
        if np.isfinite(line.y).any() and (not axis.log or np.any(line.y > 0)):
            series = [line] if name == "rate" else _with_trend(line)
            panels.append(Panel(series, Axis("step"), axis, title=name))
    return panels


def e2e_table(result: Result) -> Table:
    """At most forty rows: means over equal parts of the steps."""
    steps = result.e2e
    parts = np.array_split(np.arange(len(steps)), min(40, len(steps)))
    rows: list[list[Cell]] = []
    for part in parts:
        row: list[Cell] = [units.whole(steps.step[part[-1]])]
        for values in (steps.loss, steps.grad_norm, steps.lr):
            picked = [values[i] for i in part if not math.isnan(values[i])]
            row.append(units.quantity(sum(picked) / len(picked) if picked else NAN))
        rows.append(row)
    return Table(["up to step", "loss", "gradient norm", "learning rate"], rows)


@dataclass
class Validated:
    """A validation of E2E-QP, and the training since the one before."""

    step: float  # taken so far; 0: the start
    train_loss: float
    val_loss: float


def _validations(run: Run) -> list[Validated]:
    steps = run.e2e
    since: list[float] = []
    found = []
    start = number(run.kept.get("start_loss"))
    if not math.isnan(start):
        found.append(Validated(0, NAN, start))
    for step, loss, val_loss in zip(steps.step, steps.loss, steps.val_loss):
        if not math.isnan(loss):
            since.append(loss)
        if not math.isnan(val_loss):
            found.append(Validated(step, sum(since) / len(since) if since else NAN, val_loss))
            since = []
    return found


def _kept_step(run: Run) -> float:
    """Steps that the kept state has behind it; NaN when the log does not tell."""
    return number(run.kept.get("step"))


def _kept_caption(run: Run) -> str:
    step, loss = _kept_step(run), number(run.kept.get("val_loss"))
    if math.isnan(step):
        return "The log does not tell which state was kept: the phase has not ended."
    which = f"the state behind step {step:.0f}" if step else "the start"
    told = "" if math.isnan(loss) else f" (validation {units.plain(loss)})"
    return f"Kept was {which}{told}: the vertical line."


def _validation_table(run: Run, found: list[Validated]) -> Table:
    kept = _kept_step(run)
    rows: list[list[Cell]] = [
        [
            units.whole(v.step),
            units.quantity(v.train_loss),
            units.quantity(v.val_loss),
            "kept" if v.step == kept else "",
        ]
        for v in found
    ]
    return Table(["behind step", "training loss since", "validation loss", ""], rows)


def e2e_validation(run: Run) -> Shown:
    title = "Training and validation loss of E2E-QP"
    found = [v for v in _validations(run) if math.isfinite(v.step)]
    if not found:
        return Missing(title, "the log has no validation of E2E-QP (val_size 0?)")
    at = _array(v.step for v in found)
    series = _with_trend(curve("training", run.e2e.step, run.e2e.loss, TRAIN, 240), "training")
    series.append(Series("validation", at, _array(v.val_loss for v in found), VAL))
    kept = _kept_step(run)
    marks = [] if math.isnan(kept) else [kept]
    panel = Panel(series, Axis("step"), Axis("cross-entropy (nats)"), marks=marks)
    caption = (
        "Training: a running mean over the steps; validation: of what would be stored, at the "
        f"start (step 0, where it was measured) and behind steps. {_kept_caption(run)}"
    )
    return Figure("e2e-validation", title, caption, [panel], _validation_table(run, found))


def _e2e_loss(result: Result) -> Shown:
    panels = _e2e_panels(result) if len(result.e2e) else []
    if not panels:
        return Missing("Loss", "the log has no step of E2E-QP")
    caption = "Each step as the log has it"
    if len(result.e2e) > 240:
        caption = "Means of neighbouring steps"
    caption += "; the gradient norm is that before clipping."
    return Figure("e2e-loss", "Loss, gradient norm and rate", caption, panels, e2e_table(result))


def e2e_qp(result: Result) -> Section:
    section = Section("e2e-qp", "E2E-QP: loss, gradient norm, validation", [_e2e_loss(result)])
    run = result.trained_e2e
    if run:
        section.shown.append(e2e_validation(run))
    return section
