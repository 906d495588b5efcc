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
    scores = scores_of_counts(np.column_stack([matrix, support - matrix.sum(axis=1)]))
    return ClassificationScores(*(float(score) for score in scores.values()))


def scores_of_counts(matrices: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The scores (...) of counts (..., classes, classes + 1), by name, in their order.

    A class without support is left out.

    >>> float(scores_of_counts(np.array([[1, 0, 1], [0, 2, 0]]))["wa"])
    0.75
    """
    support = matrices.sum(axis=-1)
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    predicted = matrices[..., :-1].sum(axis=-2)
    clips, classes = support.sum(axis=-1), (support > 0).sum(axis=-1)
    recall = hits / support.clip(1)  # no hits without support: 0 adds nothing to the sums below
    f1 = 2 * hits / (support + predicted).clip(1)
    return {
        "wa": hits.sum(axis=-1) / clips,
        "ua": recall.sum(axis=-1) / classes,
        "wf1": (f1 * support).sum(axis=-1) / clips,
        "macro_f1": f1.sum(axis=-1) / classes,
    }


def recalls(matrix: NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    """The part of each class that is found, of counts whose rows are the truth.

    A class that the truth lacks has none, and is left out.

    >>> recalls(np.array([[3, 1], [0, 0]]), ["sad", "happy"])
    {'sad': 0.75}
    """
    support = matrix.sum(axis=1)
    return {name: float(matrix[i, i] / support[i]) for i, name in enumerate(classes) if support[i]}


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
    matrices = counts_by_group(truth, prediction, groups)
    drawn = draw_groups(len(matrices), draws, np.random.default_rng(seed))
    scores = scores_of_counts(np.tensordot(drawn, matrices, axes=1))[score]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def draw_groups(count: int, draws: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each of `count` groups is drawn with replacement, (draws, count).

    >>> draw_groups(3, 2, np.random.default_rng(0)).sum(axis=1).tolist()
    [3, 3]
    """
    return generator.multinomial(count, [1 / count] * count, size=draws)


def counts_by_group(
    truth: Sequence[Hashable], prediction: Sequence[Hashable], groups: Sequence[Hashable]
) -> NDArray[np.int64]:
    """Counts (groups, classes, classes + 1) over the classes of the truth, rows are the truth.

    The last column is for answers that are none of these; groups stand as they come.

    >>> counts_by_group(["a", "a"], ["a", "b"], ["s1", "s2"]).tolist()
    [[[1, 0]], [[0, 1]]]
    """
    classes = {name: i for i, name in enumerate(sorted(set(truth), key=str))}
    rows = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    matrices = np.zeros((len(rows), len(classes), len(classes) + 1), np.int64)
    for true, predicted, group in zip(truth, prediction, groups, strict=True):
        matrices[rows[group], classes[true], classes.get(predicted, -1)] += 1
    return matrices
