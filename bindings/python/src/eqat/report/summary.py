"""The words and tables around the figures: what was run, on what, with which options."""

import math
from typing import Any

from . import page, units
from .cost import by_phase, needs
from .figure import Cell, Table
from .log import NAN, Run, number, text
from .result import Result
from .svg import escape


def _status(run: Run) -> str:
    if not run.end:
        return "saved" if run.saved else "no end in the log: killed, or still running"
    status = text(run.end.get("status")) or "ok"
    message = text(run.end.get("message"))
    return f"{status}: {message}" if message and status != "ok" else status


def _runs(result: Result) -> Table:
    rows: list[list[Cell]] = []
    for run in result.runs:
        header = run.header
        rows.append(
            [
                run.command,
                text(header.get("time")).replace("T", " ").replace("Z", " UTC"),
                text(header.get("model")),
                text(header.get("out")),
                text(header.get("version")),
                units.whole(number(header.get("threads"))),
                units.whole(number(header.get("seed"))),
                units.seconds(run.seconds),
                units.bytes_(run.peak_rss),
                _status(run),
            ]
        )
    head = ["command", "began", "model", "out", "libeqat", "threads", "seed", "time"]
    return Table([*head, "peak memory", "status"], rows)


def _options(run: Run) -> Table:
    rows: list[list[Cell]] = []
    sections = run.header.get("options")
    for name, section in sections.items() if isinstance(sections, dict) else ():
        for key, value in section.items() if isinstance(section, dict) else ():
            rows.append([str(name), str(key), page.cell_of(value)])
    return Table(["section", "option", "value"], rows)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _files(run: Run) -> Table:
    rows: list[list[Cell]] = [
        [
            text(one.get("use")),
            text(one.get("path")),
            units.bytes_(number(one.get("bytes"))),
            text(one.get("sha256")),
        ]
        for one in _dicts(run.header.get("files"))
    ]
    return Table(["use", "file", "size", "SHA-256"], rows)


def _rules(run: Run) -> Table:
    rows: list[list[Cell]] = []
    for one in _dicts(run.header.get("rules")):
        bits: Cell = units.whole(number(one.get("bits")))
        if number(one.get("bits")) == 0:
            bits = "not quantized"
        rows.append([text(one.get("pattern")), bits, page.cell_of(one.get("group_size"))])
    return Table(["rule", "bits", "group size"], rows)


def _details(run: Run) -> str:
    parts = []
    arguments = run.header.get("arguments")
    if isinstance(arguments, list):
        parts.append(f"<p><code>eqat {escape(' '.join(map(str, arguments)))}</code></p>")
    machine = [text(run.header.get(key)) for key in ("processor", "device")]
    if any(machine):
        parts.append(f'<p class="quiet">On {escape(", ".join(filter(None, machine)))}.</p>')
    for made in (_rules(run), _files(run), _options(run)):
        if made.rows:
            parts.append(page.table(made, f"{run.command}: {made.head[0]}", "plain"))
    when = text(run.header.get("time"))
    label = f"{run.command}{' of ' + when if when else ''}: command, options and data"
    return page.folded(label, "".join(parts)) if parts else ""


def _messages(result: Result) -> str:
    lines = [f'<p class="warning">{escape(note)}</p>' for note in result.notes]
    for run in result.runs:
        lines += [
            f'<p class="{level}">{escape(words)}</p>'
            for level, words in run.messages
            if level in ("error", "warning")
        ]
    return "".join(lines)


def _perplexity_tile(result: Result) -> tuple[str, str, str]:
    events = [event for run in result.runs for event in run.evals]
    if not events:
        return "Perplexity", "–", "no evaluation in the log"
    newest = events[-1]
    return (
        "Perplexity",
        units.plain(number(newest.get("perplexity"))),
        f"{text(newest.get('model'))} on {text(newest.get('file'))}",
    )


def _training_tile(result: Result) -> tuple[str, str, str]:
    runs = [run for run in result.runs if run.command in ("quantize", "e2e-qp")]
    spent = [run.seconds for run in runs]
    known = [seconds for seconds in spent if not math.isnan(seconds)]
    return "Time", units.duration(sum(known) if known else NAN), " + ".join(r.command for r in runs)


def _size_tile(result: Result) -> tuple[str, str, str]:
    before = number(result.saved.get("input_bytes"))
    more = f"from {units.size(before)}" if not math.isnan(before) else ""
    return "Size", units.size(number(result.saved.get("bytes"))), more


def _bits_tile(result: Result) -> tuple[str, str, str]:
    bits, group = (result.option("quantizer", name) for name in ("bits", "group_size"))
    value = f"{bits:.0f}" if not math.isnan(bits) else "–"
    each = number(result.saved.get("bits_per_linear_parameter"))
    parts = []
    if not math.isnan(group):
        parts.append("one group a row" if group == -1 else f"groups of {group:.0f}")
    if not math.isnan(each):
        parts.append(f"{units.plain(each, 3)} for each parameter of a linear")
    return "Bits", value, ", ".join(parts)


def _memory_tile(result: Result) -> tuple[str, str, str]:
    peaks = [run.peak_rss for run in result.runs if run.command != "eval"]
    known = [peak for peak in peaks if not math.isnan(peak)]
    return "Peak memory", units.size(max(known) if known else NAN), "of the process"


def tiles(result: Result) -> str:
    return page.tiles(
        [
            _perplexity_tile(result),
            _bits_tile(result),
            _size_tile(result),
            _training_tile(result),
            _memory_tile(result),
        ]
    )


def summary(result: Result) -> str:
    table = page.table(_runs(result), f"Runs of {result.name}", "plain")
    return _messages(result) + table + "".join(_details(run) for run in result.runs)


def cost_tables(result: Result) -> str:
    parts = [
        page.table(made, name, "plain")
        for made, name in ((by_phase(result), "Phases"), (needs(result), "Needs"))
        if made.rows
    ]
    return "".join(parts)
