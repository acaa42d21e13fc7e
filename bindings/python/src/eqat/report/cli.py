"""The command `eqat-report`."""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Optional

from . import png, report
from .errors import ReportError
from .result import Result, read, tell_apart


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eqat-report",
        description="Makes one HTML page of the logs and saved folders of eqat runs.",
    )
    parser.add_argument(
        "runs",
        metavar="RUN_DIR",
        nargs="+",
        type=pathlib.Path,
        help="a folder that eqat saved, with its eqat_log.jsonl, or a file of --log-file",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        type=pathlib.Path,
        default=pathlib.Path("report.html"),
        help="the page (default: %(default)s)",
    )
    parser.add_argument(
        "--png",
        metavar="DIR",
        type=pathlib.Path,
        help="also every figure as a PNG in this folder (needs matplotlib)",
    )
    parser.add_argument(
        "--source",
        metavar="MODEL",
        type=pathlib.Path,
        help="the folder before quantization, for errors of linears "
        "(default: the model that the log names)",
    )
    parser.add_argument(
        "--no-weights",
        action="store_true",
        help="do not read the saved weights: no scales, zero points and errors",
    )
    parser.add_argument("--title", help="of the page (default: the names of the runs)")
    return parser


def _write(path: pathlib.Path, content: str) -> None:
    """Complete, or not at all."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(content)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise ReportError(f"{path}: cannot write it: {error.strerror}") from None


def _write_pngs(made: report.Report, folder: pathlib.Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = made.figures()
        for name, figure in figures:
            png.draw(figure, folder / f"{name}.png")
    except OSError as error:
        raise ReportError(f"{folder}: cannot write into it: {error.strerror}") from None
    return len(figures)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("eqat")
    except metadata.PackageNotFoundError:
        return ""


def _results(options: argparse.Namespace) -> list[Result]:
    if options.source is not None and not options.source.exists():
        raise ReportError(f"--source: {options.source}: not found, expected the folder of a model")
    results = [read(path, options.source, not options.no_weights) for path in options.runs]
    tell_apart(results)
    return results


def run(arguments: Optional[Sequence[str]] = None) -> None:
    options = _parser().parse_args(arguments)
    if options.png is not None:
        png.check()
    made = report.build(_results(options))
    title = options.title or ", ".join(result.name for result in made.results[:4])
    if len(made.results) > 4 and not options.title:
        title += f" and {len(made.results) - 4} more"
    _write(options.out, report.html(made, title, _version()))
    print(options.out)
    if options.png is not None:
        print(f"{options.png}: {_write_pngs(made, options.png)} PNGs")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Returns the exit code: 0, 1 after one line on standard error, 2 of a wrong command line."""
    try:
        run(arguments)
    except ReportError as error:
        print(f"eqat-report: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
