"""The benchmark: backbones on tasks, corpora and protocols, a file for each cell.

Nothing here knows a corpus: it is given recordings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from emotion2vec.backbones import Backbone, load_backbone
from emotion2vec.benchmark.cells import Cell, cell_of, read_cell, write_maps
from emotion2vec.benchmark.result_files import (
    corpus_digest,
    describe_folds,
    hours_of,
    slug,
    stamp,
    write_results,
)
from emotion2vec.frame_cache import cached_frames
from emotion2vec.handmade import HAND_MADE
from emotion2vec.layer_choice import with_layer
from emotion2vec.manifest import Record
from emotion2vec.probing.baselines import constant_baseline, speaker_baseline
from emotion2vec.probing.folds import VALIDATIONS, Folds
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import probe, readable, without
from emotion2vec.probing.protocols import PROTOCOLS, SplitOptions, split
from emotion2vec.probing.results import ProbeResult
from emotion2vec.probing.tasks import TASKS, Frames, Task, inputs, label_set, usable

logger = logging.getLogger(__name__)

ANSWERS: dict[str, Callable[..., ProbeResult]] = {
    "constant": constant_baseline,
    "speaker-only": speaker_baseline,
}
"""Baselines that hear nothing, by the name that they have among backbones."""

BASELINES = (*ANSWERS, "trivial")
"""What stands beside every result."""

FAILURES = (ValueError, OSError, RuntimeError, ImportError)
"""What makes a row of a cell; anything else is a fault of ours and stops the run."""


class Given(NamedTuple):
    """A corpus, not read yet."""

    read: Callable[[], Sequence[Record]]
    traps: Sequence[str] = ()
    """what has misled people who used it"""
    protocol: str | None = None
    """what it is best scored under; None to tell by its labels"""


@dataclass(frozen=True)
class Plan:
    """What is asked for: each backbone on each task, corpus and protocol."""

    backbones: Sequence[str]
    corpora: Mapping[str, Given]
    """by name"""
    out: Path
    """folder of results"""
    tasks: Sequence[str] = ("emotion",)
    protocols: Sequence[str] = ()
    """none for each corpus's own"""
    options: SplitOptions = field(default_factory=SplitOptions)
    paper_star: bool = False
    """select on the test part, see `emotion2vec.probing.protocols.starred`"""
    layers: Sequence[int] | Literal["all"] | None = None
    """a cell for each of these layers of models, or for "all"; None for the model's output"""
    head: str | None = None
    """None for the task's own, or the backbone's"""
    epochs: int = 100
    hidden_dim: int = 256
    seeds: int = 5
    baselines: bool = True
    command: Callable[[Mapping[str, Any]], str] = lambda cell: ""
    """the words that make a cell again, of its header"""


class Table(NamedTuple):
    """A task on a corpus under a protocol."""

    task: Task
    corpus: str
    protocol: str


class Parts(NamedTuple):
    """What a table stands on."""

    records: Sequence[Record]
    """of the whole corpus"""
    hours: float
    """which they last together"""
    folds: Folds


def run_benchmark(plan: Plan, *, progress: bool = False) -> Iterator[Cell]:
    """The cells of a plan, as they are done; one that is there already is only read.

    A cell that fails has an "error" and no scores, and the others go on.

    Args:
        plan: what is asked for
        progress: show bars

    Raises:
        ValueError: for an unknown task, or without anything to run
    """
    _check(plan)
    parts = _all_parts(plan)
    for name in dict.fromkeys((*plan.backbones, *(BASELINES if plan.baselines else ()))):
        try:
            backbone = _opened(plan, name)
            layers = _layers(plan, backbone)
        except FAILURES as error:
            yield from (_failed(plan, table, name, error) for table in parts)
            continue
        for table, found in parts.items():
            if name == "trivial" and table.task.kind == "frame values":
                continue  # statistics of a clip say nothing of its single frames
            for layer in layers:
                try:
                    if isinstance(found, Exception):
                        raise found
                    head = _head(plan, table.task, backbone)
                    job = Job(table, found, backbone, head, layer)
                    yield _cell(plan, job, progress=progress)
                except FAILURES as error:
                    yield _failed(plan, table, with_layer(name, layer), error)


