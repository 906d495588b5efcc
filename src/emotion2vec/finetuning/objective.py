"""The loss of fine-tuning: classes, hard, soft or mixed, and values.

B clips, C classes, K dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from emotion2vec.losses import concordance_loss
from emotion2vec.model import Answers


class Truth(NamedTuple):
    """What a batch is to answer."""

    classes: Tensor
    """(B, C); a row sums to 1, or to 0 where no class is known"""
    values: Tensor
    """(B, K); NaN where a value is not known"""
    weights: Tensor
    """(B,)"""


def class_loss(
    logits: Tensor,
    truth: Truth,
    class_weights: Tensor,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Cross-entropy with soft targets, the mean over clips that have a class: a scalar.

    Args:
        logits: (B, C)
        truth: what is true
        class_weights: (C,)
        label_smoothing: part of each target that is spread evenly over all classes
        focal_gamma: each class's term is weighed by (1 - p) ** gamma

    Source: label smoothing, Szegedy et al. 2016; focal loss, Lin et al. 2017, equation 4.

    >>> truth = Truth(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 0), torch.ones(1))
    >>> round(class_loss(torch.zeros(1, 2), truth, torch.ones(2)).item(), 4)
    0.6931
    """
    known = truth.classes.sum(dim=1) > 0
    target = truth.classes * (1 - label_smoothing)
    target = target + known.unsqueeze(1) * label_smoothing / logits.shape[1]
    log_p = logits.float().log_softmax(dim=1)
    terms = -target * class_weights * log_p
    if focal_gamma:
        terms = terms * (1 - log_p.exp()).clamp_min(0) ** focal_gamma
    return (terms.sum(dim=1) * truth.weights).sum() / known.sum().clamp_min(1)


def value_loss(values: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """1 - CCC over the batch, the mean over dimensions that two clips or more have: a scalar.

    Args:
        values: (B, K)
        truth: (B, K), NaN where not known
        weights: (B,), how much each clip counts

    >>> value_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]), torch.ones(2)).item()
    0.0
    """
    losses = []
    for answered, true in zip(values.float().unbind(1), truth.unbind(1), strict=True):
        known = ~true.isnan() & (weights > 0)
        if int(known.sum()) > 1:
            columns = answered[known, None, None], true[known, None]
            losses.append(concordance_loss(*columns, weights[known])[0])
    return torch.stack(losses).mean() if losses else values.float().sum() * 0


def objective(
    answers: Answers,
    truth: Truth,
    class_weights: Tensor,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
    dimension_weight: float = 1.0,
) -> Tensor:
    """The scalar to minimize: loss of the classes, and the weighed loss of the values."""
    loss = answers.logits.float().sum() * 0  # a batch may have neither
    if answers.logits.shape[1]:
        loss = loss + class_loss(
            answers.logits,
            truth,
            class_weights,
            label_smoothing=label_smoothing,
            focal_gamma=focal_gamma,
        )
    if answers.values.shape[1]:
        loss = loss + dimension_weight * value_loss(answers.values, truth.values, truth.weights)
    return loss
