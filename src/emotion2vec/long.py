"""Recordings of any length: the encoder block by block, with memory for the frames only.

Attention over all pairs of frames would need 400 GB for an hour. Here every block runs over short
stretches of frames. Each head sees the frames around it as far as it can tell them from nothing,
and the utterance tokens see everything, so that frames equal those of the whole.

S samples, T frames, L layers, C channels, D width, U utterance tokens, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.convolutions import ConvLayer, FeatureEncoder
from emotion2vec.layers import Block, at_least_float32, sdpa_attention
from emotion2vec.model import Emotion2vec, check_waveform

LONG_SECONDS = 60.0
"""Recordings over this are encoded here; under it, the plain forward is faster."""

STRETCH_FRAMES = 300
"""6 s: queries at a time."""

FORGET = 20.0
"""A head's view ends where distance has taken this off a score: there a frame weighs e**-20 of what
it would weigh nearby. Heads that do not mind distance see everything."""

BIAS_NUMBERS = 2**25
"""What heads add to their scores at a time, 128 MB; a single head may need more."""


class LongOutput(NamedTuple):
    """What comes out of a long recording."""

    frames: Tensor
    """(T, D), on the CPU; (T, L, D) of several layers"""
    tokens: Tensor
    """(U, D) or (U, L, D), on the CPU"""


@torch.inference_mode()
def encode_long(
    model: Emotion2vec, waveform: Tensor, *, layer_weights: Tensor | None = None
) -> LongOutput:
    """Frames and tokens of one recording, as `Emotion2vec.forward` gives them, in bounded memory.

    Besides the waveform, memory holds T x D numbers (550 MB an hour at base size; twice that with
    `layer_weights`, 2 L + 1 times with L sums) and what one stretch needs: the queries, keys and
    values in view of the farthest-sighted head. Frames equal the plain forward's to 1e-5 where all
    heads see the whole recording, and to about 1e-3 beyond (`FORGET`). Heads that do not mind
    distance, as all do in models without ALiBi, see everything: exact, but time grows with T x T.

    Args:
        model: in eval mode
        waveform: (S,), normalized
        layer_weights: (blocks + 1,), return that sum over layers instead of the output; or
            (L, blocks + 1), return L such sums

    Raises:
        ValueError: if the waveform has another shape or is shorter than 400 samples

    >>> from emotion2vec import Emotion2vecConfig
    >>> model = Emotion2vec(Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7)).eval()
    >>> tuple(encode_long(model, torch.randn(48000)).frames.shape)
    (149, 48)
    """
    check_waveform(waveform.unsqueeze(0), None, model.config)
    context = model.context
    frames = _features(model, waveform)
    tokens = _embed(model, frames)
    sums = [] if layer_weights is None else torch.atleast_2d(layer_weights).tolist()
    mixed = [LongOutput(frames * weights[0], tokens * weights[0]) for weights in sums]
    for number, block in enumerate(context.blocks):
        assert isinstance(block, Block)
        groups = _by_reach(context.head_slopes(number), len(frames))
        tokens = _run_block(block, frames, tokens, groups)
        for weights, mix in zip(sums, mixed, strict=True):
            if weights[number + 1]:
                mix.frames.add_(frames, alpha=weights[number + 1])
                mix.tokens.add_(tokens, alpha=weights[number + 1])
    if layer_weights is not None:
        several = (torch.stack(part, dim=-2) for part in zip(*mixed, strict=True))
        frames, tokens = mixed[0] if layer_weights.ndim == 1 else several
    elif context.norm is not None:
        tokens = context.norm(tokens)
        for part in frames.split(STRETCH_FRAMES):
            part.copy_(context.norm(part.to(tokens)))
    return LongOutput(frames, at_least_float32(tokens[0]).cpu())


def _features(model: Emotion2vec, waveform: Tensor) -> Tensor:
    """Return the projected convolution frames (T, D), on the CPU."""
    config, some = model.config, next(model.parameters())
    encode: Callable[[Tensor], Tensor] = model.feature_encoder
    if config.conv_norm == "group":
        encode = _with_norm_of_the_whole(model.feature_encoder, waveform)
    total, hop = config.num_frames(len(waveform)), config.hop_samples
    frames = torch.empty(total, config.embed_dim, dtype=at_least_float32(some).dtype)
    for first in range(0, total, STRETCH_FRAMES):
        last = min(first + STRETCH_FRAMES, total)
        part = waveform[first * hop : (last - 1) * hop + config.min_samples].to(some.device)
        frames[first:last] = model.feature_projection(encode(part.unsqueeze(0)))[0]
    return frames


def _with_norm_of_the_whole(
    encoder: FeatureEncoder, waveform: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the convolutions of a part, (1, S) -> (1, T, C), group norm as over the whole.

    The norm's mean and variance, of each channel over all time, are taken in a pass of their own.
    """
    layers = [layer for layer in encoder.layers if isinstance(layer, ConvLayer)]
    conv, norm = layers[0].conv, layers[0].norm
    assert isinstance(norm, nn.GroupNorm)
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    total = (len(waveform) - kernel) // stride + 1
    step = STRETCH_FRAMES * encoder.config.hop_samples // stride
    moments = torch.zeros(2, conv.out_channels, dtype=torch.float64, device=conv.weight.device)
    for first in range(0, total, step):
        last = min(first + step, total)
        part = waveform[first * stride : (last - 1) * stride + kernel].to(conv.weight.device)
        x = at_least_float32(conv(part[None, None])[0])  # (C, S')
        moments += torch.stack([y.sum(dim=1, dtype=torch.float64) for y in (x, x.square())]) / total
    mean, variance = moments[0], moments[1] - moments[0].square()

    def encode(part: Tensor) -> Tensor:
        x = conv(part.unsqueeze(1))
        mean_, variance_ = mean.to(x.dtype), variance.to(x.dtype)
        x = F.gelu(F.batch_norm(x, mean_, variance_, norm.weight, norm.bias, eps=norm.eps))
        for layer in layers[1:]:
            x = layer(x)
        return x.transpose(1, 2)

    return encode


