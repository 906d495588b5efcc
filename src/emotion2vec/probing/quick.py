"""A probe that takes seconds: for an encoder in training, to see whether it still tells emotions.

N clips, D width, C classes.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.encoding import encode_clips
from emotion2vec.losses import effective_rank
from emotion2vec.manifest import Record
from emotion2vec.metrics import classification_scores
from emotion2vec.model import Emotion2vec
from emotion2vec.probing.folds import Folds, folds_by_speaker
from emotion2vec.probing.probe import without
from emotion2vec.probing.tasks import label_set

logger = logging.getLogger(__name__)

MAX_CLIPS = 240
MAX_SECONDS = 5.0
NUM_FOLDS = 4
PENALTY = 1.0
_BATCH_SECONDS = 60.0


class QuickProbe:
    """Called with an encoder: unweighted accuracy on speakers that the classifier has not heard.

    A linear classifier in closed form on each clip's mean over frames, in folds by speaker. At most
    240 clips, 5 s of each, the same ones every time, drawn evenly over emotions and speakers: two
    calls can be compared with each other, the number itself with nothing else. `emotion2vec probe`
    is the one for papers.

    Args:
        records: recordings with speaker and label "emotion"

    Raises:
        ValueError: if labels or speakers lack, or do not suffice for folds
    """

    def __init__(self, records: Sequence[Record]) -> None:
        label_set(_folds(records))  # says what is wrong with any of them, not only those chosen
        self.folds = _folds(choose(records, MAX_CLIPS))
        self.labels = label_set(self.folds)
        self._clips: dict[str, Waveform] = {}

    def __call__(self, encoder: Emotion2vec) -> dict[str, float]:
        """UA and chance in percent, and the effective rank of the features (N, D).

        The encoder is as it was afterwards, and nothing is drawn.

        Raises:
            ValueError: if the recordings cannot be read (the first time), or features are NaN
        """
        if not self._clips:
            self._read()
        modes = {module: module.training for module in encoder.modules()}
        try:
            features = self._encode(encoder.eval())
        finally:
            for module, trains in modes.items():
                module.training = trains
        rank = float(effective_rank(torch.stack(list(features.values()))))
        if math.isnan(rank):
            raise ValueError("the encoder's features are not finite; the run has diverged.")
        truth: list[str] = []
        answers: list[str] = []
        for fold in self.folds.folds:
            fitted_on = fold.seen
            classes = torch.tensor([self.labels.index(str(r.emotion)) for r in fitted_on])
            found = classify(
                torch.stack([features[r.key] for r in fitted_on]),
                classes,
                torch.stack([features[r.key] for r in fold.test]),
            )
            answers += [self.labels[i] for i in found.tolist()]
            truth += [str(r.emotion) for r in fold.test]
        return {
            "ua": 100 * classification_scores(truth, answers).ua,
            "chance": 100 / len(self.labels),
            "clip_rank": rank,
        }

    def _read(self) -> None:
        """Load the clips; those that cannot be read are left out."""
        errors = {}
        for fold in self.folds.folds:
            for record in fold.test:  # every clip is tested once
                try:
                    self._clips[record.key] = record.load()[: int(MAX_SECONDS * SAMPLE_RATE)]
                except (OSError, ValueError) as error:
                    errors[record.key] = str(error)
                    logger.warning("left out of the quick probe: %s", error)
        if errors:
            self.folds = without(self.folds, errors)

    def _encode(self, encoder: Emotion2vec) -> dict[str, Tensor]:
        """Return each clip's mean over frames, (D,), float64."""
        keys = sorted(self._clips, key=lambda key: len(self._clips[key]))
        longest = len(self._clips[keys[-1]]) / SAMPLE_RATE
        size = max(1, int(_BATCH_SECONDS / longest))
        found = {}
        for start in range(0, len(keys), size):
            batch = keys[start : start + size]
            for key, encoded in zip(
                batch, encode_clips(encoder, [self._clips[k] for k in batch]), strict=True
            ):
                found[key] = torch.from_numpy(encoded.frames.mean(axis=0, dtype=np.float64))
        return found


def choose(records: Sequence[Record], count: int, *, seed: int = 0) -> list[Record]:
    """At most `count` records, as many of each emotion, of each emotion from as many speakers.

    >>> clips = [Record(f"{s}{e}{i}", "a.wav", speaker=s, labels={"emotion": e})
    ...          for s in "ab" for e in ("sad", "happy") for i in range(9)]
    >>> sorted((r.emotion, r.speaker) for r in choose(clips, 4))
    [('happy', 'a'), ('happy', 'b'), ('sad', 'a'), ('sad', 'b')]
    """
    order = np.random.default_rng(seed).permutation(len(records))
    taken: Counter[tuple[str | None, str | None]] = Counter()
    rounds: list[tuple[int, Record]] = []
    for record in (records[i] for i in order):
        taken[record.emotion, record.speaker] += 1
        rounds.append((taken[record.emotion, record.speaker], record))
    rounds.sort(key=lambda item: item[0])  # first one of each speaker, then a second, ...
    emotions = sorted({str(record.emotion) for record in records})
    of_each = {e: [r for _, r in rounds if str(r.emotion) == e] for e in emotions}
    return [r for e in emotions for r in of_each[e][: max(1, count // len(emotions))]]


def classify(train: Tensor, classes: Tensor, test: Tensor, *, penalty: float = PENALTY) -> Tensor:
    """Classes (M,) of test vectors by ridge regression on the training vectors' classes.

    In closed form; every class weighs the same. One scale for all channels, not one for each: what
    varies little then counts little, as in the paper's probe. With a scale for each, features that
    all but lie on a line score as well as healthy ones.

    Args:
        train: (N, D), float64
        classes: (N,), integers from 0, each at least once
        test: (M, D)
        penalty: of squared weights, where the channels' mean variance is 1

    >>> train = torch.tensor([[0.0], [1.0], [4.0], [5.0]]).double()
    >>> classify(train, torch.tensor([0, 0, 1, 1]), torch.tensor([[0.4], [4.6]]).double()).tolist()
    [0, 1]
    """
    answers = F.one_hot(classes).double()  # (N, C)
    weights = (1 / answers.sum(dim=0))[classes].unsqueeze(1)
    weights = weights / weights.sum()
    mean = (weights * train).sum(dim=0)
    scale = (weights * (train - mean).square()).sum(dim=0).mean().sqrt().clamp_min(1e-9)
    x, y = (train - mean) / scale, answers - (weights * answers).sum(dim=0)
    products = x.T @ (weights * x)
    products.diagonal().add_(penalty)
    return ((test - mean) / scale @ torch.linalg.solve(products, x.T @ (weights * y))).argmax(1)


def _folds(records: Sequence[Record]) -> Folds:
    speakers = {record.speaker for record in records}
    return folds_by_speaker(records, min(NUM_FOLDS, len(speakers)))
