"""Cells of the benchmark: one backbone on one task, corpus and protocol, in one JSON file.

N clips, D width, H hidden units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.atomic import atomic_path
from emotion2vec.benchmark.result_files import PASSING
from emotion2vec.metrics import recalls
from emotion2vec.probing.folds import Folds
from emotion2vec.probing.results import ProbeResult, Run
from emotion2vec.probing.tasks import Frames, Task, label_set

Cell = dict[str, Any]
"""What a file holds: how it was made, scores, every answer; see docs/benchmark.md."""


def cell_of(header: Mapping[str, Any], result: ProbeResult, folds: Folds, task: Task) -> Cell:
    """The header with what was found: scores, confusion, and every run's answers.

    Args:
        header: how it was made
        result: the runs
        folds: which they were made on
        task: what was predicted
    """
    labels = label_set(folds, task)
    scores: dict[str, Any] = {
        "pooled": dict(result.mean()),
        "fold_mean": dict(result.fold_mean()),
        "deviation_over_seeds": dict(result.deviation()),
        "interval_95": {name: list(result.interval(name)) for name in result.score_names},
    }
    found: Cell = {"labels": labels, "scores": scores}
    if task.kind == "classes":
        confusion = result.confusion(labels)
        scores["recall"] = recalls(confusion, labels)
        found["confusion"] = confusion.tolist()
    found["runs"] = [
        {
            "fold": run.fold,
            "seed": run.seed,
            "chosen": run.note,
            "scores": dict(result.scores([run])),
            "predictions": dict(zip(run.keys, run.prediction, strict=True)),
        }
        for run in result.runs
    ]
    for name in ("truth", "speakers"):
        found[name] = {
            key: value
            for run in result.runs
            for key, value in zip(run.keys, getattr(run, name), strict=True)
        }
    return {**header, **found}


def result_of(cell: Mapping[str, Any]) -> ProbeResult:
    """The runs that a cell was made of.

    Raises:
        KeyError: if it is none
    """
    truth, speakers = cell["truth"], cell["speakers"]
    runs = tuple(
        Run(
            fold=run["fold"],
            seed=run["seed"],
            keys=tuple(run["predictions"]),
            speakers=tuple(speakers[key] for key in run["predictions"]),
            truth=tuple(_answer(truth[key]) for key in run["predictions"]),
            prediction=tuple(map(_answer, run["predictions"].values())),
            note=run["chosen"],
        )
        for run in cell["runs"]
    )
    dimensions = () if "confusion" in cell else tuple(cell["labels"])
    return ProbeResult(cell["backbone"]["name"], runs, dimensions)


def _answer(value: Any) -> Any:
    return tuple(map(_answer, value)) if isinstance(value, list) else value


def read_cell(path: Path, header: Mapping[str, Any]) -> Cell | None:
    """The cell in a file, if it was made as the header says; None if it is to be made.

    Where and when it was made, with which versions, is not asked.
    """
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        made = {name: cell.get(name) for name in header if name not in PASSING}
    except (FileNotFoundError, ValueError, AttributeError):
        return None
    wanted = {name: value for name, value in header.items() if name not in PASSING}
    whole = {"scores", "runs", "truth", "speakers", "errors"} <= set(cell)
    return cell if whole and made == json.loads(json.dumps(wanted)) else None


def write_maps(path: Path, result: ProbeResult, folds: Folds, frames: Frames) -> None:
    """Write `raw` (N, D), `first_layer` (N, H) and `labels` (N,) of the first fold's test clips.

    `raw` is the mean over frames, as the backbone gives them; `first_layer`, which the paper's maps
    show, is there if the head has one. Labels are text.

    Raises:
        OSError: if the file cannot be written
    """
    first = result.runs[0]
    arrays: dict[str, NDArray[Any]] = {
        "raw": np.stack([mean_vector(frames[record.key]) for record in folds.folds[0].test]),
        "labels": np.array([str(said) for said in first.truth]),
    }
    if first.embeddings is not None:
        arrays["first_layer"] = first.embeddings
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def mean_vector(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean (D,) over frames (T, D); over layers, too, of (T, L, D).

    >>> mean_vector(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)).tolist()
    [2.0, 3.0]
    """
    return frames.reshape(-1, frames.shape[-1]).mean(axis=0)
