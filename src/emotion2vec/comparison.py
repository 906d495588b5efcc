"""Two representations on the same clips: the difference of a score, its interval, its p-value.

What is known of the clips is summed up by group (speaker): clips of one speaker are no independent
evidence. R runs (seeds of a training), G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emotion2vec.concordance import scores_of_sums, sums_by_group
from emotion2vec.metrics import counts_by_group, draw_groups, scores_of_counts

Array = NDArray[Any]


class Difference(NamedTuple):
    """How much a second representation scores over a first."""

    mean: float
    """over runs"""
    interval_95: tuple[float, float]
    p: float
    """two-sided"""


def compare_classes(
    truth: Sequence[Hashable],
    first: Sequence[Sequence[Hashable]],
    second: Sequence[Sequence[Hashable]],
    groups: Sequence[Hashable],
    *,
    score: str = "wa",
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """How much `second` scores over `first` on the same clips, see `compare`.

    Args:
        truth: one label a clip
        first: for each run, one label a clip
        second: likewise, of the same runs in the same order
        groups: whom each clip belongs to
        score: a field of `emotion2vec.metrics.ClassificationScores`
        draws: resamples, and at most so many permutations
        seed: of the draws

    Raises:
        ValueError: if the numbers of runs differ or there is none

    >>> truth, groups = ["a", "b"] * 3, [1, 1, 2, 2, 3, 3]
    >>> compare_classes(truth, [["a"] * 6], [truth], groups)
    Difference(mean=0.5, interval_95=(0.5, 0.5), p=0.25)
    """
    one, other = ([counts_by_group(truth, run, groups) for run in runs] for runs in (first, second))
    return compare(one, other, lambda c: scores_of_counts(c)[score], draws=draws, seed=seed)


def compare_values(
    truth: ArrayLike,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    groups: Sequence[Hashable],
    names: Sequence[str],
    *,
    score: str = "ccc",
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """How much the CCC of `second` is over that of `first` on the same clips, see `compare`.

    Args:
        truth: (N, V) of clips or frames and values
        first: for each run (N, V)
        second: likewise, of the same runs in the same order
        groups: whom each row belongs to
        names: of the values, V
        score: a key of what `emotion2vec.concordance.concordance_scores` gives
        draws: resamples, and at most so many permutations
        seed: of the draws

    Raises:
        ValueError: if the numbers of runs differ or there is none

    >>> truth, groups = [[0], [1]] * 3, [1, 1, 2, 2, 3, 3]
    >>> compare_values(truth, [[[0]] * 6], [truth], groups, ["arousal"]).mean
    1.0
    """
    one, other = ([sums_by_group(truth, run, groups) for run in runs] for runs in (first, second))
    return compare(one, other, lambda s: scores_of_sums(s, names)[score], draws=draws, seed=seed)


def compare(
    first: Sequence[Array],
    second: Sequence[Array],
    score: Callable[[Array], Array],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """How much `second` scores over `first`, in pairs, the mean over runs.

    The interval: groups and runs are both drawn anew with replacement, the same ones for both
    sides. So what both find hard does not widen it, and what only another seed would show does.

    The p-value: if both were alike, each speaker's answers could as well have come from the other
    side. So the sides are exchanged speaker by speaker, all runs together, and p is the share of
    exchanges whose difference is at least as large, either way: of all of them where they are few,
    else of `draws` random ones and the one that was seen. With G speakers it is at least 2 / 2^G.

    Args:
        first: for each run, sums by group (G, ...)
        second: likewise, of the same runs and groups in the same order
        score: summed over groups (..., *) -> the score (...)
        draws: resamples, and at most so many exchanges
        seed: of the draws

    Raises:
        ValueError: if the numbers of runs differ or there is none

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapters 13 (intervals) and 15
    (permutation tests).
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"{len(first)} runs are compared with {len(second)}; give the same runs of both."
        )
    pairs = [np.stack(pair) for pair in zip(first, second, strict=True)]  # R of (2, G, ...)
    num_groups = len(first[0])

    def difference(chosen: Array) -> Array:
        """Return the difference in each run (draws, R) for weights of sides and groups."""
        found = []
        for sums in pairs:  # chosen: (draws, 2, G); a weight of the first side's group or second's
            one = np.tensordot(chosen, sums, axes=([1, 2], [0, 1]))
            other = np.tensordot(chosen[:, ::-1], sums, axes=([1, 2], [0, 1]))
            found.append(score(other) - score(one))
        return np.stack(found, axis=1)

    generator = np.random.default_rng(seed)
    by_group = draw_groups(num_groups, draws, generator)
    by_run = draw_groups(len(pairs), draws, generator) / len(pairs)
    resampled = difference(np.stack([by_group, 0 * by_group], axis=1))
    low, high = np.percentile((by_run * resampled).sum(axis=1), [2.5, 97.5])
    exchanged = _exchanges(num_groups, draws, generator)  # (E, G), the first is what was seen
    null = difference(np.stack([~exchanged, exchanged], axis=1).astype(int)).mean(axis=1)
    p = (np.abs(null) >= abs(null[0]) - 1e-12).mean()
    return Difference(float(null[0]), (float(low), float(high)), float(p))


def _exchanges(num_groups: int, draws: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return which groups change sides: none first, then all other ways or some of them."""
    if 2**num_groups <= draws:
        return np.array(list(product([False, True], repeat=num_groups)))
    drawn = generator.random((draws, num_groups)) < 0.5
    return np.concatenate([np.zeros((1, num_groups), bool), drawn])
