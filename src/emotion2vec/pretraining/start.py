"""What a run starts from: the weights of student and teacher, from a checkpoint."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from emotion2vec.atomic import atomic_path
from emotion2vec.config import MODEL_TYPE, Emotion2vecConfig
from emotion2vec.model import Emotion2vec
from emotion2vec.pretraining.checkpoint import TrainState
from emotion2vec.pretraining.teacher import Teacher
from emotion2vec.published.checkpoints import is_own_format
from emotion2vec.published.convert import TEACHER_NAME, file_digest, read_checkpoint
from emotion2vec.published.hub import fetch
from emotion2vec.weights import WEIGHTS_NAME, load_weights, read_config, read_tensors, read_weights

logger = logging.getLogger(__name__)

START_NAME = "init.json"

_TOKENS = "encoder.context.utterance_tokens"
_LAST = "decoder.projection."
_LAST_BIAS = "decoder.projection.bias"


class Start(NamedTuple):
    """What a run started from, and what the checkpoint did not have."""

    source: str
    """as it was named"""
    origin: str
    """what wrote it"""
    file: str
    """name of the file of weights"""
    sha256: str
    teacher: str
    """where the teacher's weights are from, in words"""
    drawn: tuple[str, ...]
    """parts that were drawn from the seed"""
    left_out: tuple[str, ...]
    """parts of the checkpoint that the run has no use for"""

    def __str__(self) -> str:
        """One line for people."""
        left = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return (
            f"started from {self.source} ({self.origin}), teacher: {self.teacher}; "
            f"drawn anew: {', '.join(self.drawn) or 'nothing'}{left}."
        )

    def note(self, folder: Path) -> None:
        """Log the line, and write the facts into `folder`.

        Raises:
            OSError: if it cannot be written
        """
        logger.info("%s", self)
        with atomic_path(folder / START_NAME) as path:
            path.write_text(json.dumps(self._asdict(), indent=1) + "\n", encoding="utf-8")


class _Found(NamedTuple):
    """A checkpoint in memory."""

    origin: str
    file: Path
    config: Emotion2vecConfig
    weights: dict[str, Tensor]
    """of any kind of model"""
    teacher: dict[str, Tensor]
    """by the names of `ContextEncoder`; empty where there is none"""
    left_out: tuple[str, ...] = ()
    """what else was in its file, in words"""


def start_from(state: TrainState, source: str) -> Start:
    """Fill student and teacher of a state at update 0 from a checkpoint.

    What the checkpoint lacks stays as it was drawn: the frame decoder, where it has none; its last
    layer, where it answers something else (pseudo-labels); the utterance tokens, where it has
    another number of them. The teacher gets the moving average, where the checkpoint has one, else
    it is a copy of the student.

    Args:
        state: as `new_state` made it
        source: a folder of this package (of `convert` or of a run), `last.safetensors` of a run, a
            published checkpoint as `convert_checkpoint` reads it, or a name as `fetch` takes it

    Raises:
        FileNotFoundError: if there is no such checkpoint
        ValueError: if it is of another architecture than the state; the message names the fields

    Source: the paper's start, data2vec 2.0 base; fairseq draws the same parts anew.
    """
    assert isinstance(state.teacher, Teacher)  # as new_state made it
    found = _open(source)
    ours, drawn_before = state.student.config, state.student.state_dict()
    _check_fits(found, ours, source)
    weights = {f"encoder.{k}": v for k, v in Emotion2vec.rename_weights(found.weights).items()}
    weights |= {k: v for k, v in found.weights.items() if k.startswith("decoder.")}
    average = dict(found.teacher)
    drawn, left_out = [], list(found.left_out)

    def draw(part: str, what: str) -> None:
        drawn.append(what)
        weights.update({k: v for k, v in drawn_before.items() if k.startswith(part)})

    if not any(name.startswith("decoder.") for name in weights):
        draw("decoder.", "the frame decoder")
    elif weights[_LAST_BIAS].shape != drawn_before[_LAST_BIAS].shape:
        draw(_LAST, "the frame decoder's last layer")
    had, wanted = found.config.num_utterance_tokens, ours.num_utterance_tokens
    if had != wanted:
        weights.pop(_TOKENS, None)
        average.pop("utterance_tokens", None)
        if had:
            left_out.append(f"its {had} utterance tokens")
        if wanted:
            draw(_TOKENS, f"{wanted} utterance tokens")
            average |= {"utterance_tokens": drawn_before[_TOKENS]} if average else {}
    if any(name.startswith("classifier.") for name in found.weights):
        left_out.append("its classifier")
    load_weights(state.student, weights, source)
    context = state.student.encoder.context.state_dict()
    load_weights(state.teacher.context, average or context, source)
    return Start(
        source, found.origin, found.file.name, file_digest(found.file),
        "the checkpoint's moving average" if found.teacher else "a copy of the student",
        tuple(drawn), tuple(left_out),
    )  # fmt: skip


def _open(source: str) -> _Found:
    """Return the checkpoint at a place or of a name; published ones are converted in memory."""
    path = Path(source)
    if path.suffix == ".safetensors" and path.is_file():
        return _open_run(path)
    if path.exists() and not is_own_format(path):
        found = read_checkpoint(path)
        left_out = tuple(f"{why} ({len(names)})" for why, names in found.dropped.items())
        return _Found(
            found.origin, found.file, found.config, found.weights, found.teacher, left_out
        )
    folder = fetch(source)
    teacher = folder / TEACHER_NAME
    return _Found(
        "a model of this package", folder / WEIGHTS_NAME, read_config(folder), read_weights(folder),
        read_tensors(teacher) if teacher.is_file() else {},
    )  # fmt: skip


def _open_run(path: Path) -> _Found:
    """Return student and teacher of a run's state."""
    try:
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get("config", "{}"))
            tensors = {k: file.get_tensor(k) for k in file.keys() if "optimizer." not in k}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); take another checkpoint.") from error
    if "model" not in config:
        raise ValueError(f"{path} is no state of a run; name the folder of a model instead.")

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model = Emotion2vecConfig.from_dict({**config["model"], "model_type": MODEL_TYPE})
    return _Found("a run", path, model, under("student."), under("teacher.context."))


def _check_fits(found: _Found, ours: Emotion2vecConfig, source: str) -> None:
    """Refuse a checkpoint whose architecture is not the config's.

    Which of the blocks are called prenet changes nothing in them: their sum has to fit.
    """
    has_decoder = any(name.startswith("decoder.") for name in found.weights)
    theirs = found.config
    same_blocks = theirs.prenet_depth + theirs.depth == ours.prenet_depth + ours.depth
    differ = [
        name
        for name in (field.name for field in fields(ours))
        if getattr(theirs, name) != getattr(ours, name)
        and name not in ("labels", "num_utterance_tokens")
        and not name.endswith("_dropout")
        and (has_decoder or not name.startswith("decoder_"))
        and not (same_blocks and name in ("prenet_depth", "depth"))
    ]
    if differ:
        facts = ", ".join(
            f"{name} is {getattr(theirs, name)} there and {getattr(ours, name)} here"
            for name in differ
        )
        cure = " ".join(f"--set model.{n}={_toml(getattr(theirs, n))}" for n in differ)
        raise ValueError(f"{source} does not fit the config's model: {facts}; add {cure}.")


def _toml(value: object) -> str:
    """Return a value as it is written after --set, without spaces."""
    return json.dumps(value, separators=(",", ":"))
