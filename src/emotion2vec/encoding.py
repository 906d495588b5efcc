"""Clips through an encoder, each as if it were alone: batches, long recordings, layers.

S samples, T frames, L layers, D width, U utterance tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion2vec.audio import SAMPLE_RATE, Waveform, normalize, pad_clips
from emotion2vec.layer_choice import mix_layers
from emotion2vec.long import LONG_SECONDS, encode_long
from emotion2vec.model import Emotion2vec

Frames = NDArray[np.float32]


class Encoded(NamedTuple):
    """What comes out of one clip."""

    frames: Frames
    """(T, D); of all layers (T, L, D)"""
    tokens: Frames
    """(U, D) or (U, L, D), the utterance tokens; none where the model has none"""


def default_device() -> str:
    """The accelerator where the machine has one, else "cpu"."""
    # A build for an accelerator names it even where the machine has none.
    available = torch.accelerator.is_available()
    return str(torch.accelerator.current_accelerator()) if available else "cpu"


def computes_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a run casts to bfloat16; "auto" asks the device whether it computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without such instructions a processor is slower in bfloat16 than in float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@torch.no_grad()
def arrange_weights(model: nn.Module) -> None:
    """Lay the weights of an encoder in memory as products on CPUs read them fastest.

    Their values and shapes stay: only strides change, and some per cent of the time of short clips.

    >>> layer = nn.Linear(2, 3)
    >>> arrange_weights(layer)
    >>> layer.weight.stride()
    (1, 3)
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()
        elif isinstance(module, nn.Conv1d):
            kernel = module.weight.data.permute(2, 1, 0).contiguous()
            module.weight.data = kernel.permute(2, 1, 0)


@torch.inference_mode()
def encode_clips(
    model: Emotion2vec, clips: Sequence[Waveform], *, layer_weights: Tensor | None = None
) -> list[Encoded]:
    """Frames and tokens of clips (S,) at 16 kHz, not normalized; each as if it were alone.

    Short clips are one padded batch, recordings over a minute go one by one (`emotion2vec.long`).

    Args:
        model: in eval mode, on any device
        clips: mono, 16 kHz
        layer_weights: (blocks + 1,), return that sum over layers instead of the output; or
            (L, blocks + 1), return L such sums, frames (T, L, D) and tokens (U, L, D)
    """
    ready = [normalize(c) if model.config.normalize_waveform else c for c in clips]
    found: dict[int, Encoded] = {}
    for i, clip in enumerate(ready):
        if len(clip) > LONG_SECONDS * SAMPLE_RATE:
            long = encode_long(model, torch.from_numpy(clip), layer_weights=layer_weights)
            found[i] = Encoded(long.frames.numpy(), long.tokens.numpy())
    short = [i for i in range(len(ready)) if i not in found]
    if short:
        frames, tokens = _encode_batch(model, [ready[i] for i in short], layer_weights)
        for row, i in enumerate(short):
            length = model.config.num_frames(len(ready[i]))
            found[i] = Encoded(frames[row, :length].numpy(), tokens[row].numpy())
    return [found[i] for i in range(len(ready))]


def _encode_batch(
    model: Emotion2vec, clips: list[Waveform], layer_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return frames (B, T, D) and tokens (B, U, D) of a padded batch, float32 on the CPU."""
    device = next(model.parameters()).device
    waveform, mask = (torch.from_numpy(array).to(device) for array in pad_clips(clips))
    output = model(
        waveform,
        None if bool(mask.all()) else mask,
        output_hidden_states=layer_weights is not None,
    )
    frames, tokens = output.last_hidden_state, output.utterance_tokens
    if layer_weights is not None:
        frames = mix_layers(output.hidden_states, layer_weights)
        tokens = mix_layers(output.token_states, layer_weights)
    return frames.float().cpu(), tokens.float().cpu()
