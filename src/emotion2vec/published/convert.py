"""A published checkpoint -> a folder that `from_pretrained` reads, strictly.

Every name in the checkpoint is used, or listed as left out with the reason, or an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from emotion2vec.atomic import atomic_folder
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.published.checkpoints import Checkpoint, open_checkpoint
from emotion2vec.published.reference import Origin
from emotion2vec.weights import write_folder, write_weights

CONVERSION_NAME = "conversion.json"
TEACHER_NAME = "teacher.safetensors"

_DECODER = "modality_encoders.AUDIO.decoder."
# What a checkpoint may hold beyond the model, by how its names begin, and why it is left out.
_LEFT_OUT = {
    "_ema": "teacher",
    "criterion.": "criterion",
    _DECODER: "decoder, no part of a classifier",
    "modality_encoders.IMAGE.": "other modalities",
    "modality_encoders.TEXT.": "other modalities",
    "recon_proj.": "pre-training head",
    "final_proj.": "pre-training head",  # data2vec 1
    "mask_emb": "pre-training head",  # data2vec 1: hidden frames are zero here
    "masked_spec_embed": "pre-training head",  # the same in transformers
    "lm_head.": "head of another task",
    "classifier.": "head of another task",
    "projector.": "head of another task",
}


class Conversion(NamedTuple):
    """What came of a checkpoint."""

    folder: Path
    kind: str
    """"encoder", "classifier", or "student": encoder and decoder, to go on with pre-training"""
    origin: str
    """what wrote the checkpoint"""
    num_parameters: int
    labels: tuple[str, ...]
    has_teacher: bool
    """whether the folder has `teacher.safetensors`"""
    dropped: dict[str, tuple[str, ...]]
    """what of the checkpoint is not in the folder: reason -> names"""

    def __str__(self) -> str:
        """One line for people."""
        parts = [f"{self.kind} of {self.num_parameters / 1e6:.1f} M parameters"]
        if self.labels:
            parts.append(f"{len(self.labels)} labels")
        if self.has_teacher:
            parts.append("with its teacher")
        left = ", ".join(f"{reason} ({len(names)})" for reason, names in self.dropped.items())
        return f"{self.folder}: {', '.join(parts)}" + (f"; left out: {left}." if left else ".")


def convert_checkpoint(source: str | Path, out: str | Path) -> Conversion:
    """Write a published checkpoint into `out` as `from_pretrained` reads it; nothing in it is run.

    The folder appears whole or not at all. Half-precision and double weights are stored as
    float32. A classifier loads with `Emotion2vecClassifier`, a student with `Emotion2vecStudent`,
    and `Emotion2vec` loads all three kinds; transformers' classes too (`emotion2vec.hf`).

    Args:
        source: a FunASR folder of a published model (`config.yaml`, `model.pt`, `tokens.txt`), a
            fairseq .pt of emotion2vec, data2vec 2.0 or data2vec 1, or a transformers folder of
            data2vec 1
        out: a folder that is new, empty, or of an earlier conversion

    Raises:
        FileNotFoundError: if the source, or a file of it, is missing
        FileExistsError: if `out` holds something else
        ValueError: if weights are missing, unknown or of another shape (the message names them),
            or the file asks for anything to be run
        OSError: if `out` cannot be written

    Source: FunASR's load_pretrained_model, fairseq's checkpoint_utils.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> convert_checkpoint(folder, folder / "out")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: ... has neither config.yaml (FunASR) nor config.json (transformers); ...
    """
    found = read_checkpoint(source)
    conversion = Conversion(
        Path(out), found.kind, found.origin, sum(w.numel() for w in found.weights.values()),
        found.config.labels, bool(found.teacher), found.dropped,
    )  # fmt: skip
    digest = file_digest(found.file)
    with atomic_folder(out, mark=CONVERSION_NAME) as folder:
        write_folder(found.config, found.weights, folder)
        if found.teacher:
            write_weights(found.teacher, folder / TEACHER_NAME)
        facts = conversion._asdict() | {
            "folder": None, "source": Path(source).name, "file": found.file.name, "sha256": digest,
        }  # fmt: skip
        del facts["folder"]
        (folder / CONVERSION_NAME).write_text(
            json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return conversion


class Converted(NamedTuple):
    """A published checkpoint in memory, under our names."""

    file: Path
    """of the weights"""
    kind: str
    origin: str
    config: Emotion2vecConfig
    weights: dict[str, Tensor]
    """float32; those of an encoder begin with its parts, the other kinds' with "encoder." too"""
    teacher: dict[str, Tensor]
    """by the names of `ContextEncoder`; empty where there is none"""
    dropped: dict[str, tuple[str, ...]]
    """what of the checkpoint is not here: reason -> names"""


def read_checkpoint(source: str | Path) -> Converted:
    """The same in memory, without writing anything: `convert_checkpoint` says what is read.

    Raises:
        FileNotFoundError: if the source, or a file of it, is missing
        ValueError: as `convert_checkpoint`

    >>> read_checkpoint("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere does not exist; name a checkpoint's folder or its .pt file.
    """
    checkpoint = open_checkpoint(source)
    kind = _kind(checkpoint)
    table = {name: o for name, o in checkpoint.table.items() if name.split(".")[0] in _PARTS[kind]}
    weights, used = _gather(checkpoint.weights, table, checkpoint.scopes, checkpoint.file)
    teacher, dropped = _gather_teacher(checkpoint, kind)
    _account(checkpoint, kind, used, dropped)
    if kind == "encoder":
        weights = {name.removeprefix("encoder."): value for name, value in weights.items()}
    config = checkpoint.config if kind == "classifier" else replace(checkpoint.config, labels=())
    return Converted(
        checkpoint.file, kind, checkpoint.origin, config, weights, teacher,
        {why: tuple(sorted(names)) for why, names in dropped.items()},
    )  # fmt: skip