def _check(plan: Plan) -> None:
    """Raise for what would fail in every cell."""
    unknown = set(plan.tasks) - set(TASKS)
    if unknown or not (plan.backbones and plan.corpora and plan.tasks and plan.seeds > 0):
        raise ValueError(
            f"the tasks are {', '.join(plan.tasks)}, with {len(plan.backbones)} backbones, "
            f"{len(plan.corpora)} corpora and {plan.seeds} seeds; choose from {', '.join(TASKS)}, "
            "and give at least one of each."
        )
    if plan.layers is not None and plan.head == "layers":
        raise ValueError("the head layers takes all layers at once; choose it or single layers.")
    if plan.head is not None:
        HeadConfig(plan.head)
    wrong = {name for name in plan.protocols if name not in PROTOCOLS}
    if wrong:
        raise ValueError(f"the protocol is {min(wrong)!r}; choose one of {', '.join(PROTOCOLS)}.")
    if plan.options.validation not in (None, *VALIDATIONS):
        raise ValueError(
            f"validation is {plan.options.validation!r}; choose one of {', '.join(VALIDATIONS)}."
        )


def _all_parts(plan: Plan) -> dict[Table, Parts | Exception]:
    """Return recordings and folds of each table, or why there are none."""
    found: dict[Table, Parts | Exception] = {}
    for corpus, given in plan.corpora.items():
        try:
            records = given.read()
            hours = hours_of(records)
        except FAILURES as error:
            names = plan.protocols or [given.protocol or "official"]
            found |= dict.fromkeys(
                [Table(TASKS[t], corpus, n) for t in plan.tasks for n in names], error
            )
            continue
        names = plan.protocols or [_own_protocol(plan, given, records)]
        for table in [Table(TASKS[t], corpus, n) for t in plan.tasks for n in names]:
            try:
                found[table] = _parts(plan, table, records, hours)
            except FAILURES as error:
                found[table] = error
    return found


def _own_protocol(plan: Plan, given: Given, records: Sequence[Record]) -> str:
    """Return official folds where there are any; else the corpus's protocol, or one by speaker."""
    labelled = any(all(name in r.labels for r in records) for name in ("split", "fold"))
    if plan.options.file is not None or labelled:
        return "official"
    if given.protocol not in (None, "official"):
        return str(given.protocol)
    return "random" if any(r.speaker is None for r in records) else "speaker-folds"


def _parts(plan: Plan, table: Table, records: Sequence[Record], hours: float) -> Parts:
    """Return the folds of what the task can be asked of."""
    asked = usable(table.task, records)
    # A file of folds names recordings of the whole corpus.
    whole = records if plan.options.file else asked
    folds = split(table.protocol, whole, plan.options, paper_star=plan.paper_star)
    folds = without(folds, {r.key for r in records} - {r.key for r in asked})
    label_set(folds, table.task)
    return Parts(records, hours, folds)


def _opened(plan: Plan, name: str) -> Backbone:
    """Return a backbone under the name that was asked for, with all layers if some are wanted."""
    if name in ANSWERS:
        return Backbone(name, 0, f"{name}-1", lambda clips: [], kind="baseline", default_head="")
    wants_layers = plan.layers is not None or plan.head == "layers"
    has_layers = name.partition(":")[0] not in HAND_MADE
    backbone = load_backbone(name, layer="all" if wants_layers and has_layers else None)
    return replace(backbone, name=name)


def _layers(plan: Plan, backbone: Backbone) -> Sequence[int | None]:
    """Return the layers that have a cell each; None stands for what the backbone gives."""
    if plan.layers is None or backbone.kind != "model":
        return [None]
    noise = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    count = backbone.encode([noise])[0].frames.shape[1]
    if isinstance(plan.layers, str):
        return range(count)
    wrong = [layer for layer in plan.layers if not 0 <= layer < count]
    if wrong:
        raise ValueError(
            f"{backbone.name} has no layer {wrong[0]}; choose 0 (what enters the first block) to "
            f"{count - 1}, or all."
        )
    return plan.layers


class Job(NamedTuple):
    """A cell to be made."""

    table: Table
    parts: Parts
    backbone: Backbone
    head: HeadConfig | None
    """none of answers that hear nothing"""
    layer: int | None


