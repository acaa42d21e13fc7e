"""Progress bars."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Optional


class _Bar:
    """A tqdm bar for the steps of a phase, a new one for each; in a notebook a widget."""

    def __init__(self, make: Any):
        self._make = make
        self._bar: Any = None
        self._phase: Optional[str] = None
        self._figures: dict[str, str] = {}

    def __call__(self, report: Any) -> None:
        if report.phase != self._phase:
            self.close()
            self._phase = report.phase
            self._bar = self._make(total=report.steps, desc=report.phase, dynamic_ncols=True)
            self._figures = {}
        self._figures.pop("now", None)
        if report.batches:
            self._figures["now"] = f"{report.work} {report.batch}/{report.batches}"
        if report.blocks:
            self._figures["block"] = f"{report.block + 1}/{report.blocks}"
        if report.loss == report.loss:
            self._figures["loss"] = f"{report.loss:.4g}"
        if report.val_loss == report.val_loss:
            self._figures["val"] = f"{report.val_loss:.4g}"
        # Steps are what moves the bar; between them its figures alone do.
        self._bar.set_postfix(self._figures, refresh=bool(report.batches))
        self._bar.update(report.steps and report.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._phase = None, None


def _bar() -> Optional[_Bar]:
    try:
        from tqdm.auto import tqdm  # type: ignore[import-untyped]
    except ImportError:
        logging.getLogger("eqat").warning("progress: tqdm is not installed: no bar")
        return None
    return _Bar(tqdm)


def take(values: dict[str, Any], between: bool = False) -> tuple[dict[str, Any], Optional[_Bar]]:
    """Options in which progress=True has become a bar, and the bar, for who took it to close.
    between: the bar also tells of what comes between steps, unless the caller's function does."""
    wanted = values.get("progress")
    bar = _bar() if wanted is True else None
    taken = {**values, "progress": bar if wanted is True else wanted or None}
    if between and bar and not values.get("between"):
        taken["between"] = bar
    return taken, bar


@contextlib.contextmanager
def shown(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same, with a bar that goes at the end."""
    taken, bar = take(values)
    with contextlib.closing(bar) if bar else contextlib.nullcontext():
        yield taken