_PARTS = {
    "encoder": ("encoder",),
    "student": ("encoder", "decoder"),
    "classifier": ("encoder", "classifier"),
}


def _kind(checkpoint: Checkpoint) -> str:
    """Return which of our models the checkpoint is.

    Raises:
        ValueError: if there is a classifier without labels
    """
    names = [_local(name, checkpoint.scopes) for name in checkpoint.weights]
    if checkpoint.config.labels:
        return "classifier"
    heads = [name for name in names if name in ("proj.weight", "proj.bias")]
    if heads and "decoder.projection.weight" in checkpoint.table:
        raise ValueError(
            f"{checkpoint.file} has a classifier (proj) but no labels; put tokens.txt beside it."
        )
    return "student" if any(".decoder." in name for name in names) else "encoder"


def _gather(
    state: Mapping[str, Tensor],
    table: Mapping[str, Origin],
    scopes: tuple[tuple[str, str], ...],
    file: Path,
) -> tuple[dict[str, Tensor], set[str]]:
    """Return our weights, in float32, and the names in the file that they came from.

    Raises:
        ValueError: that lists what is missing or of another shape
    """
    weights, used, problems = {}, set(), []
    for name, origin in table.items():
        found = [_find(theirs, state, scopes) for theirs in origin.names]
        missing = [t for t, f in zip(origin.names, found, strict=True) if f is None]
        if missing:
            problems += [f"missing {theirs}" for theirs in missing]
            continue
        parts = [state[theirs] for theirs in found if theirs is not None]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        if name.endswith("alibi_scale") and value.ndim in (4, 5):  # 4: old checkpoints
            value = value.flatten(1)
        if tuple(value.shape) != origin.shape:
            what = f"{origin.names[0]} has shape {tuple(value.shape)} instead of {origin.shape}"
            problems.append(what)
            continue
        weights[name] = value.detach().to(torch.float32, copy=True)
        used |= set(filter(None, found))
    if problems:
        raise ValueError(f"{file} does not fit its settings: {_some(problems, '; ')}.")
    return weights, used


def _find(
    name: str, state: Mapping[str, Tensor], scopes: tuple[tuple[str, str], ...]
) -> str | None:
    """Return under which name a weight is in the file; as in FunASR the last that fits counts."""
    found = [candidate for candidate in _candidates(name, scopes) if candidate in state]
    return found[-1] if found else None


def _candidates(name: str, scopes: tuple[tuple[str, str], ...]) -> list[str]:
    return [
        name,
        *(f"{theirs}{name.removeprefix(ours)}" for theirs, ours in scopes if name.startswith(ours)),
    ]


def _local(name: str, scopes: tuple[tuple[str, str], ...]) -> str:
    """Return a name of the file without its prefix: what the reference calls it."""
    for theirs, ours in reversed(scopes):
        if theirs and name.startswith(theirs):
            return f"{ours}{name.removeprefix(theirs)}"
    return name


def _gather_teacher(
    checkpoint: Checkpoint, kind: str
) -> tuple[dict[str, Tensor], dict[str, set[str]]]:
    """Return the teacher's weights as `pretraining.teacher.Teacher` names them, and what is left.

    A teacher that does not cover all that ours does (data2vec's ema_encoder_only) is left out.
    """
    names = {f"_ema.{name}" for name in checkpoint.teacher}
    if not names:
        return {}, {}
    if kind != "student":
        return {}, {"teacher": names}
    prefix = "encoder.context."
    table = {n: origin for n, origin in checkpoint.table.items() if n.startswith(prefix)}
    if any(name not in checkpoint.teacher for o in table.values() for name in o.names):
        return {}, {"teacher, incomplete": names}
    weights, used = _gather(checkpoint.teacher, table, (), checkpoint.file)
    rest = names - {f"_ema.{name}" for name in used}
    left = {"teacher, beyond what follows the student here": rest} if rest else {}
    return {name.removeprefix(prefix): value for name, value in weights.items()}, left


def _account(
    checkpoint: Checkpoint, kind: str, used: set[str], dropped: dict[str, set[str]]
) -> None:
    """Sort every name of the checkpoint that is not used into `dropped`.

    Raises:
        ValueError: that lists the names that nobody knows
    """
    if checkpoint.other:
        dropped["state of the training"] = set(checkpoint.other)
    known = {
        candidate
        for origin in checkpoint.table.values()
        for name in origin.names
        for candidate in _candidates(name, checkpoint.scopes)
    }
    # A student's decoder is used whole: what is left of one then fits nowhere.
    left_out = {s: why for s, why in _LEFT_OUT.items() if kind != "student" or s != _DECODER}
    unknown = []
    for name in checkpoint.weights.keys() - used:
        local = _local(name, checkpoint.scopes)
        reasons = [why for start, why in left_out.items() if local.startswith(start)]
        if not reasons and name in known:
            reasons = ["the same weight under another prefix"]
        if reasons:
            dropped.setdefault(reasons[0], set()).add(name)
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{checkpoint.file} has {len(unknown)} weights that are no part of the model: "
            f"{_some(sorted(unknown), ', ')}."
        )


def _some(items: list[str], separator: str) -> str:
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return separator.join(items[:8]) + more


def file_digest(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
