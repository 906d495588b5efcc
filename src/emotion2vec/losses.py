"""The losses of pre-training and the gauges of collapse, as pure functions.

B clips, K masks a clip, R = B * K rows (row b * K + k is clip b under its mask k), T frames,
V visible frames, D width, U utterance tokens, N vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def frame_loss(prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Squared error at each row's hidden frames, summed over them: (R,).

    Args:
        prediction: (R, T, D), the decoder's output
        target: (R, T, D), the teacher's frames
        hidden: (R, T), True at the frames the student did not see

    The error of a frame is ||prediction - target||^2 / sqrt(D). Source: paper equation 4;
    data2vec 2.0's d2v_loss with loss_scale null and loss_beta 0.

    >>> import torch
    >>> hidden = torch.tensor([[True, False]])
    >>> frame_loss(torch.ones(1, 2, 4), torch.zeros(1, 2, 4), hidden)
    tensor([2.])
    """
    errors = (prediction.float() - target.float()).square().sum(dim=-1)  # (R, T)
    return (errors * hidden).sum(dim=1) / prediction.shape[-1] ** 0.5


def token_loss(tokens: Tensor, frames: Tensor, target: Tensor) -> Tensor:
    """Squared error of the only utterance token: (R,). Source: paper equation 6.

    Args:
        tokens: (R, 1, D), the student's utterance tokens
        frames: (R, V, D), its visible frames (not used here)
        target: (R, D), the mean of the teacher's frames over the whole clip

    >>> import torch
    >>> token_loss(torch.ones(1, 1, 4), torch.zeros(1, 3, 4), torch.zeros(1, 4))
    tensor([2.])
    """
    return _utterance_error(tokens[:, -1], target)


def chunk_loss(tokens: Tensor, frames: Tensor, target: Tensor) -> Tensor:
    """Squared error of the mean of the utterance tokens: (R,). Source: paper equation 7.

    Arguments as in `token_loss`, with U >= 1 tokens.

    >>> import torch
    >>> tokens = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    >>> chunk_loss(tokens, torch.zeros(1, 3, 2), torch.tensor([[1.0, 0.0]]))
    tensor([0.])
    """
    return _utterance_error(tokens.mean(dim=1), target)


def global_loss(tokens: Tensor, frames: Tensor, target: Tensor) -> Tensor:
    """Squared error of the mean of the visible frames: (R,). Source: paper equation 8.

    Arguments as in `token_loss`; the tokens are not used.

    >>> import torch
    >>> global_loss(torch.zeros(1, 0, 4), torch.ones(1, 3, 4), torch.ones(1, 4))
    tensor([0.])
    """
    return _utterance_error(frames.mean(dim=1), target)


UTTERANCE_LOSSES = {"token": token_loss, "chunk": chunk_loss, "global": global_loss}


def _utterance_error(prediction: Tensor, target: Tensor) -> Tensor:
    error = prediction.float() - target.float()
    return error.square().sum(dim=-1) / prediction.shape[-1] ** 0.5


def cluster_loss(logits: Tensor, labels: Tensor, hidden: Tensor, counts: Sequence[int]) -> Tensor:
    """Cross-entropy in nats at each row's hidden frames, summed over them: (R,).

    Args:
        logits: (R, T, sum of counts), the heads' answers side by side
        labels: (R, T, heads), the cluster of each frame for each head
        hidden: (R, T), True at the frames the student did not see
        counts: the clusters of each head

    A frame's error is the mean over heads, so that it does not depend on how many there are.
    Source: HuBERT (arXiv 2106.07447), equation 1 at masked frames; P-TAPT (arXiv 2110.06309).

    >>> hidden = torch.tensor([[True, False]])
    >>> cluster_loss(torch.zeros(1, 2, 8), torch.zeros(1, 2, 1, dtype=torch.long), hidden, [8])
    tensor([2.0794])
    """
    errors = [
        F.cross_entropy(part.transpose(1, 2), labels[..., head], reduction="none")  # (R, T)
        for head, part in enumerate(logits.float().split(tuple(counts), dim=-1))
    ]
    return (torch.stack(errors).mean(dim=0) * hidden).sum(dim=1)


