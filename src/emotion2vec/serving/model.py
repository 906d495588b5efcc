"""The model behind the service: what is computed for which kind of request.

S samples, T frames, D width.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import Waveform
from emotion2vec.onnx_runtime import OnnxClassifier
from emotion2vec.recognize import UNKNOWN, Answer, Recognizer
from emotion2vec.serving.batcher import Batcher
from emotion2vec.serving.limits import RefusedError

Features = Callable[[Sequence[Waveform]], list[NDArray[np.float32]]]
"""clips (S,) -> frames (T, D) of each"""


class ServedModel:
    """A recognizer, and its encoder's features where it has an encoder.

    Args:
        recognizer: what answers
        name: of the model, as clients see it
        bfloat16: compute in it: several times as fast where the processor has instructions for it,
            scores then differ in the third digit

    Raises:
        ValueError: if a model that is not torch's is to compute in bfloat16
    """

    def __init__(self, recognizer: Recognizer, name: str, *, bfloat16: bool = False) -> None:
        self.recognizer, self.name, self.bfloat16 = recognizer, name, bfloat16
        self.features = _features(recognizer, name)
        if bfloat16 and isinstance(recognizer.classifier, OnnxClassifier):
            raise ValueError(f"{name} does not compute in bfloat16; leave the precision out.")

    def compute(self, kind: str, clips: list[Waveform]) -> Sequence[Any]:
        """The answers to clips (S,) at 16 kHz: `Answer`s, or frames (T, D)."""
        with self._precision():
            if kind == "recognize":
                return self.recognizer.answers(clips)
            assert self.features is not None
            return self.features(clips)

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.bfloat16:
            return nullcontext()
        import torch

        classifier: Any = self.recognizer.classifier
        device = next(classifier.parameters()).device
        return torch.autocast(device.type, torch.bfloat16)


def _features(recognizer: Recognizer, name: str) -> Features | None:
    """Return what makes frames with the recognizer's own encoder, without a second copy of it."""
    classifier: Any = recognizer.classifier
    if isinstance(classifier, OnnxClassifier):
        return classifier.frames
    encoder = getattr(getattr(classifier, "model", None), "encoder", None)
    if encoder is None:
        return None
    from emotion2vec.backbones import encoder_backbone

    backbone = encoder_backbone(encoder, name, device=str(next(encoder.parameters()).device))
    return lambda clips: [encoded.frames for encoded in backbone.encode(clips)]


def recognition(
    answer: Answer,
    recognizer: Recognizer,
    *,
    labels: Sequence[str] | None = None,
    abstain: float = 0.0,
) -> dict[str, Any]:
    """An answer as clients get it; labels chosen among those in use, scores renormalized.

    Raises:
        RefusedError: 422 for a label that is not in use
    """
    scores = dict(zip(recognizer.labels, map(float, answer.scores), strict=True))
    policy = recognizer.policy
    if labels is not None:
        scores = _chosen(scores, labels)
        policy = f"highest of {len(scores)} softmax scores, renormalized from {len(answer.scores)}"
    found: dict[str, Any] = {"label": None, "score": None, "scores": scores}
    if scores:
        best = max(scores, key=scores.__getitem__)
        least = max(abstain, recognizer.abstain)
        found["score"] = scores[best]
        found["label"] = best if scores[best] >= least else UNKNOWN
        if abstain and least == abstain:
            policy = f"{policy.partition('; ')[0]}; {UNKNOWN} below {abstain:g}"
    values = zip(recognizer.classifier.dimensions, map(float, answer.values), strict=True)
    return found | {"dimensions": dict(values), "policy": policy}


def _chosen(scores: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    by_name = {label.lower(): label for label in scores}
    unknown = [label for label in labels if label.lower() not in by_name]
    known = ", ".join(scores)
    if unknown:
        raise RefusedError(
            422,
            f"labels has {unknown[0]!r}, which the model does not know; it knows {known}.",
        )
    wanted = {by_name[label.lower()] for label in labels}
    kept = {label: score for label, score in scores.items() if label in wanted}
    total = sum(kept.values()) or 1.0
    return {label: score / total for label, score in kept.items()}


STOP_SECONDS = 0.2
"""How soon a timeline that nobody waits for any more notices it."""


class BatchedScores:
    """A recognizer for a timeline in a thread of its own, whose windows go into shared batches.

    Args:
        recognizer: whose labels and policy these are
        batcher: of the service
        loop: in which the batcher runs
    """

    def __init__(
        self,
        recognizer: Recognizer,
        batcher: Batcher,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.labels, self.policy = recognizer.labels, recognizer.policy
        self.batch_seconds = recognizer.batch_seconds
        self.abstain = recognizer.abstain
        self.stopped = threading.Event()
        """set by whoever waits no more: the next batch of windows fails"""
        self._batcher, self._loop = batcher, loop

    def scores(self, clips: Sequence[Waveform]) -> NDArray[np.float32]:
        """The probability of each label, (clips, labels); from any thread but the loop's.

        Raises:
            RefusedError: 504 once `stopped` is set
        """
        if self.stopped.is_set():
            raise self._gone()

        async def ask() -> list[Any]:
            submit: Callable[..., Any] = self._batcher.submit
            return await asyncio.gather(*(submit("recognize", clip) for clip in clips))

        asked = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        while True:
            # Not for ever: the loop may be waiting for this thread to end.
            done, _ = wait([asked], timeout=STOP_SECONDS)
            if done:
                break
            if self.stopped.is_set():
                asked.cancel()
                raise self._gone()
        answers = asked.result()
        return np.stack([answer.scores for answer in answers])

    def until_stopped(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        """The blocks, as long as somebody waits for what is made of them.

        Raises:
            RefusedError: 504 once `stopped` is set
        """
        for block in blocks:
            if self.stopped.is_set():
                raise self._gone()
            yield block

    @staticmethod
    def _gone() -> RefusedError:
        return RefusedError(504, "the answer took too long.")
