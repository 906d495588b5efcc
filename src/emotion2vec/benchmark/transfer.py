"""Trained on one corpus, tested on another: the matrix of all pairs, on the classes they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from emotion2vec.backbones import Backbone
from emotion2vec.benchmark.result_files import (
    corpus_digest,
    describe_scores,
    open_results,
    slug,
    stamp,
    write_results,
)
from emotion2vec.frame_cache import cached_frames
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Folds, complete
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import FittedHeads, fit_fold, runs_of
from emotion2vec.probing.protocols import SplitOptions, split
from emotion2vec.probing.results import ProbeResult
from emotion2vec.probing.tasks import Frames, label_set

LABEL_MAP = {"excited": "happy"}
"""Labels that count as another where nothing else is asked for: as IEMOCAP's are mostly merged."""

Corpora = Mapping[str, Sequence[Record]]
"""Recordings with emotions, by the corpus's name"""


Learned = tuple[tuple[str, ...], ...]
"""Keys of a training part and of its validation part"""


class Shared(NamedTuple):
    """Corpora with the same classes."""

    corpora: dict[str, list[Record]]
    """without recordings of other classes; keys are CORPUS/KEY"""
    classes: list[str]
    """sorted"""


def share_classes(corpora: Corpora, label_map: Mapping[str, str] | None = None) -> Shared:
    """The corpora cut down to the classes that all of them have, after mapping.

    All pairs are then on the same classes, so that their scores can be compared.

    Args:
        corpora: recordings without an emotion are left out
        label_map: on top of `LABEL_MAP`; a label mapped to itself stays

    Raises:
        ValueError: if there are fewer than two corpora, or fewer than two classes in all of them

    >>> def corpus(*emotions):
    ...     return [Record(e, "a.wav", labels={"emotion": e}) for e in emotions]
    >>> found = share_classes({"a": corpus("sad", "happy", "calm"), "b": corpus("excited", "sad")})
    >>> found.classes, len(found.corpora["a"])
    (['happy', 'sad'], 2)
    """
    if len(corpora) < 2:
        raise ValueError(f"{len(corpora)} corpora are given; a transfer needs two or more.")
    mapping = LABEL_MAP | dict(label_map or {})
    mapped = {
        name: [
            replace(
                r,
                key=f"{name}/{r.key}",  # two corpora can have the same keys
                labels={**r.labels, "emotion": mapping.get(r.emotion, r.emotion)},
            )
            for r in records
            if r.emotion is not None
        ]
        for name, records in corpora.items()
    }
    classes = {name: {r.labels["emotion"] for r in records} for name, records in mapped.items()}
    shared = set.intersection(*classes.values())
    if len(shared) < 2:
        have = "; ".join(
            f"{name}: {', '.join(sorted(of)) or 'none'}" for name, of in classes.items()
        )
        raise ValueError(
            f"the corpora share {len(shared)} classes ({have}); two are needed, map labels, such "
            "as calm=neutral."
        )
    return Shared(
        {name: [r for r in of if r.labels["emotion"] in shared] for name, of in mapped.items()},
        sorted(shared),
    )


