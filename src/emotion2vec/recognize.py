"""Which emotion is in a recording: `Recognizer`, from a published model or one's own.

S samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from io import TextIOBase
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE, Waveform, load_audio
from emotion2vec.batching import Loadable, Outcome, encode_records
from emotion2vec.classifiers import Classifier, NativeClassifier, to_device
from emotion2vec.encoding import default_device
from emotion2vec.loading import load_classifier
from emotion2vec.manifest import Record
from emotion2vec.model import Emotion2vecClassifier, is_unused
from emotion2vec.published.hub import MINI

UNKNOWN = "unknown"
"""The label where no score reaches `abstain`."""

BLOCK_RECORDS = 256
"""Recordings whose lengths are looked up, sorted and batched together; answers come in their order.
Few enough for a first answer soon, enough for batches of like length."""


def _split(label: str) -> tuple[str, str]:
    """Return the Chinese and the English name in a label; twice the label where it has no two."""
    chinese, slash, english = label.partition("/")
    return (label, label) if not slash or chinese.isascii() else (chinese, english)


LANGUAGES: dict[str, Callable[[str], str]] = {
    "en": lambda label: _split(label)[1],
    "zh": lambda label: _split(label)[0],
    "both": lambda label: label,
}
"""What is shown of a published label such as "生气/angry"."""


@dataclass(frozen=True)
class Recognition:
    """What was found in one recording, or in a part of one."""

    key: str
    """of the record; else the path; for sound in memory "input", in a list its place: "input 3"."""
    label: str | None
    """the most probable; "unknown" where the recognizer abstains; None where there is an error"""
    score: float | None
    """probability of the most probable label, also where the recognizer abstains"""
    scores: Mapping[str, float] = field(default_factory=dict)
    """probability of each label in use; they sum to 1"""
    dimensions: Mapping[str, float] = field(default_factory=dict)
    """values such as arousal, from models that answer them; such a model need not have labels"""
    start: float = 0.0
    """of the part, in seconds"""
    end: float | None = None
    duration: float | None = None
    """in seconds; None where it could not be read"""
    path: str | None = None
    """None for sound in memory"""
    error: str = ""
    policy: str = ""
    """how scores became a label"""

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return asdict(self)

    def __repr__(self) -> str:
        found = [f"{name} {value:.2f}" for name, value in self.dimensions.items()]
        if self.label is not None:
            found.insert(0, f"{self.label} {self.score:.2f}")
        if self.error:
            found = [f"error: {self.error}"]
        return f"<Recognition {self.key}: {', '.join(found)}>"


class _Answer(NamedTuple):
    """What the model says of a clip."""

    scores: np.ndarray[Any, np.dtype[np.float32]]
    """(C in use,)"""
    values: np.ndarray[Any, np.dtype[np.float32]]
    """(K,)"""


class _InMemory:
    """Sound that is no file: bytes, a file object, an array; read once."""

    def __init__(self, source: Any, sampling_rate: Any) -> None:
        self._source, self._sampling_rate = source, sampling_rate

    def num_samples(self) -> int:
        return len(self._waveform)

    def load(self) -> Waveform:
        return self._waveform

    @cached_property
    def _waveform(self) -> Waveform:
        source, rate = self._source, self._sampling_rate
        if isinstance(source, torch.Tensor):
            source = source.detach().cpu()
            source = (source.float() if source.is_floating_point() else source).numpy()
        binary = hasattr(source, "read") and not isinstance(source, TextIOBase)
        if not binary and not isinstance(source, bytes | np.ndarray):
            raise ValueError(
                f"an input is {type(source).__name__}; give a path, bytes, an open binary file, an "
                "array with its sampling rate, or a list of these."
            )
        if isinstance(rate, str):
            raise ValueError(f"a sampling rate is {rate!r}; give a number in Hz.")
        return load_audio(source, sampling_rate=rate)


class Recognizer:
    """Recordings in, emotions out.

    Args:
        model: a classifier; ours, or one of `emotion2vec.classifiers`
        labels: only these, as shown or as published; scores are renormalized over them
        abstain: under this score the label is "unknown"
        language: "en", "zh" or "both": what is shown of labels such as "生气/angry"
        device: where to compute; the accelerator where there is one, if None
        batch_seconds: audio in a batch: bounds the memory, changes no answer; CPUs are slower with
            more than the default, accelerators faster

    Raises:
        ValueError: for an unknown label or language, or an `abstain` outside [0, 1]

    Labels that start with "unuse" take no part, as in the published code (FunASR's emotion2vec).

    >>> from emotion2vec import Emotion2vecConfig
    >>> config = Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7, labels=("happy", "sad"))
    >>> recognizer = Recognizer(Emotion2vecClassifier(config), abstain=0.9)
    >>> tone = np.sin(np.arange(16000) / 9)
    >>> recognizer((tone, 16000)).label
    'unknown'
    """

    def __init__(
        self,
        model: Emotion2vecClassifier | Classifier,
        *,
        labels: Sequence[str] | None = None,
        abstain: float = 0.0,
        language: str = "en",
        device: str | None = None,
        batch_seconds: float = 20.0,
    ) -> None:
        if language not in LANGUAGES:
            raise ValueError(
                f"language is {language!r}; choose one of {', '.join(LANGUAGES)} (names of labels)."
            )
        if not 0 <= abstain <= 1:
            raise ValueError(f"abstain is {abstain}; give a score from 0 (never) to 1.")
        self.classifier: Classifier = (
            NativeClassifier(model) if isinstance(model, Emotion2vecClassifier) else model
        )
        to_device(self.classifier, device or default_device())
        self.abstain = abstain
        self.batch_seconds = batch_seconds
        published = self.classifier.labels
        usable = [i for i, label in enumerate(published) if not is_unused(label)]
        self._columns = usable if labels is None else _find(labels, published, usable)
        self.labels = _shown([published[i] for i in self._columns], language)
        """as shown, in the order of the model's outputs"""
        self.policy = self._describe(len(usable))
        """how scores become a label, in words"""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = MINI,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        **options: Any,
    ) -> Self:
        """The recognizer around a classifier's folder, a published model, or one on a hub.

        Without a name, emotion2vec-mini, which ships in this package and needs no network. Other
        arguments as `Emotion2vecClassifier.from_pretrained`; `options` as `Recognizer`.

        Raises:
            FileNotFoundError: if there is no such model, or no network to fetch it
            ValueError: if the model is an encoder without a classifier
        """
        model = load_classifier(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        return cls(model, **options)

    def __call__(self, inputs: Any, *, sampling_rate: int | None = None) -> Any:
        """The `Recognition` of one input, or a list of them for a list.

        Args:
            inputs: path, bytes, open binary file, `Record`, array (samples,) or (samples,
                channels), pair of array and sampling rate, mapping with "array" and
                "sampling_rate"; or a list of these
            sampling_rate: of arrays that come alone, in Hz

        Raises:
            FileNotFoundError: if the one input is a path to nothing
            ValueError: if the one input is no sound; in a list, that item carries the error
        """
        if isinstance(inputs, list):
            return list(self.recognize_all(inputs, sampling_rate=sampling_rate))
        source = _loadable(inputs, sampling_rate)
        clip = source.load()
        outcome = Outcome(0, self._answers([clip])[0], len(clip) / SAMPLE_RATE)
        return self._recognition("input", source, outcome)

    def recognize_all(
        self,
        inputs: Sequence[Any],
        *,
        sampling_rate: int | None = None,
        in_order: bool = True,
        progress: bool = False,
    ) -> Iterator[Recognition]:
        """A `Recognition` for each input; what cannot be read comes with its error.

        Lazily, and for files in bounded memory, however many.

        Args:
            inputs: as `__call__`
            sampling_rate: as `__call__`
            in_order: keep the order of the inputs; else each comes as soon as it is known
            progress: show a bar on standard error
        """
        numbered = iter(enumerate(inputs))
        with tqdm(total=len(inputs), desc="recognizing", disable=not progress, delay=1) as bar:
            while block := list(islice(numbered, BLOCK_RECORDS)):
                sources = [_loadable(item, sampling_rate) for _, item in block]
                waiting: dict[int, Recognition] = {}
                due = 0
                for outcome in encode_records(
                    sources, self._answers, batch_seconds=self.batch_seconds
                ):
                    position = outcome.position
                    name = f"input {block[position][0]}"
                    waiting[position] = self._recognition(name, sources[position], outcome)
                    bar.update()
                    while in_order and due in waiting:
                        yield waiting.pop(due)
                        due += 1
                    if not in_order:
                        yield waiting.pop(position)

    def scores(self, clips: Sequence[Waveform]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The probability of each label in use, (clips, labels), of clips (S,) at 16 kHz."""
        return self._softmax(self.classifier.answer(clips).logits)

    def _softmax(self, logits: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        return logits[:, self._columns].softmax(dim=-1).numpy()

    def _answers(self, clips: Sequence[Waveform]) -> list[_Answer]:
        found = self.classifier.answer(clips)
        scores = self._softmax(found.logits)
        return [_Answer(*row) for row in zip(scores, found.values.numpy(), strict=True)]

    def _recognition(self, name: str, source: Loadable, outcome: Outcome) -> Recognition:
        part: dict[str, Any] = {"key": name}
        if isinstance(source, Record):
            part = {name: getattr(source, name) for name in ("key", "path", "start", "end")}
        if outcome.duration is not None and part.get("end") is None:
            part["end"] = part.get("start", 0.0) + outcome.duration
        if outcome.error:
            return Recognition(
                label=None, score=None, error=outcome.error, policy=self.policy, **part
            )
        scores, values = outcome.value
        best = int(scores.argmax()) if self.labels else 0
        score = float(scores[best]) if self.labels else 1.0
        label = self.labels[best] if self.labels else None
        return Recognition(
            label=label if score >= self.abstain else UNKNOWN,
            score=score if self.labels else None,
            scores=dict(zip(self.labels, map(float, scores), strict=True)),
            dimensions=dict(zip(self.classifier.dimensions, map(float, values), strict=True)),
            duration=outcome.duration,
            policy=self.policy,
            **part,
        )

    def _describe(self, usable: int) -> str:
        if not self.labels:
            return f"none; the model answers {', '.join(self.classifier.dimensions)}"
        text = f"highest of {len(self.labels)} softmax scores"
        if len(self.labels) < usable:
            text += f", renormalized from {usable}"
        return text + (f"; {UNKNOWN} below {self.abstain:g}" if self.abstain else "")


def _shown(published: Sequence[str], language: str) -> tuple[str, ...]:
    """Return the names of labels in a language; whole where two would be the same."""
    names = tuple(map(LANGUAGES[language], published))
    return names if len(set(names)) == len(names) else tuple(published)


def _find(wanted: Sequence[str], published: Sequence[str], usable: Sequence[int]) -> list[int]:
    """Return the positions of labels that are named as published, in English or in Chinese."""
    if isinstance(wanted, str):
        raise ValueError(f"labels is {wanted!r}; give a list, such as {wanted.split(',')}.")
    names: dict[str, int] = {}
    for i in usable:
        for show in LANGUAGES.values():
            names.setdefault(show(published[i]).lower(), i)
    unknown = [label for label in wanted if label.lower() not in names]
    if unknown or not wanted:
        if not usable:
            raise ValueError("labels are given, but the model answers values; leave them out.")
        known = ", ".join(LANGUAGES["en"](published[i]) for i in usable)
        raise ValueError(
            f"labels has {unknown[0]!r}, which the model does not know; it knows {known}."
            if unknown
            else f"labels is empty; choose some of {known}."
        )
    return sorted({names[label.lower()] for label in wanted})


def _loadable(source: Any, sampling_rate: Any) -> Loadable:
    """Return something to read for any kind of input; what is wrong with it shows on reading."""
    if isinstance(source, Record):
        return source
    if isinstance(source, str | Path):
        return Record(key=str(source), path=str(source))
    if isinstance(source, Mapping):
        return _InMemory(source.get("array"), source.get("sampling_rate"))
    if isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str | Path):
        return _InMemory(*source)
    return _InMemory(source, sampling_rate)
