"""The benchmark's JSON files, read and checked: cells, robustness, transfer.

A bad file is an error beside the others, which go on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emotion2vec.layer_choice import with_layer

FORMAT = 1
"""The format of the files that this version reads."""


class Subject(NamedTuple):
    """What was scored: a backbone, perhaps at a layer, under a head."""

    backbone: str
    kind: str
    """ "model", "hand-made" or "baseline" """
    layer: int | str | None
    """a number, or which of them are mixed and how"""
    head: str

    @property
    def name(self) -> str:
        """The backbone and its layer, as the commands take them.

        >>> Subject("base", "model", 6, "linear").name
        'base@6'
        """
        return with_layer(self.backbone, self.layer)

    @property
    def is_baseline(self) -> bool:
        """Whether it is there to be beaten: it hears no emotion, or was never trained."""
        return (
            self.kind == "baseline"
            or self.backbone == "trivial"
            or self.backbone.startswith(("random:", "hf-random:"))
        )


@dataclass(frozen=True)
class Cell:
    """One backbone on one task, corpus and protocol, as its file says."""

    path: Path
    subject: Subject
    task: str
    corpus: str
    protocol: Mapping[str, Any]
    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    seeds: Sequence[int]
    labels: Sequence[str]
    scores: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    truth: Mapping[str, Any]
    speakers: Mapping[str, str | None]
    command: str
    corpus_digest: str = ""
    hours: float = 0
    """of the whole corpus; 0 where nobody said"""
    confusion: Sequence[Sequence[int]] | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    traps: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""
    machine: str = ""

    @property
    def pooled(self) -> Mapping[str, float | None]:
        """Scores over the test clips of all folds together, the mean over seeds."""
        return self.scores["pooled"]

    @property
    def starred(self) -> bool:
        """Whether what was selected was selected on the test part."""
        return bool(self.protocol["starred"])

    def interval(self, score: str) -> tuple[float, float] | None:
        """The 95 % interval of a pooled score over speakers, where it was computed."""
        return as_interval(self.scores.get("interval_95", {}).get(score))


@dataclass(frozen=True)
class Robustness:
    """One backbone on one corpus under several conditions, the clean one first."""

    path: Path
    subject: Subject
    task: str
    corpus: str
    protocol: Mapping[str, Any]
    conditions: Sequence[Mapping[str, Any]]
    command: str
    corpus_digest: str = ""
    date: str = ""

    @property
    def starred(self) -> bool:
        """Whether what was selected was selected on the test part."""
        return bool(self.protocol.get("starred"))


@dataclass(frozen=True)
class Transfer:
    """One backbone, trained on each corpus and tested on each."""

    path: Path
    subject: Subject
    matrix: Sequence[Mapping[str, Any]]
    command: str
    label_mapping: Any = None
    date: str = ""


@dataclass(frozen=True)
class Results:
    """All files in a folder of results."""

    cells: Sequence[Cell]
    robustness: Sequence[Robustness]
    transfer: Sequence[Transfer]
    errors: Mapping[Path, str]
    """what is wrong with files that could not be used"""
    folder: Path = Path()

    def name_of(self, path: Path) -> str:
        """A file's path under the folder: where else it lies is nobody's business."""
        return path.relative_to(self.folder).as_posix()


def read_results(folder: str | Path) -> Results:
    """The JSON files of a folder, searched deeply; hidden files are passed over.

    Raises:
        FileNotFoundError: if there is no such folder, or no JSON file in it
    """
    folder = Path(folder)
    paths = [path for path in sorted(folder.rglob("*.json")) if not path.name.startswith(".")]
    if not paths:
        raise FileNotFoundError(
            f"{folder} holds no results (*.json); give the --out of emotion2vec benchmark."
        )
    found: dict[type, list[Any]] = {Cell: [], Robustness: [], Transfer: []}
    errors = {}
    for path in paths:
        try:
            one = read_result(path)
            found[type(one)].append(one)
        except (OSError, ValueError) as error:
            errors[path] = str(error)
    return Results(found[Cell], found[Robustness], found[Transfer], errors, folder)


def read_result(path: Path) -> Cell | Robustness | Transfer:
    """What a file holds.

    Raises:
        ValueError: if it is none of the benchmark's files, or not a whole one
        OSError: if it cannot be read
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"it is no JSON ({error}); run its cell again.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        of = values.get("format") if isinstance(values, dict) else None
        raise ValueError(f"its format is {of}; this version reads {FORMAT}.")
    kind: type[Cell] | type[Robustness] | type[Transfer] = Cell
    if "conditions" in values:
        kind = Robustness
    elif "matrix" in values:
        kind = Transfer
    values = {name: value for name, value in values.items() if value is not None}
    for name, wanted in _WANTED[kind].items():
        _check(values, name, wanted)
    for name in _IF_THERE.keys() & values.keys():
        _check(values, name, _IF_THERE[name])
    _CHECKS[kind](values)
    known = {name: value for name, value in values.items() if name in kind.__dataclass_fields__}
    return kind(path=path, subject=_subject(values), **known)


