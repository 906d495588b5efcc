"""The transformer over frames: positions, utterance tokens, prenet and main blocks.

B clips, T frames, D width, U utterance tokens, L = U + T, V visible frames, H heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.utils.checkpoint import checkpoint

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.dropout import dropout
from emotion2vec.layers import Block, PositionalEncoder, alibi_slopes


class ContextOutput(NamedTuple):
    """What the transformer returns."""

    tokens: Tensor
    """(B, U, D)"""
    frames: Tensor
    """(B, T, D); in the student (R, V, D)"""
    hidden_states: tuple[Tensor, ...]
    """(B, T, D) each: what enters the first block, then every block's output; else empty"""
    mlp_outputs: tuple[Tensor, ...]
    """(B, T, D) each: the MLP output of every main block, which targets are made of; else empty"""
    token_states: tuple[Tensor, ...] = ()
    """(B, U, D) each: the tokens beside `hidden_states`; else empty"""


class ContextEncoder(nn.Module):
    """Positions, utterance tokens, prenet and main blocks: what the EMA teacher copies.

    Source: paper section 3.1; data2vec 2.0's modality encoder from the positional convolution on.
    """

    least_bias: float | None = None
    """What distance takes off a score at most. None has no such end; an exported model has one, see
    `emotion2vec.onnx_graph`."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.config = config
        depth = config.prenet_depth + config.depth
        self.positional_encoder = PositionalEncoder(config)
        self.utterance_tokens: nn.Parameter | None = None
        if config.num_utterance_tokens:
            shape = (1, config.num_utterance_tokens, config.embed_dim)
            self.utterance_tokens = nn.Parameter(torch.empty(shape))
        self.alibi_scale: nn.Parameter | None = None
        if config.alibi:
            layers = depth if config.alibi_scale_per_layer else 1
            heads = config.num_heads if config.alibi_scale_per_head else 1
            self.alibi_scale = nn.Parameter(torch.empty(layers, heads))
        self.prenet_norm = (
            None if config.pre_norm else nn.LayerNorm(config.embed_dim, config.norm_eps)
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.embed_dim, config.norm_eps) if config.pre_norm else None
        self.gradient_checkpointing = False

    def forward(
        self,
        features: Tensor,
        *,
        keep: Tensor | None = None,
        visible: Tensor | None = None,
        keep_blocks: Tensor | None = None,
        collect: bool = False,
    ) -> ContextOutput:
        """Contextualize frames; see `ContextOutput` for what comes out.

        Args:
            features: (B, T, D), projected frames
            keep: (B, T), True at real frames; None where nothing is padded
            visible: (B, V), increasing time indices of the frames to show; the others are hidden:
                zeroed for the positions, then left out. None shows all
            keep_blocks: (blocks,), on the CPU, False where a block is skipped for this batch
            collect: also return hidden states and MLP outputs
        """
        x = self._embed(features, keep, visible)  # (B, U + V, D)
        distances, padding = self._distances(features, keep, visible)
        hidden_states, mlp_outputs = [x], []
        bias = None
        for i, block in enumerate(self.blocks):
            if i == self.config.prenet_depth:
                x = dropout(x, self.config.input_dropout, self.training)
            if i == 0 or self.config.alibi_scale_per_layer:
                bias = self._bias(i, distances, padding)
            if keep_blocks is None or keep_blocks[i]:
                x, mlp = self._run(block, x, bias)
            elif _has_other_processes():
                x, mlp = self._pass_over(block, x, bias)
            else:
                continue
            if collect:
                hidden_states.append(x)
                mlp_outputs.append(mlp)
        if self.norm is not None:
            x = self.norm(x)
        first = self.config.num_utterance_tokens
        return ContextOutput(
            x[:, :first],
            x[:, first:],
            tuple(h[:, first:] for h in hidden_states) if collect else (),
            tuple(m[:, first:] for m in mlp_outputs[self.config.prenet_depth :]),
            tuple(h[:, :first] for h in hidden_states) if collect else (),
        )

    def _run(self, block: nn.Module, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.gradient_checkpointing and self.training:
            return checkpoint(block, x, bias, use_reentrant=False)
        return block(x, bias)

    def _pass_over(self, block: nn.Module, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return `x`, with gradients of zero for the block, which other processes wait for.

        What the block draws is drawn again by what follows, as where it is not run at all.
        """
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            output, mlp = self._run(block, x, bias)
        return torch.where(torch.ones_like(x, dtype=torch.bool), x, output), mlp

    def _embed(self, features: Tensor, keep: Tensor | None, visible: Tensor | None) -> Tensor:
        """Return tokens and frames as they enter the first block, (B, U + V, D)."""
        if visible is None:
            x = features + self.positional_encoder(features, keep)
        else:
            hidden = hidden_mask(visible, features.shape[1])
            positions = self.positional_encoder(
                features.masked_fill(hidden.unsqueeze(-1), 0.0), keep
            )
            index = visible.unsqueeze(-1).expand(-1, -1, features.shape[-1])
            x = features.gather(1, index) + positions.gather(1, index)
        if self.utterance_tokens is not None:
            # Not len(x), which a trace for export would take for a constant.
            tokens = self.utterance_tokens.to(x.dtype).expand(x.shape[0], -1, -1)
            x = torch.cat([tokens, x], dim=1)
        if self.prenet_norm is not None:
            x = self.prenet_norm(x)
        return dropout(x, self.config.prenet_dropout, self.training)

    def _distances(
        self, features: Tensor, keep: Tensor | None, visible: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return frame distances (B or 1, 1, L, L), zero at tokens, and -inf at padded keys.

        Hidden frames leave no trace: distances are those in the whole clip.
        """
        first = self.config.num_utterance_tokens
        distances = padding = None
        if self.config.alibi:
            times = visible
            if times is None:
                times = torch.arange(features.shape[1], device=features.device).unsqueeze(0)
            distances = (times.unsqueeze(1) - times.unsqueeze(2)).abs().float()
            distances = F.pad(distances, (first, 0, first, 0)).unsqueeze(1)
        if keep is not None:
            padding = torch.zeros(keep.shape, device=features.device)
            padding = padding.masked_fill(~keep, -torch.inf)
            padding = F.pad(padding, (first, 0))[:, None, None, :]
        return distances, padding

    def _bias(self, layer: int, distances: Tensor | None, padding: Tensor | None) -> Tensor | None:
        """Return what a block adds to its attention scores, (B or 1, H or 1, L or 1, L)."""
        if distances is None or self.alibi_scale is None:
            return padding
        bias = distances * -self.head_slopes(layer).view(1, -1, 1, 1)
        if self.least_bias is not None:
            bias = bias.clamp_min(self.least_bias)
        return bias if padding is None else bias + padding

    def head_slopes(self, layer: int) -> Tensor:
        """How fast each head of a block forgets: what it takes off a score for a frame, (H,).

        Zero for all heads of a model without ALiBi.
        """
        slopes = torch.tensor(alibi_slopes(self.config.num_heads))
        if self.alibi_scale is None:
            return torch.zeros_like(slopes)
        scale = self.alibi_scale[layer if self.config.alibi_scale_per_layer else 0].float()
        # A scale under zero would reward distance; the reference clamps it, gradient included.
        return slopes.to(scale.device) * scale.clamp_min(0)


def _has_other_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def hidden_mask(visible: Tensor, num_frames: int) -> Tensor:
    """Which frames are not visible: time indices (B, V) -> (B, T), True at hidden ones.

    >>> hidden_mask(torch.tensor([[0, 2]]), 4).tolist()
    [[False, True, False, True]]
    """
    hidden = torch.ones(len(visible), num_frames, dtype=torch.bool, device=visible.device)
    return hidden.scatter(1, visible, False)
