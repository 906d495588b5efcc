"""Recordings of any length: the encoder block by block, with memory for the frames only.

Attention over all pairs of frames would need 400 GB for an hour. Here every block runs over short
stretches of frames. Each sees the frames around it as far as its heads can tell them from
nothing, and the utterance tokens see everything, so that frames equal those of the whole.

S samples, T frames, D width, U utterance tokens, H heads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emotion2vec.layers import Attention, Block, sdpa_attention
from emotion2vec.model import Emotion2vec

LONG_SECONDS = 60.0
"""Recordings over this are encoded here; under it, the plain forward is faster."""

STRETCH_FRAMES = 300
"""6 s: queries at a time."""

FORGET = 10.0
"""A head's view ends where distance has taken this off a score: there a frame weighs e**-10 of what
it would weigh nearby."""

MAX_VIEW_FRAMES = 6000
"""2 min to either side, for heads that have learned to forget hardly at all."""


class LongOutput(NamedTuple):
    """What comes out of a long recording."""

    frames: Tensor
    """(T, D), on the CPU"""
    tokens: Tensor
    """(U, D), on the CPU"""


@torch.inference_mode()
def encode_long(
    model: Emotion2vec, waveform: Tensor, *, layer_weights: Tensor | None = None
) -> LongOutput:
    """Frames and tokens of one recording, as `Emotion2vec.forward` gives them, in bounded memory.

    Besides the waveform, memory holds T x D numbers (550 MB an hour at base size; twice that with
    `layer_weights`) and what one stretch needs. Frames equal the plain forward's to 1e-5 where all
    heads see the whole recording, and to about 1e-3 beyond (`FORGET`). Models without ALiBi see
    everything: exact, but slow.

    Args:
        model: in eval mode
        waveform: (S,), normalized
        layer_weights: (blocks + 1,), return that sum of hidden states instead of the output

    >>> from emotion2vec import Emotion2vecConfig
    >>> model = Emotion2vec(Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7)).eval()
    >>> tuple(encode_long(model, torch.randn(48000)).frames.shape)
    (149, 48)
    """
    context = model.context
    frames, tokens = _embed(model, waveform)
    mixed = None if layer_weights is None else frames * layer_weights[0]
    for number, block in enumerate(context.blocks):
        assert isinstance(block, Block)
        slopes = context.head_slopes(number)
        tokens = _run_block(block, frames, tokens, slopes, _view_frames(slopes, len(frames)))
        if mixed is not None and layer_weights is not None:
            mixed.add_(frames, alpha=float(layer_weights[number + 1]))
    if context.norm is not None:
        tokens = context.norm(tokens)
        for part in frames.split(STRETCH_FRAMES):
            part.copy_(context.norm(part.to(tokens.device)))
    return LongOutput(frames if mixed is None else mixed, tokens[0].float().cpu())


def _view_frames(slopes: Tensor, num_frames: int) -> int:
    """Return how many frames to either side a block's farthest-sighted head sees."""
    slowest = float(slopes.min())
    if float(slopes.max()) == 0.0:  # no ALiBi: distance costs nothing
        return num_frames
    return min(num_frames, math.ceil(FORGET / max(slowest, FORGET / MAX_VIEW_FRAMES)))


