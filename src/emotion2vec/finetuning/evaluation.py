"""What a classifier answers for recordings, and how good that is.

N recordings, C classes, K dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.batching import encode_records
from emotion2vec.calibration import expected_calibration_error, softmax
from emotion2vec.classifiers import Classifier
from emotion2vec.concordance import concordance, concordance_interval
from emotion2vec.finetuning.targets import Outputs
from emotion2vec.manifest import Record
from emotion2vec.metrics import (
    bootstrap_interval,
    classification_scores,
    confusion_matrix,
    recalls,
)

Numbers = NDArray[np.float64]


class Predictions(NamedTuple):
    """Answers beside what is true; recordings that could not be read are left out."""

    keys: tuple[str, ...]
    speakers: tuple[str, ...]
    """the key where nobody knows who speaks"""
    truth: tuple[str | None, ...]
    """the label, else the class that a teacher finds likeliest; None where there is neither"""
    logits: Numbers
    """(N, C)"""
    true_values: Numbers
    """(N, K), NaN where not known"""
    values: Numbers
    """(N, K)"""
    errors: Mapping[str, str] = {}

    @property
    def speakers_known(self) -> bool:
        """Whether somebody wrote down who speaks, in every recording."""
        return not set(self.speakers) & set(self.keys)

    def rows(self, outputs: Outputs) -> list[dict[str, Any]]:
        """One row a recording, for a file of JSON lines."""
        return [
            {
                "key": self.keys[i],
                "speaker": self.speakers[i],
                "truth": self.truth[i],
                "label": outputs.labels[int(self.logits[i].argmax())] if outputs.labels else None,
                "logits": self.logits[i].tolist(),
                "values": self.values[i].tolist(),
                "true_values": [None if np.isnan(v) else v for v in self.true_values[i].tolist()],
            }
            for i in range(len(self.keys))
        ]

    def tempered(self, temperature: float) -> Predictions:
        """The same over a temperature."""
        return self._replace(logits=self.logits / temperature)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]], outputs: Outputs) -> Predictions:
        """What `rows` gave."""
        true_values = [[np.nan if v is None else v for v in row["true_values"]] for row in rows]
        count = len(rows)
        return cls(
            tuple(row["key"] for row in rows),
            tuple(row["speaker"] for row in rows),
            tuple(row["truth"] for row in rows),
            np.reshape([row["logits"] for row in rows], (count, len(outputs.labels))),
            np.reshape(true_values, (count, len(outputs.dimensions))),
            np.reshape([row["values"] for row in rows], (count, len(outputs.dimensions))),
        )


def join(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several folds, one after the other."""
    errors = {key: error for part in parts for key, error in part.errors.items()}
    return Predictions(
        tuple(key for part in parts for key in part.keys),
        tuple(speaker for part in parts for speaker in part.speakers),
        tuple(label for part in parts for label in part.truth),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.true_values for part in parts]),
        np.concatenate([part.values for part in parts]),
        errors,
    )


def by_speaker(predictions: Predictions, most: int = 10) -> list[Predictions]:
    """The predictions in at most so many groups, all of a speaker in one."""
    speakers = {speaker: i for i, speaker in enumerate(dict.fromkeys(predictions.speakers))}
    groups = np.array([speakers[speaker] % most for speaker in predictions.speakers])
    return [
        _some(predictions, np.flatnonzero(groups == group).tolist())
        for group in range(min(most, len(speakers)))
    ]


def _some(predictions: Predictions, rows: list[int]) -> Predictions:
    return Predictions(
        tuple(predictions.keys[i] for i in rows),
        tuple(predictions.speakers[i] for i in rows),
        tuple(predictions.truth[i] for i in rows),
        predictions.logits[rows],
        predictions.true_values[rows],
        predictions.values[rows],
    )