def _head(plan: Plan, task: Task, backbone: Backbone) -> HeadConfig | None:
    """Return what is asked for; else the task's head or, instead of a plain one, the backbone's."""
    if backbone.kind == "baseline":
        return None
    if backbone.name in BASELINES and backbone.name not in plan.backbones:
        return HeadConfig("logistic")
    own = backbone.default_head if task.head == "linear" else task.head
    name = plan.head or own
    if name == "layers" and backbone.kind == "hand-made":
        raise ValueError(f"{backbone.name} has no layers for the head layers; choose another.")
    return HeadConfig(name, plan.hidden_dim, plan.epochs)


def _cell(plan: Plan, job: Job, *, progress: bool) -> Cell:
    """Return a cell: read, or made and written."""
    path = _path(plan, job)
    header = _header(plan, job)
    cell = read_cell(path, header)
    if cell is None:
        cell = _made(job, header, path, progress=progress)
        cell["hours"] = job.parts.hours
        cell["traps"] = list(plan.corpora[job.table.corpus].traps)
        write_results(path, cell)
    return cell


def _path(plan: Plan, job: Job) -> Path:
    """Return the file of a cell; what is cut or selected otherwise has another folder."""
    table = job.table
    marks = [plan.options.validation or "", "starred" if plan.paper_star else ""]
    folder = plan.out / table.task.name / table.corpus
    name = slug(with_layer(job.backbone.name, job.layer), job.head.name if job.head else "none")
    return folder / "-".join([table.protocol, *filter(None, marks)]) / f"{name}.json"


def _header(plan: Plan, job: Job) -> Cell:
    """Return how a cell is made."""
    chosen_on = "the test part itself" if plan.paper_star else "validation"
    selection = f"the epoch with the best {job.table.task.selection.upper()} on {chosen_on}"
    if job.head is None:
        selection = "nothing"
    elif job.head.name == "logistic":
        fitted_on = "training" if plan.paper_star else "training and validation"
        selection = f"the penalty, over groups of speakers in {fitted_on}"
    seeds = [0] if job.head is None else [*range(plan.seeds)]
    header = {
        "task": job.table.task.name,
        "corpus": job.table.corpus,
        "corpus_digest": corpus_digest(job.parts.records),
        "protocol": describe_folds(job.parts.folds, selection),
        **stamp(job.backbone, job.head, seeds, layer=job.layer, command=""),
    }
    return header | {"command": plan.command(header)}


def _made(job: Job, header: Cell, path: Path, *, progress: bool) -> Cell:
    """Return a cell that is computed; its maps are written."""
    task, folds = job.table.task, job.parts.folds
    if job.head is None:
        result = ANSWERS[job.backbone.name](folds, task=task)
        return cell_of(header, result, folds, task) | {"errors": {}}
    frames, errors = _frames(job, progress=progress)
    folds = readable(folds, errors)
    result = probe(
        folds,
        job.backbone.name,
        frames,
        task=task,
        head=job.head,
        seeds=header["seeds"],
        progress=progress,
    )
    write_maps(path.with_suffix(".npz"), result, folds, frames)
    return cell_of(header, result, folds, task) | {"errors": errors}


def _frames(job: Job, *, progress: bool) -> tuple[Frames, dict[str, str]]:
    """Return what the head is given, by key, and the errors of recordings without."""
    task = job.table.task
    split_up = {r.key: r for fold in job.parts.folds.folds for part in fold for r in part}
    records = job.parts.records if task.turns else [*split_up.values()]  # turns before are heard
    frames, errors = cached_frames(records, job.backbone, progress=progress)
    if job.layer is not None:
        frames = {key: np.ascontiguousarray(each[:, job.layer]) for key, each in frames.items()}
    given = inputs(task, records, frames)
    lost = {key: "no turn before it could be read." for key in split_up if key not in given}
    return given, lost | {key: error for key, error in errors.items() if key in lost}


def _failed(plan: Plan, table: Table, name: str, error: Exception) -> Cell:
    """Return a cell without scores, which is not written: the next run tries again."""
    logger.debug("%s on %s: %s", name, table.corpus, error, exc_info=error)
    return {
        "task": table.task.name,
        "corpus": table.corpus,
        "protocol": {"name": table.protocol, "starred": plan.paper_star},
        "backbone": {"name": name, "layer": None},
        "head": {"name": plan.head or ""},
        "seeds": [*range(plan.seeds)],
        "error": str(error) or type(error).__name__,
    }
