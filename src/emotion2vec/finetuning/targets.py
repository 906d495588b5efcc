"""What a model is to answer for each recording: classes, hard or soft, and values.

N recordings, C classes, K dimensions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.manifest import Record

UNKNOWN = "unknown"
"""The class of sound that is no speech, where `unknown_share` asks for it."""


class Outputs(NamedTuple):
    """What a model answers."""

    labels: tuple[str, ...]
    """C"""
    dimensions: tuple[str, ...]
    """K"""


class Targets(NamedTuple):
    """What is true, or what a teacher says, of N recordings."""

    classes: NDArray[np.float32]
    """(N, C); a row sums to 1, or to 0 where no class is known"""
    values: NDArray[np.float32]
    """(N, K); NaN where a value is not known"""
    weights: NDArray[np.float32]
    """(N,)"""


def outputs_of(records: Sequence[Record], config: FinetuneConfig) -> Outputs:
    """The classes and values that a model is to answer.

    Raises:
        ValueError: if a class or a value that is asked for has no recording, or fewer than two
            classes are left

    >>> clips = [Record("a", "a.wav", labels={"emotion": "sad"}), Record("b", "b.wav",
    ...     labels={"emotion": "happy"})]
    >>> outputs_of(clips, FinetuneConfig(unknown_share=0.1)).labels
    ('happy', 'sad', 'unknown')
    """
    if not config.classes:
        _check_dimensions(records, config.dimensions)
        return Outputs((), config.dimensions)
    counts = Counter(name for record in records for name in _classes_of(record))
    missing = [name for name in config.emotions if not counts[name] and name != UNKNOWN]
    if missing:
        raise ValueError(
            f"emotions asks for {missing[0]!r}, which no recording has; the data have "
            f"{', '.join(sorted(counts)) or 'none'}."
        )
    labels = config.emotions or tuple(sorted(counts))
    if config.unknown_share and UNKNOWN not in labels:
        labels = (*labels, UNKNOWN)
    _check_dimensions(records, config.dimensions)
    if len(labels) < 2:
        raise ValueError(
            f"the data have {len(labels)} emotion{'s' * (len(labels) != 1)} "
            f"({', '.join(labels) or 'none'}); a classifier needs two or more, give recordings "
            "labels (emotion) or scores."
        )
    return Outputs(labels, config.dimensions)


def _check_dimensions(records: Sequence[Record], dimensions: Sequence[str]) -> None:
    missing = [name for name in dimensions if not any(name in r.labels for r in records)]
    if missing:
        known = sorted({name for r in records for name in r.labels})
        raise ValueError(
            f"dimensions asks for {missing[0]!r}, which no recording has; the labels in the data "
            f"are {', '.join(known) or 'none'}."
        )


def _classes_of(record: Record) -> list[str]:
    named = [name for name, score in record.scores.items() if score > 0]
    return [*([record.emotion] if record.emotion else []), *named]


def targets_of(
    records: Sequence[Record], outputs: Outputs, *, soft_share: float = 0.5
) -> tuple[list[Record], Targets, dict[str, str]]:
    """The recordings that have a target, their targets, and by key why the others have none.

    Args:
        records: all
        outputs: what the model answers
        soft_share: weight of a teacher's scores beside the label, where there are both

    >>> clip = Record("a", "a.wav", scores={"happy": 0.6, "sad": 0.2})
    >>> _, targets, _ = targets_of([clip], Outputs(("happy", "sad"), ()))
    >>> targets.classes.round(2).tolist()
    [[0.75, 0.25]]
    """
    kept, classes, values, left_out = [], [], [], {}
    for record in records:
        row = _distribution(record, outputs.labels, soft_share)
        numbers, broken = _numbers(record, outputs.dimensions)
        if broken:
            left_out[record.key] = broken
        elif not row.any() and np.isnan(numbers).all():
            left_out[record.key] = _reason(record, outputs)
        else:
            kept.append(record)
            classes.append(row)
            values.append(numbers)
    targets = Targets(
        np.reshape(classes, (len(kept), len(outputs.labels))).astype(np.float32),
        np.reshape(values, (len(kept), len(outputs.dimensions))).astype(np.float32),
        np.array([record.weight for record in kept], np.float32),
    )
    return kept, targets, left_out


def _distribution(record: Record, labels: Sequence[str], soft_share: float) -> NDArray[np.float64]:
    """Return what is said of each class, (C,): a label, scores over those that are learned.

    All 0 where the label is another one, or where the scores lie mostly on others: what a teacher
    takes for something else is not to become a sure example of what is left.
    """
    hard = np.array([record.emotion == name for name in labels], float)
    soft = np.array([record.scores.get(name, 0.0) for name in labels], float)
    if record.emotion and not hard.any():
        return hard
    if not soft.any() or soft.sum() < 0.5 * sum(record.scores.values()):
        return hard
    soft /= soft.sum()
    return soft_share * soft + (1 - soft_share) * hard if hard.any() else soft


def _numbers(record: Record, dimensions: Sequence[str]) -> tuple[list[float], str]:
    """Return the values, NaN where there is none, and what is wrong with one."""
    found = []
    for name in dimensions:
        text = record.labels.get(name, "nan")
        try:
            found.append(float(text))
        except ValueError:
            return [], f"its {name} is {text!r}, no number; mend the list"
        if math.isinf(found[-1]):
            return [], f"its {name} is {text}; mend the list"
    return found, ""


def _reason(record: Record, outputs: Outputs) -> str:
    if record.emotion and outputs.labels:
        return f"its emotion {record.emotion!r} is none of {', '.join(outputs.labels)}"
    if any(record.scores.get(name) for name in outputs.labels):
        return f"most of its scores is of classes other than {', '.join(outputs.labels)}"
    wanted = [*(["emotion"] if outputs.labels else []), *outputs.dimensions]
    return f"it has no {' or '.join(wanted)}"


def class_weights(mass: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """The weight of each class in the loss, (C,); their mean over clips is 1.

    Args:
        mass: (C,), clips of each class
        kind: "none", or "balanced": all clips / (C * clips of the class)

    >>> class_weights(np.array([2, 2, 1, 3], np.float32), "balanced")[:3].tolist()
    [1.0, 1.0, 2.0]
    """
    weights = np.ones(len(mass), np.float32)
    if kind == "none":
        return weights
    present = mass > 0
    weights[present] = mass.sum() / (present.sum() * mass[present])
    return weights


def counts_by_class(records: Sequence[Record]) -> Mapping[str, int]:
    """How many recordings there are of each emotion, most first.

    >>> counts_by_class([Record("a", "a.wav", labels={"emotion": "sad"})])
    {'sad': 1}
    """
    counts = Counter(record.emotion for record in records if record.emotion)
    return dict(counts.most_common())
