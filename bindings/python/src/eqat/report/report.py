"""All figures of all results, and the page made of them."""

from dataclasses import dataclass, field

import numpy as np

from . import page, perplexity, summary
from .cost import cost
from .distribution import distribution
from .figure import Axis, Figure, Panel, Section, Series, Shown, curve
from .result import Result
from .svg import escape
from .training import block_ap, e2e_qp, validation

COMPARED = 6  # lines with colours of their own


@dataclass
class Report:
    results: list[Result]
    overview: list[Shown] = field(default_factory=list)
    sections: list[list[Section]] = field(default_factory=list)  # of each result

    def figures(self) -> list[tuple[str, Figure]]:
        """Every figure with a name that is its own, for files."""
        found = [(one.key, one) for one in self.overview if isinstance(one, Figure)]
        for place, sections in enumerate(self.sections, 1):
            prefix = f"{place}-" if len(self.results) > 1 else ""
            shown = (one for section in sections for one in section.shown)
            found += [(prefix + one.key, one) for one in shown if isinstance(one, Figure)]
        return found


def _compared_blocks(results: list[Result]) -> list[Shown]:
    """Last losses of every block, a line a result: of validation where every result has them."""
    trained = [result for result in results if result.blocks][:COMPARED]
    if len(trained) < 2:
        return []
    epochs = [result.last_epochs() for result in trained]
    validated = all(any(e.val_loss > 0 for e in last.values()) for last in epochs)
    member, kind = ("val_loss", "validation") if validated else ("train_loss", "training")
    series = [
        Series(
            result.name,
            np.array(list(last), float),
            np.array([getattr(epoch, member) for epoch in last.values()], float),
            color,
        )
        for color, (result, last) in enumerate(zip(trained, epochs))
    ]
    if not any(np.any(line.y > 0) for line in series):
        return []
    axis = Axis("loss (mean squared error)", log=True)
    panel = Panel(series, Axis("block", whole=True), axis)
    caption = f"Mean {kind} loss in the last epoch of every block."
    return [Figure("compared-blocks", f"Block-AP: {kind} loss by block", caption, [panel])]


def _compared_e2e(results: list[Result]) -> list[Shown]:
    trained = [result for result in results if np.isfinite(result.e2e.loss).any()][:COMPARED]
    if len(trained) < 2:
        return []
    series = []
    for color, result in enumerate(trained):
        line = curve(result.name, result.e2e.step, result.e2e.loss, color, 60)
        line.low = line.high = None
        series.append(line)
    panel = Panel(series, Axis("step"), Axis("cross-entropy (nats)"))
    caption = "Means of neighbouring steps."
    return [Figure("compared-e2e", "E2E-QP: loss over the steps", caption, [panel])]


def build(results: list[Result]) -> Report:
    report = Report(results, perplexity.overview(results))
    report.overview += _compared_blocks(results) + _compared_e2e(results)
    report.sections = [
        [block_ap(one), validation(one), e2e_qp(one), distribution(one), cost(one)]
        for one in results
    ]
    return report


def _result(result: Result, sections: list[Section], prefix: str, overview: str) -> str:
    """overview: of a page with a single result, behind its summary; else nothing."""
    parts = [] if overview else [f'<h2 id="{prefix}top">{escape(result.name)}</h2>']
    parts.append(f'<section id="{prefix}summary">{summary.tiles(result)}')
    parts.append(f"{summary.summary(result)}</section>{overview}")
    for section in sections:
        extra = summary.cost_tables(result) if section.key == "cost" else ""
        parts.append(page.section(section, prefix, extra))
    return "".join(parts)


def _navigation(report: Report) -> str:
    if len(report.results) > 1:
        names = [(f"r{i}-top", result.name) for i, result in enumerate(report.results, 1)]
        return page.links([("overview", "Overview"), *names])
    sections = [(f"r1-{s.key}", s.title) for s in report.sections[0]]
    return page.links([("overview", "Perplexity and size"), *sections])


def html(report: Report, title: str, version: str) -> str:
    alone = len(report.results) == 1
    found = perplexity.rows(report.results)
    rows = page.table(perplexity.table(found), "Perplexity and size", "plain")
    overview = '<section id="overview"><h3>Perplexity and size</h3>' + rows
    overview += "".join(page.shown(one, "") for one in report.overview) + "</section>"
    bodies = [
        _result(result, sections, f"r{place}-", overview if alone else "")
        for place, (result, sections) in enumerate(zip(report.results, report.sections), 1)
    ]
    where = "".join(
        f"<p class=quiet><code>{escape(str(r.path))}</code></p>" for r in report.results
    )
    header = f"<h1>{escape(title)}</h1>{where}<nav>{_navigation(report)}</nav>"
    footer = f"Made by eqat-report {escape(version)} from logs and saved folders alone."
    return page.document(title, header, ("" if alone else overview) + "".join(bodies), footer)
