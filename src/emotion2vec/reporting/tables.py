"""Cells that may be compared, together: a group a task, corpus and protocol, a row a backbone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emotion2vec.comparison import Difference, compare_classes, compare_values
from emotion2vec.corpora.known import CORPORA
from emotion2vec.reporting.cells import Cell, main_score
from emotion2vec.reporting.published_scores import (
    PublishedScore,
    Setting,
    other_protocols,
    same_protocol,
)

FEW_SPEAKERS = 6
"""Speakers under which a bootstrap over them gives intervals that are too narrow."""

_TITLES = {"wa": "WA", "ua": "UA", "wf1": "WF1", "macro_f1": "macro-F1", "ccc": "CCC"}


def title_of(score: str) -> str:
    """What a column of this score is called.

    >>> title_of("macro_f1"), title_of("ccc_arousal")
    ('macro-F1', 'CCC arousal')
    """
    return _TITLES.get(score) or score.replace("ccc_", "CCC ")


def show(score: str, value: float | None) -> str:
    """A score as a reader wants it: in percent, CCC as it is; a dash where there is none.

    >>> show("ua", 0.5), show("ccc", -0.5), show("ua", -1e-9), show("ua", None)
    ('50.0', '−0.500', '0.0', '–')
    """
    if value is None:
        return "–"
    text = f"{value:z.3f}" if score.startswith("ccc") else f"{100 * value:z.1f}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Row:
    """A cell in its group."""

    cell: Cell
    name: str
    differences: Mapping[str, Difference]
    """to the group's best row, by score; empty for that row, or where nothing is shared"""
    p_holm: Mapping[str, float]
    """the p-values of the differences, corrected by Holm for all of the group"""
    is_best: bool = False


@dataclass(frozen=True)
class Group:
    """Cells of one task, corpus, protocol, star, data and classes; nothing else is compared."""

    task: str
    corpus: str
    protocol: Mapping[str, Any]
    starred: bool
    digest: str
    labels: Sequence[str]
    rows: Sequence[Row]
    """best first, then the baselines, best first"""
    sweeps: Mapping[str, Sequence[Cell]]
    """of backbones that were scored at several layers: the cells, the model's own output last"""
    published: Sequence[PublishedScore]
    """with the same protocol"""
    elsewhere: Sequence[PublishedScore]
    """with others, not to be compared"""
    warnings: Sequence[str]
    """what to mind about these numbers"""
    traps: Sequence[str]
    """what has misled others who used the corpus"""
    number: str = ""
    """among groups that would have the same title"""

    @property
    def title(self) -> str:
        """Task, corpus, protocol, number, and the star."""
        star = " *" if self.starred else ""
        return f"{self.task} · {self.corpus} · {self.protocol['name']}{self.number}{star}"

    @property
    def cells(self) -> list[Cell]:
        """All cells: those of the rows, then layers."""
        rows = [row.cell for row in self.rows]
        paths = {cell.path for cell in rows}
        return rows + [c for of in self.sweeps.values() for c in of if c.path not in paths]

    @property
    def scores(self) -> list[str]:
        """The names of the scores, in their order."""
        return list(dict.fromkeys(score for cell in self.cells for score in cell.pooled))


def group_cells(cells: Sequence[Cell]) -> list[Group]:
    """The groups, in order of task, corpus, star and protocol."""
    groups: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        key = (
            *(cell.task, cell.corpus, cell.starred, cell.protocol["name"]),
            *(str(cell.protocol.get("description", "")), cell.corpus_digest, tuple(cell.labels)),
        )
        groups.setdefault(key, []).append(cell)
    made = [_group(groups[key]) for key in sorted(groups, key=str)]
    times, seen = Counter(group.title for group in made), Counter[str]()
    for place, group in enumerate(made):
        if times[group.title] > 1:
            seen[group.title] += 1
            number = f" ({seen[group.title]})"
            made[place] = replace(group, number=number, warnings=[*group.warnings, _TWINS])
    return made


_TWINS = (
    "Other cells have the same task, corpus and protocol's name, but another split, other "
    "recordings or other classes: they stand in a table of their own."
)


def _group(cells: Sequence[Cell]) -> Group:
    first = cells[0]
    single, sweeps = _sweeps(cells)
    score = main_score(first.pooled)
    single.sort(key=lambda c: (c.subject.is_baseline, -(c.pooled.get(score) or -1.0)))
    rows = _rows(single)
    setting = Setting(
        first.task,
        first.corpus,
        first.protocol["name"],
        first.starred,
        len({run.get("fold") for run in first.runs}),
        len(first.labels),
        first.hours,
    )
    group = Group(
        first.task,
        first.corpus,
        first.protocol,
        first.starred,
        first.corpus_digest,
        first.labels,
        rows,
        sweeps,
        same_protocol(setting),
        other_protocols(setting),
        [],
        first.traps or (CORPORA[first.corpus].traps if first.corpus in CORPORA else ()),
    )
    return replace(group, warnings=warnings_of(group))


def _sweeps(cells: Sequence[Cell]) -> tuple[list[Cell], dict[str, list[Cell]]]:
    """Return the cells for the table, and by name those that differ in the layer only.

    Of several layers the table has the model's own output, else the last layer: not the best one.
    """
    layers: dict[str, list[Cell]] = {}
    for cell in cells:
        if not isinstance(cell.subject.layer, str):
            layers.setdefault(f"{cell.subject.backbone} {sorted(cell.head.items())}", []).append(
                cell
            )
    sweeps: dict[str, list[Cell]] = {}
    for of in layers.values():
        if len({cell.subject.layer for cell in of}) > 1:
            of.sort(key=lambda c: (c.subject.layer is None, c.subject.layer or 0))
            name = f"{of[0].subject.backbone}, {of[0].subject.head}"
            sweeps[name if name not in sweeps else f"{name} ({len(sweeps) + 1})"] = of
    swept = [cell for of in sweeps.values() for cell in of[:-1]]
    return [cell for cell in cells if cell not in swept], sweeps


