"""The page's tables, and the command below each cell."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emotion2vec.reporting.cells import Cell, main_score
from emotion2vec.reporting.lines import (
    Table,
    group_header,
    published_line,
    row_line,
    source_of,
)
from emotion2vec.reporting.tables import Group, Row, show, title_of


def escape(value: Any) -> str:
    """The value as text that HTML shows as it is."""
    return html.escape(str(value))


def starred(title: str) -> str:
    """An escaped title whose star, if it has one, stands out."""
    return escape(title).replace(" *", ' <span class="star">*</span>')


def results_table(group: Group) -> str:
    """A group's rows, its baselines and what was published for it, each in a part of their own."""
    header = group_header(group)
    heads = "".join(f"<th{_head(i)}>{escape(name)}</th>" for i, name in enumerate(header))
    models = [row for row in group.rows if not row.cell.subject.is_baseline]
    baselines = [row for row in group.rows if row.cell.subject.is_baseline]
    body = "".join(_row(row, group) for row in models)
    if baselines:
        body += _set("Baselines: what needs no trained representation", len(header))
        body += "".join(_row(row, group) for row in baselines)
    if group.published:
        body += _set("Published: same corpus, protocol and number of folds", len(header))
        for row in group.published:
            line = _line([row.model, *published_line(row, group)[1:]])
            about = f"{row.said}; {source_of(row)}"
            said = f'<tr class="again"><td colspan="{len(header)}"><div><small>{escape(about)}'
            body += f'<tr class="theirs row">{line}</tr>{said}</small></div></td></tr>'
    return (
        f'<div class="scroll"><table class="results"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(place: int) -> str:
    return ' class="head"' if place == 1 else ""


def _set(title: str, columns: int) -> str:
    return f'<tr class="set"><td colspan="{columns}"><span>{escape(title)}</span></td></tr>'


def _line(texts: Sequence[str]) -> str:
    cells = [f"<td>{starred(texts[0])}</td>", f'<td class="head">{escape(texts[1])}</td>']
    return "".join([*cells, *(f"<td>{_value(text)}</td>" for text in texts[2:])])


def _value(text: str) -> str:
    """Return a score with its interval, which is in brackets, small below it."""
    value, bracket, interval = text.partition(" (")
    return escape(value) + (f"<br><small>({escape(interval)}</small>" if bracket else "")


def _row(row: Row, group: Group) -> str:
    kinds = {"baseline": row.cell.subject.is_baseline, "best": row.is_best}
    classes = " ".join(["row", *(name for name, holds in kinds.items() if holds)])
    texts = row_line(row, group)
    again = (
        f'<tr class="again"><td colspan="{len(texts)}"><div>{_of_cell(row.cell)}</div></td></tr>'
    )
    return f'<tr class="{classes}">{_line(texts)}</tr>{again}'


def _of_cell(cell: Cell) -> str:
    """Return the command that makes a cell again, and what is known of it."""
    versions = ", ".join(f"{name} {version}" for name, version in cell.versions.items())
    facts = {
        "head": ", ".join(f"{k} {v}" for k, v in cell.head.items()),
        "backbone": ", ".join(f"{k} {v}" for k, v in cell.backbone.items() if v is not None),
        "selected": cell.protocol.get("selection"),
        "seeds": ", ".join(map(str, cell.seeds)),
        "each fold": _folds(cell),
        "unreadable": len(cell.errors) or "",
        "made": " · ".join(filter(None, (cell.date, cell.machine, versions))),
    }
    return command_of(cell.command, facts)


def command_of(command: str, facts: Mapping[str, Any] | None = None) -> str:
    """A command, and facts under their names, folded away."""
    listed = "".join(
        f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in (facts or {}).items() if v
    )
    return (
        f"<details><summary>run it again</summary><pre>{escape(command)}</pre>"
        f"{f'<dl>{listed}</dl>' if listed else ''}</details>"
    )


def _folds(cell: Cell) -> str:
    """Return the main score of each fold, the mean over seeds."""
    main = main_score(cell.pooled)
    values: dict[int, list[float]] = {}
    for run in cell.runs:
        value = run.get("scores", {}).get(main)
        if value is not None:
            values.setdefault(run["fold"], []).append(value)
    folds = (show(main, float(np.mean(of))) for _, of in sorted(values.items()))
    return f"{title_of(main)} {', '.join(folds)}" if values else ""


def plain_table(table: Table, *, left: int = 1) -> str:
    """A table of scores; so many columns are of text."""

    def line(texts: Sequence[str]) -> str:
        words = "".join(f'<td class="left">{escape(text)}</td>' for text in texts[:left])
        return f"<tr>{words}{''.join(f'<td>{_value(text)}</td>' for text in texts[left:])}</tr>"

    rows = "".join(map(line, table.lines))
    heads = "".join(f"<th>{escape(text)}</th>" for text in table.header)
    head = f"<thead><tr>{heads}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'
