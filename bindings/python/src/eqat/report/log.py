"""Reads the JSON lines that `eqat` keeps of a run (docs/log.md).

Lenient: lines that cannot be read are counted and skipped, unknown events and members ignored,
what is missing or no number becomes NaN.
"""

import json
import math
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable

from .errors import ReportError

NAN = math.nan
LARGEST = 1e100


def number(value: Any) -> float:
    """A number of the log; NaN when it is none, or too large for the arithmetic of axes."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NAN
    try:
        result = float(value)
    except OverflowError:
        return NAN
    if not abs(result) < LARGEST:
        return NAN
    return result if abs(result) > 1 / LARGEST else 0.0


def index(value: Any) -> int:
    """Of a block or an epoch; 0 for anything else."""
    count = number(value)
    return int(count) if 0 <= count < 1 << 31 else 0


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


@dataclass
class Steps:
    """Training steps in the order of the log."""

    step: list[float] = field(default_factory=list)
    epoch: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)

    def add(self, event: dict[str, Any]) -> None:
        self.step.append(number(event.get("step")))
        self.epoch.append(index(event.get("epoch")))
        self.loss.append(number(event.get("loss")))
        self.val_loss.append(number(event.get("val_loss")))
        self.lr.append(number(event.get("lr")))
        self.grad_norm.append(number(event.get("grad_norm")))

    def __len__(self) -> int:
        return len(self.step)


@dataclass
class Epoch:
    train_loss: float = NAN
    val_loss: float = NAN
    seconds: float = NAN


@dataclass
class Block:
    steps: Steps = field(default_factory=Steps)
    epochs: dict[int, Epoch] = field(default_factory=dict)
    seconds: float = NAN
    peak_rss: float = NAN


@dataclass
class Run:
    """One command of the tool."""

    header: dict[str, Any] = field(default_factory=dict)
    blocks: dict[int, Block] = field(default_factory=dict)
    e2e: Steps = field(default_factory=Steps)
    kept: dict[str, Any] = field(default_factory=dict)  # of E2E-QP
    phases: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    need: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    last: float = NAN  # when the last line was written, in seconds

    @property
    def seconds(self) -> float:
        """That the run took, or has taken so far."""
        return number(self.end.get("seconds", self.last))

    @property
    def peak_rss(self) -> float:
        peaks = [
            number(event.get("peak_rss_bytes")) for event in [*self.phases, self.saved, self.end]
        ]
        return max((peak for peak in peaks if not math.isnan(peak)), default=NAN)

    @property
    def command(self) -> str:
        return text(self.header.get("command")) or "run"

    def options(self, section: str) -> dict[str, Any]:
        options = self.header.get("options")
        found = options.get(section) if isinstance(options, dict) else None
        return found if isinstance(found, dict) else {}

    def block(self, event: dict[str, Any]) -> Block:
        return self.blocks.setdefault(index(event.get("block")), Block())


def _step(run: Run, event: dict[str, Any]) -> None:
    phase = event.get("phase")
    if phase == "block-ap":
        run.block(event).steps.add(event)
    elif phase == "e2e-qp":
        run.e2e.add(event)


def _epoch(run: Run, event: dict[str, Any]) -> None:
    if event.get("phase", "block-ap") == "block-ap":
        run.block(event).epochs[index(event.get("epoch"))] = Epoch(
            number(event.get("train_loss")),
            number(event.get("val_loss")),
            number(event.get("seconds")),
        )


def _block(run: Run, event: dict[str, Any]) -> None:
    block = run.block(event)
    block.seconds = number(event.get("seconds"))
    block.peak_rss = number(event.get("peak_rss_bytes"))


def _kept(run: Run, event: dict[str, Any]) -> None:
    if event.get("phase") == "e2e-qp":
        run.kept = event


def _log(run: Run, event: dict[str, Any]) -> None:
    run.messages.append((text(event.get("level")), text(event.get("text"))))


_TAKE: dict[str, Callable[[Run, dict[str, Any]], None]] = {
    "need": lambda run, event: run.need.update(event),
    "step": _step,
    "epoch": _epoch,
    "block": _block,
    "kept": _kept,
    "phase": lambda run, event: run.phases.append(event),
    "eval": lambda run, event: run.evals.append(event),
    "log": _log,
    "saved": lambda run, event: run.saved.update(event),
    "end": lambda run, event: run.end.update(event),
}


@dataclass
class Log:
    path: pathlib.Path
    runs: list[Run] = field(default_factory=list)
    unread: int = 0  # lines


def _epochs_of_steps(block: Block) -> None:
    """A log without `epoch` lines has their numbers in its steps."""
    steps = block.steps
    for epoch in sorted(set(steps.epoch) - set(block.epochs)):
        at = [i for i, e in enumerate(steps.epoch) if e == epoch]
        losses = [steps.loss[i] for i in at if not math.isnan(steps.loss[i])]
        mean = sum(losses) / len(losses) if losses else NAN
        block.epochs[epoch] = Epoch(mean, steps.val_loss[at[-1]])


def _events(path: pathlib.Path, log: Log) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield event
            else:
                log.unread += 1


def read(path: pathlib.Path) -> Log:
    """Raises ReportError when the file cannot be read or holds no event."""
    log = Log(path)
    found = False
    try:
        for event in _events(path, log):
            found = True
            kind = event["event"]
            if kind == "run":
                log.runs.append(Run(header=event))
            elif kind in _TAKE:
                if not log.runs:
                    log.runs.append(Run())
                _TAKE[kind](log.runs[-1], event)
            if log.runs:
                log.runs[-1].last = number(event.get("t"))
    except OSError as error:
        raise ReportError(f"{path}: cannot read it: {error.strerror}") from None
    if not found:
        raise ReportError(f"{path}: found no event, expected the JSON lines of an eqat run")
    for run in log.runs:
        for block in run.blocks.values():
            _epochs_of_steps(block)
    return log
