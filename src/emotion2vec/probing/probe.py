"""Heads on frozen frames over folds and seeds: fitted on train, chosen on validation, tested.

N clips, T frames of a clip, D width, R runs (seeds), C classes or values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from emotion2vec.backbones import Backbone
from emotion2vec.encoding import default_device
from emotion2vec.extract import extract
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Fold, Folds, check_parts
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.results import ProbeResult, Run, run_of
from emotion2vec.probing.statistics import chosen, fit_statistics, summarize
from emotion2vec.probing.tasks import TASKS, Answer, Frames, Task, label_set, truth
from emotion2vec.probing.training import ClipSet, Fitted, fit_heads, predict


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


def readable(folds: Folds, errors: Mapping[str, str]) -> Folds:
    """The folds without the recordings that have an error.

    Raises:
        ValueError: if a part is empty then; the message shows the first error
    """
    try:
        return without(folds, errors)
    except ValueError as error:
        reason = next(iter(errors.values()))
        raise ValueError(f"{error} {len(errors)} could not be read: {reason}") from error


@dataclass(frozen=True)
class FittedHeads:
    """Heads trained on one fold, one for each seed, ready for clips of any origin."""

    task: Task
    outputs: Sequence[str]
    """the classes, or the names of the values"""
    seeds: Sequence[int]
    notes: Sequence[str]
    """for each seed, what was chosen on the validation part"""
    fitted: Sequence[Fitted]
    """trained heads; none where a search over statistics was fitted"""
    search: Any = None
    scale: tuple[Tensor, Tensor] = (torch.zeros(1), torch.ones(1))
    """mean and standard deviation (C,) of the training part's values"""

    def answers(self, clips: Sequence[NDArray[np.float32]]) -> list[list[Answer]]:
        """For each seed, what is said of each clip (T, D)."""
        if self.search is not None:
            found = self.search.predict(summarize(clips))
            classes = self.task.kind == "classes"
            one = [str(a) if classes else tuple(np.atleast_1d(a).tolist()) for a in found]
            return [one for _ in self.seeds]
        given = torch.cat([predict(each.head, clips) for each in self.fitted], dim=1)  # (N, R, C)
        if self.task.kind == "classes":
            return [[self.outputs[i] for i in run] for run in given.argmax(dim=2).T.tolist()]
        values = (given * self.scale[1] + self.scale[0]).transpose(0, 1)
        if self.task.kind == "values":
            return [[tuple(row) for row in run] for run in values.tolist()]
        lengths = [len(clip) for clip in clips]
        return [[tuple(map(tuple, clip.tolist())) for clip in run.split(lengths)] for run in values]

    def embed(self, clips: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32] | None]:
        """For each seed, the first layer of each clip, (N, H); None of heads without such a one."""
        if not self.fitted or not hasattr(self.fitted[0].head, "embed"):
            return [None for _ in self.seeds]
        given = torch.cat([predict(each.head, clips, embed=True) for each in self.fitted], dim=1)
        return list(given.transpose(0, 1).numpy())


def fit_fold(
    fold: Fold,
    frames: Frames,
    names: Sequence[str],
    *,
    task: Task = TASKS["emotion"],
    head: HeadConfig | None = None,
    seeds: Sequence[int] = (0,),
) -> FittedHeads:
    """Heads fitted on the fold's training part, the epoch of each chosen on its validation part.

    The head "logistic" is fitted on both parts, with a search over speakers within; it draws
    nothing, so that all seeds answer the same.

    Args:
        fold: its test part is not looked at
        frames: (T, D) by key, of the recordings to fit and to choose on
        names: classes or values, as `emotion2vec.probing.tasks.label_set` gives them
        task: what is predicted
        head: which head, and how it is trained
        seeds: of the heads' weights
    """
    head = head or HeadConfig(name=task.head)
    if head.name == "logistic":
        records = fold.seen
        groups = [r.speaker if r.speaker is not None else r.key for r in records]
        clips = [frames[r.key] for r in records]
        search = fit_statistics(clips, _truths(task, records, names, frames), groups)
        return FittedHeads(task, names, seeds, [chosen(search)] * len(seeds), [], search)
    train, valid = (_clip_set(task, part, names, frames) for part in (fold.train, fold.valid))
    scale = (torch.zeros(1), torch.ones(1))
    if task.kind != "classes":  # so that heads need not learn where a scale begins and ends
        scale = (train.targets.mean(dim=0), train.targets.std(dim=0).clamp_min(1e-6))
        train, valid = (
            part._replace(targets=(part.targets - scale[0]) / scale[1]) for part in (train, valid)
        )
    fitted = fit_heads(
        train,
        valid,
        len(names),
        kind=task.kind,
        config=head,
        seeds=seeds,
        device=default_device(),
    )
    notes = [f"epoch {epoch}" for each in fitted for epoch in each.epochs]
    return FittedHeads(task, names, seeds, notes, fitted, scale=scale)


