"""Which layer of an encoder: one, a weighted mean, or all of them.

L layers, which are what enters the first block and each block's output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Layer = int | Sequence[float] | str | None
"""A block's output, from 1 (negative counts from the last), 0 for what enters the first block; a
weight for each of these, whose sum is 1; "mean" for equal weights; "all" for all of them side by
side, (T, L, D); None for the model's output."""

NAMED: dict[str, Callable[[int], Tensor]] = {
    "mean": lambda layers: torch.full((layers,), 1 / layers),
    "all": torch.eye,
}


def parse_layer(text: str | None) -> Layer:
    """A `Layer` as people write it: "3", "mean", "all", or weights with commas.

    Raises:
        ValueError: if it is none of these

    >>> parse_layer("-1"), parse_layer("0,0.25,0.75"), parse_layer("mean")
    (-1, (0.0, 0.25, 0.75), 'mean')
    """
    if text is None or text in NAMED:
        return text
    try:
        return tuple(float(part) for part in text.split(",")) if "," in text else int(text)
    except ValueError:
        raise ValueError(
            f'layer is {text!r}; give a number such as 6 or -1, "mean", "all", or one weight for '
            "each layer with commas between."
        ) from None


def layer_weights(layer: Layer, depth: int, name: str) -> Tensor | None:
    """A weight for each layer of a model of `depth` blocks, (L,); None for the model's output.

    For "all" such weights for each layer, (L, L), which pick one after the other.

    Raises:
        ValueError: if the model called `name` has no such layer, or the weights are not for it

    >>> layer_weights(-1, 2, "tiny"), layer_weights("all", 1, "tiny")
    (tensor([0., 0., 1.]), tensor([[1., 0.],
            [0., 1.]]))
    """
    if layer is None:
        return None
    if isinstance(layer, int):
        if not -depth <= layer <= depth:
            raise ValueError(
                f"{name} has no layer {layer}; choose 0 (what enters the first block) to {depth}, "
                f"or -{depth} to -1."
            )
        return F.one_hot(torch.tensor(layer % (depth + 1)), depth + 1).float()
    if isinstance(layer, str):
        if layer not in NAMED:
            raise ValueError(f"layer is {layer!r}; the names are {', '.join(NAMED)}.")
        return NAMED[layer](depth + 1)
    weights = torch.tensor(tuple(layer))
    if len(weights) != depth + 1 or not abs(float(weights.sum()) - 1) <= 1e-3:
        raise ValueError(
            f"{len(weights)} layer weights with the sum {float(weights.sum()):g} are given; {name} "
            f"needs {depth + 1} (what enters the first block, and each block) with the sum 1."
        )
    return weights


def with_layer(name: str, layer: Layer) -> str:
    """The name of a model and what is taken of it.

    >>> with_layer("tiny", 3), with_layer("tiny", [0.5, 0.5]), with_layer("tiny", None)
    ('tiny@3', 'tiny@0.5,0.5', 'tiny')
    """
    if layer is None:
        return name
    if isinstance(layer, int | str):
        return f"{name}@{layer}"
    return f"{name}@" + ",".join(f"{weight:.4g}" for weight in layer)


def mix_layers(states: Sequence[Tensor], weights: Tensor) -> Tensor:
    """The weighted sum over layers, float32: L tensors (..., D) and weights (L,) -> (..., D).

    Weights (M, L) are for M such sums, (..., M, D). Layers without weight cost nothing.

    >>> mix_layers([torch.tensor([1.0]), torch.tensor([2.0])], torch.tensor([0.5, 1.0]))
    tensor([2.5000])
    """
    if weights.ndim == 2:
        return torch.stack([mix_layers(states, row) for row in weights], dim=-2)
    mixed = torch.zeros_like(states[0], dtype=torch.float32)
    for state, weight in zip(states, weights.tolist(), strict=True):
        if weight:
            mixed.add_(state, alpha=weight)
    return mixed
