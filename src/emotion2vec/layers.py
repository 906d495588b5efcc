"""Parts of the encoder, each as in the paper's figure: projection, positions, blocks, decoder.

B clips (or rows of clips), S samples, T frames, L = U + T tokens and frames, V visible frames,
C channels, D width, H heads, U utterance tokens.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.dropout import dropout
from emotion2vec.products import can_use_products, grouped_convolution


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or in its own type where that is finer.

    >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


class DefaultLinear(nn.Linear):
    """A linear layer whose weights are drawn as torch does: the reference resets these two."""


class FeatureProjection(nn.Module):
    """Norm and linear map to the model's width: (B, T, C) -> (B, T, D)."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        # torch's default eps, not norm_eps: the reference builds this norm without options.
        self.norm = nn.LayerNorm(config.conv_channels[-1])
        self.linear = DefaultLinear(config.conv_channels[-1], config.embed_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the projected frames."""
        return self.linear(self.norm(frames))


class SameConv(nn.Module):
    """Grouped convolution over time, parameter-free norm, GELU: (B, T, C_in) -> (B, T, C_out)."""

    def __init__(self, channels: tuple[int, int], kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(*channels, kernel, padding=kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return as many frames as came; an even kernel's surplus last frame is cut."""
        num_frames = x.shape[1]
        # One clip without a graph is not worth laying out the kernel.
        if can_use_products(x) and (len(x) > 1 or torch.is_grad_enabled()):
            x = grouped_convolution(x, self.conv)[:, :num_frames]
        else:
            x = self.conv(x.transpose(1, 2))[..., :num_frames].transpose(1, 2)
        return F.gelu(F.layer_norm(x, x.shape[-1:]).to(x.dtype))


class PositionalEncoder(nn.Module):
    """Relative positions from a stack of convolutions: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(config.embed_dim) if config.position_pre_norm else None
        self.layers = nn.ModuleList(
            SameConv(
                (config.embed_dim, config.embed_dim),
                config.position_kernel,
                config.position_groups,
            )
            for _ in range(config.position_depth)
        )

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return what is to be added to the frames; `keep` (B, T) is True at real frames.

        Padded frames are zeroed before every layer: bias and norm make them non-zero again, and
        the next layer would carry them up to half a kernel into the clip.
        """
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        for layer in self.layers:
            if keep is not None:
                x = x.masked_fill(~keep.unsqueeze(-1), 0.0)
            x = layer(x)
        return x


def eager_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropped: float
) -> Tensor:
    """Attention written out, softmax in float32: (B, H, L, D/H) -> (B, H, L, D/H).

    `bias` (B or 1, H or 1, L or 1, L) is added to the scaled scores. The twin that
    `sdpa_attention` is checked against.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    weights = at_least_float32(scores).softmax(dim=-1).to(value.dtype)
    return dropout(weights, dropped, training=dropped > 0) @ value


def sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropped: float
) -> Tensor:
    """The same through torch's fused kernels; shapes as in `eager_attention`.

    Torch has none with dropout for CPUs: what it does there instead is slower than our own, and so
    are the gradients of its bfloat16 kernels (2 to 4 times at 120 to 200 frames).
    """
    learns = torch.is_grad_enabled() and query.dtype == torch.bfloat16
    if query.device.type == "cpu" and (dropped or learns):
        return eager_attention(query, key, value, bias, dropped)
    if bias is not None:
        bias = bias.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, bias, dropped)


ATTENTIONS = {"sdpa": sdpa_attention, "eager": eager_attention}


class Attention(nn.Module):
    """Multi-head self-attention with an additive bias: (B, L, D) -> (B, L, D)."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.attention_dropout
        self.implementation = "sdpa"
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.projection = nn.Linear(config.embed_dim, config.embed_dim)
        self.projection_dropout = config.projection_dropout

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the projected heads; `bias` as in `eager_attention`."""
        attend = ATTENTIONS[self.implementation]
        heads = attend(*self.heads(x), bias, self.dropout if self.training else 0.0)
        return self.merge(heads)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, H, L, D/H) each."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3, H, D/H)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return query, key, value

    def merge(self, heads: Tensor) -> Tensor:
        """Return the projection of heads side by side: (B, H, L, D/H) -> (B, L, D)."""
        x = self.projection(heads.transpose(1, 2).flatten(2))
        return dropout(x, self.projection_dropout, self.training)


class MLP(nn.Module):
    """Linear, GELU, linear: (B, L, D) -> (B, L, D)."""

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        width = int(config.embed_dim * config.mlp_ratio)
        self.fc1 = nn.Linear(config.embed_dim, width)
        self.fc2 = nn.Linear(width, config.embed_dim)
        self.dropout = config.activation_dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return the MLP's output, before any residual."""
        hidden = dropout(F.gelu(self.fc1(x)), self.dropout, self.training)
        return dropout(self.fc2(hidden), self.dropout, self.training)


