"""Heads that learned from recordings as they are, tested on recordings under conditions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.backbones import Backbone
from emotion2vec.benchmark.result_files import (
    corpus_digest,
    describe_folds,
    describe_scores,
    open_results,
    slug,
    stamp,
    write_results,
)
from emotion2vec.comparison import compare_classes, compare_values
from emotion2vec.conditions import Condition, parse_condition
from emotion2vec.frame_cache import cached_frames
from emotion2vec.probing.folds import Folds
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import FittedHeads, fit_fold, readable, runs_of
from emotion2vec.probing.results import ProbeResult, Run, joined
from emotion2vec.probing.tasks import TASKS, Frames, Task, label_set

CLEAN = parse_condition("clean")


def robustness(
    folds: Folds,
    backbone: Backbone,
    conditions: Sequence[Condition],
    out: str | Path,
    *,
    corpus: str,
    task: Task = TASKS["emotion"],
    head: HeadConfig | None = None,
    seeds: Sequence[int] = (0,),
    condition_seed: int = 0,
    layer: Any = None,
    command: Callable[[str], str] = str,
    progress: bool = False,
) -> dict[str, Any]:
    """Scores of heads under conditions that they have not heard in training.

    A head for each fold and seed is trained and chosen on recordings as they are, and answers the
    test part as it is and under each condition. The results are in one file, written after each
    condition: what stands there of the same run is not done again.

    Args:
        folds: the splits
        backbone: what makes the frames
        conditions: what the test parts go through
        out: folder of results; the file is `robustness/CORPUS/BACKBONE.HEAD.json` in it
        corpus: its name
        task: what is predicted, of whole recordings
        head: which head, and how it is trained; the backbone's own if None
        seeds: of the heads
        condition_seed: of what is random in the conditions
        layer: of the backbone, as it was asked for
        command: from names of conditions, commas between, to the command to be noted
        progress: show bars

    Returns:
        what is in the file: what was run, and under "conditions" the scores, clean ones first

    Raises:
        ValueError: as `emotion2vec.probing.tasks.label_set`; if a condition cannot be made here, a
            part cannot be read, or the file is of another run
    """
    names = label_set(folds, task)
    head = head or HeadConfig(backbone.default_head)
    path = Path(out) / "robustness" / corpus / f"{slug(backbone.name, head.name)}.json"
    _check(task, conditions)
    records = list({r.key: r for fold in folds.folds for part in fold for r in part}.values())
    frames, errors = cached_frames(records, backbone, progress=progress)
    folds = readable(folds, errors)
    header = stamp(backbone, head, seeds, layer=layer, command="") | {
        "task": task.name,
        "corpus": corpus,
        "corpus_digest": corpus_digest(records),
        "protocol": describe_folds(folds, task.selection),
        "labels": names,
        "condition_seed": condition_seed,
        "errors": errors,
    }
    values = open_results(path, header, rows="conditions")
    done = {row["identity"] for row in values["conditions"]}
    each = list(dict.fromkeys([CLEAN, *conditions]))
    todo = [c for c in each if c.identity(condition_seed) not in done]
    if not todo:
        return {**values, "command": command(_names(values))}
    heads = [fit_fold(f, frames, names, task=task, head=head, seeds=seeds) for f in folds.folds]
    scratch = path.with_suffix(".frames")
    trained = _Trained(folds, heads, backbone, frames, condition_seed, scratch, progress)
    for condition in todo:
        others = [old for old in values["conditions"] if old["name"] != condition.name]
        values["conditions"] = [*others, trained.test(condition)]
        values["command"] = command(_names(values))
        write_results(path, values)
        shutil.rmtree(scratch, ignore_errors=True)
    return values


def _names(values: Mapping[str, Any]) -> str:
    return ",".join(row["name"] for row in values["conditions"])


def _check(task: Task, conditions: Sequence[Condition]) -> None:
    """Show before the work what could not be done after it."""
    if task.turns or task.kind == "frame values":
        raise ValueError(
            f"the task {task.name} is not of single recordings; choose emotion, sentiment or "
            "dimensions."
        )
    second = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    for condition in conditions:
        condition.apply(second, "")


@dataclass(frozen=True)
class _Trained:
    """What is tested under every condition."""

    folds: Folds
    heads: Sequence[FittedHeads]
    """of each fold"""
    backbone: Backbone
    clean: Frames
    seed: int
    """of what is random in the conditions"""
    scratch: Path
    """Frames of thirty conditions would fill a disk: they are kept here only until the condition is
    written down, and after a kill."""
    progress: bool

    def test(self, condition: Condition) -> dict[str, Any]:
        """Return what is written down of a condition."""
        heard, errors = self._hear(condition)
        folds = readable(self.folds, errors)
        result = self._answers(folds, heard)
        return {
            "name": condition.name,
            "family": condition.family,
            "level": condition.level,
            "unit": condition.unit,
            "identity": condition.identity(self.seed),
            **describe_scores(result),
            "change": _change(self._answers(folds, self.clean), result),
            "errors": errors,
        }

    def _hear(self, condition: Condition) -> tuple[Frames, Mapping[str, str]]:
        """Return frames of the test parts, and by key the errors of those without."""
        if condition == CLEAN:
            return self.clean, {}
        return cached_frames(
            list({r.key: r for fold in self.folds.folds for r in fold.test}.values()),
            self.backbone,
            folder=self.scratch,
            condition=condition.identity(self.seed),
            transform=partial(condition.apply, seed=self.seed),
            progress=self.progress,
        )

    def _answers(self, folds: Folds, frames: Frames) -> ProbeResult:
        runs: list[Run] = []
        for number, (fold, heads) in enumerate(zip(folds.folds, self.heads, strict=True), start=1):
            runs += runs_of(fold, number, heads, frames)
        first = self.heads[0]
        return ProbeResult("", tuple(runs), tuple(first.outputs) * (first.task.kind == "values"))


def _change(clean: ProbeResult, changed: ProbeResult) -> dict[str, list[float]]:
    """Return how much the score changed on the same clips: difference, its 95 % interval, p."""
    truth, _, groups = joined([run for run in clean.runs if run.seed == clean.seeds[0]])
    before, after = (
        [joined([run for run in result.runs if run.seed == seed])[1] for seed in result.seeds]
        for result in (clean, changed)
    )
    if clean.dimensions:
        found = compare_values(truth, before, after, groups, clean.dimensions)
        return {"ccc": [found.mean, *found.interval_95, found.p]}
    found = compare_classes(truth, before, after, groups, score="ua")
    return {"ua": [found.mean, *found.interval_95, found.p]}