_HEAD: dict[str, type] = {"backbone": dict, "head": dict, "command": str}
_WANTED: dict[type, dict[str, type]] = {
    Cell: _HEAD
    | {"task": str, "corpus": str, "protocol": dict, "seeds": list, "labels": list}
    | {"scores": dict, "runs": list, "truth": dict, "speakers": dict},
    Robustness: _HEAD | {"task": str, "corpus": str, "protocol": dict, "conditions": list},
    Transfer: _HEAD | {"matrix": list},
}
_IF_THERE: dict[str, type] = {
    **{"corpus_digest": str, "date": str, "machine": str, "errors": dict, "versions": dict},
    **{"confusion": list, "traps": list, "hours": float},
}
_JSON_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a number",
    float: "a number",
}


def _check(values: Mapping[str, Any], name: str, wanted: type) -> None:
    if not isinstance(values.get(name), wanted):
        came = "missing" if name not in values else json.dumps(values[name])[:40]
        raise ValueError(f"{name} is {came}; it must be {_JSON_NAMES[wanted]}.")


def _check_cell(values: Mapping[str, Any]) -> None:
    _check_protocol(values)
    for name in ("pooled", "fold_mean"):
        _check(values["scores"], name, dict)
        _check_scores(values["scores"][name], f"scores.{name}")
    for name in {"deviation_over_seeds", "interval_95", "recall"} & values["scores"].keys():
        _check(values["scores"], name, dict)
    labels = len(values["labels"])
    if "confusion" in values and [len(row) for row in values["confusion"]] != [labels] * labels:
        raise ValueError(f"confusion is not {labels} rows of {labels} counts, one a label.")
    for run in _objects(values, "runs"):
        for name, wanted in {"fold": int, "seed": int, "predictions": dict}.items():
            _check(run, name, wanted)
        unknown = set(run["predictions"]) - set(values["truth"])
        if unknown:
            raise ValueError(f"a run answers {min(unknown)!r}, whose truth is not there.")


def _check_robustness(values: Mapping[str, Any]) -> None:
    _check_protocol(values)
    if not values["conditions"]:
        raise ValueError("conditions are empty; the clean one must come first.")
    for condition in _objects(values, "conditions"):
        for name in ("family", "name"):
            _check(condition, name, str)
        _check(condition, "scores", dict)
        _check_scores(condition["scores"], f"scores under {condition['name']}")


def _check_transfer(values: Mapping[str, Any]) -> None:
    for one in _objects(values, "matrix"):
        for name in ("train", "test"):
            _check(one, name, str)
        _check(one, "scores", dict)
        _check_scores(one["scores"], f"scores of {one['train']} on {one['test']}")


def _objects(values: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    if not all(isinstance(one, dict) for one in values[name]):
        raise ValueError(f"{name} must be a list of objects.")
    return values[name]


_CHECKS = {Cell: _check_cell, Robustness: _check_robustness, Transfer: _check_transfer}


def _check_protocol(values: Mapping[str, Any]) -> None:
    _check(values["protocol"], "name", str)
    if not isinstance(values["protocol"].get("starred"), bool):
        raise ValueError("protocol.starred is not true or false: who selected on what is not said.")


def _check_scores(scores: Mapping[str, Any], name: str) -> None:
    if not main_score(scores):
        raise ValueError(f"{name} hold {', '.join(scores) or 'nothing'}; wanted are ua or ccc.")
    for score, value in scores.items():
        if value is not None and not (isinstance(value, int | float) and abs(value) <= 1.001):
            raise ValueError(f"{name}.{score} is {value}; it must be a number in [-1, 1].")


def main_score(scores: Mapping[str, Any]) -> str:
    """The score by which rows are ordered and drawn: UA of classes, CCC of dimensions.

    UA, because chance is then one over the number of classes however often each occurs.

    >>> main_score({"wa": 0.5, "ua": 0.4}), main_score({"ccc": 0.1}), main_score({})
    ('ua', 'ccc', '')
    """
    return next((name for name in ("ua", "ccc") if name in scores), "")


def as_interval(values: Any) -> tuple[float, float] | None:
    """From and to, if these are two finite numbers.

    >>> as_interval([0.1, 0.2]), as_interval(None), as_interval([None, None])
    ((0.1, 0.2), None, None)
    """
    if not isinstance(values, list | tuple) or len(values) != 2:
        return None
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    return float(values[0]), float(values[1])


def _subject(values: Mapping[str, Any]) -> Subject:
    backbone, head = values["backbone"], values["head"]
    _check(backbone, "name", str)
    _check(head, "name", str)
    layer = backbone.get("layer")
    if isinstance(layer, list):
        layer = ",".join(f"{weight:g}" for weight in layer)
    if not isinstance(layer, int | str | None):
        raise ValueError(f"backbone.layer is {layer!r}; it must be a number, a text or null.")
    name = backbone["name"].removesuffix(with_layer("", layer))
    return Subject(name, str(backbone.get("kind", "model")), layer, head["name"])
