"""Classifiers of this package behind the calls that recognition and fine-tuning need.

B clips, S samples, D width, C classes, K dimensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from emotion2vec.audio import Waveform, normalize
from emotion2vec.encoding import arrange_weights, encode_clips
from emotion2vec.model import Answers, Emotion2vecClassifier


class Parts(NamedTuple):
    """The parts of a classifier that are trained at different rates, or not at all."""

    convolutions: list[nn.Module]
    """from waveform to frames"""
    embedding: list[nn.Module]
    """what is between convolutions and blocks"""
    blocks: list[nn.Module]
    """from the bottom to the top"""
    head: list[nn.Module]
    """what is new"""


class Classifier(Protocol):
    """What recognition and fine-tuning ask of a model; a torch module, too."""

    labels: tuple[str, ...]
    """C"""
    dimensions: tuple[str, ...]
    """K"""
    lora_layers: tuple[str, ...]
    """names of the linear layers that LoRA adds to"""

    prepare: Callable[[Waveform], Waveform]
    """the clip (S,) as the model takes it; a function of its own, which goes to other processes
    without the model"""

    def __call__(self, waveform: Tensor, keep: Tensor | None = None) -> Answers:
        """Answers to prepared and padded clips (B, S); `keep` is True at real samples."""

    def answer(self, clips: Sequence[Waveform]) -> Answers:
        """Answers to clips (S,) at 16 kHz, not prepared: each as if it were alone, on the CPU."""

    def parts(self) -> Parts:
        """The parts of the model."""

    def temper(self, temperature: float) -> None:
        """Divide all logits by a temperature from now on, saved models included."""

    def save(self, folder: Path) -> None:
        """Write the model so that `Recognizer` and transformers read it."""


class NativeClassifier(nn.Module):
    """An `Emotion2vecClassifier` as a `Classifier`.

    >>> from emotion2vec import Emotion2vecConfig
    >>> config = Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7, labels=("happy", "sad"))
    >>> found = NativeClassifier(Emotion2vecClassifier(config)).answer([np.ones(800, np.float32)])
    >>> tuple(found.logits.shape), tuple(found.values.shape)
    ((1, 2), (1, 0))
    """

    lora_layers: tuple[str, ...] = ("qkv", "projection")

    def __init__(self, model: Emotion2vecClassifier) -> None:
        super().__init__()
        self.model = model
        self.labels, self.dimensions = model.config.labels, model.config.dimensions
        normalizes = model.config.normalize_waveform
        self.prepare: Callable[[Waveform], Waveform] = normalize if normalizes else _as_it_is

    def forward(self, waveform: Tensor, keep: Tensor | None = None) -> Answers:
        """See `Classifier`."""
        return self.model.answer(self.model.encoder(waveform, keep).pooled)

    @torch.inference_mode()
    def answer(self, clips: Sequence[Waveform]) -> Answers:
        """See `Classifier`."""
        encoded = encode_clips(self.model.encoder, clips)
        # In float64: a sum over the 180,000 frames of an hour would lose two digits.
        pooled = torch.from_numpy(np.stack([e.frames.mean(axis=0, dtype=float) for e in encoded]))
        found = self.model.answer(pooled.to(next(self.model.parameters())))
        return Answers(found.logits.float().cpu(), found.values.float().cpu())

    def parts(self) -> Parts:
        """See `Classifier`."""
        encoder = self.model.encoder
        context = encoder.context
        head = [self.model.classifier, self.model.regressor]
        return Parts(
            [encoder.feature_encoder],
            [encoder.feature_projection, context.positional_encoder],
            list(context.blocks),
            [layer for layer in head if layer is not None],
        )

    @torch.no_grad()
    def temper(self, temperature: float) -> None:
        """See `Classifier`."""
        divide_rows(self.model.classifier, temperature, len(self.labels))

    def save(self, folder: Path) -> None:
        """See `Classifier`."""
        self.model.save_pretrained(folder)


def _as_it_is(clip: Waveform) -> Waveform:
    return clip


def divide_rows(layer: nn.Linear | None, temperature: float, count: int) -> None:
    """Divide the first `count` outputs of a linear layer, in place.

    >>> layer = nn.Linear(2, 1)
    >>> before = layer.bias.item()
    >>> divide_rows(layer, 2.0, 1)
    >>> layer.bias.item() == before / 2
    True
    """
    if layer is not None:
        with torch.no_grad():
            layer.weight[:count] /= temperature
            layer.bias[:count] /= temperature


def to_device(classifier: Classifier, device: str) -> None:
    """Move a classifier, in eval mode; on CPUs its weights are laid out for products."""
    assert isinstance(classifier, nn.Module)
    classifier.to(device).eval()
    if device == "cpu":
        arrange_weights(classifier)


def fingerprint(classifier: Classifier, *more: Iterable[str] | str) -> str:
    """Eight hex digits that change with the weights, and with what else is given."""
    assert isinstance(classifier, nn.Module)
    digest = hashlib.sha256(json.dumps([classifier.labels, *map(list, more)]).encode())
    for value in classifier.state_dict().values():
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:8]
