"""Frozen feature makers behind one call: ours, ours with random weights, log-mel frames.

S samples, T frames, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform, normalize, pad_clips
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.model import Emotion2vec

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Backbone:
    """A named function from clips to frames; batched and single calls give the same."""

    name: str
    dim: int
    """D"""
    fingerprint: str
    """changes with the weights: features of a model trained anew are other features"""
    encode: Callable[[Sequence[Waveform]], list[Frames]]
    """clips (S,) at 16 kHz, not normalized -> frames (T, D), one array a clip"""


def load_backbone(name: str, *, layer: int | None = None, device: str | None = None) -> Backbone:
    """The backbone called `name`.

    Args:
        name: a folder or hub name of an encoder; "random:NAME" for the same architecture with
            random weights; or "logmel"
        layer: a block's output, from 1 (negative counts from the last), 0 for what enters the
            first block; None for the model's output
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


def _pretrained(name: str, layer: int | None, device: str | None) -> Backbone:
    return encoder_backbone(Emotion2vec.from_pretrained(name), name, layer=layer, device=device)


def _random(name: str, layer: int | None, device: str | None) -> Backbone:
    config = Emotion2vec.from_pretrained(name).config
    return encoder_backbone(random_encoder(config), f"random:{name}", layer=layer, device=device)


def _logmel(name: str, layer: int | None, device: str | None) -> Backbone:
    if name or layer is not None:
        raise ValueError("logmel has neither a model nor layers; ask for plain logmel.")
    return Backbone("logmel", MEL_BANDS, "1", lambda clips: [log_mel(clip) for clip in clips])


BACKBONES = {"random": _random, "logmel": _logmel}
"""What stands before the colon of a name, and its loader."""


def random_encoder(config: Emotion2vecConfig, seed: int = 0) -> Emotion2vec:
    """An untrained encoder: what the architecture gives without any learning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Emotion2vec(config).eval()


def encoder_backbone(
    model: Emotion2vec, name: str, *, layer: int | None = None, device: str | None = None
) -> Backbone:
    """A backbone around an encoder in memory; arguments as in `load_backbone`."""
    depth = model.config.prenet_depth + model.config.depth
    if layer is not None and not -depth <= layer <= depth:
        raise ValueError(
            f"{name} has no layer {layer}; choose 0 (what enters the first block) to {depth}, "
            f"or -{depth} to -1."
        )
    # A build for an accelerator names it even where the machine has none.
    has_accelerator = torch.accelerator.is_available()
    device = device or str(torch.accelerator.current_accelerator() if has_accelerator else "cpu")
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    model = model.to(device).eval()

    @torch.inference_mode()
    def encode(clips: Sequence[Waveform]) -> list[Frames]:
        ready = [normalize(c) if model.config.normalize_waveform else c for c in clips]
        waveform, mask = (torch.from_numpy(array).to(device) for array in pad_clips(ready))
        output = model(
            waveform,
            None if bool(mask.all()) else mask,
            output_hidden_states=layer is not None,
        )
        frames = output.last_hidden_state if layer is None else output.hidden_states[layer]
        lengths = [model.config.num_frames(len(clip)) for clip in clips]
        return [f[:length].float().cpu().numpy() for f, length in zip(frames, lengths, strict=True)]

    name = name if layer is None else f"{name}@{layer}"
    return Backbone(name, model.config.embed_dim, digest.hexdigest()[:16], encode)


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
