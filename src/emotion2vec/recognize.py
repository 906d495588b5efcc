"""Which emotion is in a recording: `Recognizer`, from a published model or one's own.

torch is imported where a model of it is made, so that models in .onnx files run without.

S samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, cast

import numpy as np
from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.batching import Loadable, Outcome, encode_records
from emotion2vec.config import is_unused
from emotion2vec.inputs import loadable
from emotion2vec.label_names import LANGUAGES, find_labels, shown
from emotion2vec.manifest import Record
from emotion2vec.onnx_runtime import OnnxClassifier, is_onnx

if TYPE_CHECKING:
    from emotion2vec.classifiers import Classifier
    from emotion2vec.model import Emotion2vecClassifier

UNKNOWN = "unknown"
"""The label where no score reaches `abstain`."""

BLOCK_RECORDS = 256
"""Recordings whose lengths are looked up, sorted and batched together; answers come in their order.
Few enough for a first answer soon, enough for batches of like length."""


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


class Answer(NamedTuple):
    """What the model says of a clip."""

    scores: np.ndarray[Any, np.dtype[np.float32]]
    """(C in use,)"""
    values: np.ndarray[Any, np.dtype[np.float32]]
    """(K,)"""


class Answering(Protocol):
    """What recognition asks of a model, of torch or not."""

    labels: tuple[str, ...]
    dimensions: tuple[str, ...]

    def answer(self, clips: Sequence[Waveform]) -> Any:
        """`logits` and `values` of clips (S,) at 16 kHz, each as if it were alone.

        Arrays, or tensors on the CPU.
        """


def _on_torch(model: Any, device: str | None) -> Answering:
    """Return a classifier of torch, or the one in a folder or of a name, on a device."""
    try:
        from emotion2vec.classifiers import NativeClassifier, to_device
        from emotion2vec.encoding import default_device
        from emotion2vec.loading import load_classifier
        from emotion2vec.model import Emotion2vecClassifier
    except ModuleNotFoundError as error:
        raise _explained(model, error) from error
    if isinstance(model, str | Path):
        model = load_classifier(model)
    made = NativeClassifier(model) if isinstance(model, Emotion2vecClassifier) else model
    to_device(made, device or default_device())
    return made


def _on_onnx(model: Any, device: str | None) -> Answering:
    """Return the classifier in an .onnx file; one that is there already stays where it is."""
    if isinstance(model, OnnxClassifier):
        return model
    if isinstance(model, str | Path):
        return OnnxClassifier(model, device=device)
    raise ValueError(
        'runtime is "onnx", the model one of torch; write it with emotion2vec export, or '
        "emotion2vec.export.export_onnx, and give the file."
    )


RUNTIMES: dict[str, Callable[[Any, str | None], Answering]] = {
    "torch": _on_torch,
    "onnx": _on_onnx,
}
"""What computes the answers."""


def _runtime(model: Any, asked: str | None) -> str:
    """Return the name of the runtime: as asked, or as the model needs it."""
    if asked is not None and asked not in RUNTIMES:
        raise ValueError(f"runtime is {asked!r}; choose one of {', '.join(RUNTIMES)}.")
    if isinstance(model, OnnxClassifier) or is_onnx(model):
        if asked == "torch":
            raise ValueError('the model is of ONNX; leave runtime="torch" out.')
        return "onnx"
    return asked or "torch"


def _explained(model: Any, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return what to do where torch is missing; any other missing module as it came."""
    if error.name != "torch":
        return error
    name = model if isinstance(model, str | Path) else "this model"
    return ModuleNotFoundError(
        f"{name} needs torch, which is not installed: pip install torch, or take an .onnx file, "
        "which emotion2vec export writes where torch is.",
        name="torch",
    )


