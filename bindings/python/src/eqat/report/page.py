"""The page: sections, figures and tables as HTML."""

import math
from collections.abc import Iterable
from typing import Any, Optional

from . import svg
from .figure import Cell, Figure, Heat, Missing, Panel, Quantity, Section, Series, Shade, Table
from .script import SCRIPT
from .style import CSS
from .svg import escape

# Nothing is fetched, whatever a name in a log says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def _cell(cell: Cell, head: str = "td") -> str:
    if isinstance(cell, Quantity):
        if not math.isfinite(cell.value):
            return f'<{head} class="n">{escape(cell.text)}</{head}>'
        data = f'<data value="{float(cell.value)!r}">{escape(cell.text)}</data>'
        return f'<{head} class="n">{data}</{head}>'
    return f"<{head}>{escape(cell)}</{head}>"


def table(table: Table, label: str, kind: str = "") -> str:
    numeric = [isinstance(cell, Quantity) for cell in table.rows[0]] if table.rows else []
    numeric += [False] * (len(table.head) - len(numeric))
    head = "".join(
        f'<th scope="col"{" class=n" if right else ""}>{escape(name)}</th>'
        for name, right in zip(table.head, numeric)
    )
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return (
        f'<div class="table {kind}" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _keys(panels: Iterable[Panel]) -> str:
    """The legend of small multiples."""
    named: dict[str, Series] = {}
    for panel in panels:
        for series in panel.series:
            if series.name:
                named.setdefault(series.name, series)
    items = "".join(
        f'<li class="c{s.color} {s.kind}"><i></i><span>{escape(name)}</span></li>'
        for name, s in named.items()
    )
    return f'<ul class="keys">{items}</ul>' if items else ""


def _drawing(figure: Figure, panel: Any, frame: Optional[svg.Frame]) -> str:
    about = f"{figure.title}: {panel.title}" if panel.title else figure.title
    if isinstance(panel, Heat):
        return svg.heat(panel, figure.shade or Shade(0, 1, ""), figure.small, about)
    return svg.panel(panel, frame or svg.LARGE, about)


def _frame(figure: Figure, panel: Any) -> svg.Frame:
    if figure.small:
        return svg.SMALL
    titled = bool(getattr(panel, "title", ""))
    height = 220 if len(figure.panels) > 1 else 300
    return svg.Frame(svg.LARGE.width, height + (16 if titled else 0), top=26 if titled else 10)


def _axis_note(figure: Figure) -> str:
    """Small panels have no room for the names of their axes."""
    panel = figure.panels[0]
    if not figure.small or isinstance(panel, Heat) and panel.x is None:
        return ""
    if isinstance(panel, Heat) and panel.x:
        return f"Across: {panel.x.label}; down: {panel.row_label}."
    if isinstance(panel, Panel):
        return f"Across: {panel.x.label}; up: {panel.y.label}."
    return ""


def figure(shown: Figure, prefix: str) -> str:
    key = f"{prefix}{shown.key}"
    drawings = [_drawing(shown, panel, _frame(shown, panel)) for panel in shown.panels]
    heats = any(isinstance(panel, Heat) for panel in shown.panels)
    kind = ("many heats" if heats else "many") if shown.small else "wide"
    body = f'<div class="{kind}">{"".join(drawings)}</div>'
    if shown.small and not heats:
        body = _keys(p for p in shown.panels if isinstance(p, Panel)) + body
    if shown.shade:
        body = f'<div class="key">{svg.shade_key(shown.shade)}</div>' + body
    if shown.folded:
        body = folded(f"Show {len(shown.panels)} panels", body)
    if shown.table:
        body += folded("Table", table(shown.table, shown.title))
    caption = " ".join(part for part in (shown.caption, _axis_note(shown)) if part)
    return (
        f'<figure id="{escape(key)}" role="group" aria-labelledby="{escape(key)}-title">'
        f'<figcaption><h4 id="{escape(key)}-title">{escape(shown.title)}</h4>'
        f"<p>{escape(caption)}</p></figcaption>{body}</figure>"
    )


def missing(shown: Missing) -> str:
    return (
        f'<p class="missing">{escape(shown.title)}: left out, because {escape(shown.reason)}.</p>'
    )


def shown(one: Any, prefix: str) -> str:
    return figure(one, prefix) if isinstance(one, Figure) else missing(one)


def section(part: Section, prefix: str, extra: str = "") -> str:
    inside = "".join(shown(one, prefix) for one in part.shown)
    return (
        f'<section id="{prefix}{part.key}"><h3>{escape(part.title)}</h3>{inside}{extra}</section>'
    )


def tiles(items: list[tuple[str, str, str]]) -> str:
    inside = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in items
    )
    return f'<dl class="tiles">{inside}</dl>'


def links(items: list[tuple[str, str]]) -> str:
    inside = "".join(f'<li><a href="#{key}">{escape(name)}</a></li>' for key, name in items)
    return f"<ul>{inside}</ul>"


def document(title: str, header: str, body: str, footer: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n"
        f"<body><header>{header}</header><main>{body}</main><footer>{footer}</footer>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def cell_of(value: Any) -> Cell:
    """A member of an options struct."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            return str(value)
        whole = number.is_integer() and abs(number) < 1e15
        return Quantity(number, f"{number:.0f}" if whole else f"{number:.6g}")
    return "–" if value is None else str(value)