def _rows(cells: Sequence[Cell]) -> list[Row]:
    """Return rows in the order of the cells; the best is the first that is no baseline."""
    best = next((cell for cell in cells if not cell.subject.is_baseline), None)
    found = {c.path: differences(best, c) for c in cells if best is not None and c is not best}
    scores = dict.fromkeys(score for of in found.values() for score in of)
    corrected = {s: holm({path: of[s].p for path, of in found.items() if s in of}) for s in scores}
    return [
        Row(
            cell,
            title,
            found.get(cell.path, {}),
            {score: of[cell.path] for score, of in corrected.items() if cell.path in of},
            cell is best,
        )
        for cell, title in zip(cells, _titles(cells), strict=True)
    ]


def _titles(cells: Sequence[Cell]) -> list[str]:
    """Return the names of the cells, and of namesakes in what heads, settings or weights differ."""
    titles = []
    for cell in cells:
        namesakes = [c for c in cells if c.subject.name == cell.subject.name]
        facts = [_settings(c) for c in namesakes if c.subject.head == cell.subject.head]
        own = _settings(cell)
        differ = {k: v for k, v in own.items() if any(f.get(k) != v for f in facts)}
        if len(facts) < len(namesakes):
            differ = {"head": cell.subject.head, **differ}
        said = ", ".join(f"{k} {v}" for k, v in differ.items())
        titles.append(cell.subject.name + (f" ({said})" if said else ""))
    return titles


def _settings(cell: Cell) -> dict[str, Any]:
    return {"weights": str(cell.backbone.get("fingerprint"))[:8], **cell.head}


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """P-values corrected for how many there are, by Holm's step-down procedure.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.02})
    {'a': 0.03, 'c': 0.04, 'b': 0.04}
    """
    corrected, floor = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        floor = max(floor, min(1.0, p * (len(p_values) - place)))
        corrected[name] = floor
    return corrected


def differences(best: Cell, other: Cell) -> dict[str, Difference]:
    """How much `other` scores over `best`, on clips that both answered, with the same seeds.

    A head without randomness has one seed; its answers are then compared with every seed of the
    other side. Empty where no clip, or no seed, is shared.
    """
    one, two = _answers(best), _answers(other)
    if 1 in (len(one), len(two)):
        seeds = sorted(one if len(one) > 1 else two)
        one, two = (dict.fromkeys(seeds, *s.values()) if len(s) == 1 else s for s in (one, two))
    seeds = sorted(set(one) & set(two))
    answers = [side[seed] for side in (one, two) for seed in seeds]
    keys = [k for k in (answers or [{}])[0] if all(k in of_run for of_run in answers)]
    if not keys or any(best.truth[key] != other.truth[key] for _, key in keys):
        return {}
    clips = [key for _, key in keys]
    groups = [best.speakers.get(key) or key for key in clips]
    first, second = ([[side[seed][key] for key in keys] for seed in seeds] for side in (one, two))
    if main_score(best.pooled) == "ua":
        truth = [best.truth[key] for key in clips]
        return {s: compare_classes(truth, first, second, groups, score=s) for s in best.pooled}
    # A clip has one row of values, or a row for each of its frames.
    rows = [np.atleast_2d(best.truth[key]) for key in clips]
    groups = [group for group, of in zip(groups, rows, strict=True) for _ in of]
    before, after = ([np.vstack(run) for run in runs] for runs in (first, second))
    labels = list(best.labels)
    return {
        score: compare_values(np.vstack(rows), before, after, groups, labels, score=score)
        for score in best.pooled
    }


def _answers(cell: Cell) -> dict[int, dict[tuple[int, str], Any]]:
    """Return by seed what was answered, by fold and key."""
    found: dict[int, dict[tuple[int, str], Any]] = {}
    for run in cell.runs:
        answers = {(run["fold"], key): value for key, value in run["predictions"].items()}
        found.setdefault(run["seed"], {}).update(answers)
    return found


def warnings_of(group: Group) -> list[str]:
    """What a reader must know before believing the group's numbers."""
    first = group.cells[0]
    score = main_score(first.pooled)
    found = []
    if group.starred:
        found.append(
            "* Selected on the test part, as in the paper's starred rows: no estimate for new "
            "speech, and to be compared with starred rows only."
        )
    shared = [count or 0 for count in group.protocol.get("shared_speakers") or []]
    if any(shared):
        found.append(
            f"Not speaker-independent: up to {max(shared)} speakers of a fold's test part were "
            "trained on, too."
        )
    speakers = {name for name in first.speakers.values() if name is not None}
    if speakers and len(speakers) < FEW_SPEAKERS:
        found.append(
            f"{len(speakers)} speakers: intervals over so few are narrower than they should be."
        )
    if not speakers:
        found.append("Speakers are not known: intervals are over clips, and too narrow.")
    for row in group.rows:
        if row.cell.errors:
            found.append(
                f"{row.name}: {len(row.cell.errors)} recordings could not be read, and are in no "
                f"score; the first is {next(iter(row.cell.errors))}: "
                f"{next(iter(row.cell.errors.values()))}"
            )
        if row.cell.subject.is_baseline and score in row.differences:
            high = row.differences[score].interval_95[1]
            if high >= 0:
                found.append(
                    f"The baseline {row.name} cannot be told from the best row: this corpus and "
                    "protocol do not show here that a representation knows emotion."
                )
    return found
