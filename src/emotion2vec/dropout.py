"""Dropout whose mask is drawn quickly on CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_STEPS = 1 << 16


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """`x` with some values zeroed and the others scaled up, where `training`; else `x`.

    On CPUs, torch draws one number for each value with a generator that runs on one core: with the
    paper's dropouts that is a tenth of a pre-training step. Here one draw of 64 bits serves four
    values, which rounds the probability to a 65536th (the scale, too: the mean is kept exactly).

    >>> x = dropout(torch.ones(10_000), 0.1, training=True)
    >>> sorted(set(x.tolist())) == [0.0, x.max().item()] and abs(x.mean().item() - 1) < 0.02
    True
    """
    if not training or probability == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, probability)
    return _Dropout.apply(x, probability)


class _Dropout(torch.autograd.Function):
    """Keeps one byte a value for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        """Return `x` where it is kept, scaled."""
        dropped = min(round(probability * _STEPS), _STEPS - 1)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - _STEPS // 2
        ctx.save_for_backward(kept)
        ctx.scale = _STEPS / (_STEPS - dropped)
        return torch.ops.aten.native_dropout_backward(x, kept, ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient where `x` was kept, scaled."""
        (kept,) = ctx.saved_tensors
        return torch.ops.aten.native_dropout_backward(gradient, kept, ctx.scale), None
