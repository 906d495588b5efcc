"""Heads that train one run at a time: recurrent over turns, convolutional over feature maps.

N clips, T frames (or turns) of a clip, F frames of all clips together, D width, H hidden units, C
outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHORTEST = 32
"""Frames to which shorter clips are filled up, so that convolutions with strides leave some."""


def pad_clips(frames: Tensor, lengths: Tensor) -> Tensor:
    """Clips (F, D) side by side, (N, T, D), zeros after their end.

    >>> pad_clips(torch.ones(3, 1), torch.tensor([2, 1]))[:, :, 0].tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    return nn.utils.rnn.pad_sequence(list(frames.split(lengths.tolist())), batch_first=True)


def within(x: Tensor, lengths: Tensor) -> Tensor:
    """Zeros where x (N, channels, T, D) is behind a clip's end, so that padding changes nothing."""
    inside = torch.arange(x.shape[2], device=x.device) < lengths[:, None]
    return x * inside[:, None, :, None]


class Head(nn.Module):
    """Frames (F, D) and lengths (N,) -> outputs (N, R, C) of R runs; of frame values (F, R, C)."""

    stacks = False
    """whether it can hold more than one run"""
    rate = 1.0
    """what learning rates are multiplied by, which are meant for the paper's two layers"""


class TurnsNetwork(Head):
    """Two GRU layers over turns, linear: logits (N, 1, C).

    Args:
        input_dim: D
        num_outputs: C
        hidden_dim: H
        seeds: one, of the weights

    Source: paper section 4.4, emotion prediction in conversation; its width is not given there.

    >>> TurnsNetwork(8, 4)(torch.zeros(3, 8), torch.tensor([2, 1])).shape
    torch.Size([2, 1, 4])
    """

    def __init__(
        self, input_dim: int, num_outputs: int, hidden_dim: int = 256, seeds: Sequence[int] = (0,)
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seeds[0])
            self.turns = nn.GRU(input_dim, hidden_dim, num_layers=2, batch_first=True)
            self.output = nn.Linear(hidden_dim, num_outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits for turns (F, D) of N dialogues with `lengths` (N,) turns each."""
        turns = nn.utils.rnn.pack_padded_sequence(
            pad_clips(frames, lengths), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        _, last = self.turns(turns)  # (layers, N, H)
        return self.output(last[-1]).unsqueeze(1)


class MapNetwork(Head):
    """Three 2-D convolutions over the map of features and time, mean over time, two linear layers.

    Each clip's map is standardized as a whole first. After Soltani Tehrani (2023), with sizes of
    our own: 16, 32 and 64 channels of 3 x 3, each halved by the maximum.

    Args as for `TurnsNetwork`.

    >>> MapNetwork(16, 4)(torch.zeros(70, 16), torch.tensor([40, 30])).shape
    torch.Size([2, 1, 4])
    """

    def __init__(
        self, input_dim: int, num_outputs: int, hidden_dim: int = 256, seeds: Sequence[int] = (0,)
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seeds[0])
            self.convs = nn.ModuleList(
                nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 16), (16, 32), (32, 64))
            )
            width = input_dim // 8 or 1
            self.hidden = nn.Linear(64 * width, hidden_dim)
            self.output = nn.Linear(hidden_dim, num_outputs)
        self.width = width

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits for frames (F, D) of clips with `lengths` (N,) frames each."""
        x, lengths = standard_maps(frames, lengths)  # (N, 1, T, D)
        for conv in self.convs:
            x = within(F.relu(conv(x)), lengths)
            x = F.max_pool2d(x, 2, ceil_mode=x.shape[3] < 2)
            lengths = lengths // 2
            x = within(x, lengths)
        x = x.sum(dim=2) / lengths[:, None, None]  # (N, 64, D / 8)
        hidden = F.relu(self.hidden(x[:, :, : self.width].flatten(1)))
        return self.output(hidden).unsqueeze(1)


class AttentionNetwork(Head):
    """Five convolutions over a spectrogram, attention over time and frequency, linear.

    AlexNet's convolutions, of widths that `hidden_dim` scales (256 is AlexNet's own), then a mean
    over all positions weighted by softmax(0.3 u tanh(W a)). Trained from random weights; the
    authors' better numbers start from photographs.

    Args as for `TurnsNetwork`.

    Source: Zhang et al., "Attention based fully convolutional network for speech emotion
    recognition", APSIPA 2018.

    >>> AttentionNetwork(64, 4, 16)(torch.zeros(70, 64), torch.tensor([40, 30])).shape
    torch.Size([2, 1, 4])
    """

    rate = 0.1  # at the full rate its answer stays the constant one

    def __init__(
        self, input_dim: int, num_outputs: int, hidden_dim: int = 256, seeds: Sequence[int] = (0,)
    ) -> None:
        super().__init__()
        a, b, c, d, e = (max(1, w * hidden_dim // 256) for w in (96, 256, 384, 384, 256))
        with torch.random.fork_rng():
            torch.manual_seed(seeds[0])
            convs = [
                nn.Conv2d(1, a, 11, stride=4, padding=5),
                nn.Conv2d(a, b, 5, padding=2),
                nn.Conv2d(b, c, 3, padding=1),
                nn.Conv2d(c, d, 3, padding=1),
                nn.Conv2d(d, e, 3, padding=1),
            ]
            for conv in convs:  # deep, without normalization: torch's own draw fades away
                nn.init.kaiming_normal_(conv.weight)
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            self.convs = nn.ModuleList(convs)
            self.key = nn.Linear(e, e)
            self.score = nn.Linear(e, 1, bias=False)
            self.output = nn.Linear(e, num_outputs)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits for frames (F, D) of clips with `lengths` (N,) frames each."""
        x, lengths = standard_maps(frames, lengths)  # (N, 1, T, D)
        for number, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            lengths = (lengths - 1) // (4 if number == 0 else 1) + 1  # the first has strides of 4
            x = within(x, lengths)
            if number < 2:
                x = F.max_pool2d(x, 3, stride=2, padding=1)
                lengths = (lengths - 1) // 2 + 1
                x = within(x, lengths)
        outside = torch.arange(x.shape[2], device=x.device) >= lengths[:, None]  # (N, T)
        places = x.permute(0, 2, 3, 1)  # (N, T, D, channels)
        scores = 0.3 * self.score(torch.tanh(self.key(places))).squeeze(3)
        scores = scores.masked_fill(outside[:, :, None], -torch.inf)
        shares = scores.flatten(1).softmax(dim=1)  # (N, T x D)
        return self.output((shares[:, None] @ places.flatten(1, 2)).squeeze(1)).unsqueeze(1)


def standard_maps(frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, 1, T, D) of mean 0 and variance 1 each, and their lengths, `SHORTEST` at least.

    Levels and units thereby do not matter. Short clips end in zeros.
    """
    clips = [
        (clip - clip.mean()) / clip.std(correction=0).clamp_min(1e-5)
        for clip in frames.split(lengths.tolist())
    ]
    padded = nn.utils.rnn.pad_sequence(clips, batch_first=True)
    missing = max(0, SHORTEST - padded.shape[1])
    return F.pad(padded, (0, 0, 0, missing)).unsqueeze(1), lengths.clamp_min(SHORTEST)
