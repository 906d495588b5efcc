"""A grid's results: a row a cell, as table, JSON, CSV and picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from emotion2vec.ablation.grid import Cell, Run
from emotion2vec.ablation.scores import Probing
from emotion2vec.atomic import atomic_path
from emotion2vec.comparison import compare_classes
from emotion2vec.jsonl import read_jsonl
from emotion2vec.plots import dots_figure
from emotion2vec.pretraining.checkpoint import load_student
from emotion2vec.probing.results import ProbeResult

SCORES = ("wa", "ua", "wf1")


class Found(NamedTuple):
    """What is known of a run."""

    run: Run
    result: ProbeResult | None
    """the probe's, if it has been probed"""
    training: dict[str, float]
    """what it logged last, and "seconds" of all"""
    note: str
    """how it went wrong, or what was left out; "" if all went well"""


def look(run: Run, probing: Probing, failures: Mapping[Run, str]) -> Found:
    """What is known of a run from its folder, and whether it failed just now."""
    results = probing.read(run.probe)
    lines = read_jsonl(run.folder / "metrics.jsonl")
    training = dict(lines[-1]) if lines else {}
    training.pop("seconds", None)
    if lines and all("seconds" in line for line in lines):
        training["seconds"] = sum(line["seconds"] for line in lines)
    skipped = len(read_jsonl(run.folder / "skipped.jsonl"))
    if run in failures:
        note = f"failed: {failures[run]}"
    elif not run.is_trained and run.collapsed.is_file():
        note = f"collapsed at update {load_student(run.collapsed)[1]}"
    else:
        note = f"{skipped} recordings left out" if skipped else ""
    return Found(run, results[0] if results else None, training, note)


def summarize(found: Sequence[Found]) -> list[dict[str, Any]]:
    """A row for each cell, in order: scores in [0, 1], differences to the first, training, notes.

    Deviations are those of a sample (n - 1) over the pre-training's seeds. The interval of a score
    is over speakers; that of a difference is over speakers and seeds, both drawn in pairs, and the
    difference is over the seeds that both cells have.
    """
    cells: dict[Cell, list[Found]] = {}
    for one in found:
        cells.setdefault(one.run.cell, []).append(one)
    first = _by_seed(next(iter(cells.values())))
    return [_row(cell, of_cell, first) for cell, of_cell in cells.items()]


def _by_seed(found: Sequence[Found]) -> dict[int, ProbeResult]:
    return {one.run.seed: one.result for one in found if one.result}


def _row(cell: Cell, found: Sequence[Found], first: Mapping[int, ProbeResult]) -> dict[str, Any]:
    results = _by_seed(found)
    row: dict[str, Any] = {
        "cell": cell.name,
        "settings": list(cell.settings),
        "seeds": len(found),
        "scored_seeds": sorted(results),
        "scores": {name: _score(results, name) for name in SCORES} if results else {},
        "difference": {},
        "training": _means([one.training for one in found if one.training]),
        "notes": {one.run.seed: one.note for one in found if one.note},
    }
    both = [seed for seed in results if seed in first]
    if both and any(results[seed] is not first[seed] for seed in both):
        row["difference"] = _difference(
            [first[seed] for seed in both], [results[seed] for seed in both]
        )
    return row


def _score(results: Mapping[int, ProbeResult], name: str) -> dict[str, Any]:
    values = {seed: result.mean()[name] for seed, result in sorted(results.items())}
    together = ProbeResult("", tuple(run for result in results.values() for run in result.runs))
    return {
        "mean": float(np.mean([*values.values()])),
        "deviation": float(np.std([*values.values()], ddof=1)) if len(values) > 1 else None,
        "interval_95": together.interval(name),
        "of_seeds": {seed: float(value) for seed, value in values.items()},
    }


def _difference(first: Sequence[ProbeResult], second: Sequence[ProbeResult]) -> dict[str, Any]:
    """Return mean and interval by score; of recordings that all could read."""
    answers = [
        {
            (run.seed, run.fold, key): answer
            for run in result.runs
            for key, answer in zip(run.keys, run.prediction, strict=True)
        }
        for result in (*first, *second)
    ]
    facts = {
        (run.seed, run.fold, key): (truth, speaker if speaker is not None else key)
        for run in first[0].runs
        for key, truth, speaker in zip(run.keys, run.truth, run.speakers, strict=True)
    }
    shared = [key for key in facts if all(key in of_run for of_run in answers)]
    truth, groups = zip(*(facts[key] for key in shared), strict=True)
    sides = [[of_run[key] for key in shared] for of_run in answers]
    return {
        name: {
            "mean": float(
                np.mean([result.mean()[name] for result in second])
                - np.mean([result.mean()[name] for result in first])
            ),
            "interval_95": compare_classes(
                truth, sides[: len(first)], sides[len(first) :], groups, score=name
            ).interval_95,
        }
        for name in SCORES
    }


def _means(training: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in training for name in one)
    return {name: float(np.mean([one[name] for one in training if name in one])) for name in names}


COLUMNS = ("cell", "seeds", "WA", "UA", "WF1", "WA - first", "95 %", "frame", "utterance",
           "spread", "rank", "updates", "time", "")  # fmt: skip


