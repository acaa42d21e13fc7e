"""One RUN_DIR: its log, its weights, and what follows from both."""

import pathlib
from dataclasses import dataclass, field
from typing import Any, Optional

from . import linears
from . import log as logs
from .errors import ReportError
from .log import Epoch, Run, Steps, number, text

LOG_NAME = "eqat_log.jsonl"


@dataclass
class Result:
    name: str
    path: pathlib.Path
    log: logs.Log
    folder: Optional[pathlib.Path] = None
    weights: Optional[linears.Weights] = None
    no_weights: str = ""  # why there are none
    notes: list[str] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return self.log.runs

    @property
    def trained(self) -> Optional[Run]:
        """The newest run with Block-AP in it."""
        return next((run for run in reversed(self.runs) if run.blocks), None)

    @property
    def blocks(self) -> dict[int, logs.Block]:
        run = self.trained
        return dict(sorted(run.blocks.items())) if run else {}

    @property
    def trained_e2e(self) -> Optional[Run]:
        """The newest run with E2E-QP in it."""
        return next((run for run in reversed(self.runs) if len(run.e2e)), None)

    @property
    def e2e(self) -> Steps:
        run = self.trained_e2e
        return run.e2e if run else Steps()

    @property
    def quantizing(self) -> Optional[Run]:
        """The newest run that quantized, else the newest that trained."""
        for commands in (("quantize",), ("e2e-qp",)):
            for run in reversed(self.runs):
                if run.command in commands:
                    return run
        return self.trained

    @property
    def saved(self) -> dict[str, Any]:
        return next((run.saved for run in reversed(self.runs) if run.saved), {})

    @property
    def method(self) -> str:
        run = self.quantizing
        return text(run.header.get("method")) if run else ""

    @property
    def phases(self) -> str:
        """The training that made the weights, in the paper's names."""
        names = [name for name, there in (("Block-AP", self.blocks), ("E2E-QP", self.e2e)) if there]
        return " + ".join(names) or {"rtn": "RTN"}.get(self.method, self.method)

    def option(self, section: str, name: str) -> float:
        run = self.quantizing
        return number(run.options(section).get(name)) if run else logs.NAN

    def last_epochs(self) -> dict[int, Epoch]:
        """The last epoch of every block that has one."""
        return {
            block: found.epochs[max(found.epochs)]
            for block, found in self.blocks.items()
            if found.epochs
        }


def _find_log(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir():
        if (path / LOG_NAME).is_file():
            return path / LOG_NAME
        raise ReportError(
            f"{path}: found no {LOG_NAME}, expected the folder of a run, or a log file"
        )
    if path.exists():
        return path
    raise ReportError(f"{path}: not found, expected the folder of a run, or a log file")


def _near(log: pathlib.Path, name: Any) -> Optional[pathlib.Path]:
    """A path that a log tells, from where we are or from where the log is."""
    known = text(name)
    if not known or "\0" in known:
        return None
    for base in (pathlib.Path(), log.parent, log.parent.parent):
        if (base / known).exists():
            return base / known
    return pathlib.Path(known)


def _folder(path: pathlib.Path, log: logs.Log) -> Optional[pathlib.Path]:
    if path.is_dir():
        return path
    outs = [run.saved.get("path") or run.header.get("out") for run in reversed(log.runs)]
    near = (_near(log.path, out) for out in outs if text(out))
    return next((folder for folder in near if folder and folder.is_dir()), None)


def _source(log: logs.Log) -> Optional[pathlib.Path]:
    """The model that `eqat quantize` read."""
    run = next((run for run in log.runs if run.command == "quantize"), None)
    return _near(log.path, run.header.get("model")) if run else None


def _read_weights(result: Result, source: Optional[pathlib.Path]) -> None:
    if result.folder is None:
        result.no_weights = "the log names no folder with the saved model that is still there"
        return
    try:
        result.weights = linears.read(result.folder, source or _source(result.log))
    except ReportError as error:
        result.no_weights = str(error)


def _name(path: pathlib.Path) -> str:
    full = path.resolve()
    return full.parent.name if full.name == LOG_NAME else full.name or str(full)


def read(
    path: pathlib.Path, source: Optional[pathlib.Path] = None, with_weights: bool = True
) -> Result:
    """Raises ReportError when there is no log that can be read."""
    log = logs.read(_find_log(path))
    result = Result(_name(path), path, log, _folder(path, log))
    if with_weights:
        _read_weights(result, source)
    else:
        result.no_weights = "--no-weights was given"
    if log.unread:
        lines = "1 line" if log.unread == 1 else f"{log.unread} lines"
        result.notes.append(f"{lines} of {log.path} could not be read and were skipped.")
    return result


def tell_apart(results: list[Result]) -> None:
    """Results of the same name get their folders' names in front, else a number behind."""
    names = [result.name for result in results]
    for result in results:
        if names.count(result.name) > 1:
            result.name = f"{result.path.resolve().parent.name}/{result.name}"
    seen: dict[str, int] = {}
    for result in results:
        seen[result.name] = seen.get(result.name, 0) + 1
        if seen[result.name] > 1:
            result.name = f"{result.name} ({seen[result.name]})"
