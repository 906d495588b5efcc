"""Recognition without torch: a classifier that `emotion2vec export` wrote, run by onnxruntime.

Nothing here, nor in what it imports, needs torch.

B clips, S samples, T frames, D width, C classes, K dimensions.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform, pad_clips

ONNX_SUFFIX = ".onnx"

FORMAT = "1"
"""Under "emotion2vec_format" in a file's metadata; counted up when inputs or outputs change."""

MOST_SCORES = 2**27
"""Heads x frames x frames of what is computed at once, 0.5 GB each time attention holds them, which
is three times: one clip of 66 s at base size, of 133 s with mini."""

Numbers = NDArray[np.float32]


class OnnxAnswers(NamedTuple):
    """What a classifier says of clips, before any softmax."""

    logits: Numbers
    """(B, C), of the labels; C may be 0"""
    values: Numbers
    """(B, K), of the dimensions; K may be 0"""


class OnnxClassifier:
    """A classifier in one .onnx file, on the CPU or another of onnxruntime's providers.

    What `Recognizer` asks of a model, without torch: labels, dimensions, answers.

    Args:
        path: a file that `emotion2vec export` wrote
        device: "cpu", or the name of another provider that onnxruntime was built with, such as
            "cuda" or "cuda:1"; the CPU if None
        padded: compute clips side by side, padded to one length; if None, where it is faster,
            which it is not on the CPU (8 clips of 2 to 4 s: 1.7 times slower). Answers are alike

    Raises:
        FileNotFoundError: if there is no such file
        ModuleNotFoundError: without onnxruntime
        ValueError: if the file is another kind of model, or onnxruntime lacks the provider
    """

    def __init__(
        self, path: str | Path, *, device: str | None = None, padded: bool | None = None
    ) -> None:
        self.path = Path(path)
        device = device or "cpu"
        self._padded = device != "cpu" if padded is None else padded
        self._session = _open(self.path, device)
        facts = _facts(self.path, self._session)
        self.facts: Mapping[str, str] = facts
        """what the file says of itself"""
        self.labels: tuple[str, ...] = tuple(json.loads(facts["labels"]))
        self.dimensions: tuple[str, ...] = tuple(json.loads(facts["dimensions"]))
        self.min_samples = int(facts["min_samples"])
        self._hop, self._heads = int(facts["hop_samples"]), int(facts["num_heads"])

    @property
    def longest_seconds(self) -> float:
        """The longest clip that is answered: attention needs memory for all pairs of frames."""
        frames = math.isqrt(MOST_SCORES // self._heads)
        return frames * self._hop / SAMPLE_RATE

    def answer(self, clips: Sequence[Waveform]) -> OnnxAnswers:
        """Answers to clips (S,) at 16 kHz, not normalized: each as if it were alone.

        Raises:
            RuntimeError: if a clip is too short for a frame, or longer than `longest_seconds`
        """
        widths = {"logits": len(self.labels), "values": len(self.dimensions)}
        names = [name for name, width in widths.items() if width]
        parts = {name: [np.zeros((0, width), np.float32)] for name, width in widths.items()}
        for outputs in self._run(clips, names):
            for name, part in zip(names, outputs, strict=True):
                parts[name].append(part)
        nothing = [np.zeros((len(clips), 0), np.float32)]
        return OnnxAnswers(*(np.concatenate(parts[n] if widths[n] else nothing) for n in widths))

    def frames(self, clips: Sequence[Waveform]) -> list[Numbers]:
        """Features of clips (S,) at 16 kHz: (T, D) each, one frame every 20 ms.

        Raises:
            RuntimeError: as `answer`
        """
        rows = [row for (batch,) in self._run(clips, ["frames"]) for row in batch]
        counts = [(len(clip) - self.min_samples) // self._hop + 1 for clip in clips]
        return [row[:count] for row, count in zip(rows, counts, strict=True)]

    def fingerprint(self, *more: Iterable[str] | str) -> str:
        """Eight hex digits that change with the file, and with what else is given."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(json.dumps(list(map(list, more))).encode())
        return digest.hexdigest()[:8]

    def _run(self, clips: Sequence[Waveform], names: list[str]) -> Iterator[list[Numbers]]:
        """Outputs clip by clip, or of padded batches of as many clips as memory has room for."""
        self._check(clips)
        first = 0
        while first < len(clips):
            last = first + 1
            while self._padded and last < len(clips):
                if self._scores(clips[first : last + 1]) > MOST_SCORES:
                    break
                last += 1
            batch, keep = pad_clips(list(clips[first:last]))
            yield self._session.run(names, {"waveform": batch, "lengths": keep.sum(axis=1)})
            first = last

    def _scores(self, clips: Sequence[Waveform]) -> int:
        """Numbers that attention over a padded batch of clips holds."""
        frames = max(map(len, clips)) // self._hop
        return len(clips) * self._heads * frames * frames

    def _check(self, clips: Sequence[Waveform]) -> None:
        for clip in clips:
            if len(clip) < self.min_samples:
                raise RuntimeError(
                    f"a clip has {len(clip)} samples; {self.path} needs at least "
                    f"{self.min_samples}; leave the clip out or lengthen it."
                )
            if self._scores([clip]) > MOST_SCORES:
                raise RuntimeError(
                    f"a clip has {len(clip) / SAMPLE_RATE:.1f} s; {self.path} answers for at most "
                    f"{self.longest_seconds:.0f} s at once; cut it (emotion2vec timeline), or take "
                    "the model that was exported, with torch, which has no limit."
                )


def is_onnx(name: object) -> bool:
    """Whether a name is that of an .onnx file.

    >>> is_onnx("models/mini.onnx"), is_onnx("mini")
    (True, False)
    """
    return isinstance(name, str | Path) and Path(name).suffix.lower() == ONNX_SUFFIX


def _open(path: Path, device: str) -> Any:
    """Return onnxruntime's session over a file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not a file that onnxruntime could read; emotion2vec export MODEL --out "
            f"{path if is_onnx(path) else 'FILE.onnx'} writes one."
        )
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} needs onnxruntime: pip install onnxruntime, or 'emotion2vec[onnx]'.",
            name=error.name,
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.enable_mem_pattern = False  # plans a block for each shape, and no two batches are alike
    options.log_severity_level = 3  # errors come as exceptions
    providers = [_provider(device, onnxruntime.get_available_providers())]
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own have no common class
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} cannot be run by onnxruntime {onnxruntime.__version__} ({reason}); it is "
            "damaged or too new, write it again with emotion2vec export."
        ) from error
    if session.get_providers()[0] != providers[0][0]:  # it goes back to the CPU without a word
        raise ValueError(f"onnxruntime cannot compute on {device!r} here; take the CPU.")
    return session


def _threads() -> int:
    """Threads that a run takes: OMP_NUM_THREADS as torch does, else the processors we may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _provider(device: str, available: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the name and options of the provider that computes on a device.

    >>> _provider("cuda:1", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    ('CUDAExecutionProvider', {'device_id': '1'})
    """
    kind, _, number = device.partition(":")
    known = {name.removesuffix("ExecutionProvider").lower(): name for name in available}
    if kind.lower() not in known:
        raise ValueError(
            f"device is {device!r}; this onnxruntime computes on {', '.join(known)}; choose one, "
            "or install a build of onnxruntime for that device."
        )
    return known[kind.lower()], {"device_id": number} if number else {}


def _facts(path: Path, session: Any) -> Mapping[str, str]:
    """Return a file's metadata; refuse what this package did not write."""
    facts: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    found = facts.get("emotion2vec_format")
    if found != FORMAT:
        what = "an ONNX model of another kind" if found is None else f"of format {found}"
        raise ValueError(
            f"{path} is {what}; write it again with emotion2vec export of this version."
        )
    return facts
