"""The report as one HTML page that asks nothing of any other file or server."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion2vec.reporting.cells import (
    Cell,
    Results,
    Robustness,
    Transfer,
    as_interval,
    main_score,
)
from emotion2vec.reporting.drawings import (
    Bar,
    Shade,
    confusion,
    forest,
    heat,
    legend,
    line_chart,
    scatter,
)
from emotion2vec.reporting.lines import (
    LAYERS_NOTE,
    READING,
    Table,
    elsewhere_table,
    group_header,
    layer_table,
    protocol_facts,
    published_line,
    robustness_groups,
    robustness_table,
    row_line,
    source_of,
    transfer_title,
)
from emotion2vec.reporting.maps import Map
from emotion2vec.reporting.style import STYLE
from emotion2vec.reporting.tables import Group, Row, show, title_of

MAPS_NOTE = (
    "Raw features are what the backbone gives. The first layer of a probe was trained on labels to "
    "tell these emotions apart, though not on these clips; maps in the paper are of that layer."
)
# A browser that reads this asks no server for anything, whatever a label or a name holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(groups: Sequence[Group], results: Results, maps: Mapping[Path, Map], note: str) -> str:
    """The whole page.

    Args:
        groups: of all cells
        results: what else was read
        maps: of cells, by the cell's path
        note: why there are no maps; "" where there are
    """
    sections = [(group.title, _group(group, maps)) for group in groups]
    robust = robustness_groups(results.robustness)
    sections += [(f"Robustness: {title}", _robustness(found)) for title, found in robust.items()]
    sections += [(f"Across corpora: {transfer_title(x)}", _transfer(x)) for x in results.transfer]
    links = "".join(f'<li><a href="#s{i}">{_star(t)}</a></li>' for i, (t, _) in enumerate(sections))
    bodies = "".join(
        f'<section id="s{i}"><h2>{_star(title)}</h2>{body}</section>'
        for i, (title, body) in enumerate(sections)
    )
    wrong = "".join(
        f'<p class="mind bad"><b>Not used</b>: {_e(results.name_of(path))}: {_e(error)}</p>'
        for path, error in results.errors.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Speech emotion benchmark</title><style>{STYLE}</style></head><body>
<h1>Speech emotion benchmark</h1>
<p class="dim">{_e(_made(results))}</p>
{wrong}
<p>{_e(READING)} A protocol's numbers stand in a table of their own: those of two protocols are
never to be compared.{f" {_e(note)}" if note else ""}</p>
<nav><ul>{links}</ul></nav>
{bodies}
</body></html>
"""


def _e(value: Any) -> str:
    return html.escape(str(value))


def _star(title: str) -> str:
    return _e(title).replace(" *", ' <span class="star">*</span>')


def _made(results: Results) -> str:
    dates = sorted({cell.date for cell in results.cells if cell.date})
    versions = {f"{n} {v}" for cell in results.cells for n, v in cell.versions.items()}
    when = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates)
    count = f"{len(results.cells)} cells"
    return " · ".join(part for part in (count, when, ", ".join(sorted(versions))) if part)


def _group(group: Group, maps: Mapping[Path, Map]) -> str:
    parts = [
        f'<ul class="facts">{"".join(f"<li>{_e(x)}</li>" for x in protocol_facts(group))}</ul>'
    ]
    if group.warnings:
        warnings = "".join(f"<li>{_e(warning)}</li>" for warning in group.warnings)
        parts.append(f'<div class="mind"><b>Mind</b><ul>{warnings}</ul></div>')
    if group.traps:
        traps = "".join(f"<li>{_e(trap)}</li>" for trap in group.traps)
        title = f"Traps of {_e(group.corpus)} ({len(group.traps)})"
        parts.append(f"<details><summary>{title}</summary><ul>{traps}</ul></details>")
    if group.rows:
        parts += [_results(group), _forests(group), _recalls(group), _confusions(group)]
        parts.append(_maps([row for row in group.rows if row.cell.path in maps], maps, group))
    parts.append(_layers(group))
    if group.elsewhere:
        title = f"Published for {group.corpus} with other protocols: not comparable with the above"
        table = _plain(elsewhere_table(group.elsewhere), left=2)
        parts.append(f"<details><summary>{_e(title)}</summary>{table}</details>")
    return "".join(parts)


