"""Frozen feature makers behind one call: ours, ours with random weights, log-mel frames.

S samples, T frames, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.encoding import Encoded, Frames, arrange_weights, default_device, encode_clips
from emotion2vec.model import Emotion2vec

Layer = int | Sequence[float] | str | None
"""A block's output, from 1 (negative counts from the last), 0 for what enters the first block; a
weight for each of these, whose sum is 1; "mean" for equal weights; None for the model's output."""


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


def load_backbone(name: str, *, layer: Layer = None, device: str | None = None) -> Backbone:
    """The backbone called `name`.

    Args:
        name: a folder or hub name of an encoder; "random:NAME" for the same architecture with
            random weights; or "logmel"
        layer: which layer, or a weighted mean of layers, see `Layer`
        device: where to compute; the accelerator where there is one, if None

    Raises:
        FileNotFoundError: if there is no such model
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


def _logmel(name: str, layer: Layer, device: str | None) -> Backbone:
    if name or layer is not None:
        raise ValueError("logmel has neither a model nor layers; ask for plain logmel.")
    nothing = np.zeros((0, MEL_BANDS), np.float32)
    return Backbone(
        "logmel",
        MEL_BANDS,
        "logmel-1",
        lambda clips: [Encoded(log_mel(clip), nothing) for clip in clips],
    )


BACKBONES = {"random": _random, "logmel": _logmel}
"""What stands before the colon of a name, and its loader."""


def random_encoder(config: Emotion2vecConfig, seed: int = 0) -> Emotion2vec:
    """An untrained encoder: what the architecture gives without any learning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Emotion2vec(config).eval()


def parse_layer(text: str | None) -> Layer:
    """A `Layer` as people write it: "3", "mean" for equal weights, or weights with commas.

    >>> parse_layer("-1"), parse_layer("0,0.25,0.75"), parse_layer("mean")
    (-1, (0.0, 0.25, 0.75), 'mean')
    """
    if text is None or text == "mean":
        return text
    try:
        return tuple(float(part) for part in text.split(",")) if "," in text else int(text)
    except ValueError:
        raise ValueError(
            f'layer is {text!r}; give a number such as 6 or -1, "mean", or one weight for each '
            "layer with commas between."
        ) from None


def encoder_backbone(
    model: Emotion2vec, name: str, *, layer: Layer = None, device: str | None = None
) -> Backbone:
    """A backbone around an encoder in memory; arguments as in `load_backbone`."""
    weights = _layer_weights(layer, model.config.prenet_depth + model.config.depth, name)
    device = device or default_device()
    fingerprint = _fingerprint(model, weights)
    model = model.to(device).eval()
    if device == "cpu":
        arrange_weights(model)

    def encode(clips: Sequence[Waveform]) -> list[Encoded]:
        return encode_clips(model, clips, layer_weights=weights)

    if weights is not None:
        plain = isinstance(layer, int | str)
        name += f"@{layer}" if plain else "@" + ",".join(f"{w:.4g}" for w in weights.tolist())
    return Backbone(
        name,
        model.config.embed_dim,
        fingerprint,
        encode,
        model.config.num_utterance_tokens,
    )


def _fingerprint(model: Emotion2vec, layer_weights: Tensor | None) -> str:
    used = [] if layer_weights is None else layer_weights.tolist()
    digest = hashlib.sha256(json.dumps([model.config.to_dict(), used]).encode())
    for value in model.state_dict().values():
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _layer_weights(layer: Layer, depth: int, name: str) -> Tensor | None:
    """Return a weight for each of the depth + 1 hidden states, None for the model's output."""
    if layer is None:
        return None
    if isinstance(layer, int):
        if not -depth <= layer <= depth:
            raise ValueError(
                f"{name} has no layer {layer}; choose 0 (what enters the first block) to {depth}, "
                f"or -{depth} to -1."
            )
        return F.one_hot(torch.tensor(layer % (depth + 1)), depth + 1).float()
    if layer == "mean":
        return torch.full((depth + 1,), 1 / (depth + 1))
    weights = torch.tensor(tuple(layer))
    if len(weights) != depth + 1 or not abs(float(weights.sum()) - 1) <= 1e-3:
        raise ValueError(
            f"{len(weights)} layer weights with the sum {float(weights.sum()):g} are given; {name} "
            f"needs {depth + 1} (what enters the first block, and each block) with the sum 1."
        )
    return weights


MEL_BANDS = 64
_WINDOW, _HOP, _FFT = 400, 160, 512  # samples: 25 ms, 10 ms


def log_mel(samples: Waveform) -> Frames:
    """Natural log of the energy in 64 mel bands, (T, 64): 25 ms windows every 10 ms.

    The clip's peak is set to 1 first, so that recording level does not matter.

    >>> log_mel(np.sin(np.arange(16000, dtype=np.float32))).shape
    (98, 64)
    """
    samples = samples / max(float(np.abs(samples).max()), 1e-9)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), _FFT)) ** 2  # (T, bins)
    return np.log(power @ _mel_filters().T + 1e-6).astype(np.float32)


@lru_cache
def _mel_filters() -> NDArray[np.float64]:
    """Return triangles, equally wide on the mel scale from 20 Hz to 8 kHz: (bands, bins)."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (20, SAMPLE_RATE / 2))
    edges = 700 * (10 ** (np.linspace(low, high, MEL_BANDS + 2) / 2595) - 1)
    bins = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))