class Block(nn.Module):
    """Transformer block: (B, L, D) -> its output and its MLP's output, both (B, L, D).

    The MLP's output, before dropout, residual and last norm, is what the teacher's targets are
    made of. Source: fairseq's data2vec 2.0 AltBlock.
    """

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.pre_norm, self.drop_residual = config.pre_norm, config.drop_residual
        self.norm1 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.mlp = MLP(config)
        self.mlp_dropout = config.mlp_dropout

    def forward(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (block output, MLP output)."""
        return self.combine(x, self.attention(self.attention_input(x), bias))

    def attention_input(self, x: Tensor) -> Tensor:
        """Return what the attention sees of the block's input."""
        return self.norm1(x) if self.pre_norm else x

    def combine(self, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Return (block output, MLP output) from the block's input and its attention's output."""
        if self.pre_norm:
            x = x + attended
            mlp = self.mlp(self.norm2(x))
            residual = mlp if self.drop_residual else x
            return residual + dropout(mlp, self.mlp_dropout, self.training), mlp
        x = self.norm1(x + attended)
        mlp = self.mlp(x)
        return self.norm2(x + dropout(mlp, self.mlp_dropout, self.training)), mlp


@lru_cache
def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """Slope of each head's distance penalty, as in ALiBi (arXiv 2108.12409, section 3).

    For a number of heads that is no power of two, those of the next lower power come first,
    then every second one of the next higher: not sorted, as the published weights expect.

    >>> alibi_slopes(4)
    (0.25, 0.0625, 0.015625, 0.00390625)
    """
    power = 2 ** int(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    if power < num_heads:
        slopes += alibi_slopes(2 * power)[0::2][: num_heads - power]
    return tuple(slopes)


class FrameDecoder(nn.Module):
    """Fills the hidden frames: visible frames (B, V, D) -> a prediction for all (B, T, O).

    Args:
        config: architecture
        num_outputs: O; the encoder's width D if None

    Source: paper section 3.2; data2vec 2.0's Decoder1d.
    """

    def __init__(self, config: Emotion2vecConfig, num_outputs: int | None = None) -> None:
        super().__init__()
        widths = (config.embed_dim, *[config.decoder_dim] * config.decoder_depth)
        self.dropout = config.decoder_dropout
        self.layers = nn.ModuleList(
            SameConv(channels, config.decoder_kernel, config.decoder_groups)
            for channels in pairwise(widths)
        )
        self.projection = DefaultLinear(widths[-1], num_outputs or config.embed_dim)

    def forward(self, frames: Tensor, visible: Tensor, filler: Tensor) -> Tensor:
        """Return predictions for all frames.

        Args:
            frames: (B, V, D), the encoder's output at the visible frames
            visible: (B, V), the time index of each
            filler: (B, T, D), what stands at the hidden frames: small noise, or zeros
        """
        # Not in place, unlike the reference: the utterance loss sees the encoder's own output.
        frames = dropout(frames, self.dropout, self.training).to(filler.dtype)
        x = filler.scatter(1, visible.unsqueeze(-1).expand_as(frames), frames)
        for layer in self.layers:
            y = layer(x)
            x = x + y if x.shape[-1] == y.shape[-1] else y
        return self.projection(x)
