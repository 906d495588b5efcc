"""The report as one HTML page that asks nothing of any other file or server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from emotion2vec.reporting.html_tables import (
    command_of,
    escape,
    plain_table,
    results_table,
    starred,
)
from emotion2vec.reporting.lines import (
    LAYERS_NOTE,
    READING,
    elsewhere_table,
    layer_table,
    mapping_text,
    protocol_facts,
    robustness_groups,
    robustness_table,
    transfer_title,
)
from emotion2vec.reporting.maps import Map
from emotion2vec.reporting.style import STYLE
from emotion2vec.reporting.tables import Group, Row, show, title_of

OTHERS = "other conditions"
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
    links = "".join(
        f'<li><a href="#s{i}">{starred(t)}</a></li>' for i, (t, _) in enumerate(sections)
    )
    bodies = "".join(
        f'<section id="s{i}"><h2>{starred(title)}</h2>{body}</section>'
        for i, (title, body) in enumerate(sections)
    )
    wrong = "".join(
        f'<p class="mind bad"><b>Not used</b>: {escape(results.name_of(path))}: {escape(error)}</p>'
        for path, error in results.errors.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>Speech emotion benchmark</title><style>{STYLE}</style></head><body>
<h1>Speech emotion benchmark</h1>
<p class="dim">{escape(_made(results))}</p>
{wrong}
<p>{escape(READING)} A protocol's numbers stand in a table of their own: those of two protocols are
never to be compared.{f" {escape(note)}" if note else ""}</p>
<nav><ul>{links}</ul></nav>
{bodies}
</body></html>
"""


def _made(results: Results) -> str:
    dates = sorted({cell.date for cell in results.cells if cell.date})
    versions = {f"{n} {v}" for cell in results.cells for n, v in cell.versions.items()}
    when = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else "".join(dates)
    count = f"{len(results.cells)} cells"
    return " · ".join(part for part in (count, when, ", ".join(sorted(versions))) if part)


def _group(group: Group, maps: Mapping[Path, Map]) -> str:
    parts = [
        f'<ul class="facts">{"".join(f"<li>{escape(x)}</li>" for x in protocol_facts(group))}</ul>'
    ]
    if group.warnings:
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in group.warnings)
        parts.append(f'<div class="mind"><b>Mind</b><ul>{warnings}</ul></div>')
    if group.traps:
        traps = "".join(f"<li>{escape(trap)}</li>" for trap in group.traps)
        title = f"Traps of {escape(group.corpus)} ({len(group.traps)})"
        parts.append(f"<details><summary>{title}</summary><ul>{traps}</ul></details>")
    if group.rows:
        parts += [results_table(group), _forests(group), _recalls(group), _confusions(group)]
        parts.append(_maps([row for row in group.rows if row.cell.path in maps], maps, group))
    parts.append(_layers(group))
    if group.elsewhere:
        title = f"Published for {group.corpus} with other protocols: not comparable with the above"
        table = plain_table(elsewhere_table(group.elsewhere), left=2)
        parts.append(f"<details><summary>{escape(title)}</summary>{table}</details>")
    return "".join(parts)


def _figure(title: str, drawing: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing}</figure>"


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
        parts.append(f'<div><h4>{escape(row.name)}</h4><div class="pair">{figures}</div></div>')
    return (
        f"<h3>Maps of the first fold's test clips</h3><p>{MAPS_NOTE}</p>{legend(group.labels)}"
        f'<div class="grid">{"".join(parts)}</div>'
    )


def _layers(group: Group) -> str:
    if not group.sweeps:
        return ""
    cells = [cell for of in group.sweeps.values() for cell in of]
    main = main_score(cells[0].pooled)
    numbers = sorted({c.subject.layer for c in cells if isinstance(c.subject.layer, int)})
    layers: list[int | None] = [*numbers, *({None} & {cell.subject.layer for cell in cells})]
    curves = {}
    for name, of in group.sweeps.items():
        by_layer = {cell.subject.layer: cell for cell in of}
        curves[name] = [_point(by_layer.get(layer), main) for layer in layers]
    places = ["output" if layer is None else str(layer) for layer in layers]
    drawing = line_chart(places, curves, main, f"layer; {title_of(main)}")
    tables = "".join(
        f"<details><summary>{escape(name)}: all scores, and the commands</summary>"
        f"{plain_table(layer_table(of))}"
        f"{''.join(f'<pre>{escape(cell.command)}</pre>' for cell in of)}</details>"
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
    figures = []
    for family, members in _families(found).items():
        places = [clean, *members]
        curves = {}
        for name, one in zip(names, found, strict=True):
            by_name = {condition["name"]: condition for condition in one.conditions}
            curves[name] = [_entry(by_name.get(place), main) for place in places]
        short = [clean, *(_level(found, family, member) for member in members)]
        label = f"{family}; {title_of(main)}"
        chart = line_chart(short, curves, main, label, joined=family != OTHERS)
        figures.append(_figure(family, chart))
    commands = "".join(
        f"<p>{escape(n)}</p>{command_of(x.command)}" for n, x in zip(names, found, strict=True)
    )
    grid = f'<div class="grid">{"".join(figures)}</div>'
    protocol = f"<p>{escape(found[0].protocol.get('description') or '')}</p>"
    return f"{protocol}{legend(names)}{grid}{plain_table(robustness_table(found))}{commands}"


def _entry(
    entry: Mapping[str, Any] | None, score: str
) -> tuple[float, tuple[float, float] | None] | None:
    value = None if entry is None else entry["scores"].get(score)
    if entry is None or value is None:
        return None
    return value, as_interval((entry.get("interval_95") or {}).get(score))


def _families(found: Sequence[Robustness]) -> dict[str, list[str]]:
    """Return the names of conditions by family; those without kin are together at the end."""
    families: dict[str, list[str]] = {}
    for one in found:
        for condition in one.conditions[1:]:
            families.setdefault(condition["family"], []).append(condition["name"])
    families = {family: list(dict.fromkeys(names)) for family, names in families.items()}
    alone = [names[0] for names in families.values() if len(names) == 1]
    several = {family: names for family, names in families.items() if len(names) > 1}
    return several | ({OTHERS: alone} if alone else {})


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
    mapping = f"<p>{escape(mapping_text(one))}</p>" if one.label_mapping else ""
    return f"{mapping}{heat(tests, lines, corner=corner, tilted=False)}{command_of(one.command)}"


def _pair(entry: Mapping[str, Any] | None, score: str) -> Shade | None:
    if entry is None:
        return None
    interval = as_interval((entry.get("interval_95") or {}).get(score))
    small = "" if interval is None else " to ".join(show(score, end) for end in interval)
    classes = entry.get("classes")
    known = ", ".join(map(str, classes)) if isinstance(classes, list) else classes
    title = f"{entry.get('clips', '?')} clips; classes: {known}"
    return _shade(score, entry["scores"].get(score), small=small, title=title)