class Recognizer:
    """Recordings in, emotions out.

    Args:
        model: a classifier; ours, one of `emotion2vec.classifiers`, an `OnnxClassifier`; or the
            path of an .onnx file, or the folder or name of another
        labels: only these, as shown or as published; scores are renormalized over them
        abstain: under this score the label is "unknown"
        language: "en", "zh" or "both": what is shown of labels such as "生气/angry"
        device: where to compute; the accelerator where there is one, if None; of an .onnx file
            the CPU, if None, or another of onnxruntime's providers, such as "cuda"
        batch_seconds: audio in a batch: bounds the memory, changes no answer; CPUs are slower with
            more than the default, accelerators faster
        runtime: "torch", or "onnx" for an .onnx file, which needs no torch; by the model, if None

    Raises:
        ValueError: for an unknown label, language or runtime, a runtime that does not fit the
            model, or an `abstain` outside [0, 1]

    Labels that start with "unuse" take no part, as in the published code (FunASR's emotion2vec).

    >>> from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig
    >>> config = Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7, labels=("happy", "sad"))
    >>> recognizer = Recognizer(Emotion2vecClassifier(config), abstain=0.9)
    >>> tone = np.sin(np.arange(16000) / 9)
    >>> recognizer((tone, 16000)).label
    'unknown'
    """

    def __init__(
        self,
        model: Emotion2vecClassifier | Classifier | OnnxClassifier | str | Path,
        *,
        labels: Sequence[str] | None = None,
        abstain: float = 0.0,
        language: str = "en",
        device: str | None = None,
        batch_seconds: float = 20.0,
        runtime: str | None = None,
    ) -> None:
        if language not in LANGUAGES:
            raise ValueError(
                f"language is {language!r}; choose one of {', '.join(LANGUAGES)} (names of labels)."
            )
        if not 0 <= abstain <= 1:
            raise ValueError(f"abstain is {abstain}; give a score from 0 (never) to 1.")
        self.classifier = RUNTIMES[_runtime(model, runtime)](model, device)
        self.abstain = abstain
        self.batch_seconds = batch_seconds
        published = self.classifier.labels
        usable = [i for i, label in enumerate(published) if not is_unused(label)]
        self._columns = usable if labels is None else find_labels(labels, published, usable)
        self.labels = shown([published[i] for i in self._columns], language)
        """as shown, in the order of the model's outputs"""
        self.policy = self._describe(len(usable))
        """how scores become a label, in words"""

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | None = None,
        **options: Any,
    ) -> Self:
        """The recognizer around a classifier's folder, a published model, or one on a hub.

        Without a name, emotion2vec-mini, which ships in this package and needs no network. The
        name of an .onnx file that `emotion2vec export` wrote needs no torch. Other arguments as
        `Emotion2vecClassifier.from_pretrained`; `options` as `Recognizer`.

        Raises:
            FileNotFoundError: if there is no such model, or no network to fetch it
            ModuleNotFoundError: if torch is not installed, and the model no .onnx file
            ValueError: if the model is an encoder without a classifier
        """
        if name is not None and _runtime(name, options.get("runtime")) == "onnx":
            return cls(name, **options)
        try:
            from emotion2vec.loading import load_classifier
            from emotion2vec.published.hub import MINI
        except ModuleNotFoundError as error:
            raise _explained(name or "mini", error) from error
        model = load_classifier(
            MINI if name is None else name,
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
        source = loadable(inputs, sampling_rate)
        clip = source.load()
        outcome = Outcome(0, self.answers([clip])[0], len(clip) / SAMPLE_RATE)
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
                sources = [loadable(item, sampling_rate) for _, item in block]
                waiting: dict[int, Recognition] = {}
                due = 0
                for outcome in encode_records(
                    sources, self.answers, batch_seconds=self.batch_seconds
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

    def fingerprint(self, *more: Iterable[str] | str) -> str:
        """Eight hex digits that change with the model, and with what else is given."""
        if isinstance(self.classifier, OnnxClassifier):
            return self.classifier.fingerprint(*more)
        from emotion2vec.classifiers import fingerprint

        return fingerprint(cast("Classifier", self.classifier), *more)

    def _softmax(self, logits: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        used = np.asarray(logits, np.float32)[:, self._columns]
        if not used.size:
            return used
        powers = np.exp(used - used.max(axis=1, keepdims=True))
        scores: np.ndarray[Any, np.dtype[np.float32]] = powers / powers.sum(axis=1, keepdims=True)
        return scores

    def answers(self, clips: Sequence[Waveform]) -> list[Answer]:
        """Scores of the labels in use, and values, of clips (S,) at 16 kHz."""
        found = self.classifier.answer(clips)
        scores = self._softmax(found.logits)
        return [Answer(*row) for row in zip(scores, np.asarray(found.values), strict=True)]

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
