"""Scores of a classification, arrays in and numbers out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class ClassificationScores(NamedTuple):
    """Scores in [0, 1] over the classes that occur in the truth."""

    wa: float
    """weighted accuracy: the part that is right"""
    ua: float
    """unweighted accuracy: the mean of the classes' recalls"""
    wf1: float
    """F1 of each class, weighted by how often it occurs"""
    macro_f1: float
    """unweighted mean of the classes' F1"""


def classification_scores(
    truth: Sequence[Hashable], prediction: Sequence[Hashable]
) -> ClassificationScores:
    """WA, UA, WF1 and macro-F1.

    A class that the truth lacks has no recall and counts in no mean; one that is never predicted
    has recall and F1 of 0. So UA is scikit-learn's balanced accuracy, and both F1 are its
    `f1_score` with the labels of the truth.

    Args:
        truth: one label a clip
        prediction: one label a clip, same order

    Raises:
        ValueError: if the lengths differ or there is no clip

    Source: the paper's WA, UA and WF1 (section 4.2); EmoBox for macro-F1.

    >>> classification_scores(["sad", "sad", "happy"], ["sad", "happy", "happy"]).ua
    0.75
    """
    if len(truth) != len(prediction) or not len(truth):
        raise ValueError(
            f"truth has {len(truth)} labels and prediction {len(prediction)}; "
            "give one of each for every clip, and at least one."
        )
    classes = sorted(set(truth), key=str)
    matrix = confusion_matrix(truth, prediction, classes)
    # One more column for answers that are no class of the truth: each row then sums to its support.
    support = np.array([sum(label == name for label in truth) for name in classes])
    return _scores(np.column_stack([matrix, support - matrix.sum(axis=1)]))


def _scores(matrix: NDArray[np.int64]) -> ClassificationScores:
    """Return the scores of counts (classes, classes + 1); a class without support is left out."""
    present = matrix.sum(axis=1) > 0
    support = matrix.sum(axis=1)[present]
    hits = np.diagonal(matrix)[present]
    predicted = matrix[:, :-1].sum(axis=0)[present]
    recall = hits / support
    f1 = 2 * hits / (support + predicted)
    return ClassificationScores(
        wa=float(hits.sum() / support.sum()),
        ua=float(recall.mean()),
        wf1=float((f1 * support).sum() / support.sum()),
        macro_f1=float(f1.mean()),
    )


def confusion_matrix(
    truth: Sequence[Hashable], prediction: Sequence[Hashable], classes: Sequence[Hashable]
) -> NDArray[np.int64]:
    """Counts, (classes, classes): rows are the truth; predictions outside `classes` are left out.

    >>> confusion_matrix(["a", "b"], ["a", "a"], ["a", "b"]).tolist()
    [[1, 0], [1, 0]]
    """
    index = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for true, predicted in zip(truth, prediction, strict=True):
        if predicted in index:
            matrix[index[true], index[predicted]] += 1
    return matrix


def bootstrap_interval(
    truth: Sequence[Hashable],
    prediction: Sequence[Hashable],
    groups: Sequence[Hashable],
    *,
    score: str = "wa",
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a score when the groups (speakers) are drawn anew with replacement.

    Args:
        truth: one label a clip
        prediction: one label a clip
        groups: whom each clip belongs to; clips of one speaker are no independent evidence
        score: a field of `ClassificationScores`
        draws: resamples
        seed: of the draws

    >>> bootstrap_interval(["a", "b"] * 3, ["a", "b"] * 3, [1, 1, 2, 2, 3, 3])
    (1.0, 1.0)
    """
    classes = sorted(set(truth), key=str)
    counts: dict[Hashable, NDArray[np.int64]] = {}
    for true, predicted, group in zip(truth, prediction, groups, strict=True):
        matrix = counts.setdefault(group, np.zeros((len(classes), len(classes) + 1), np.int64))
        answer = classes.index(predicted) if predicted in classes else -1
        matrix[classes.index(true), answer] += 1
    matrices = np.stack(list(counts.values()))  # (groups, classes, classes + 1)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(matrices), [1 / len(matrices)] * len(matrices), size=draws)
    scores = [getattr(_scores(np.tensordot(times, matrices, axes=1)), score) for times in drawn]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
