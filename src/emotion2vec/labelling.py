"""Labels by a teacher for recordings that have none: what it is sure of in every view, balanced.

C classes, V views, S samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.batching import encode_records
from emotion2vec.conditions import keyed_generator
from emotion2vec.degradations import add_noise, change_speed, pink_noise, power, shorten
from emotion2vec.manifest import Record
from emotion2vec.recognize import Recognizer

View = Callable[[Waveform], Waveform]
Scores = NDArray[np.float32]


def _in_noise(clip: Waveform) -> Waveform:
    """Return the clip under pink noise at 15 dB, the same for all clips of a length."""
    if len(clip) < SAMPLE_RATE // 10 or not power(clip) > 0:
        return clip
    random = keyed_generator(0, "view", len(clip))
    return add_noise(clip, pink_noise(len(clip), random), 15.0)


def _middle(clip: Waveform) -> Waveform:
    """Return the middle three quarters of the clip, but at least 0.5 s."""
    return shorten(clip, max(0.5, 0.75 * len(clip) / SAMPLE_RATE))


VIEWS: dict[str, View] = {
    "whole": lambda clip: clip,
    "slower": partial(change_speed, speed=0.95),
    "faster": partial(change_speed, speed=1.05),
    "noise": _in_noise,
    "middle": _middle,
}
"""Ways to hear a clip that leave its emotion what it is."""


@dataclass(frozen=True)
class Opinion:
    """What a teacher thinks of one recording."""

    record: Record
    label: str = ""
    """likeliest over all views; empty where the recording could not be read"""
    scores: Mapping[str, float] | None = None
    """mean over the views of each label's probability"""
    agreement: float = 0.0
    """part of the views in which the label is the likeliest"""
    error: str = ""

    @property
    def score(self) -> float:
        """Mean probability of the label."""
        return self.scores[self.label] if self.scores else 0.0


def opinions(
    teacher: Recognizer,
    records: Sequence[Record],
    *,
    views: Sequence[str] = tuple(VIEWS),
    batch_seconds: float = 20.0,
    progress: bool = False,
) -> Iterator[Opinion]:
    """What the teacher thinks of each recording, in an order that batches well.

    Args:
        teacher: with labels, which are written as it shows them
        records: what is heard; their own labels are not looked at
        views: names in `VIEWS`
        batch_seconds: audio in a batch, views not counted
        progress: show a bar

    Raises:
        ValueError: for an unknown view, or a teacher without labels
    """
    unknown = [name for name in views if name not in VIEWS]
    if unknown or not views:
        raise ValueError(
            f"views has {unknown[0] if unknown else 'nothing'}; choose of {', '.join(VIEWS)}."
        )
    if not teacher.labels:
        raise ValueError("the teacher answers values, no labels; take a classifier of emotions.")

    def encode(clips: Sequence[Waveform]) -> list[Scores]:
        heard = [VIEWS[name](clip) for clip in clips for name in views]
        return list(teacher.scores(heard).reshape(len(clips), len(views), -1))

    for outcome in encode_records(
        records,
        encode,
        batch_seconds=batch_seconds,
        progress="labelling" if progress else "",
    ):
        record = records[outcome.position]
        if outcome.error:
            yield Opinion(record, error=outcome.error)
        else:
            yield _opinion(replace(record, duration=outcome.duration), outcome.value, teacher)


def _opinion(record: Record, scores: Scores, teacher: Recognizer) -> Opinion:
    """Return the opinion in the probabilities (V, C) of all views."""
    mean = scores.mean(axis=0, dtype=float)
    best = int(mean.argmax())
    return Opinion(
        record,
        teacher.labels[best],
        dict(zip(teacher.labels, map(float, mean), strict=True)),
        float((scores.argmax(axis=1) == best).mean()),
    )


@dataclass(frozen=True)
class Rules:
    """Which opinions become labels.

    Raises:
        ValueError: when made, if a number is out of its range
    """

    min_score: float = 0.6
    """mean probability of the label over the views, from 0 to 1"""
    min_agreement: float = 1.0
    """part of the views that must agree, from 0 to 1"""
    max_ratio: float = 3.0
    """clips of a class over those of the rarest one that has any; 0 does not balance"""
    drop: tuple[str, ...] = ("unknown", "other", "<unk>")
    """labels that are no emotion"""
    soft: bool = True
    """write the teacher's probabilities beside the label, as a soft target"""
    weigh: bool = False
    """let each recording count as much as its score"""

    def __post_init__(self) -> None:
        for name in ("min_score", "min_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a part, from 0 to 1.")
        if self.max_ratio and self.max_ratio < 1:
            raise ValueError(f"max_ratio is {self.max_ratio}; give 1 or more, or 0 for no balance.")


VERDICTS = ("kept", "unsure", "inconsistent", "dropped", "surplus", "unreadable")
"""What can become of a recording."""


def judge(found: Sequence[Opinion], rules: Rules) -> dict[str, str]:
    """By key, what becomes of each recording: one of `VERDICTS`.

    Of classes that come too often, the surest recordings are kept.

    >>> made = [Opinion(Record(str(i), "a.wav"), label, {label: 0.9}, 1.0)
    ...     for i, label in enumerate(["sad", "happy", "sad", "sad"])]
    >>> judge(made, Rules(max_ratio=2))
    {'0': 'kept', '1': 'kept', '2': 'kept', '3': 'surplus'}
    """
    verdicts = {opinion.record.key: _verdict(opinion, rules) for opinion in found}
    kept = [opinion for opinion in found if verdicts[opinion.record.key] == "kept"]
    counts = Counter(opinion.label for opinion in kept)
    most = rules.max_ratio * min(counts.values()) if rules.max_ratio and counts else len(found)
    taken: Counter[str] = Counter()
    for opinion in sorted(kept, key=lambda opinion: -opinion.score):
        taken[opinion.label] += 1
        if taken[opinion.label] > most:
            verdicts[opinion.record.key] = "surplus"
    return verdicts


def _verdict(opinion: Opinion, rules: Rules) -> str:
    if opinion.error:
        return "unreadable"
    if opinion.label in rules.drop:
        return "dropped"
    if opinion.score < rules.min_score:
        return "unsure"
    return "kept" if opinion.agreement >= rules.min_agreement else "inconsistent"


def labelled(opinion: Opinion, rules: Rules) -> Record:
    """The recording with the teacher's label, as fine-tuning reads it; other labels stay.

    >>> opinion = Opinion(Record("a", "a.wav"), "sad", {"sad": 0.75, "unknown": 0.25}, 1.0)
    >>> labelled(opinion, Rules()).scores
    {'sad': 1.0}
    """
    scores = {k: v for k, v in (opinion.scores or {}).items() if k not in rules.drop}
    total = sum(scores.values())
    return replace(
        opinion.record,
        labels={**opinion.record.labels, "emotion": opinion.label},
        scores={k: v / total for k, v in scores.items()} if rules.soft else {},
        weight=opinion.score if rules.weigh else 1.0,
    )
