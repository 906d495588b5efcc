"""Pseudo-labels instead of a teacher: clusters of a frozen encoder's frames, found by k-means.

B clips, S samples, T frames, D width of the frozen encoder, N frames, C clusters.

Source: P-TAPT, Chen and Rudnicky (arXiv 2110.06309): k-means of several sizes, a head for each,
cross-entropy at hidden frames.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from emotion2vec.atomic import atomic_path
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.context import ContextEncoder
from emotion2vec.model import Emotion2vec
from emotion2vec.pretraining.teacher import Targets
from emotion2vec.weights import read_tensors, write_weights

CENTRES_NAME = "centres.safetensors"
_ITERATIONS = 20  # as the reference runs faiss
_CHUNK = 16_384  # frames whose distances to all centres are in memory at once


class ClusterTeacher(nn.Module):
    """Tells the cluster of each frame; stands where `Teacher` stands, and does not change.

    The frozen encoder has its own convolutions, and sees the crop whole.

    Args:
        encoder: whose features were clustered; copied
        counts: the clusters of each head
        layer: a block's output, from 1; 0 for what enters the first block; -1 for the output
        centres: (sum of counts, D), the heads' centres one below the other
    """

    centres: Tensor

    def __init__(
        self, encoder: Emotion2vec, centres: Tensor, *, counts: Sequence[int], layer: int
    ) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).float().requires_grad_(False).eval()
        self.counts = tuple(counts)
        self.layer = layer
        self.register_buffer("centres", centres)

    def train(self, mode: bool = True) -> ClusterTeacher:
        """Stay in eval mode: the frozen encoder knows no dropout."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Targets:
        """Return labels (B, T, heads) of crops (B, S), normalized; nothing for the utterance."""
        frames = layer_frames(self.encoder, waveform, self.layer)
        labels = [nearest(frames, part)[0] for part in self.centres.split(self.counts)]
        return Targets(torch.stack(labels, dim=-1), frames.new_zeros(len(frames), 0))

    def follow(self, context: ContextEncoder, decay: float) -> None:
        """Stay: pseudo-labels are drawn up once."""

    def save(self, folder: Path) -> None:
        """Write the encoder and the centres into `folder`.

        Raises:
            OSError: if it cannot be written
        """
        self.encoder.save_pretrained(folder)
        with atomic_path(folder / CENTRES_NAME) as path:
            write_weights({"centres": self.centres.contiguous()}, path)

    @classmethod
    def load(cls, folder: Path, *, counts: Sequence[int], layer: int) -> ClusterTeacher:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: if it is not there
            ValueError: if it is damaged, or the centres are not as many as `counts` asks for
        """
        if not (folder / CENTRES_NAME).is_file():
            raise FileNotFoundError(
                f"{folder} has no {CENTRES_NAME}: the run's pseudo-labels are gone; bring the "
                "folder back, or start a run in another folder."
            )
        centres = read_tensors(folder / CENTRES_NAME)["centres"]
        if len(centres) != sum(counts):
            raise ValueError(
                f"{folder} has {len(centres)} centres, but clusters is {list(counts)}; resume with "
                "the config in the run's folder, or start a run in another folder."
            )
        return cls(Emotion2vec.from_pretrained(folder), centres, counts=counts, layer=layer)


def fit_clusters(
    encoder: Emotion2vec,
    waveforms: Iterable[Tensor],
    *,
    counts: Sequence[int],
    layer: int,
    num_frames: int,
    seed: int,
) -> ClusterTeacher:
    """Cluster an encoder's frames, once for each of `counts`.

    Args:
        encoder: on any device, where k-means is computed, too
        waveforms: (B, S) each, normalized crops; read until `num_frames` frames are there
        counts: the clusters of each head
        layer: as in `ClusterTeacher`
        num_frames: at most so many frames, the first ones
        seed: of the frames that k-means starts from

    Raises:
        ValueError: if there are fewer frames than clusters, or no such layer
    """
    teacher = ClusterTeacher(encoder, torch.empty(0), counts=counts, layer=layer)
    blocks = len(encoder.context.blocks)
    if not -1 <= layer <= blocks:
        raise ValueError(
            f"cluster_layer is {layer}, but the encoder has {blocks} blocks; choose 0 to {blocks}, "
            "or -1 for its output."
        )
    device = next(teacher.parameters()).device
    found, total = [], 0
    for waveform in waveforms:
        frames = layer_frames(teacher.encoder, waveform.to(device), layer).flatten(0, 1)
        found.append(frames[: num_frames - total])
        total += len(found[-1])
        if total == num_frames:
            break
    sample = torch.cat(found)  # (N, D)
    if total < max(counts):
        raise ValueError(
            f"clusters is {list(counts)}, but the recordings have {total} frames in all; ask for "
            "fewer clusters."
        )
    generator = torch.Generator().manual_seed(seed)
    teacher.centres = torch.cat([kmeans(sample, count, generator=generator) for count in counts])
    return teacher


def check_alike(encoder: Emotion2vecConfig, student: Emotion2vecConfig) -> None:
    """Refuse a frozen encoder whose frames are not the student's.

    Raises:
        ValueError: that names the setting
    """
    for name in ("conv_kernels", "conv_strides", "normalize_waveform"):
        theirs, ours = getattr(encoder, name), getattr(student, name)
        if theirs != ours:
            raise ValueError(
                f"cluster_model has {name} {theirs}, the student {ours}: its frames are not the "
                f"student's; choose another, or set model.{name}."
            )


@torch.no_grad()
def layer_frames(encoder: Emotion2vec, waveform: Tensor, layer: int) -> Tensor:
    """An encoder's frames of whole, unpadded clips (B, S): (B, T, D), float32."""
    output = encoder(waveform, output_hidden_states=layer >= 0)
    frames = output.last_hidden_state if layer < 0 else output.hidden_states[layer]
    return frames.float()


