"""What a probe found: runs of one representation over folds and seeds, and their scores.

N clips, H hidden units of the probe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.concordance import concordance_interval, concordance_scores
from emotion2vec.metrics import bootstrap_interval, classification_scores, confusion_matrix
from emotion2vec.probing.folds import Fold
from emotion2vec.probing.tasks import Answer

Scores = Mapping[str, float]
"""By name: wa, ua, wf1, macro_f1 of classes; ccc_NAME and ccc of values"""


@dataclass(frozen=True)
class Run:
    """One fold tested with one seed."""

    fold: int
    """from 1"""
    seed: int
    keys: tuple[str, ...]
    speakers: tuple[str | None, ...]
    truth: tuple[Answer, ...]
    prediction: tuple[Answer, ...]
    note: str = ""
    """what was chosen on the validation part"""
    embeddings: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(N, H), the probe's first layer, which the paper's maps show; None without one"""


def run_of(
    fold: Fold,
    number: int,
    seed: int,
    truth: Sequence[Answer],
    prediction: Sequence[Answer],
    note: str = "",
    embeddings: NDArray[np.float32] | None = None,
) -> Run:
    """The run of a fold's test part, clip by clip in its order."""
    return Run(
        fold=number,
        seed=seed,
        keys=tuple(r.key for r in fold.test),
        speakers=tuple(r.speaker for r in fold.test),
        truth=tuple(truth),
        prediction=tuple(prediction),
        note=note,
        embeddings=embeddings,
    )


@dataclass(frozen=True)
class ProbeResult:
    """All runs of one representation, in order of fold, then seed."""

    name: str
    runs: tuple[Run, ...]
    dimensions: tuple[str, ...] = ()
    """names of the values, where values are predicted"""

    @property
    def seeds(self) -> list[int]:
        """The seeds that were run."""
        return sorted({run.seed for run in self.runs})

    @property
    def score_names(self) -> list[str]:
        """The scores there are, the first of them the one to look at first."""
        if self.dimensions:
            return ["ccc", *(f"ccc_{name}" for name in self.dimensions)]
        return ["wa", "ua", "wf1", "macro_f1"]

    def scores(self, runs: Sequence[Run]) -> Scores:
        """Scores over the test clips of some runs together."""
        truth, prediction, _ = joined(runs)
        if self.dimensions:
            return concordance_scores(truth, prediction, self.dimensions)
        return classification_scores(truth, prediction)._asdict()

    def pooled(self, seed: int) -> Scores:
        """Scores over the test clips of all folds together, with one seed."""
        return self.scores([run for run in self.runs if run.seed == seed])

    def mean(self) -> Scores:
        """The mean over seeds of the pooled scores."""
        return self._over_seeds(np.mean)

    def deviation(self) -> Scores:
        """The standard deviation over seeds of the pooled scores; 0 with one seed."""
        # From the first one: equal scores then deviate by 0, not by what sums are rounded to.
        return self._over_seeds(lambda scores: np.std(np.subtract(scores, scores[0])))

    def fold_mean(self) -> Scores:
        """The mean over folds and seeds of each fold's scores, as some papers report."""
        scores = [self.scores([run]) for run in self.runs]
        return {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}

    def _over_seeds(self, summary: Callable[[list[float]], Any]) -> Scores:
        pooled = [self.pooled(seed) for seed in self.seeds]
        return {name: float(summary([s[name] for s in pooled])) for name in pooled[0]}

    def interval(self, score: str | None = None) -> tuple[float, float]:
        """95 % interval of a pooled score over speakers (clips, where speakers are not known)."""
        score = score or self.score_names[0]
        truth, prediction, groups = joined(self.runs)
        if self.dimensions:
            return concordance_interval(truth, prediction, groups, self.dimensions, score=score)
        return bootstrap_interval(truth, prediction, groups, score=score)

    def confusion(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Counts over all runs, rows are the truth."""
        truth, prediction, _ = joined(self.runs)
        return confusion_matrix(truth, prediction, labels)


def joined(runs: Sequence[Run]) -> tuple[list[Any], list[Any], list[str]]:
    """Return truth, answers and speakers (keys, if not known) of runs; of frames, all of them."""
    truth: list[Any] = []
    prediction: list[Any] = []
    groups: list[str] = []
    for run in runs:
        for true, said, speaker, key in zip(
            run.truth, run.prediction, run.speakers, run.keys, strict=True
        ):
            group = speaker if speaker is not None else key
            if isinstance(true, tuple) and isinstance(true[0], tuple):  # a row for each frame
                truth += true
                prediction += said
                groups += [group] * len(true)
            else:
                truth.append(true)
                prediction.append(said)
                groups.append(group)
    return truth, prediction, groups