def _results(group: Group) -> str:
    header = group_header(group)
    heads = "".join(f"<th{_head(i)}>{_e(name)}</th>" for i, name in enumerate(header))
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
            said = f'<tr class="again"><td colspan="{len(header)}"><div><small>{_e(about)}'
            body += f'<tr class="theirs row">{line}</tr>{said}</small></div></td></tr>'
    return (
        f'<div class="scroll"><table class="results"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _head(place: int) -> str:
    return ' class="head"' if place == 1 else ""


def _set(title: str, columns: int) -> str:
    return f'<tr class="set"><td colspan="{columns}"><span>{_e(title)}</span></td></tr>'


def _line(texts: Sequence[str]) -> str:
    cells = [f"<td>{_star(texts[0])}</td>", f'<td class="head">{_e(texts[1])}</td>']
    for text in texts[2:]:
        value, bracket, interval = text.partition(" (")
        small = f"<br><small>({_e(interval)}</small>" if bracket else ""
        cells.append(f"<td>{_e(value)}{small}</td>")
    return "".join(cells)


def _row(row: Row, group: Group) -> str:
    kinds = {"baseline": row.cell.subject.is_baseline, "best": row.is_best}
    classes = " ".join(["row", *(name for name, holds in kinds.items() if holds)])
    texts = row_line(row, group)
    again = f'<tr class="again"><td colspan="{len(texts)}"><div>{_again(row.cell)}</div></td></tr>'
    return f'<tr class="{classes}">{_line(texts)}</tr>{again}'


def _again(cell: Cell) -> str:
    """Return the command that makes a cell again, and what is known of it."""
    facts = {
        "head": ", ".join(f"{k} {v}" for k, v in cell.head.items()),
        "backbone": ", ".join(f"{k} {v}" for k, v in cell.backbone.items() if v is not None),
        "seeds": ", ".join(map(str, cell.seeds)),
        "each fold": _folds(cell),
        "unreadable": len(cell.errors) or "",
        "made": " · ".join(
            part
            for part in (cell.date, cell.machine, ", ".join(map(" ".join, cell.versions.items())))
            if part
        ),
    }
    return _command(cell.command, facts)


def _command(command: str, facts: Mapping[str, Any] | None = None) -> str:
    listed = "".join(f"<dt>{_e(k)}</dt><dd>{_e(v)}</dd>" for k, v in (facts or {}).items() if v)
    return (
        f"<details><summary>run it again</summary><pre>{_e(command)}</pre>"
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


def _figure(title: str, drawing: str) -> str:
    return f"<figure><figcaption>{_e(title)}</figcaption>{drawing}</figure>"


def _forests(group: Group) -> str:
    figures = []
    for score in [name for name in group.scores if name in ("ua", "wa") or name.startswith("ccc")]:
        bars = [
            Bar(
                row.name,
                row.cell.pooled.get(score),
                row.cell.interval(score),
                row.cell.subject.is_baseline,
            )
            for row in group.rows
        ]
        chance = 1 / len(group.labels) if score == "ua" and group.labels else None
        dashed = "; dashed: chance" if chance is not None else ""
        title = f"{title_of(score)}, 95 % interval over speakers{dashed}"
        figures.append(_figure(title, forest(bars, score, chance)))
    return f'<h3>Intervals</h3><div class="forests">{"".join(figures)}</div>'


def _recalls(group: Group) -> str:
    lines = {}
    for row in group.rows:
        recall = row.cell.scores.get("recall")
        if recall:
            lines[row.name] = [_shade("ua", recall.get(label)) for label in group.labels]
    if not lines:
        return ""
    return f"<h3>Recall of each class, in percent</h3>{heat(group.labels, lines)}"


def _shade(score: str, value: float | None, **more: str) -> Shade | None:
    return None if value is None else Shade(show(score, value), value, **more)


def _confusions(group: Group) -> str:
    figures = "".join(
        _figure(row.name, confusion(row.cell.confusion, group.labels))
        for row in group.rows
        if row.cell.confusion is not None and row.cell.subject.backbone != "constant"
    )
    title = "Confusion: of each true class, the percentage that got each answer"
    return f'<h3>{title}</h3><div class="wrap">{figures}</div>' if figures else ""


def _maps(rows: Sequence[Row], maps: Mapping[Path, Map], group: Group) -> str:
    if not rows:
        return ""
    parts = []
    for row in rows:
        found = maps[row.cell.path]
        figures = "".join(
            _figure(
                f"{title} ({found.method})".replace("t-SNE", "t\u2011SNE"),
                scatter(points, found.labels, group.labels, f"{row.name}: {title}"),
            )
            for title, points in found.panels.items()
        )
        parts.append(f'<div><h4>{_e(row.name)}</h4><div class="pair">{figures}</div></div>')
    return (
        f"<h3>Maps of the first fold's test clips</h3><p>{MAPS_NOTE}</p>{legend(group.labels)}"
        f'<div class="grid">{"".join(parts)}</div>'
    )


def _layers(group: Group) -> str:
    if not group.sweeps:
        return ""
    cells = [cell for of in group.sweeps.values() for cell in of]
    main = main_score(cells[0].pooled)
    numbers = sorted({cell.subject.layer for cell in cells if cell.subject.layer is not None})
    layers: list[int | None] = [*numbers, *({None} & {cell.subject.layer for cell in cells})]
    curves = {}
    for name, of in group.sweeps.items():
        by_layer = {cell.subject.layer: cell for cell in of}
        curves[name] = [_point(by_layer.get(layer), main) for layer in layers]
    places = ["output" if layer is None else str(layer) for layer in layers]
    drawing = line_chart(places, curves, main, f"layer; {title_of(main)}")
    tables = "".join(
        f"<details><summary>{_e(name)}: all scores, and the commands</summary>"
        f"{_plain(layer_table(of))}"
        f"{''.join(f'<pre>{_e(cell.command)}</pre>' for cell in of)}</details>"
        for name, of in group.sweeps.items()
    )
    drawn = f"{legend(list(curves))}{drawing}"
    return f"<h3>Layers</h3><p>{LAYERS_NOTE}</p>{drawn}{tables}"


def _point(cell: Cell | None, score: str) -> tuple[float, tuple[float, float] | None] | None:
    value = None if cell is None else cell.pooled.get(score)
    return None if cell is None or value is None else (value, cell.interval(score))


def _robustness(found: Sequence[Robustness]) -> str:
    main = main_score(found[0].conditions[0]["scores"])
    names = [f"{one.subject.name}, {one.subject.head}" for one in found]
    clean = str(found[0].conditions[0]["name"])
    families: dict[str, list[str]] = {}
    for one in found:
        for condition in one.conditions[1:]:
            members = families.setdefault(condition["family"], [])
            if condition["name"] not in members:
                members.append(condition["name"])
    figures = []
    for family, members in families.items():
        places = [clean, *members]
        curves = {}
        for name, one in zip(names, found, strict=True):
            by_name = {condition["name"]: condition for condition in one.conditions}
            curves[name] = [_entry(by_name.get(place), main) for place in places]
        short = [clean, *(_level(found, family, member) for member in members)]
        label = f"{family}; {title_of(main)}"
        figures.append(_figure(family, line_chart(short, curves, main, label)))
    commands = "".join(
        f"<p>{_e(n)}</p>{_command(x.command)}" for n, x in zip(names, found, strict=True)
    )
    grid = f'<div class="grid">{"".join(figures)}</div>'
    return f"{legend(names)}{grid}{_plain(robustness_table(found))}{commands}"


def _entry(
    entry: Mapping[str, Any] | None, score: str
) -> tuple[float, tuple[float, float] | None] | None:
    value = None if entry is None else entry["scores"].get(score)
    if entry is None or value is None:
        return None
    return value, as_interval((entry.get("interval_95") or {}).get(score))


def _level(found: Sequence[Robustness], family: str, name: str) -> str:
    """Return a condition's level and unit, short enough for an axis; else its name."""
    for one in found:
        for condition in one.conditions:
            if (condition["family"], condition["name"]) == (family, name):
                level = condition.get("level")
                return name if level is None else f"{level:g} {condition.get('unit') or ''}".strip()
    return name


def _transfer(one: Transfer) -> str:
    if not one.matrix:
        return "<p>No pair of corpora was scored.</p>"
    main = main_score(one.matrix[0]["scores"])
    entries = {(entry["train"], entry["test"]): entry for entry in one.matrix}
    tests = list(dict.fromkeys(entry["test"] for entry in one.matrix))
    lines = {
        train: [_pair(entries.get((train, test)), main) for test in tests]
        for train in dict.fromkeys(entry["train"] for entry in one.matrix)
    }
    corner = f"trained on \\ tested on, {title_of(main)}"
    mapping = f"<p>Labels: {_e(_mapping(one.label_mapping))}</p>" if one.label_mapping else ""
    return f"{mapping}{heat(tests, lines, corner=corner, tilted=False)}{_command(one.command)}"


def _mapping(mapping: Any) -> str:
    if not isinstance(mapping, Mapping):
        return str(mapping)
    return "; ".join(f"{theirs} → {ours}" for theirs, ours in mapping.items())


def _pair(entry: Mapping[str, Any] | None, score: str) -> Shade | None:
    if entry is None:
        return None
    interval = as_interval((entry.get("interval_95") or {}).get(score))
    small = "" if interval is None else " to ".join(show(score, end) for end in interval)
    classes = entry.get("classes")
    known = ", ".join(map(str, classes)) if isinstance(classes, list) else classes
    title = f"{entry.get('clips', '?')} clips; classes: {known}"
    return _shade(score, entry["scores"].get(score), small=small, title=title)


def _plain(table: Table, *, left: int = 1) -> str:
    def line(tag: str, texts: Sequence[str]) -> str:
        sides = [' class="left"' if i < left else "" for i in range(len(texts))]
        cells = (f"<{tag}{s}>{_e(text)}</{tag}>" for s, text in zip(sides, texts, strict=True))
        return f"<tr>{''.join(cells)}</tr>"

    rows = "".join(line("td", texts) for texts in table.lines)
    head = line("th", table.header)
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
