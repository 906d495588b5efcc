"""What every number stands beside: answers that need no representation of emotion."""

from __future__ import annotations

import importlib.util
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.backbones import load_backbone
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Folds
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import extract_frames, probe
from emotion2vec.probing.results import ProbeResult, run_of
from emotion2vec.probing.tasks import TASKS, Answer, Frames, Task, label_set, truth

FRAMES_A_SECOND = 50
"""Of values told by frame, where there are no features to say how many frames there are."""


def constant_baseline(folds: Folds, *, task: Task = TASKS["emotion"]) -> ProbeResult:
    """What one answer would score: training's most frequent class, or its mean values."""
    return _answered(folds, task, "constant", lambda record: "all")


def speaker_baseline(folds: Folds, *, task: Task = TASKS["emotion"]) -> ProbeResult:
    """What knowing the speaker alone would score.

    Each clip is given its speaker's most frequent class in training (mean values), or the constant
    answer where the speaker was not trained on, as is everyone on folds that keep speakers apart.
    Where it scores high, so can any representation of voices.
    """
    return _answered(folds, task, "speaker-only", lambda record: record.speaker)


def _answered(
    folds: Folds, task: Task, name: str, group_of: Callable[[Record], str | None]
) -> ProbeResult:
    """Give each clip the answer of its group in training, or that of all training clips."""
    names = label_set(folds, task)
    runs = []
    for number, fold in enumerate(folds.folds, start=1):
        of_groups = defaultdict(list)
        for record in fold.seen:
            of_groups[group_of(record)].append(_truth(task, record, names))
        everything = _typical([said for group in of_groups.values() for said in group])
        typical = {group: _typical(said) for group, said in of_groups.items() if group is not None}
        truths = [_truth(task, record, names) for record in fold.test]
        answers = [
            _shaped(typical.get(group_of(record) or "", everything), said)
            for record, said in zip(fold.test, truths, strict=True)
        ]
        note = everything if isinstance(everything, str) else ""
        runs.append(run_of(fold, number, 0, truths, answers, note))
    return ProbeResult(name, tuple(runs), () if task.kind == "classes" else tuple(names))


def _truth(task: Task, record: Record, names: Sequence[str]) -> Any:
    num_frames = 0
    if task.kind == "frame values":
        num_frames = max(1, record.num_samples() * FRAMES_A_SECOND // SAMPLE_RATE)
    return truth(task, record, names, num_frames)


def _typical(answers: Sequence[Any]) -> Any:
    """Return the most frequent class, the first by name of equals; or the mean values."""
    if isinstance(answers[0], str):
        counts = Counter(answers)
        return min(counts, key=lambda name: (-counts[name], name))
    return tuple(np.concatenate([np.atleast_2d(each) for each in answers]).mean(axis=0).tolist())


def _shaped(typical: Any, said: Any) -> Answer:
    """Return the answer, of frame values as often as the truth has frames."""
    if isinstance(said, tuple) and isinstance(said[0], tuple):
        return (typical,) * len(said)
    return typical


def statistics_baseline(
    folds: Folds, frames: Frames, name: str, *, task: Task = TASKS["emotion"]
) -> ProbeResult:
    """A regularized linear model on mean and standard deviation over time of hand-made frames.

    Needs scikit-learn; see `emotion2vec.probing.statistics`.
    """
    return probe(folds, name, frames, task=task, head=HeadConfig("logistic"))


def plain_baselines(folds: Folds, *, progress: bool = False) -> list[ProbeResult]:
    """What needs no encoder: log-mel statistics and the answer that is most frequent in training.

    Logistic regression on log-mel statistics only where scikit-learn is installed.
    """
    results = []
    if importlib.util.find_spec("sklearn"):
        frames, _ = extract_frames(folds, load_backbone("logmel"), progress=progress)
        results.append(statistics_baseline(folds, frames, "log-mel statistics"))
    return [*results, constant_baseline(folds)]