def transfer(
    corpora: Corpora,
    backbone: Backbone,
    out: str | Path,
    *,
    label_map: Mapping[str, str] | None = None,
    num_folds: int = 5,
    head: HeadConfig | None = None,
    seeds: Sequence[int] = (0,),
    layer: Any = None,
    command: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Scores of heads trained on each corpus and tested on each other one, whole.

    A fifth of the training corpus's speakers is its validation part. On the diagonal a corpus is
    tested on itself, in folds by speaker (random ones where speakers are not known): its heads have
    learned from fewer recordings than those that are tested on other corpora. The results are in
    one file, written after each pair: what stands there of the same run is not done again.

    Args:
        corpora: recordings with emotions
        backbone: what makes the frames
        out: folder of results; the file is `transfer/BACKBONE.HEAD.json` in it
        label_map: as in `share_classes`
        num_folds: of the diagonal; at most as many as speakers
        head: which head, and how it is trained; the backbone's own if None
        seeds: of the heads
        layer: of the backbone, as it was asked for
        command: that repeats the run, to be noted
        progress: show bars

    Returns:
        what is in the file: what was run, and under "matrix" a row for each pair

    Raises:
        ValueError: as `share_classes` and `emotion2vec.probing.tasks.label_set`; if a part cannot
            be read, or the file is of another run
    """
    head = head or HeadConfig(backbone.default_head)
    shared = share_classes(corpora, label_map)
    path = Path(out) / "transfer" / f"{slug(backbone.name, head.name)}.json"
    everything = [record for records in shared.corpora.values() for record in records]
    frames, errors = cached_frames(everything, backbone, progress=progress)
    plans = _plan({name: _heard(of, errors) for name, of in shared.corpora.items()}, num_folds)
    values = open_results(
        path,
        stamp(backbone, head, seeds, layer=layer, command=command)
        | {
            "label_mapping": LABEL_MAP | dict(label_map or {}),
            "labels": shared.classes,
            "corpora": {name: corpus_digest(of) for name, of in shared.corpora.items()},
            "errors": errors,
        },
        rows="matrix",
    )
    values["matrix"] = _of_same_folds(values["matrix"], plans)
    done = {(row["train"], row["test"]) for row in values["matrix"]}
    for train, plan in plans.items():
        heads: dict[Learned, FittedHeads] = {}  # one for all other corpora
        for test, folds in plan.items():
            if (train, test) in done:
                continue
            result = _score(folds, frames, shared.classes, head, seeds, heads)
            clips = sum(len(fold.test) for fold in folds.folds)
            row = {"train": train, "test": test, "classes": len(shared.classes), "clips": clips}
            row |= {"protocol": folds.protocol} | describe_scores(result)
            values["matrix"] = [*values["matrix"], row]
            write_results(path, values)
    return values


def _heard(records: Sequence[Record], errors: Mapping[str, str]) -> list[Record]:
    """Return the recordings that could be read."""
    heard = [record for record in records if record.key not in errors]
    if not heard:
        key = records[0].key
        raise ValueError(f"no recording of {key.split('/')[0]} can be read: {errors[key]}")
    return heard


def _plan(corpora: Corpora, num_folds: int) -> dict[str, dict[str, Folds]]:
    """Return the splits by training corpus and test corpus."""
    plans: dict[str, dict[str, Folds]] = {}
    for train, records in corpora.items():
        plans[train] = {}
        for test, tested in corpora.items():
            if test == train:
                folds = _within(records, num_folds)
            else:
                folds = complete([{"train": records, "test": tested}], f"trained on all of {train}")
            label_set(folds)  # what cannot be trained shows before the work
            plans[train][test] = folds
    return plans


def _of_same_folds(
    rows: Sequence[dict[str, Any]], plans: Mapping[str, Mapping[str, Folds]]
) -> list[dict[str, Any]]:
    """Return the rows of these folds; those of another `num_folds` say so in their sentence."""
    return [row for row in rows if row["protocol"] == plans[row["train"]][row["test"]].protocol]


def _within(records: Sequence[Record], num_folds: int) -> Folds:
    """Return folds by speaker, or random ones where speakers are too few or not known."""
    speakers = {record.speaker for record in records}
    if None in speakers or len(speakers) < 3:
        return split("random", records, SplitOptions(num_folds=num_folds))
    options = SplitOptions(num_folds=min(num_folds, len(speakers)))
    return split("speaker-folds", records, options)


def _score(
    folds: Folds,
    frames: Frames,
    names: Sequence[str],
    head: HeadConfig,
    seeds: Sequence[int],
    known: dict[Learned, FittedHeads],
) -> ProbeResult:
    """Return what heads answer; those that are known for a training part are not trained again."""
    runs = []
    for number, fold in enumerate(folds.folds, start=1):
        learned = tuple(tuple(record.key for record in part) for part in (fold.train, fold.valid))
        if learned not in known:
            known[learned] = fit_fold(fold, frames, names, head=head, seeds=seeds)
        runs += runs_of(fold, number, known[learned], frames)
    return ProbeResult("", tuple(runs))
