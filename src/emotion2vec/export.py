"""A classifier as one file that runs without torch, checked against torch before it is written.

B clips, S samples, T frames, C classes, K dimensions, D width.
"""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from emotion2vec import __version__
from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.classifiers import Classifier, NativeClassifier, fingerprint
from emotion2vec.encoding import encode_clips
from emotion2vec.model import Emotion2vecClassifier
from emotion2vec.onnx_graph import FRONT, trace
from emotion2vec.onnx_int8 import to_int8
from emotion2vec.onnx_runtime import FORMAT, OnnxClassifier, is_onnx

TOLERANCE = 1e-4
"""Largest difference from torch that a float32 file may have, relative to the largest number of an
output, or to 1; 1e-5 and less is what is seen."""

INT8_TOLERANCE = 0.1
"""The same of an int8 file, for probabilities of labels and for values."""

CHECKED_SECONDS = (0.32, 1.0, 2.3611, 10.0)
"""Lengths that a file is tried on, beside the shortest and those about the second frame."""


class Exported(NamedTuple):
    """What was written, and how it was checked."""

    path: Path
    bytes: int
    labels: tuple[str, ...]
    dimensions: tuple[str, ...]
    precision: str
    """of the weights: "float32" or "int8" """
    difference: float
    """largest from torch, in float32: of logits, values and frames, relative as `TOLERANCE`"""
    int8_difference: float | None
    """largest of the int8 file from torch: of probabilities and values; None in float32"""
    lengths: tuple[int, ...]
    """of the clips it was checked on, one by one and as one padded batch, in samples"""


def export_onnx(
    classifier: Classifier | Emotion2vecClassifier,
    path: str | Path,
    *,
    int8: bool = False,
    name: str = "",
) -> Exported:
    """A classifier, with all that is between sound and answers, in one .onnx file.

    In: `waveform` (B, S), float32 at 16 kHz as recorded, zeros (or anything) behind shorter clips,
    and `lengths` (B,), int64, the samples of each. Normalizing and masking are inside. Out:
    `logits` (B, C), `values` (B, K) where the model has them, `pooled` (B, D) and `frames`
    (B, T, D), zeros behind a clip's end. B and S are free. The metadata has the labels and what
    else is needed; `emotion2vec.onnx_runtime` reads it.

    Lengths, and no mask over samples: they cannot contradict themselves, and are what one has.

    Args:
        classifier: of this package's family; it stays as it is
        path: the file; it appears only when it has been found to answer as torch does
        int8: weights in eight bits, products in integers; a quarter of the size
        name: what the model is called, for the metadata

    Raises:
        ModuleNotFoundError: without the extra `export`
        ValueError: for a model of another family, a path that does not end in .onnx, a model of
            over 2 GB, or if the file answers otherwise than torch does; then nothing is written
    """
    for extra in ("onnxruntime", "onnxscript"):  # before any work
        importlib.import_module(extra)
    import onnx

    path = Path(path)
    if not is_onnx(path):
        raise ValueError(f"the file to write is {path}; give a name that ends in .onnx.")
    native = _native(classifier)
    clips = checked_clips(native.model.config.min_samples, native.model.config.hop_samples)
    wanted = _torch_answers(native, clips)
    model = _described(trace(native.model), native, name, int8=int8)
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)
        difference = _checked(path, _difference(temporary, clips, wanted), TOLERANCE, "float32")
        int8_difference = None
        if int8:
            to_int8(model, FRONT)
            onnx.save(model, temporary)
            found = _score_difference(temporary, clips, wanted)
            int8_difference = _checked(path, found, INT8_TOLERANCE, "int8")
        size = temporary.stat().st_size
    return Exported(
        path,
        size,
        native.labels,
        native.dimensions,
        "int8" if int8 else "float32",
        difference,
        int8_difference,
        tuple(map(len, clips)),
    )


EXPORTERS: dict[str, Callable[..., Exported]] = {"onnx": export_onnx}
"""What a classifier can be written as."""


def _native(classifier: Classifier | Emotion2vecClassifier) -> NativeClassifier:
    """Return a copy in float32 on the CPU."""
    if isinstance(classifier, NativeClassifier):
        classifier = classifier.model
    if not isinstance(classifier, Emotion2vecClassifier):
        raise ValueError(
            f"the model is {type(classifier).__name__}; classifiers of this package's own family "
            "can be exported, those of transformers by its own tools (optimum)."
        )
    return NativeClassifier(copy.deepcopy(classifier).float().cpu().eval()).eval()


