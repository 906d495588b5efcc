"""What every number stands beside: answers that need no representation of emotion."""

from __future__ import annotations

from collections import Counter

from emotion2vec.probing.folds import Folds
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import probe
from emotion2vec.probing.results import ProbeResult, run_of
from emotion2vec.probing.tasks import TASKS, Frames, Task, label_set


def constant_baseline(folds: Folds, *, task: Task = TASKS["emotion"]) -> ProbeResult:
    """What always giving the training part's most frequent class would score."""
    label_set(folds, task)
    (label,) = task.labels
    runs = []
    for number, fold in enumerate(folds.folds, start=1):
        counts = Counter(r.labels[label] for r in (*fold.train, *fold.valid))
        # Of equally frequent ones the first by name, so that a rerun answers the same.
        answer = min(counts, key=lambda name: (-counts[name], name))
        truth = [r.labels[label] for r in fold.test]
        runs.append(run_of(fold, number, 0, truth, [answer] * len(truth), answer))
    return ProbeResult("constant", tuple(runs))


def statistics_baseline(
    folds: Folds, frames: Frames, name: str, *, task: Task = TASKS["emotion"]
) -> ProbeResult:
    """A regularized linear model on mean and standard deviation over time of hand-made frames.

    Needs scikit-learn; see `emotion2vec.probing.statistics`.
    """
    return probe(folds, name, frames, task=task, head=HeadConfig("logistic"))
