"""Frozen feature makers behind one call: ours, those of transformers, hand-made ones.

S samples, T frames, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emotion2vec.audio import Waveform
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.encoding import Encoded, arrange_weights, default_device, encode_clips
from emotion2vec.handmade import HAND_MADE
from emotion2vec.layer_choice import Layer, layer_weights, with_layer
from emotion2vec.model import Emotion2vec
from emotion2vec.speech_encoders import load_speech_encoder


@dataclass(frozen=True)
class Backbone:
    """A named function from clips to frames; batched and single calls give the same."""

    name: str
    dim: int
    """D"""
    fingerprint: str
    """changes with weights, settings and layer, not with the name: a model trained anew gives other
    features, a folder that was moved the same"""
    encode: Callable[[Sequence[Waveform]], list[Encoded]]
    """clips (S,) at 16 kHz, not normalized -> what comes out of each"""
    num_tokens: int = 0
    """U"""
    kind: str = "model"
    """of what sort: "model" or "hand-made", by nobody trained"""
    default_head: str = "linear"
    """what is trained on the frames where nothing else is asked for: the paper's probe, or on
    hand-made ones logistic regression"""


def load_backbone(name: str, *, layer: Layer = None, device: str | None = None) -> Backbone:
    """The backbone called `name`.

    Args:
        name: a folder or hub name of an encoder; "random:NAME" for the same architecture with
            random weights; "hf:NAME" for another speech encoder, a folder or hub name of
            transformers, "hf-random:NAME-OR-FAMILY" for one with random weights; or a hand-made
            kind: "logmel", "mfcc", "spectrogram", "afcn" (the same frames, for another head),
            "egemaps", "trivial"
        layer: which layer, a weighted mean of layers, or all: `emotion2vec.layer_choice.Layer`
        device: where to compute; the accelerator where there is one, if None

    Raises:
        FileNotFoundError: if there is no such model
        ModuleNotFoundError: without the extra that it needs
        ValueError: if the model has no such layer

    >>> load_backbone("logmel").dim
    64
    """
    kind, _, model = name.partition(":")
    if kind in BACKBONES:
        return BACKBONES[kind](model, layer, device)
    return _pretrained(name, layer, device)


def _pretrained(name: str, layer: Layer, device: str | None) -> Backbone:
    return encoder_backbone(Emotion2vec.from_pretrained(name), name, layer=layer, device=device)


def _random(name: str, layer: Layer, device: str | None) -> Backbone:
    config = Emotion2vec.from_pretrained(name).config
    return encoder_backbone(random_encoder(config), f"random:{name}", layer=layer, device=device)


def _speech_encoder(
    name: str, layer: Layer, device: str | None, *, random: bool = False
) -> Backbone:
    encoder = load_speech_encoder(name, random=random)
    name = f"hf-random:{name}" if random else f"hf:{name}"
    weights = layer_weights(layer, encoder.depth, name)
    nothing = np.zeros((0, encoder.dim), np.float32)
    fingerprint = _fingerprint(encoder.model, encoder.settings, weights)
    encoder.model.to(device or default_device())

    def encode(clips: Sequence[Waveform]) -> list[Encoded]:
        return [Encoded(frames, nothing) for frames in encoder.encode(clips, weights)]

    return Backbone(with_layer(name, layer), encoder.dim, fingerprint, encode)


def _hand_made(kind: str, name: str, layer: Layer, device: str | None) -> Backbone:
    if name or layer is not None:
        raise ValueError(f"{kind} has neither a model nor layers; ask for plain {kind}.")
    made = HAND_MADE[kind]
    frames_of, nothing = made.open(), np.zeros((0, made.dim), np.float32)

    def encode(clips: Sequence[Waveform]) -> list[Encoded]:
        return [Encoded(frames_of(clip), nothing) for clip in clips]

    return Backbone(
        kind, made.dim, made.fingerprint, encode, kind="hand-made", default_head=made.head
    )


BACKBONES: dict[str, Callable[[str, Layer, str | None], Backbone]] = {
    "random": _random,
    "hf": _speech_encoder,
    "hf-random": partial(_speech_encoder, random=True),
    **{kind: partial(_hand_made, kind) for kind in HAND_MADE},
}
"""What stands before the colon of a name, and its loader."""


def random_encoder(config: Emotion2vecConfig, seed: int = 0) -> Emotion2vec:
    """An untrained encoder: what the architecture gives without any learning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Emotion2vec(config).eval()


def encoder_backbone(
    model: Emotion2vec, name: str, *, layer: Layer = None, device: str | None = None
) -> Backbone:
    """A backbone around an encoder in memory; arguments as in `load_backbone`."""
    weights = layer_weights(layer, model.config.prenet_depth + model.config.depth, name)
    device = device or default_device()
    fingerprint = _fingerprint(model, model.config.to_dict(), weights)
    model = model.to(device).eval()
    if device == "cpu":
        arrange_weights(model)

    def encode(clips: Sequence[Waveform]) -> list[Encoded]:
        return encode_clips(model, clips, layer_weights=weights)

    return Backbone(
        with_layer(name, layer),
        model.config.embed_dim,
        fingerprint,
        encode,
        model.config.num_utterance_tokens,
    )


def _fingerprint(model: nn.Module, settings: Mapping[str, Any], weights: Tensor | None) -> str:
    used = [] if weights is None else weights.tolist()
    digest = hashlib.sha256(json.dumps([settings, used], default=str).encode())
    for value in model.state_dict().values():
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
