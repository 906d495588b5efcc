"""The report's tables as lines of text cells, which Markdown, LaTeX and the page all show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emotion2vec.reporting.cells import Cell, Robustness, Transfer, as_interval, main_score
from emotion2vec.reporting.published_scores import PublishedScore
from emotion2vec.reporting.tables import Group, Row, show, title_of

READING = (
    "Scores are over the test clips of all folds together, the mean over seeds, in percent (CCC as "
    "it is); ± is the standard deviation over seeds, the brackets hold a 95 % interval over "
    "speakers. The difference to the best row is in pairs, over speakers and seeds; its p-value is "
    "corrected by Holm for the comparisons in its table. Which row is best was seen on the same "
    "clips."
)
LAYERS_NOTE = "Choosing the best layer here would be choosing on the test part."


class Table(NamedTuple):
    """A header and lines below it, as many cells each."""

    header: list[str]
    lines: list[list[str]]


def score_text(
    score: str,
    value: float | None,
    interval: tuple[float, float] | None,
    deviation: float | None = None,
) -> str:
    """A score, ± its deviation, and in brackets its interval.

    >>> score_text("ua", 0.5, (0.4, 0.61), 0.01)
    '50.0 ± 1.0 (40.0 to 61.0)'
    """
    text = show(score, value)
    if deviation is not None:
        text += f" ± {show(score, deviation)}"
    if interval is not None:
        text += f" ({show(score, interval[0])} to {show(score, interval[1])})"
    return text


def score_cell(cell: Cell, score: str) -> str:
    """A pooled score, ± its deviation where seeds answer differently, and its interval."""
    deviation = cell.scores.get("deviation_over_seeds", {}).get(score)
    value, interval = cell.pooled.get(score), cell.interval(score)
    return score_text(score, value, interval, (deviation or None) if len(cell.seeds) > 1 else None)


def group_header(group: Group) -> list[str]:
    """The columns of `row_line`."""
    score = title_of(main_score(dict.fromkeys(group.scores)))
    return [
        *("backbone", "head"),
        *(title_of(name) for name in group.scores),
        *(f"{score}, mean of folds", f"{score} over the best (95\u00a0%)", "p (Holm)"),
    ]


def row_line(row: Row, group: Group) -> list[str]:
    """A row: name and head, scores with ± and intervals, mean of folds, difference to the best."""
    cell, main = row.cell, main_score(row.cell.pooled)
    star = " *" if cell.starred else ""
    return [
        row.name + star,
        cell.subject.head,
        *(score_cell(cell, name) for name in group.scores),
        show(main, cell.scores["fold_mean"].get(main)),
        *difference_texts(row),
    ]


def difference_texts(row: Row) -> tuple[str, str]:
    """The difference to the best row with its interval, and its corrected p-value."""
    main = main_score(row.cell.pooled)
    if row.is_best:
        return "best", ""
    if main not in row.differences:
        return "–", ""
    difference = row.differences[main]
    return score_text(main, difference.mean, difference.interval_95), p_text(row.p_holm[main])


def p_text(p: float) -> str:
    """A p-value in three places.

    >>> p_text(0.0004), p_text(0.25)
    ('< 0.001', '0.250')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def published_line(row: PublishedScore, group: Group) -> list[str]:
    """A published row in the columns of `group_header`."""
    scores = [show(name, row.scores.get(name)) for name in group.scores]
    return [f"{row.model} [{source_of(row)}]", "–", *scores, "–", "–", ""]


def source_of(row: PublishedScore) -> str:
    """Where a published row was read."""
    return row.source + (", second-hand" if row.second_hand else "")


