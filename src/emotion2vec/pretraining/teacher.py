"""The teacher: a slow copy of the student's transformer, and the targets it makes.

B clips, T frames, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.context import ContextEncoder


class Targets(NamedTuple):
    """What the student is to predict."""

    frames: Tensor
    """(B, T, D)"""
    utterance: Tensor
    """(B, D)"""


class Teacher(nn.Module):
    """Exponential moving average, in float32, of positions, tokens, ALiBi scales and blocks.

    The convolutions are the student's own: the teacher is fed the student's projected frames.

    Args:
        context: the student's transformer, copied as it stands
        top_k: over how many of the last main blocks targets are averaged
        utterance_target: a name in `UTTERANCE_TARGETS`

    Source: paper section 3.2; data2vec 2.0 (ema_encoder_only and ema_local_encoder false).
    """

    def __init__(
        self, context: ContextEncoder, *, top_k: int, utterance_target: str = "normed"
    ) -> None:
        super().__init__()
        self.context = copy.deepcopy(context).float().requires_grad_(False).eval()
        self.top_k = top_k
        self.utterance_target = UTTERANCE_TARGETS[utterance_target]

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode: the teacher knows no dropout."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, features: Tensor) -> Targets:
        """Return targets for whole, unpadded clips' projected frames (B, T, D)."""
        mlp_outputs = self.context(features, collect=True).mlp_outputs[-self.top_k :]
        return Targets(frame_target(mlp_outputs), self.utterance_target(mlp_outputs))

    @torch.no_grad()
    def follow(self, context: ContextEncoder, decay: float) -> None:
        """Move towards the student: decay * teacher + (1 - decay) * student, parameter-wise."""
        own: list[Tensor] = list(self.context.parameters())
        # add_ of the difference, as lerp does, loses nothing at a decay of 0.99999 in float32.
        torch._foreach_lerp_(own, [p.detach().float() for p in context.parameters()], 1 - decay)


def frame_target(mlp_outputs: Sequence[Tensor]) -> Tensor:
    """Mean of MLP outputs (B, T, D), each first normalized over time per clip and channel.

    Source: paper equation 2; data2vec 2.0 with instance_norm_target_layer.

    >>> frame_target([torch.tensor([[[1.0], [3.0]]])]).flatten().round(decimals=3).tolist()
    [-1.0, 1.0]
    """
    normed = [
        F.layer_norm(output.float().transpose(1, 2), output.shape[1:2]) for output in mlp_outputs
    ]
    return torch.stack(normed).mean(dim=0).transpose(1, 2)


def normed_target(mlp_outputs: Sequence[Tensor]) -> Tensor:
    """Mean over time of the frame targets, (B, D): what the reference computes.

    The frame targets have a mean of zero over each clip, so this is zero for every clip: the
    utterance loss then only pulls the student's pooled prediction towards zero.

    >>> normed_target([torch.randn(1, 50, 2)]).abs().max() < 1e-6
    tensor(True)
    """
    return frame_target(mlp_outputs).mean(dim=1)


def pooled_target(mlp_outputs: Sequence[Tensor]) -> Tensor:
    """Mean over time and blocks of the MLP outputs, then normalized over channels, (B, D).

    What the paper's text describes: it differs from clip to clip. The norm keeps its scale from
    drifting, as data2vec 2.0 does for targets that are not normalized over time.

    >>> pooled_target([torch.tensor([[[0.0, 2.0], [2.0, 4.0]]])]).round(decimals=3).tolist()
    [[-1.0, 1.0]]
    """
    pooled = torch.stack([output.float().mean(dim=1) for output in mlp_outputs]).mean(dim=0)
    return F.layer_norm(pooled, pooled.shape[-1:])


UTTERANCE_TARGETS = {"normed": normed_target, "pooled": pooled_target}