def cluster_accuracy(
    logits: Tensor, labels: Tensor, hidden: Tensor, counts: Sequence[int]
) -> Tensor:
    """Part of the hidden frames whose cluster has the largest logit, mean over heads: a scalar.

    Arguments as in `cluster_loss`.

    >>> logits = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    >>> labels = torch.tensor([[[1], [0]]])
    >>> cluster_accuracy(logits, labels, torch.ones(1, 2, dtype=torch.bool), [2])
    tensor(0.5000)
    """
    parts = logits.split(tuple(counts), dim=-1)
    found = torch.stack([part.argmax(dim=-1) for part in parts], dim=-1) == labels  # (R, T, heads)
    return (found * hidden.unsqueeze(-1)).sum() / (hidden.sum() * len(counts))


def concordance_loss(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """1 - CCC of values (N, R, K) and what is true (N, K), the mean over values, of each run: (R,).

    With weights (N,), each row counts so much.

    Source: concordance correlation coefficient (Lin, 1989), as a loss.

    >>> import torch
    >>> truth = torch.tensor([[1.0], [2.0], [3.0]])
    >>> concordance_loss(torch.stack([truth, truth + 1], dim=1), truth)
    tensor([0.0000, 0.4286])
    """
    targets = targets[:, None]

    def mean(values: Tensor) -> Tensor:
        if weights is None:
            return values.mean(dim=0)
        return (values * weights[:, None, None]).sum(dim=0) / weights.sum().clamp_min(1e-9)

    x, y = outputs - mean(outputs), targets - mean(targets)
    between = (mean(outputs) - mean(targets)).square()
    spread = mean(x.square()) + mean(y.square()) + between
    return (1 - 2 * mean(x * y) / spread.clamp_min(1e-9)).mean(dim=1)


def spread(frames: Tensor, keep: Tensor) -> Tensor:
    """Mean over channels of the standard deviation over frames: a scalar that falls on collapse.

    Args:
        frames: (R, T, D)
        keep: (R, T), True at the frames that count

    Source: data2vec 2.0's `compute_var`: unbiased variance, sqrt(variance + 1e-6), mean.

    >>> import torch
    >>> frames = torch.tensor([[[1.0, 5.0], [3.0, 5.0]]])
    >>> round(float(spread(frames, torch.ones(1, 2, dtype=torch.bool))), 3)
    0.708
    """
    weights = keep.unsqueeze(-1).float()
    count = weights.sum()
    frames = frames.float()
    mean = (frames * weights).sum(dim=(0, 1)) / count
    squares = ((frames - mean).square() * weights).sum(dim=(0, 1))
    return (squares / (count - 1).clamp_min(1) + 1e-6).sqrt().mean()


def effective_rank(vectors: Tensor) -> Tensor:
    """In how many directions vectors (N, D) vary, from 1 to min(N - 1, D): a float64 scalar.

    exp of the entropy of the singular values over their sum. A spread can be high while all
    vectors lie on a line; this is then near 1, as it is where all vectors are the same. NaN where
    one of them is not finite.

    Source: Roy and Vetterli 2007; as a gauge of representations RankMe (arXiv 2210.02885). The mean
    is taken off first, which they do not: else it would count as a direction, often the largest.

    >>> import torch
    >>> line = torch.arange(4.0).unsqueeze(1) * torch.ones(3)
    >>> plane = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    >>> round(float(effective_rank(line)), 3), round(float(effective_rank(plane)), 3)
    (1.0, 2.0)
    """
    if not vectors.isfinite().all():  # which the decomposition refuses
        return vectors.new_tensor(torch.nan, dtype=torch.float64)
    if vectors.device.type == "mps":  # which has no float64
        vectors = vectors.cpu()
    # The eigenvalues of the products are the squares: float64 keeps what is small beside them.
    centred = vectors.double() - vectors.double().mean(dim=0)
    wide = (
        len(centred) < centred.shape[1]
    )  # the logits of 4672 clusters: products of rows are fewer
    products = centred @ centred.mT if wide else centred.mT @ centred
    values = torch.linalg.eigvalsh(products).clamp_min(0).sqrt()
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return (-torch.xlogy(share, share).sum()).exp()