def table(
    rows: Sequence[Mapping[str, Any]],
    baselines: Sequence[ProbeResult],
    probing: Probing,
    command: str = "",
) -> str:
    """The rows side by side, scores in percent; under them the baselines and what is what."""
    lines = [list(COLUMNS), *(_cells(row) for row in rows)]
    for result in baselines:
        scores = [f"{100 * result.mean()[name]:.1f}" for name in SCORES]
        lines.append([result.name, "", *scores, *[""] * (len(COLUMNS) - 5)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    text = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
            + [line[-1]]
        ).rstrip()
        for line in lines
    ]
    text.insert(len(rows) + 1, "")
    text += [
        "",
        f"Scores: {probing.folds.protocol}; probes of {probing.head.epochs} epochs, the best on "
        f"validation; seeds of the probe: {probing.seeds}.",
        "± standard deviation (n - 1) over seeds of the pre-training. WA - first: to the first "
        "cell, over the",
        "seeds of both; 95 % interval: speakers and seeds drawn anew in pairs. Losses, spread and "
        "effective",
        "rank of targets/predictions as logged last, time of training: means over seeds.",
    ]
    return "\n".join([*text, *([f"$ {command}"] if command else [])])


def _cells(row: Mapping[str, Any]) -> list[str]:
    scored, training = len(row["scored_seeds"]), row["training"]
    difference = row["difference"].get("wa")
    return [
        row["cell"],
        str(scored) if scored == row["seeds"] else f"{scored}/{row['seeds']}",
        *(_percent(row["scores"].get(name)) for name in SCORES),
        f"{100 * difference['mean']:+.1f}" if difference else "",
        "{:+.1f} to {:+.1f}".format(*(100 * x for x in difference["interval_95"]))
        if difference
        else "",
        *(_number(training, f"{name}_loss", ".3f") for name in ("frame", "utterance")),
        *("/".join(filter(None, (_number(training, f"{of}_{name}", form) for of in _BOTH)))
          for name, form in (("spread", ".2f"), ("rank", ".0f"))),
        _number(training, "update", ".0f"),
        _duration(training.get("seconds")),
        _notes(row),
    ]  # fmt: skip


_BOTH = ("target", "prediction")


def _notes(row: Mapping[str, Any]) -> str:
    return "; ".join(f"seed {seed}: {note}" for seed, note in row["notes"].items())


def _percent(score: Mapping[str, Any] | None) -> str:
    if not score:
        return ""
    deviation = score["deviation"]
    return f"{100 * score['mean']:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _number(values: Mapping[str, float], name: str, form: str) -> str:
    return format(values[name], form) if name in values else ""


def _duration(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds."""
    if seconds is None:
        return ""
    whole = round(seconds)
    big, small = (whole // 3600, whole // 60 % 60) if whole >= 3600 else (whole // 60, whole % 60)
    return f"{big} h {small:02d}" if whole >= 3600 else f"{big}:{small:02d} min"


_CSV_TRAINING = (
    *("frame_loss", "utterance_loss", "target_spread", "prediction_spread"),
    *("target_rank", "prediction_rank", "encoder_rank", "update", "seconds"),
)


def csv_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """A header and a line for each row; what is not known is None."""
    parts = ("mean", "deviation", "low", "high", "difference", "difference_low", "difference_high")
    header = ["cell", "seeds", "scored_seeds"]
    header += [f"{name}_{part}" for name in SCORES for part in parts]
    lines = []
    for row in rows:
        line = [row["cell"], row["seeds"], len(row["scored_seeds"])]
        for name in SCORES:
            score = row["scores"].get(name, {"interval_95": (None, None)})
            change = row["difference"].get(name, {"interval_95": (None, None)})
            line += [score.get("mean"), score.get("deviation"), *score["interval_95"]]
            line += [change.get("mean"), *change["interval_95"]]
        lines.append([*line, *map(row["training"].get, _CSV_TRAINING), _notes(row)])
    return [[*header, *_CSV_TRAINING, "notes"], *lines]


def as_json(
    rows: Sequence[Mapping[str, Any]],
    baselines: Sequence[ProbeResult],
    probing: Probing,
    command: str = "",
) -> str:
    """Everything that `table` shows, and the scores of each seed, as one object."""
    values = {
        "command": command,
        "protocol": probing.folds.protocol,
        "probe": {**asdict(probing.head), "seeds": probing.seeds},
        "cells": rows,
        "baselines": [
            {
                "name": result.name,
                **{name: float(result.mean()[name]) for name in SCORES},
                "interval_95": {name: result.interval(name) for name in SCORES},
            }
            for result in baselines
        ],
    }
    return json.dumps(values, indent=2)


def write(
    rows: Sequence[Mapping[str, Any]],
    baselines: Sequence[ProbeResult],
    probing: Probing,
    out: Path,
    command: str = "",
) -> None:
    """Write `results.txt`, `results.json`, `results.csv` and `ablation.png` into a folder.

    Raises:
        OSError: if it cannot be written
    """
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(csv_rows(rows))
    texts = {
        "txt": table(rows, baselines, probing, command) + "\n",
        "json": as_json(rows, baselines, probing, command) + "\n",
        "csv": lines.getvalue(),
    }
    for suffix, text in texts.items():
        with atomic_path(out / f"results.{suffix}") as path:
            path.write_text(text, encoding="utf-8")
    scores = {row["cell"]: row["scores"]["wa"] for row in rows if row["scores"]}
    figure = dots_figure(
        {name.replace("+", "\n"): [*score["of_seeds"].values()] for name, score in scores.items()},
        [score["interval_95"] for score in scores.values()],
        {result.name: result.mean()["wa"] for result in baselines},
        label="WA: a dot a seed, their mean, 95 % interval over speakers",
    )
    with atomic_path(out / "ablation.png") as path:
        figure.savefig(path, format="png", dpi=130)