def _truths(
    task: Task, records: Sequence[Record], names: Sequence[str], frames: Frames
) -> list[Answer]:
    return [truth(task, r, names, len(frames[r.key])) for r in records]


def _clip_set(
    task: Task, records: Sequence[Record], names: Sequence[str], frames: Frames
) -> ClipSet:
    """Return a part's clips, with the number of each one's class, or its values."""
    said: list[Any] = _truths(task, records, names, frames)
    clips = [frames[r.key] for r in records]
    if task.kind == "classes":
        return ClipSet(clips, torch.tensor([names.index(label) for label in said]))
    if task.kind == "frame values":
        said = [row for clip in said for row in clip]
    return ClipSet(clips, torch.tensor(said))


def runs_of(fold: Fold, number: int, fitted: FittedHeads, frames: Frames) -> list[Run]:
    """What trained heads answer on the fold's test part, a run for each seed.

    Args:
        fold: whose test part is run
        number: its number, from 1
        fitted: what `fit_fold` gave
        frames: by key, of the test part
    """
    truths = _truths(fitted.task, fold.test, fitted.outputs, frames)
    clips = [frames[r.key] for r in fold.test]
    each = zip(fitted.seeds, fitted.answers(clips), fitted.notes, fitted.embed(clips), strict=True)
    return [
        run_of(fold, number, seed, truths, answers, note, vectors)
        for seed, answers, note, vectors in each
    ]


def probe(
    folds: Folds,
    name: str,
    frames: Frames,
    *,
    task: Task = TASKS["emotion"],
    head: HeadConfig | None = None,
    seeds: Sequence[int] = (0,),
    progress: bool = False,
) -> ProbeResult:
    """A head on frozen frames: fitted on train, epoch chosen on valid, run on test.

    Args:
        folds: the splits
        name: what the frames come from
        frames: (T, D) by key, of every recording in the folds
        task: what is predicted
        head: which head, and how it is trained; the task's own if None
        seeds: of the heads' weights
        progress: show a bar

    Raises:
        ValueError: as `emotion2vec.probing.tasks.label_set`

    Source: paper section 4.2.
    """
    names = label_set(folds, task)
    runs: list[Run] = []
    numbered = tqdm(
        list(enumerate(folds.folds, start=1)), f"probing ({name})", disable=not progress
    )
    for number, fold in numbered:
        fitted = fit_fold(fold, frames, names, task=task, head=head, seeds=seeds)
        runs += runs_of(fold, number, fitted, frames)
    return ProbeResult(name, tuple(runs), () if task.kind == "classes" else tuple(names))


def probe_backbone(
    folds: Folds,
    backbone: Backbone,
    *,
    seeds: Sequence[int] = (0,),
    head: HeadConfig | None = None,
    progress: bool = False,
) -> tuple[ProbeResult, Frames, dict[str, str]]:
    """Scores of a backbone's frames, the frames, and by key the errors of recordings without any.

    Raises:
        ValueError: as `emotion2vec.probing.tasks.label_set`; if no recording of a part can be read
    """
    frames, failed = extract_frames(folds, backbone, progress=progress)
    folds = readable(folds, failed)
    result = probe(folds, backbone.name, frames, head=head, seeds=seeds, progress=progress)
    return result, frames, failed
