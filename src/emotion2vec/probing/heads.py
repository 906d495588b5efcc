"""Heads on frozen frames; the paper's is two linear layers.

Some heads hold several runs side by side, which differ in the seed of their weights only: they read
the frames once for all, and answer as each would alone.

N clips, T frames of a clip, F frames of all clips together, D width, L layers, R runs, H hidden
units, C outputs (classes or values).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.probing.networks import AttentionNetwork, Head, MapNetwork, TurnsNetwork

Made = TypeVar("Made")


@dataclass(frozen=True)
class HeadConfig:
    """Which head, and how it is trained; the defaults are the paper's and its official script's."""

    name: str = "linear"
    """in `HEADS`, or "logistic", see `emotion2vec.probing.statistics`"""
    hidden_dim: int = 256
    epochs: int = 100
    batch_size: int = 128
    lr: float = 5e-4
    max_lr: float = 1e-3
    step_epochs: int = 10
    """Epochs from the lowest to the highest learning rate; momentum runs the other way."""

    def __post_init__(self) -> None:
        """Refuse a head that would not be trained."""
        if self.name not in (*HEADS, "logistic"):
            raise ValueError(
                f"the head is {self.name!r}; choose one of {', '.join(HEADS)}, logistic."
            )
        for name in ("hidden_dim", "epochs", "batch_size", "step_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


class Linears(nn.Module):
    """R linear layers side by side."""

    def __init__(self, layers: Iterable[nn.Linear]) -> None:
        super().__init__()
        layers = list(layers)
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, R, out) for one input of all runs, (N, in), or one of each, (N, R, in)."""
        if x.dim() == 2:  # one product as wide as all runs
            both = F.linear(x, self.weight.flatten(0, 1), self.bias.flatten())
            return both.unflatten(1, self.weight.shape[:2])
        return torch.einsum("nri,roi->nro", x, self.weight) + self.bias


class LinearProbe(Head):
    """Linear, ReLU, mean over each clip's frames, linear: logits (N, R, C).

    Clips stand one after the other instead of side by side, so that nothing is padded.

    Args:
        input_dim: D
        num_outputs: C
        hidden_dim: H
        seeds: of the runs' weights, R of them

    Source: paper section 4.2; official downstream `BaseModel`.

    >>> LinearProbe(48, 4)(torch.zeros(10, 48), torch.tensor([7, 3])).shape
    torch.Size([2, 1, 4])
    """

    stacks = True

    def __init__(
        self, input_dim: int, num_outputs: int, hidden_dim: int = 256, seeds: Sequence[int] = (0,)
    ) -> None:
        super().__init__()
        layers = drawn(
            seeds, lambda: (nn.Linear(input_dim, hidden_dim), nn.Linear(hidden_dim, num_outputs))
        )
        self.hidden, self.output = (Linears(each) for each in zip(*layers, strict=True))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits for frames (F, D) of clips with `lengths` (N,) frames each."""
        return self.output(self.embed(frames, lengths))

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return what the paper's maps show, (N, R, H): the mean of the first layer's output."""
        return mean_over_clips(F.relu(self.hidden(frames)), lengths)


class FrameProbe(LinearProbe):
    """Linear, ReLU, linear on every frame: values (F, R, C), one each 20 ms."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return values for frames (F, D)."""
        return self.output(F.relu(self.hidden(frames)))


def drawn(seeds: Sequence[int], make: Callable[[], Made]) -> list[Made]:
    """What `make` draws with each seed; torch's own generator is left as it was."""
    found = []
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found.append(make())
    return found


def mean_over_clips(x: Tensor, lengths: Tensor) -> Tensor:
    """The mean (N, ...) over each clip's frames of x (F, ...).

    >>> mean_over_clips(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([2, 1])).tolist()
    [[2.0], [5.0]]
    """
    # A product with (N, F) is faster here, backward too, than sums by index.
    shares = (clip_of_frame(lengths) == torch.arange(len(lengths), device=x.device)[:, None]).to(x)
    means = (shares / lengths[:, None]) @ x.flatten(1)
    return means.unflatten(1, x.shape[1:])


def clip_of_frame(lengths: Tensor) -> Tensor:
    """The number of the clip that each frame belongs to, (F,).

    >>> clip_of_frame(torch.tensor([2, 1])).tolist()
    [0, 0, 1]
    """
    return torch.repeat_interleave(lengths)


class AttentionProbe(LinearProbe):
    """Linear, ReLU, a mean over each clip's frames with learned weights, linear: (N, R, C)."""

    def __init__(
        self, input_dim: int, num_outputs: int, hidden_dim: int = 256, seeds: Sequence[int] = (0,)
    ) -> None:
        super().__init__(input_dim, num_outputs, hidden_dim, seeds)
        # Zeros: it begins as the plain mean.
        self.score = nn.Parameter(torch.zeros(len(seeds), hidden_dim))

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return the weighted mean of the first layer's output, (N, R, H)."""
        hidden = F.relu(self.hidden(frames))  # (F, R, H)
        scores = torch.einsum("frh,rh->fr", hidden, self.score)
        clip = clip_of_frame(lengths)
        index = clip[:, None].expand_as(scores)
        highest = scores.new_full((len(lengths), scores.shape[1]), -torch.inf)
        highest = highest.scatter_reduce(0, index, scores.detach(), "amax")
        weights = (scores - highest[clip]).exp()
        weights = weights / mean_over_clips(weights, lengths)[clip]  # of mean 1 over each clip
        return mean_over_clips(hidden * weights[:, :, None], lengths)


class LayersProbe(LinearProbe):
    """The paper's probe on a weighted sum of all layers, its weights learned: (N, R, C).

    Frames are (F, L, D), as `emotion2vec.backbones.load_backbone` gives them with layer="all".
    """

    def __init__(
        self,
        input_dim: tuple[int, int],
        num_outputs: int,
        hidden_dim: int = 256,
        seeds: Sequence[int] = (0,),
    ) -> None:
        layers, width = input_dim
        super().__init__(width, num_outputs, hidden_dim, seeds)
        self.layers = nn.Parameter(torch.zeros(len(seeds), layers))

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean of the first layer's output for frames (F, L, D), (N, R, H)."""
        mixed = torch.einsum("fld,rl->frd", frames, self.layers.softmax(dim=1))
        return mean_over_clips(F.relu(self.hidden(mixed)), lengths)


HEADS: dict[str, type[Head]] = {
    "linear": LinearProbe,
    "frames": FrameProbe,
    "attention": AttentionProbe,
    "layers": LayersProbe,
    "gru": TurnsNetwork,
    "cnn": MapNetwork,
    "afcn": AttentionNetwork,
}
"""By name; each is made with the arguments of `LinearProbe`."""