def _embed(model: Emotion2vec, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """Return frames (T, D) and tokens (1, U, D) as they enter the first block."""
    config, context = model.config, model.context
    device = next(model.parameters()).device
    total = config.num_frames(len(waveform))
    halo = config.position_depth * (config.position_kernel // 2)
    frames = torch.empty(total, config.embed_dim)
    for first in range(0, total, STRETCH_FRAMES):
        last = min(first + STRETCH_FRAMES, total)
        begin, end = max(first - halo, 0), min(last + halo, total)
        hop = config.hop_samples
        part = waveform[begin * hop : (end - 1) * hop + config.min_samples].to(device)
        features, _ = model.features(part.unsqueeze(0))  # (1, end - begin, D)
        x = features + context.positional_encoder(features)
        frames[first:last] = _prenet(model, x[:, first - begin : last - begin])[0]
    none = torch.empty(1, 0, config.embed_dim, device=device)
    tokens = none if context.utterance_tokens is None else context.utterance_tokens
    return frames, _prenet(model, tokens)


def _prenet(model: Emotion2vec, x: Tensor) -> Tensor:
    norm = model.context.prenet_norm
    return x if norm is None else norm(x)


def _run_block(block: Block, frames: Tensor, tokens: Tensor, slopes: Tensor, view: int) -> Tensor:
    """Replace frames (T, D) by the block's output, stretch by stretch; return that of the tokens.

    Stretches go from left to right: queries, keys and values of frames to the right are made before
    these change, and are kept until no stretch looks back at them.
    """
    attention, device = block.attention, tokens.device
    of_tokens = attention.heads(block.attention_input(tokens))  # (1, H, U, D/H) each
    seen = _TokenAttention(of_tokens)
    window = [x[:, :, :0] for x in of_tokens]  # queries, keys, values from frame `begin` on
    begin = known = 0
    for first in range(0, len(frames), STRETCH_FRAMES):
        last = min(first + STRETCH_FRAMES, len(frames))
        while known < min(last + view, len(frames)):
            new = frames[known : known + STRETCH_FRAMES].unsqueeze(0).to(device)
            heads = attention.heads(block.attention_input(new))
            seen.update(heads[1], heads[2])
            window = [torch.cat(pair, dim=2) for pair in zip(window, heads, strict=True)]
            known += new.shape[1]
        forgotten = max(first - view, 0) - begin
        begin += forgotten
        window = [x[:, :, forgotten:] for x in window]
        attended = _attend(window, of_tokens, slopes, first - begin, last - begin, attention)
        output, _ = block.combine(frames[first:last].unsqueeze(0).to(device), attended)
        frames[first:last] = output[0]
    return block.combine(tokens, attention.merge(seen.heads()))[0]


def _attend(
    window: list[Tensor],
    of_tokens: tuple[Tensor, Tensor, Tensor],
    slopes: Tensor,
    first: int,
    last: int,
    attention: Attention,
) -> Tensor:
    """Return the attention output of the window's frames from `first` to `last`, (1, Q, D)."""
    query, (key, value) = window[0][:, :, first:last], window[1:]
    times = torch.arange(key.shape[2], device=key.device)
    distances = (times[first:last, None] - times).abs().float()  # (Q, keys)
    bias = F.pad(distances * -slopes.view(1, -1, 1, 1), (of_tokens[1].shape[2], 0))
    key, value = (torch.cat(pair, dim=2) for pair in ((of_tokens[1], key), (of_tokens[2], value)))
    return attention.merge(sdpa_attention(query, key, value, bias, 0.0))


class _TokenAttention:
    """Attention of the utterance tokens over keys that come bit by bit; no distances count."""

    def __init__(self, of_tokens: tuple[Tensor, Tensor, Tensor]) -> None:
        query, key, value = of_tokens
        self.query = query.float() * query.shape[-1] ** -0.5
        self.top = self.query.new_full((*query.shape[:3], 1), -torch.inf)
        self.total = torch.zeros_like(self.top)
        self.sum = torch.zeros_like(self.query)
        self.dtype = value.dtype
        self.update(key, value)

    def update(self, key: Tensor, value: Tensor) -> None:
        """Take in keys and values (1, H, n, D/H), rescaling what came before to the new maximum."""
        if not key.shape[2]:
            return
        scores = self.query @ key.float().transpose(2, 3)  # (1, H, U, n)
        top = torch.maximum(self.top, scores.amax(dim=-1, keepdim=True))
        weights, shrink = (scores - top).exp(), (self.top - top).exp()
        self.total = self.total * shrink + weights.sum(dim=-1, keepdim=True)
        self.sum = self.sum * shrink + weights @ value.float()
        self.top = top

    def heads(self) -> Tensor:
        """The attention's output so far, (1, H, U, D/H)."""
        return (self.sum / self.total).to(self.dtype)
