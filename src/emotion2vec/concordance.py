"""Agreement of numbers: the concordance correlation coefficient (CCC) and its intervals.

N clips or frames, V values (dimensions) of each.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def concordance(truth: ArrayLike, prediction: ArrayLike) -> float:
    """CCC in [-1, 1]: 1 only where both are equal, 0 where they have nothing in common.

    With population variances (divided by N). Where both are one and the same constant it is 1.

    Args:
        truth: (N,)
        prediction: (N,), same order

    Raises:
        ValueError: if the lengths differ or there is no value

    Source: Lin, 1989.

    >>> round(concordance([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), 3)
    0.571
    """
    return concordance_scores(np.reshape(truth, (-1, 1)), np.reshape(prediction, (-1, 1)), ["x"])[
        "ccc"
    ]


def concordance_scores(
    truth: ArrayLike, prediction: ArrayLike, names: Sequence[str]
) -> dict[str, float]:
    """CCC of each value, under "ccc_NAME", and their mean, under "ccc".

    Args:
        truth: (N, V)
        prediction: (N, V)
        names: of the values, V

    Raises:
        ValueError: if the shapes differ or there is no value

    >>> concordance_scores([[0, 1], [1, 2]], [[0, 1], [1, 2]], ["arousal", "valence"])
    {'ccc_arousal': 1.0, 'ccc_valence': 1.0, 'ccc': 1.0}
    """
    sums = sums_by_group(truth, prediction, ["all"] * len(np.asarray(truth)))
    return scores_of_sums(sums[0], names)


def concordance_interval(
    truth: ArrayLike,
    prediction: ArrayLike,
    groups: Sequence[Hashable],
    names: Sequence[str],
    *,
    score: str = "ccc",
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a score when the groups (speakers) are drawn anew with replacement.

    Args:
        truth: (N, V)
        prediction: (N, V)
        groups: whom each row belongs to
        names: of the values, V
        score: a key of what `concordance_scores` gives
        draws: resamples
        seed: of the draws

    >>> concordance_interval([[0], [1]] * 3, [[0], [1]] * 3, [1, 1, 2, 2, 3, 3], ["arousal"])
    (1.0, 1.0)
    """
    sums = sums_by_group(truth, prediction, groups)
    count = len(sums)
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=draws)
    scores = scores_of_sums(np.tensordot(drawn, sums, axes=1), names)[score]
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


def sums_by_group(
    truth: ArrayLike, prediction: ArrayLike, groups: Sequence[Hashable]
) -> NDArray[np.float64]:
    """What CCC needs of each group: sums of 1, x, y, x², y², xy, (groups, 6, V).

    x and y are counted from the mean of all x; groups stand as they come.

    Raises:
        ValueError: if the shapes differ or there is no value

    >>> sums_by_group([[1.0], [3.0]], [[1.0], [3.0]], ["s1", "s2"])[:, 1].tolist()
    [[-1.0], [1.0]]
    """
    x, y = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if x.shape != y.shape or not x.size:
        raise ValueError(
            f"truth has values of shape {x.shape} and prediction {y.shape}; "
            "give one of each for every clip, and at least one."
        )
    # Around the mean of all: differences of large sums of squares would lose digits.
    x, y = x - x.mean(axis=0), y - x.mean(axis=0)
    rows = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(rows), 6, x.shape[1]))
    terms = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    np.add.at(sums, [rows[group] for group in groups], terms)
    return sums


def _ccc(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return CCC (..., V) from sums (..., 6, V)."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -2, 0)
    x, y = x / n, y / n
    spread = (xx / n - x * x) + (yy / n - y * y) + (x - y) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        ccc = 2 * (xy / n - x * y) / spread
    return np.where(spread > 0, ccc, 1.0)


def scores_of_sums(sums: NDArray[np.float64], names: Sequence[str]) -> dict[str, Any]:
    """CCC of each value and their mean, (...), of sums (..., 6, V), by name.

    >>> scores_of_sums(sums_by_group([[1.0], [3.0]], [[1.0], [3.0]], "ab").sum(axis=0), ["arousal"])
    {'ccc_arousal': 1.0, 'ccc': 1.0}
    """
    values = _ccc(sums)
    found = {f"ccc_{name}": values[..., i] for i, name in enumerate(names)}
    found["ccc"] = values.mean(axis=-1)
    return {name: float(v) if v.ndim == 0 else v for name, v in found.items()}
