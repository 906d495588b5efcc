"""Files of results: what was run on what, how, and whether a file is of the same run."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from emotion2vec import __version__
from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.backbones import Backbone
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Folds, shared_speakers
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.results import ProbeResult

FORMAT = 1

PASSING = ("command", "versions", "date", "machine")
"""What may differ between two runs that give the same."""


def stamp(
    backbone: Backbone, head: HeadConfig | None, seeds: Sequence[int], *, layer: Any, command: str
) -> dict[str, Any]:
    """Who was scored, how, with what, when; ready for JSON. Answers without a head have none."""
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return {
        "format": FORMAT,
        "backbone": {
            "name": backbone.name,
            "kind": backbone.kind,
            "fingerprint": backbone.fingerprint,
            "dim": backbone.dim,
            "layer": layer,
        },
        "head": {"name": "none"} if head is None else asdict(head),
        "seeds": list(seeds),
        "command": command,
        "versions": {"emotion2vec": __version__, "torch": torch.__version__},
        "date": datetime.date.today().isoformat(),
        "machine": ", ".join([platform.machine(), f"{os.cpu_count()} CPUs", *gpu]),
    }


def describe_folds(folds: Folds, selection: str) -> dict[str, Any]:
    """The protocol, ready for JSON.

    Args:
        folds: the splits
        selection: the score that is best on validation in the chosen epoch
    """
    return {
        "name": folds.name,
        "description": folds.protocol,
        "validation": folds.validation,
        "selection": selection,
        "starred": folds.starred,
        "shared_speakers": [shared_speakers(fold) for fold in folds.folds],
    }


def describe_scores(result: ProbeResult) -> dict[str, Any]:
    """Scores pooled over folds, their deviation over seeds and intervals over speakers."""
    return {
        "scores": result.mean(),
        "deviation_over_seeds": result.deviation(),
        "interval_95": {name: list(result.interval(name)) for name in result.score_names},
    }


def corpus_digest(records: Sequence[Record]) -> str:
    """A text that changes with keys, speakers and labels, not with where recordings lie.

    >>> corpus_digest([Record("a", "x/a.wav")]) == corpus_digest([Record("a", "y/a.wav")])
    True
    """
    rows = sorted([r.key, r.speaker, r.start, r.end, sorted(r.labels.items())] for r in records)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def hours_of(records: Iterable[Record]) -> float:
    """How long recordings are together, in hours; those that cannot be read count nothing.

    >>> hours_of([Record("a", "a.wav", duration=1800.0), Record("b", "b.wav", duration=900.0)])
    0.75
    """
    seconds = 0.0
    for record in records:
        try:
            seconds += record.duration or record.num_samples() / SAMPLE_RATE
        except (OSError, ValueError):
            continue
    return round(seconds / 3600, 4)


def slug(backbone: str, head: str) -> str:
    """The name of a file for a backbone under a head.

    >>> slug("random:runs/demo/final@6", "linear")
    'random-runs-demo-final@6.linear'
    """
    return re.sub(r"[^\w.@=+-]+", "-", backbone).strip("-.") + f".{head}"


def open_results(path: Path, header: Mapping[str, Any], *, rows: str) -> dict[str, Any]:
    """What a file holds, to go on with it, or the header with no rows if there is none.

    Args:
        path: of the file
        header: what the run is about
        rows: the name under which its results are listed

    Raises:
        ValueError: if the file is of another run, or none of ours
    """
    if not path.exists():
        return {**header, rows: []}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kept = list(values[rows])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is no file of results ({error!r}); move it away.") from error
    now = json.loads(json.dumps(header))
    for name in now.keys() - set(PASSING):
        if values.get(name) != now[name]:
            raise ValueError(
                f"{path} is of another run: its {name} is {_short(values.get(name))}, not "
                f"{_short(now[name])}; choose another --out, or move it away."
            )
    return {**header, rows: kept}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def write_results(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file of results, whole.

    Raises:
        OSError: if it cannot be written; an older one then stays
    """
    with atomic_path(path) as temporary:
        text = json.dumps(values, indent=1, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