def _described(traced: Any, native: NativeClassifier, name: str, *, int8: bool) -> Any:
    """Return the ONNX model with what its users need to know, as metadata."""
    from onnx import helper

    config = native.model.config
    helper.set_model_props(
        traced,
        {
            "emotion2vec_format": FORMAT,
            "emotion2vec_version": __version__,
            "model": name,
            "fingerprint": fingerprint(native),
            "precision": "int8" if int8 else "float32",
            "labels": json.dumps(native.labels, ensure_ascii=False),
            "dimensions": json.dumps(native.dimensions, ensure_ascii=False),
            "sampling_rate": str(SAMPLE_RATE),
            "min_samples": str(config.min_samples),
            "hop_samples": str(config.hop_samples),
            "num_heads": str(config.num_heads),
        },
    )
    traced.producer_name, traced.producer_version = "emotion2vec", __version__
    return traced


def checked_clips(min_samples: int, hop_samples: int) -> list[Waveform]:
    """Clips of several lengths, not normalized, always the same: tones and noise, (S,) each.

    >>> [len(clip) for clip in checked_clips(400, 320)]
    [400, 719, 720, 5120, 16000, 37777, 160000]
    """
    second = min_samples + hop_samples
    lengths = [min_samples, second - 1, second]
    lengths += [max(second, int(seconds * SAMPLE_RATE)) for seconds in CHECKED_SECONDS]
    random = np.random.default_rng(0)
    clips = []
    for number, length in enumerate(lengths):
        phase = np.cumsum(0.05 + 0.02 * np.sin(np.arange(length) / 3000 + number))
        swell = 0.2 * np.sin(np.arange(length) / 2500 + number) ** 2
        noise = random.normal(0, 0.02, length)
        clips.append((0.03 + swell * np.sin(phase) + noise).astype(np.float32))
    return clips


class _Answers(NamedTuple):
    """What torch says of clips, each alone."""

    logits: NDArray[np.float32]
    values: NDArray[np.float32]
    frames: list[NDArray[np.float32]]


@torch.inference_mode()
def _torch_answers(native: NativeClassifier, clips: list[Waveform]) -> _Answers:
    found = [native.answer([clip]) for clip in clips]
    frames = [encode_clips(native.model.encoder, [clip])[0].frames for clip in clips]
    logits, values = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return _Answers(logits, values, frames)


def _difference(path: Path, clips: list[Waveform], wanted: _Answers) -> float:
    """Return the largest difference of a file's answers, one by one and padded together."""
    model = OnnxClassifier(path, padded=True)
    parts: list[list[Waveform]] = [*([clip] for clip in clips), clips]
    logits, values = (np.concatenate(part) for part in zip(*map(model.answer, parts), strict=True))
    frames = [row for part in parts for row in model.frames(part)]
    # What was never trained has the lowest number as its logit.
    used = ~(wanted.logits < -1e30)
    pairs = [
        (logits[np.tile(used, (2, 1))], np.tile(wanted.logits, (2, 1))[np.tile(used, (2, 1))]),
        (values, np.tile(wanted.values, (2, 1))),
        *zip(frames, [*wanted.frames, *wanted.frames], strict=True),
    ]
    return _largest(_relative(*pair) for pair in pairs)


def _score_difference(path: Path, clips: list[Waveform], wanted: _Answers) -> float:
    """Return the largest difference of probabilities and values."""
    found = OnnxClassifier(path).answer(clips)
    scores = (_softmax(logits) for logits in (found.logits, wanted.logits))
    return _largest([_relative(*scores), _relative(found.values, wanted.values)])


def _largest(differences: Iterable[float]) -> float:
    """Return the largest; NaN if any is, which Python's max would pass over."""
    return float(np.max(list(differences)))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = torch.from_numpy(logits).softmax(dim=1).numpy()
    return scores


def _relative(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return the largest difference, relative to the largest number or to 1; NaN if any is."""
    if found.shape != wanted.shape:
        return float("inf")
    if not wanted.size:
        return 0.0
    return float(np.abs(found - wanted).max() / max(1.0, float(np.abs(wanted).max())))


def _checked(path: Path, difference: float, most: float, precision: str) -> float:
    if not difference <= most:  # NaN, too
        raise ValueError(
            f"the {precision} file for {path} differs from torch by {difference:.2g}, more than "
            f"{most:g}, and was not written; "
            + ("export without int8." if precision == "int8" else "tell us what doctor prints.")
        )
    return difference


def labels_agree(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Part of the recordings, in [0, 1], that two recognizers give the same label.

    Args:
        one: `Recognition` of each recording
        other: the same of the other; recordings that either cannot read are left out

    Raises:
        ValueError: if no recording is left
    """
    same = [a.label == b.label for a, b in zip(one, other, strict=True) if not (a.error or b.error)]
    if not same:
        raise ValueError("no recording could be read by both; check the paths.")
    return sum(same) / len(same)
