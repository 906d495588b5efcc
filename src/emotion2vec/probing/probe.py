"""The paper's linear probe over folds and seeds, and the baselines beside it.

N clips, D width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion2vec.backbones import Backbone
from emotion2vec.extract import extract
from emotion2vec.manifest import Record
from emotion2vec.metrics import (
    ClassificationScores,
    bootstrap_interval,
    classification_scores,
    confusion_matrix,
)
from emotion2vec.probing.folds import Fold, Folds, check_parts
from emotion2vec.probing.heads import FrameSet, HeadConfig, embed, fit_probe, predict


@dataclass(frozen=True)
class Run:
    """One fold tested with one seed."""

    fold: int
    """from 1"""
    seed: int
    keys: tuple[str, ...]
    speakers: tuple[str | None, ...]
    truth: tuple[str, ...]
    prediction: tuple[str, ...]
    note: str = ""
    """what was chosen on the validation part"""
    embeddings: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(clips, hidden), the probe's first layer, which the paper's maps show; None without one"""

    @property
    def scores(self) -> ClassificationScores:
        """Scores on this fold's test part."""
        return classification_scores(self.truth, self.prediction)


@dataclass(frozen=True)
class ProbeResult:
    """All runs of one representation, in order of seed, then fold."""

    name: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """The seeds that were run."""
        return sorted({run.seed for run in self.runs})

    def pooled(self, seed: int) -> ClassificationScores:
        """Scores over the test clips of all folds together, with one seed."""
        truth, prediction = self._joined([run for run in self.runs if run.seed == seed])
        return classification_scores(truth, prediction)

    def mean(self) -> ClassificationScores:
        """The mean over seeds of the pooled scores."""
        return ClassificationScores(*np.mean([self.pooled(seed) for seed in self.seeds], axis=0))

    def deviation(self) -> ClassificationScores:
        """The standard deviation over seeds of the pooled scores; 0 with one seed."""
        return ClassificationScores(*np.std([self.pooled(seed) for seed in self.seeds], axis=0))

    def interval(self, score: str = "wa") -> tuple[float, float]:
        """95 % interval of a pooled score over speakers (clips, where speakers are not known)."""
        truth, prediction = self._joined(self.runs)
        groups = [
            speaker if speaker is not None else key
            for run in self.runs
            for speaker, key in zip(run.speakers, run.keys, strict=True)
        ]
        return bootstrap_interval(truth, prediction, groups, score=score)

    def confusion(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Counts over all runs, rows are the truth."""
        return confusion_matrix(*self._joined(self.runs), labels)

    @staticmethod
    def _joined(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
        truth = [label for run in runs for label in run.truth]
        return truth, [label for run in runs for label in run.prediction]


def label_set(folds: Folds) -> list[str]:
    """The emotions in the folds, sorted.

    Raises:
        ValueError: if a recording has no emotion, or a fold tests one that it does not train on
    """
    for number, fold in enumerate(folds.folds, start=1):
        bare = [r.key for part in fold for r in part if r.emotion is None]
        if bare:
            raise ValueError(
                f"{len(bare)} recordings have no label 'emotion', such as {bare[0]!r}; "
                "add it to the manifest or leave them out."
            )
        known = {r.emotion for r in fold.train}
        unknown = sorted({str(r.emotion) for r in (*fold.valid, *fold.test)} - known)
        if unknown:
            raise ValueError(
                f"fold {number} tests the label {unknown[0]!r}, which its training part lacks "
                f"(it has {', '.join(sorted(map(str, known)))}); mend the label or the folds."
            )
    return sorted({str(r.emotion) for fold in folds.folds for part in fold for r in part})


Frames = Mapping[str, NDArray[np.float32]]
"""(T, D) by key"""


def extract_frames(
    folds: Folds, backbone: Backbone, *, progress: bool = False
) -> tuple[Frames, dict[str, str]]:
    """Frames by key of all recordings in the folds, and the errors of those without."""
    records = {r.key: r for fold in folds.folds for part in fold for r in part}
    frames, errors = {}, {}
    for features in extract(list(records.values()), backbone, progress=progress):
        if features.values is None:
            errors[features.key] = features.error
        else:
            frames[features.key] = features.values
    return frames, errors


def without(folds: Folds, keys: Collection[str]) -> Folds:
    """The folds without some recordings, such as those that could not be read.

    Raises:
        ValueError: if a part is empty then
    """
    kept = [
        Fold(*(tuple(r for r in part if r.key not in keys) for part in fold))
        for fold in folds.folds
    ]
    return folds._replace(folds=tuple(check_parts(fold) for fold in kept))


def probe(
    folds: Folds,
    name: str,
    frames: Frames,
    *,
    head: HeadConfig | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool = False,
) -> ProbeResult:
    """The paper's probe on frozen frames: fitted on train, epoch chosen on valid, run on test.

    Args:
        folds: the splits
        name: what the frames come from
        frames: (T, D) by key, of every recording in the folds
        head: how the probe is trained
        seeds: of the probe's weights and the order of the clips
        progress: show a bar

    Raises:
        ValueError: as `label_set`

    Source: paper section 4.2.
    """
    labels = label_set(folds)
    runs = []
    todo = [(seed, i, fold) for seed in seeds for i, fold in enumerate(folds.folds, start=1)]
    for seed, number, fold in tqdm(todo, f"probing ({name})", disable=not progress):
        train, valid, test = (frame_set(part, frames, labels) for part in fold)
        fitted = fit_probe(train, valid, len(labels), config=head, seed=seed)
        predicted = [labels[i] for i in predict(fitted.probe, test)]
        run = _run(number, seed, fold, predicted, f"epoch {fitted.epoch}")
        runs.append(replace(run, embeddings=embed(fitted.probe, test)))
    return ProbeResult(name, tuple(runs))


def frame_set(part: Sequence[Record], frames: Frames, labels: Sequence[str]) -> FrameSet:
    """The part's frames, joined, with the index of each clip's emotion in `labels`."""
    return FrameSet.from_clips(
        [frames[r.key] for r in part], [labels.index(str(r.emotion)) for r in part]
    )


def constant_baseline(folds: Folds) -> ProbeResult:
    """What always answering the training part's most frequent emotion would score."""
    label_set(folds)
    runs = []
    for number, fold in enumerate(folds.folds, start=1):
        counts = Counter(str(r.emotion) for r in (*fold.train, *fold.valid))
        # Of equally frequent ones the first by name, so that a rerun answers the same.
        answer = min(counts, key=lambda label: (-counts[label], label))
        runs.append(_run(number, 0, fold, [answer] * len(fold.test), answer))
    return ProbeResult("constant", tuple(runs))


def statistics_baseline(folds: Folds, frames: Frames, name: str) -> ProbeResult:
    """Logistic regression on mean and standard deviation over time of hand-made frames.

    Standardized; the strength of the penalty is chosen by cross-validation over the speakers of
    the training and validation parts together. Needs scikit-learn.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def summarize(part: Sequence[Record]) -> NDArray[np.float32]:
        return np.stack(
            [np.concatenate([frames[r.key].mean(0), frames[r.key].std(0)]) for r in part]
        )

    label_set(folds)
    runs = []
    for number, fold in enumerate(folds.folds, start=1):
        fitted_on = (*fold.train, *fold.valid)
        groups = [r.speaker if r.speaker is not None else r.key for r in fitted_on]
        search = GridSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
            {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]},
            cv=GroupKFold(min(4, len(set(groups)))),
        )
        search.fit(summarize(fitted_on), [str(r.emotion) for r in fitted_on], groups=groups)
        predicted = [str(label) for label in search.predict(summarize(fold.test))]
        penalty = search.best_params_["logisticregression__C"]
        runs.append(_run(number, 0, fold, predicted, f"C {penalty}"))
    return ProbeResult(name, tuple(runs))


def _run(number: int, seed: int, fold: Fold, predicted: Sequence[str], note: str) -> Run:
    return Run(
        fold=number,
        seed=seed,
        keys=tuple(r.key for r in fold.test),
        speakers=tuple(r.speaker for r in fold.test),
        truth=tuple(str(r.emotion) for r in fold.test),
        prediction=tuple(predicted),
        note=note,
    )