def predict(
    classifier: Classifier,
    records: Sequence[Record],
    outputs: Outputs,
) -> Predictions:
    """What a classifier, in eval mode, answers for recordings, each as if it were alone."""

    def answer(clips: Any) -> list[tuple[Numbers, Numbers]]:
        found = classifier.answer(clips)
        return list(zip(found.logits.double().numpy(), found.values.double().numpy(), strict=True))

    found: dict[int, tuple[Numbers, Numbers]] = {}
    errors: dict[str, str] = {}
    for outcome in encode_records(records, answer, batch_seconds=60.0):
        if outcome.error:
            errors[records[outcome.position].key] = outcome.error
        else:
            found[outcome.position] = outcome.value
    places = sorted(found)
    kept = [records[i] for i in places]
    count = len(kept)
    true_values = [[float(r.labels.get(name, "nan")) for name in outputs.dimensions] for r in kept]
    return Predictions(
        tuple(r.key for r in kept),
        tuple(r.key if r.speaker is None else r.speaker for r in kept),
        tuple(_truth(r, outputs.labels) for r in kept),
        np.reshape([found[i][0] for i in places], (count, len(outputs.labels))),
        np.reshape(true_values, (count, len(outputs.dimensions))),
        np.reshape([found[i][1] for i in places], (count, len(outputs.dimensions))),
        errors,
    )


def _truth(record: Record, labels: Sequence[str]) -> str | None:
    scores = {name: record.scores.get(name, 0.0) for name in labels}
    if record.emotion:
        return record.emotion if record.emotion in labels else None
    return max(scores, key=scores.__getitem__) if any(scores.values()) else None


def score(found: Mapping[str, float]) -> float:
    """What epochs are chosen by, of `scores`: UA, the mean CCC, or the mean of both; in [-1, 1].

    >>> score({"wa": 0.5, "ua": 0.25, "ccc": 0.75})
    0.5
    """
    return float(np.mean([found[name] for name in ("ua", "ccc") if name in found] or [0.0]))


def scores(predictions: Predictions, outputs: Outputs) -> dict[str, float]:
    """WA, UA, WF1, macro-F1 and ECE of the classes, CCC of the values, by name."""
    found: dict[str, float] = {}
    truth, answers, rows = _classes(predictions, outputs)
    if truth:
        found |= classification_scores(truth, answers)._asdict()
        places = [outputs.labels.index(name) for name in truth]
        probabilities = softmax(predictions.logits[rows])
        found["ece"] = expected_calibration_error(probabilities, places)
    each = {}
    for name, truth_of, answered, _ in _values(predictions, outputs):
        each[f"ccc_{name}"] = concordance(truth_of, answered)
    if each:
        found |= {**each, "ccc": float(np.mean(list(each.values())))}
    return found


def details(predictions: Predictions, outputs: Outputs) -> dict[str, Any]:
    """Scores with 95 % intervals over speakers, recalls, confusion: what a card shows."""
    found: dict[str, Any] = {"clips": len(predictions.keys), "scores": scores(predictions, outputs)}
    found["speakers"] = len(set(predictions.speakers)) if predictions.speakers_known else None
    intervals: dict[str, tuple[float, float]] = {}
    truth, answers, rows = _classes(predictions, outputs)
    if truth:
        speakers = [predictions.speakers[i] for i in rows]
        for name in ("wa", "ua", "wf1", "macro_f1"):
            intervals[name] = bootstrap_interval(truth, answers, speakers, score=name)
        matrix = confusion_matrix(truth, answers, outputs.labels)
        found["recalls"] = recalls(matrix, outputs.labels)
        found["confusion"] = matrix.tolist()
    for name, true, answered, speakers in _values(predictions, outputs):
        intervals[f"ccc_{name}"] = concordance_interval(
            true[:, None], answered[:, None], speakers, [name]
        )
    found["intervals"] = intervals
    return found


def _classes(predictions: Predictions, outputs: Outputs) -> tuple[list[str], list[str], list[int]]:
    """Return what is true and what is answered of the recordings that have a class, and which."""
    if not outputs.labels:
        return [], [], []
    rows = [i for i, label in enumerate(predictions.truth) if label is not None]
    best = predictions.logits.argmax(axis=1)
    truth = [str(predictions.truth[i]) for i in rows]
    return truth, [outputs.labels[best[i]] for i in rows], rows


def _values(
    predictions: Predictions, outputs: Outputs
) -> Iterator[tuple[str, Numbers, Numbers, list[str]]]:
    """Yield, for each dimension that some recordings have, what is true, answered, and by whom."""
    for column, name in enumerate(outputs.dimensions):
        known = np.flatnonzero(~np.isnan(predictions.true_values[:, column]))
        if len(known):
            speakers = [predictions.speakers[row] for row in known]
            true, answered = predictions.true_values, predictions.values
            yield name, true[known, column], answered[known, column], speakers