def _embed(model: Emotion2vec, frames: Tensor) -> Tensor:
    """Turn features (T, D) into what enters the first block; return such tokens (1, U, D)."""
    config, context, some = model.config, model.context, next(model.parameters())
    norm = nn.Identity() if context.prenet_norm is None else context.prenet_norm
    halo = config.position_depth * (config.position_kernel // 2)
    before = frames[:0]
    for first in range(0, len(frames), STRETCH_FRAMES):
        last = min(first + STRETCH_FRAMES, len(frames))
        x = torch.cat([before, frames[first : last + halo]])  # a copy, as frames change
        here = slice(len(before), len(before) + last - first)
        before = x[max(here.stop - halo, 0) : here.stop]
        x = x.unsqueeze(0).to(some)
        frames[first:last] = norm(x + context.positional_encoder(x))[0, here]
    tokens = context.utterance_tokens
    return some.new_empty(1, 0, config.embed_dim) if tokens is None else norm(tokens)


class _Heads(NamedTuple):
    """Heads that see equally far."""

    numbers: list[int]
    slopes: Tensor
    """what each takes off a score for a frame's distance"""
    reach: int
    """in stretches, to either side"""


def _by_reach(slopes: Tensor, num_frames: int) -> list[_Heads]:
    """Return a block's heads in groups, the short-sighted first."""
    most = math.ceil(num_frames / STRETCH_FRAMES)
    views = [FORGET / slope if slope else math.inf for slope in slopes.tolist()]
    reaches = [math.ceil(min(view / STRETCH_FRAMES, most)) for view in views]
    groups = []
    for reach in sorted(set(reaches)):
        numbers = [i for i, own in enumerate(reaches) if own == reach]
        size = max(1, BIAS_NUMBERS // (STRETCH_FRAMES**2 * min(2 * reach + 1, most)))
        for first in range(0, len(numbers), size):
            chosen = numbers[first : first + size]
            groups.append(_Heads(chosen, slopes[chosen], reach))
    return groups


def _run_block(block: Block, frames: Tensor, tokens: Tensor, groups: list[_Heads]) -> Tensor:
    """Replace frames (T, D) by the block's output, stretch by stretch; return that of the tokens.

    Stretches go from left to right: queries, keys and values of those to the right are made before
    these change, and are kept until no stretch looks back at them.
    """
    attention = block.attention
    of_tokens = attention.heads(block.attention_input(tokens))
    seen = _TokenAttention(*of_tokens)
    stretches = frames.split(STRETCH_FRAMES)
    farthest = max(group.reach for group in groups)
    order = torch.tensor([i for group in groups for i in group.numbers]).argsort()
    window = {-1: torch.cat(of_tokens)}  # stretch -> (3, H, n, D/H): queries, keys and values
    known = 0
    for here, stretch in enumerate(stretches):
        while known < min(here + farthest + 1, len(stretches)):
            x = stretches[known].unsqueeze(0).to(tokens)
            heads = attention.heads(block.attention_input(x))
            seen.update(heads[1], heads[2])
            window[known] = torch.cat(heads)
            known += 1
        attended = torch.cat([_attend(window, here, group) for group in groups], dim=1)
        output, _ = block.combine(
            stretch.unsqueeze(0).to(tokens), attention.merge(attended[:, order])
        )
        stretch.copy_(output[0])
        if here >= farthest:
            del window[here - farthest]
    return block.combine(tokens, attention.merge(seen.heads()))[0]


def _attend(window: dict[int, Tensor], here: int, group: _Heads) -> Tensor:
    """Return the attention output of some heads for the frames of one stretch, (1, h, Q, D/H)."""
    near = [i for i in sorted(window) if abs(i - here) <= group.reach and i >= 0]
    parts = [window[i][:, group.numbers] for i in (-1, *near)]
    key, value = (torch.cat([part[n] for part in parts], dim=1).unsqueeze(0) for n in (1, 2))
    query = window[here][:1, group.numbers]
    bias = None
    if bool(group.slopes.any()):
        times = torch.arange(key.shape[2] - parts[0].shape[2], device=key.device)
        asking = times[: query.shape[2]] + (here - near[0]) * STRETCH_FRAMES
        distances = (asking.unsqueeze(1) - times).abs().float()  # (Q, frames in view)
        bias = F.pad(distances * -group.slopes.view(1, -1, 1, 1), (parts[0].shape[2], 0))
    return sdpa_attention(query, key, value, bias, 0.0)


class _TokenAttention:
    """Attention of the utterance tokens over keys that come bit by bit; no distances count."""

    def __init__(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        self.query = at_least_float32(query) * query.shape[-1] ** -0.5
        self.top = self.query.new_full((*query.shape[:3], 1), -torch.inf)
        self.total = torch.zeros_like(self.top)
        self.sum = torch.zeros_like(self.query)
        self.dtype = value.dtype
        self.update(key, value)

    def update(self, key: Tensor, value: Tensor) -> None:
        """Take in keys and values (1, H, n, D/H), rescaling what came before to the new maximum."""
        if not key.shape[2]:
            return
        scores = self.query @ at_least_float32(key).transpose(2, 3)  # (1, H, U, n)
        top = torch.maximum(self.top, scores.amax(dim=-1, keepdim=True))
        weights, shrink = (scores - top).exp(), (self.top - top).exp()
        self.total = self.total * shrink + weights.sum(dim=-1, keepdim=True)
        self.sum = self.sum * shrink + weights @ at_least_float32(value)
        self.top = top

    def heads(self) -> Tensor:
        """The attention's output so far, (1, H, U, D/H)."""
        return (self.sum / self.total).to(self.dtype)
