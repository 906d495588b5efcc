"""How far scores are probabilities: expected calibration error, and the temperature that mends it.

N clips, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of a temperature: beyond them something else is wrong."""


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C) over a temperature.

    >>> softmax([[0.0, 0.0]]).tolist()
    [[0.5, 0.5]]
    """
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return found


def expected_calibration_error(scores: ArrayLike, truth: ArrayLike, *, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy, in [0, 1]; 0 where scores are probabilities.

    Over equally wide bins of the highest score of each clip, weighed by their clips.

    Args:
        scores: (N, C), probabilities
        truth: (N,), the class of each clip
        bins: how many

    Raises:
        ValueError: if there is no clip

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.

    >>> expected_calibration_error([[0.75, 0.25]] * 4, [0, 0, 0, 1])
    0.0
    """
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth)
    if not len(truth):
        raise ValueError("there is no clip to measure calibration on; give one or more.")
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(places, confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


def fit_temperature(logits: ArrayLike, truth: ArrayLike) -> float:
    """The temperature that makes held-out clips likeliest: over 1 where a model is too sure.

    The most likely class of no clip changes.

    Args:
        logits: (N, C)
        truth: (N,), the class of each clip

    Raises:
        ValueError: if there is no clip

    Source: Guo et al. 2017, section 4.2, "temperature scaling".

    >>> fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]) > 3
    True
    """
    logits, truth = np.asarray(logits, np.float64), np.asarray(truth, int)
    if not len(truth):
        raise ValueError("there is no clip to fit a temperature on; give one or more.")

    def loss(log_temperature: float) -> float:
        chosen = softmax(logits, np.exp(log_temperature))[np.arange(len(truth)), truth]
        return float(-np.log(chosen.clip(1e-300)).mean())

    # Convex in 1 / temperature, so that there is one minimum: golden section finds it.
    low, high, ratio = np.log(LOWEST), np.log(HIGHEST), (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
