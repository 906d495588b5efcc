"""Cells of the benchmark as rows for machines and as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emotion2vec.benchmark.cells import Cell


def row_of(cell: Cell) -> dict[str, Any]:
    """What a table shows of a cell, in one flat row; of a failed one, its error instead of scores.

    Scores are pooled over folds, their mean over seeds; in [0, 1], CCC in [-1, 1].
    """
    protocol, scores = cell["protocol"], cell.get("scores")
    row = {
        **{name: cell[name] for name in ("task", "corpus")},
        "protocol": protocol["name"],
        **{name: protocol.get(name) for name in ("starred", "validation", "selection")},
        "shared_speakers": sum(protocol.get("shared_speakers", [])),
        "backbone": cell["backbone"]["name"],
        "layer": cell["backbone"].get("layer"),
        "head": cell["head"]["name"],
        "seeds": len(cell["seeds"]),
    }
    if scores:
        row |= scores["pooled"]
        main = main_score(scores["pooled"])
        row["deviation"] = scores["deviation_over_seeds"][main]
        row["low"], row["high"] = scores["interval_95"][main]
        row["fold_mean"] = scores["fold_mean"][main]
    return row | {"left_out": len(cell.get("errors", {})), "error": cell.get("error", "")}


def main_score(scores: Mapping[str, float]) -> str:
    """The score that intervals are shown of: WA, the paper's; of values the mean CCC.

    >>> main_score({"wa": 0.5, "ua": 0.4}), main_score({"ccc_arousal": 0.1, "ccc": 0.1})
    ('wa', 'ccc')
    """
    return "ccc" if "ccc" in scores else "wa"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of all values in some rows; those of scores before intervals and errors.

    >>> columns([{"a": 1, "error": ""}, {"a": 1, "wa": 1.0, "error": ""}])
    ['a', 'wa', 'error']
    """
    longest = sorted(rows, key=len, reverse=True)
    return list(dict.fromkeys(name for row in longest for name in row))


def tables(cells: Sequence[Cell]) -> str:
    """The cells as text: a table for each task, corpus and protocol, and what it stands on."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        protocol = cell["protocol"]
        key = (cell["task"], cell["corpus"], protocol["name"], str(protocol["starred"]))
        groups.setdefault(key, []).append(cell)
    return "\n\n".join("\n".join(_table(group)) for group in groups.values())


def _table(cells: Sequence[Cell]) -> list[str]:
    """Return the lines of one table."""
    whole = [cell for cell in cells if "scores" in cell]
    lines = _heading(whole[0] if whole else cells[0])
    if whole:
        names = [*whole[0]["scores"]["pooled"]]
        main = main_score(whole[0]["scores"]["pooled"])
        rows = [["", "head", *map(str.upper, names), f"{main.upper()}, 95 %", "mean of folds"]]
        rows += [_line(cell, names, main) for cell in whole]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        lines += _notes(whole)
    lines += [f"failed: {_name(cell)}: {cell['error']}" for cell in cells if "error" in cell]
    return lines


def _heading(cell: Cell) -> list[str]:
    protocol = cell["protocol"]
    star = " *" if protocol["starred"] else ""
    lines = [f"{cell['task']}, {cell['corpus']}, {protocol['name']}{star}"]
    if "description" in protocol:
        given = "" if "validation is" in protocol["description"] else protocol["validation"]
        more = f" Validation: {given}." if given else ""
        lines.append(f"Protocol: {protocol['description']}.{more}")
    if protocol["starred"]:
        lines.append(
            "* What was selected was selected on the test part: no estimate of new speech."
        )
    shared = protocol.get("shared_speakers", [])
    if any(shared):
        lines.append(
            f"Not speaker-independent: {', '.join(map(str, shared))} speakers of the folds' test "
            "parts were trained on, too."
        )
    return lines


def _name(cell: Cell) -> str:
    layer = cell["backbone"]["layer"]
    star = " *" if cell["protocol"]["starred"] else ""
    return cell["backbone"]["name"] + ("" if layer is None else f"@{layer}") + star


def _line(cell: Cell, names: Sequence[str], main: str) -> list[str]:
    scores = cell["scores"]
    several = len(cell["seeds"]) > 1 and any(scores["deviation_over_seeds"].values())
    values = []
    for name in names:
        value = _number(scores["pooled"][name], name)
        if several:
            value += f" ± {_number(scores['deviation_over_seeds'][name], name)}"
        values.append(value)
    interval = " to ".join(_number(end, main) for end in scores["interval_95"][main])
    return [
        _name(cell),
        cell["head"]["name"],
        *values,
        interval,
        _number(scores["fold_mean"][main], main),
    ]


def _number(value: float, name: str) -> str:
    """Return a score as it is printed: percent; CCC as it is."""
    return f"{value:.3f}" if name.startswith("ccc") else f"{100 * value:.1f}"


def _notes(cells: Sequence[Cell]) -> list[str]:
    """Return what must be said under a table."""
    seeds = max(len(cell["seeds"]) for cell in cells)
    notes = [f"Pooled over folds; mean ± standard deviation over {seeds} seeds."] * (seeds > 1)
    chosen: dict[str, list[str]] = {}
    for cell in cells:
        chosen.setdefault(cell["protocol"]["selection"], []).append(cell["head"]["name"])
    for selection, heads in chosen.items():
        if selection != "nothing":
            notes.append(f"Selected ({', '.join(dict.fromkeys(heads))}): {selection}.")
    notes += [f"Mind: {trap}" for trap in cells[0].get("traps", ())]
    for cell in cells:
        if cell["errors"]:
            notes.append(f"{_name(cell)}: {len(cell['errors'])} recordings left out.")
    return notes
