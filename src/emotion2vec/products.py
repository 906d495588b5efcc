"""Convolutions as matrix products, on CPUs: the same numbers as torch's, in less time and memory.

oneDNN compiles a kernel for every shape that it meets and keeps a thousand of them, 0.8 MB each:
over a corpus, whose batches hardly ever have the same shape twice, memory would grow and grow.
Products need none, and their gradients cost no more than they do.

B clips, S samples (or frames), T frames, C channels, G groups, K taps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FRAMES_A_ROW = 3
"""How many frames of a group one row of a product holds: at 48 channels wide enough for the
processor's full rate, while 10 % of the products are with zeros."""

ROWS_AT_ONCE = 512
"""Frames over which norm and GELU run before the next: they stay in the processor's cache."""


def can_use_products(x: Tensor) -> bool:
    """Whether nothing but the numbers is asked for: on a CPU, no autocast, no export.

    >>> can_use_products(torch.zeros(1))
    True
    >>> with torch.autocast("cpu"):
    ...     can_use_products(torch.zeros(1))
    False
    """
    return (
        x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def grouped_convolution(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """The convolution of channels-last frames by products: (B, T, C) -> (B, T', C_out).

    For stride 1. A group's frames lie side by side, `FRAMES_A_ROW` in a row, and so do the frames
    that come out: what a kernel longer than a row sees are a few rows that follow each other, and
    the sum over them is one product each, on views that copy nothing.

    >>> conv = nn.Conv1d(6, 4, 3, padding=1, groups=2)
    >>> x = torch.randn(2, 5, 6)
    >>> torch.allclose(grouped_convolution(x, conv), conv(x.mT).mT, atol=1e-6)
    True
    """
    (clips, num_frames, _), groups, pad = x.shape, conv.groups, int(conv.padding[0])
    num_out = num_frames + 2 * pad - conv.kernel_size[0] + 1
    weights = _row_weights(conv)  # (G, rows, a row's values, an answer's values)
    rows_a_clip = -(-num_out // FRAMES_A_ROW) + weights.shape[1] - 1
    right = rows_a_clip * FRAMES_A_ROW - num_frames - pad
    padded = F.pad(x, (0, 0, pad, right)).unflatten(2, (groups, -1)).permute(2, 0, 1, 3)
    answers = _RowProducts.apply(padded.reshape(groups, -1, weights.shape[2]), weights)
    frames = answers.view(groups, clips, rows_a_clip * FRAMES_A_ROW, -1)[:, :, :num_out]
    output = frames.permute(1, 2, 0, 3).flatten(2)
    return output if conv.bias is None else output + conv.bias


def _row_weights(conv: nn.Conv1d) -> Tensor:
    """Return the kernel laid out for rows of frames, zeros where it does not reach."""
    taps, groups = conv.kernel_size[0], conv.groups
    rows = -(-(taps + FRAMES_A_ROW - 1) // FRAMES_A_ROW)
    kernel = conv.weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1)  # (G, K, C_in, C_out)
    inputs, outputs = kernel.shape[2:]
    laid = kernel.new_zeros(groups, rows * FRAMES_A_ROW, inputs, FRAMES_A_ROW, outputs)
    for i in range(FRAMES_A_ROW):
        laid[:, i : i + taps, :, i] = kernel
    return laid.view(groups, rows, FRAMES_A_ROW * inputs, FRAMES_A_ROW * outputs)


class _RowProducts(torch.autograd.Function):
    """Row n is the sum over i of row n + i of `x` (G, N, A) times weight i of (G, I, A, Z)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        """Return (G, N, Z); the last I - 1 rows, which lack rows to sum over, are zero."""
        ctx.save_for_backward(x, weights)
        count = x.shape[1] - weights.shape[1] + 1
        output = x.new_zeros(*x.shape[:2], weights.shape[3])
        for i, weight in enumerate(weights.unbind(1)):
            output[:, :count].baddbmm_(x[:, i : i + count], weight)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of rows and weights."""
        x, weights = ctx.saved_tensors
        count = x.shape[1] - weights.shape[1] + 1
        gradient = gradient[:, :count].contiguous()
        of_x, of_weights = torch.zeros_like(x), torch.empty_like(weights)
        for i, weight in enumerate(weights.unbind(1)):
            of_x[:, i : i + count].baddbmm_(gradient, weight.mT)
            of_weights[:, i] = x[:, i : i + count].mT @ gradient
        return of_x, of_weights


def kernel_pieces(weight: Tensor, taps: int) -> list[Tensor]:
    """A kernel (C_out, C_in, K) in pieces of some taps, (taps * C_in, C_out) each.

    >>> [tuple(piece.shape) for piece in kernel_pieces(torch.zeros(4, 8, 3), 2)]
    [(16, 4), (8, 4)]
    """
    kernel = weight.permute(2, 1, 0).contiguous()  # no copy after `arrange_weights`
    return [piece.flatten(0, 1) for piece in kernel.split(taps)]


def taps_a_piece(conv: nn.Conv1d) -> int:
    """Into pieces of how many taps a kernel is best cut.

    Of as many as the stride: over channels-last frames such a piece is one matrix product on a view
    that copies nothing, as its rows do not overlap. On the waveform itself, where rows are a few
    samples, copying them costs less than a second product: there the kernel stays whole.
    """
    return conv.stride[0] if conv.in_channels > 1 else conv.kernel_size[0]


def piece_views(x: Tensor, pieces: list[Tensor], stride: int, count: int) -> list[Tensor]:
    """What each piece of a kernel is multiplied with: views (count, taps * C) of a clip (S, C)."""
    channels, first = x.shape[1], x.storage_offset()
    offsets = [0]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece))
    return [
        x.as_strided((count, len(piece)), (stride * channels, 1), first + offset)
        for piece, offset in zip(pieces, offsets, strict=True)
    ]


def normed_convolution(x: Tensor, conv: nn.Conv1d, norm: nn.LayerNorm) -> Tensor:
    """Convolution without padding or bias, norm over channels, GELU: (B, S, C) -> (B, S', C_out).

    Keeps of the forward pass what came in and the convolution's output alone; norm and GELU are
    computed again for the gradient, which costs less than to read what would have been kept.

    >>> conv, norm = nn.Conv1d(2, 8, 3, 2, bias=False), nn.LayerNorm(8)
    >>> x = torch.randn(1, 9, 2)
    >>> torch.allclose(normed_convolution(x, conv, norm), F.gelu(norm(conv(x.mT).mT)), atol=1e-5)
    True
    """
    taps = taps_a_piece(conv)
    return _NormedConvolution.apply(
        x, conv.weight, norm.weight, norm.bias, norm.eps, conv.stride[0], taps
    )


class _NormedConvolution(torch.autograd.Function):
    """See `normed_convolution`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        shift: Tensor,
        eps: float,
        stride: int,
        taps: int,
    ) -> Tensor:
        """Return (B, S', C_out)."""
        x, pieces = x.contiguous(), kernel_pieces(weight, taps)
        count = (x.shape[1] - weight.shape[2]) // stride + 1
        y = x.new_zeros(len(x), count, len(weight))
        for clip, out in zip(x, y, strict=True):
            for view, piece in zip(piece_views(clip, pieces, stride, count), pieces, strict=True):
                out.addmm_(view, piece)
        output = torch.empty_like(y)
        for rows, out in _in_parts(y, output):
            torch.ops.aten.gelu.out(F.layer_norm(rows, scale.shape, scale, shift, eps), out=out)
        ctx.save_for_backward(x, y, weight, scale, shift)
        ctx.eps, ctx.stride, ctx.taps = eps, stride, taps
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of what `forward` took."""
        x, y, weight, scale, shift = ctx.saved_tensors
        of_y, of_scale, of_shift = torch.empty_like(y), scale * 0, shift * 0
        affine = (scale.shape, scale, shift)
        for rows, out, given in _in_parts(y, of_y, gradient.contiguous()):
            normed, mean, rstd = torch.native_layer_norm(rows, *affine, ctx.eps)
            inner = torch.ops.aten.gelu_backward(given, normed)
            parts = torch.ops.aten.native_layer_norm_backward(
                inner, rows, affine[0], mean, rstd, scale, shift, [True] * 3
            )
            out.copy_(parts[0])
            of_scale += parts[1]
            of_shift += parts[2]
        of_pieces = [torch.zeros_like(p) for p in kernel_pieces(weight, ctx.taps)]
        for clip, given in zip(x, of_y, strict=True):
            views = piece_views(clip, of_pieces, ctx.stride, len(given))
            for view, out in zip(views, of_pieces, strict=True):
                out.addmm_(view.T, given)
        of_kernel = torch.cat([p.unflatten(0, (-1, weight.shape[1])) for p in of_pieces])
        of_x = _gradient_of_input(x, of_y, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        return of_x, of_kernel.permute(2, 1, 0), of_scale, of_shift, None, None, None


def _gradient_of_input(x: Tensor, of_y: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return the gradient (B, S, C) of what a convolution took, from that of what it gave."""
    of_x, pieces = torch.zeros_like(x), kernel_pieces(weight, stride)  # rows that do not overlap
    for clip, given in zip(of_x, of_y, strict=True):
        views = piece_views(clip, pieces, stride, len(given))
        for out, piece in zip(views, pieces, strict=True):
            out.addmm_(given, piece.T)
    return of_x


def _in_parts(*tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    """Return parts of some rows of (B, S, C) tensors, side by side."""
    return zip(*(t.flatten(0, 1).split(ROWS_AT_ONCE) for t in tensors), strict=True)