def kmeans(frames: Tensor, count: int, *, generator: torch.Generator) -> Tensor:
    """Centres of `count` clusters of frames (N, D), by Lloyd's algorithm: (C, D).

    Starts from frames drawn at random. A cluster that loses all its frames starts again at one of
    those that lie farthest from their centres.

    >>> frames = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    >>> kmeans(frames, 2, generator=torch.Generator().manual_seed(0)).sort(dim=0).values.tolist()
    [[0.5], [10.5]]
    """
    drawn = torch.randperm(len(frames), generator=generator)[:count]
    centres = frames[drawn.to(frames.device)]
    for _ in range(_ITERATIONS):
        labels, distances = nearest(frames, centres)
        sizes = torch.bincount(labels, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, labels, frames)
        centres = sums / sizes.clamp_min(1).unsqueeze(1)
        empty = sizes == 0
        centres[empty] = frames[distances.topk(int(empty.sum())).indices]
    return centres


def nearest(frames: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the nearest centre (C, D), and its squared distance, of frames (..., D): (...).

    >>> nearest(torch.tensor([[1.0], [4.0]]), torch.tensor([[0.0], [5.0]]))
    (tensor([0, 1]), tensor([1., 1.]))
    """
    norms = centres.square().sum(dim=1)
    labels, distances = [], []
    # In float32 also where the step casts: near a border, bfloat16 tells clusters by chance.
    with torch.autocast(frames.device.type, enabled=False):
        for chunk in frames.flatten(0, -2).split(_CHUNK):
            scores = torch.addmm(norms, chunk, centres.T, alpha=-2)  # less the frame's own square
            best = scores.min(dim=1)
            labels.append(best.indices)
            distances.append(best.values + chunk.square().sum(dim=1))
    shape = frames.shape[:-1]
    return torch.cat(labels).reshape(shape), torch.cat(distances).reshape(shape)