def elsewhere_table(rows: Sequence[PublishedScore]) -> Table:
    """Published rows of other protocols, each with its own."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    header = ["model", "protocol", *map(title_of, names), "source"]
    return Table(
        header,
        [
            [row.model, row.said, *(show(n, row.scores.get(n)) for n in names), source_of(row)]
            for row in rows
        ],
    )


def recall_table(group: Group) -> Table:
    """The share of each class that is found, a line a row of the group."""
    rows = [row for row in group.rows if row.cell.scores.get("recall")]
    return Table(
        ["backbone", *group.labels],
        [
            [row.name, *(show("ua", row.cell.scores["recall"].get(x)) for x in group.labels)]
            for row in rows
        ],
    )


def layer_table(cells: Sequence[Cell]) -> Table:
    """Scores of a backbone's layers; the model's own output is "output"."""
    names = list(dict.fromkeys(name for cell in cells for name in cell.pooled))
    return Table(
        ["layer", *map(title_of, names)],
        [
            [
                "output" if cell.subject.layer is None else str(cell.subject.layer),
                *(score_cell(cell, name) for name in names),
            ]
            for cell in cells
        ],
    )


def robustness_groups(found: Sequence[Robustness]) -> dict[str, list[Robustness]]:
    """The files that may be compared, by title: one task, corpus, protocol, star and data."""
    groups: dict[tuple[Any, ...], list[Robustness]] = {}
    for one in found:
        star = " *" if one.starred else ""
        title = f"{one.task} · {one.corpus} · {one.protocol['name']}{star}"
        key = (title, str(one.protocol.get("description", "")), one.corpus_digest)
        groups.setdefault(key, []).append(one)
    titles: dict[str, list[Robustness]] = {}
    for (title, _, digest), of in sorted(groups.items(), key=str):
        titles[f"{title} (data {digest[:8]})" if title in titles else title] = of
    return titles


def robustness_table(found: Sequence[Robustness]) -> Table:
    """A line a condition; for each backbone the main score, and its paired change from clean."""
    names = list(dict.fromkeys(str(c["name"]) for one in found for c in one.conditions))
    by_name = [{c["name"]: c for c in one.conditions} for one in found]
    main = main_score(found[0].conditions[0]["scores"])
    header = [f"condition, {title_of(main)}"]
    for one in found:
        header += [_subject(one), "over clean (95\u00a0%)"]
    lines = []
    for name in names:
        line = [name]
        for of in by_name:
            line += [_condition(of.get(name), main), _change(of.get(name), main)]
        lines.append(line)
    return Table(header, lines)


def _change(condition: Mapping[str, Any] | None, main: str) -> str:
    change = ((condition or {}).get("change") or {}).get(main)
    if not change or (condition or {}).get("family") == "clean":
        return "–"
    value, low, high, *_ = change
    return score_text(main, value, as_interval([low, high]))


def _subject(one: Robustness | Transfer) -> str:
    return f"{one.subject.name}, {one.subject.head}"


def _condition(condition: Mapping[str, Any] | None, main: str) -> str:
    if condition is None:
        return "–"
    value = condition["scores"].get(main)
    return score_text(main, value, as_interval(condition.get("interval_95", {}).get(main)))


def transfer_table(one: Transfer) -> Table:
    """A line a training corpus, a column a test corpus: the main score with its interval."""
    trains = list(dict.fromkeys(str(entry["train"]) for entry in one.matrix))
    tests = list(dict.fromkeys(str(entry["test"]) for entry in one.matrix))
    entries = {(entry["train"], entry["test"]): entry for entry in one.matrix}
    main = main_score(one.matrix[0]["scores"]) if one.matrix else "ua"
    lines = [[r, *(_condition(entries.get((r, c)), main) for c in tests)] for r in trains]
    return Table([f"trained on \\ tested on, {title_of(main)}", *tests], lines)


def mapping_text(one: Transfer) -> str:
    """Which labels counted as which."""
    mapping = one.label_mapping
    if not isinstance(mapping, Mapping):
        return f"Labels: {mapping}."
    return f"Labels: {', '.join(f'{said} → {ours}' for said, ours in mapping.items())}."


def transfer_title(one: Transfer) -> str:
    """Backbone and head."""
    return _subject(one)


def protocol_facts(group: Group) -> list[str]:
    """What the group's numbers rest on, a sentence each."""
    protocol, cell = group.protocol, group.cells[0]
    speakers = {name for name in cell.speakers.values() if name is not None}
    description = protocol.get("description") or "not described"
    validation = protocol.get("validation") or "not stated"
    facts = [f"Protocol {protocol['name']}: {description}."]
    if validation not in description:
        facts.append(f"Validation: {validation}.")
    facts += [
        f"{len(cell.truth)} test clips of {len(speakers) or 'unknown'} speakers; "
        f"{len(group.labels)} labels: {', '.join(map(str, group.labels))}.",
    ]
    return [*facts, f"Data {group.digest[:16]}."] if group.digest else facts
