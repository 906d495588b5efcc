"""What an actor of Ray does: a backbone loaded once, groups of recordings in, parts out.

An actor writes the features of a group to parquet parts, named after what is in the group, and
answers with lines of the index. So a task that is run again, because its actor was killed, finds
what the first run wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.backbones import load_backbone
from emotion2vec.batching import lengths_of
from emotion2vec.extract import SETTINGS_NAME, extract, row_of, write_features
from emotion2vec.feature_files import ParquetFiles, Row
from emotion2vec.folders import Folder
from emotion2vec.layer_choice import Layer
from emotion2vec.manifest import Record

DIED = "whoever computed it died (of memory, or a fault in a decoder); extract it alone to see why."


@dataclass(frozen=True)
class Job:
    """What an actor needs to know."""

    model: str
    layer: Layer
    device: str | None
    fingerprint: str
    """of the backbone as it was loaded where the run was started"""
    out: str
    level: str
    dtype: str
    batch_seconds: float
    folder: str = field(default_factory=os.getcwd)
    """where relative paths start"""


def packed(group: Sequence[Record]) -> str:
    """A group as text: lists of records would become a type of Ray's own on their way."""
    fields = ("key", "path", "start", "end", "duration")
    return json.dumps([{name: getattr(record, name) for name in fields} for record in group])


def told_seconds(record: Record) -> float | None:
    """The seconds that a list says a recording has; None if it does not say it.

    >>> told_seconds(Record("a", "a.wav", end=2.5)), told_seconds(Record("a", "a.wav"))
    (2.5, None)
    """
    if record.end is not None:
        return record.end - record.start
    return None if record.start else record.duration


class Extractor:
    """What an actor does: groups of records in, their features into parts, lines of the index out.

    Errors of recordings are lines. What stops all of them, a full disk say, is an answer, too, so
    that the run ends with it instead of with Ray's report on an actor.
    """

    def __init__(self, job: Job, watch: Any = None) -> None:
        self.job, self.watch, self.stop = job, watch, ""
        with suppress(OSError):  # on a node without that folder only addresses can be read anyway
            os.chdir(job.folder)
        try:
            self.backbone = load_backbone(job.model, layer=job.layer, device=job.device)
            seen = Folder(job.out).has(SETTINGS_NAME)  # which is written before an actor starts
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            self.stop = f"an actor cannot load {job.model}, or reach {job.out}: {error}"
            return
        if self.backbone.fingerprint != job.fingerprint:
            self.stop = (
                f"an actor found other weights in {job.model} than where the run was started; "
                "give all machines the same model."
            )
        elif not seen:
            self.stop = (
                f"an actor finds nothing in {job.out}, which is another folder where it runs; "
                "choose one that all machines share, or an address."
            )

    def __call__(self, table: Any) -> Any:
        """A table with `records`, a group each, as one with `rows`, what became of them."""
        import pyarrow

        answers = [self.answer(json.loads(text)) for text in table["records"].to_pylist()]
        return pyarrow.table({"rows": [json.dumps(answer) for answer in answers]})

    def answer(self, group: Sequence[Row]) -> dict[str, Any]:
        """The `rows` of a group, or what keeps this actor from all work as `stop`."""
        if not self.stop:
            try:
                return {"stop": "", "rows": self.compute([Record(**fields) for fields in group])}
            except Exception as error:  # not of a recording: writing, or a fault of ours
                self.stop = f"{error}" if isinstance(error, OSError) else repr(error)
        return {"stop": self.stop, "rows": []}

    def compute(self, group: Sequence[Record]) -> list[Row]:
        """The lines of a group, whose features are then in parts.

        Raises:
            OSError: if the parts cannot be written
        """
        task = task_name(group)
        careful, deadly = self._tell("begin", task) or (False, [])
        files = ParquetFiles(Folder(self.job.out), task=task)
        rows = {record.key: row_of(record, files) for record in group}
        for key in deadly:
            if not rows[key]["file"]:  # it may have died later, when these were written
                rows[key]["error"] = DIED
        todo = [r for r in group if not rows[r.key]["file"] and r.key not in deadly]
        for some in [[record] for record in todo] if careful else [todo]:
            if careful:
                self._tell("reach", task, some[0].key)
            for features in extract(
                _measured(some),
                self.backbone,
                level=self.job.level,
                batch_seconds=self.job.batch_seconds,
            ):
                write_features(features, rows[features.key], files, np.dtype(self.job.dtype))
        files.close()
        self._tell("end", task)
        return list(rows.values())

    def _tell(self, what: str, *words: str) -> Any:
        """Call the watch, where there is one; return its answer."""
        if self.watch is None:
            return None
        import ray

        return ray.get(getattr(self.watch, what).remote(*words))


def task_name(group: Sequence[Record]) -> str:
    """The name of the task that computes a group: it follows from what the recordings are.

    >>> task_name([Record("a", "a.wav")])
    '909a4135b4f2ee55'
    """
    places = [[record.key, record.path, record.start, record.end] for record in group]
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16]


def _measured(records: Sequence[Record]) -> list[Record]:
    """Return the recordings with their lengths: told, or from headers, which threads read."""
    told = [told_seconds(record) for record in records]
    asked = iter(lengths_of([r for r, seconds in zip(records, told, strict=True) if not seconds]))
    return [
        _Measured(**vars(record), length=seconds or next(asked))
        for record, seconds in zip(records, told, strict=True)
    ]


@dataclass(frozen=True)
class _Measured(Record):
    """A recording whose length is known: far away, asking again would take as long as reading."""

    length: float | str = 0.0
    """in seconds, or why it has none"""

    def num_samples(self) -> int:
        if isinstance(self.length, str):
            raise ValueError(self.length)
        return round(self.length * SAMPLE_RATE)
