"""The convolutions from waveform to frames.

B clips, S samples, T frames, C channels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.filterbank import fourier_matrix, mel_filters
from emotion2vec.products import (
    can_use_products,
    kernel_pieces,
    normed_convolution,
    piece_views,
    taps_a_piece,
)

WINDOW_FRAMES = 50
"""1 s: the widest layer's output, 6.5 MB at base size, stays near the cache."""


SAMPLE_RATE = 16_000
"""Of the waveforms, in Hz."""

ENERGY_FLOOR = 1e-3
"""What is added to a band's energy before the log; a waveform of unit variance has a hundred or
so in a window of speech, so that noise 50 dB below is flat."""


class LogMel(nn.Module):
    """Log energies of mel bands in Hann windows: (B, S) -> (B, S', bands), about -2 to 2.

    Without parameters. What it multiplies with is made where it is needed and kept beside the
    module: transformers builds models on the meta device, where buffers would come to nothing.
    """

    def __init__(self, bands: int, window: int, hop: int) -> None:
        super().__init__()
        self.bands, self.window, self.hop = bands, window, hop

    def forward(self, waveform: Tensor) -> Tensor:
        """Return the energies, computed in float32 and over waveforms of unit variance."""
        kind = torch.promote_types(waveform.dtype, torch.float32)
        with torch.autocast(waveform.device.type, enabled=False):
            transform, filters = _spectral_matrices(self.bands, self.window, kind, waveform.device)
            windows = waveform.to(kind).unfold(1, self.window, self.hop)  # (B, S', window)
            cosines, sines = (windows @ transform).chunk(2, dim=-1)
            energy = (cosines.square() + sines.square()) @ filters
            return (energy + ENERGY_FLOOR).log() / 4


@lru_cache
def _spectral_matrices(
    bands: int, window: int, kind: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the DFT of windows (window, 2 * bins) and the mel filters (bins, bands)."""
    fft = 1 << (window - 1).bit_length()
    with torch.inference_mode(False):
        transform = torch.from_numpy(fourier_matrix(window, fft)).to(device, kind)
        filters = torch.from_numpy(mel_filters(bands, fft, SAMPLE_RATE)).to(device, kind)
    return transform, filters.T.contiguous()


class ConvLayer(nn.Module):
    """Convolution, norm, GELU: (B, C_in, S) -> (B, C_out, S')."""

    def __init__(self, channels: tuple[int, int], kernel: int, stride: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv1d(*channels, kernel, stride, bias=False)
        self.norm: nn.Module | None = None
        if norm == "layer":
            self.norm = nn.LayerNorm(channels[1])
        elif norm == "group":
            self.norm = nn.GroupNorm(channels[1], channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output in the type that the convolution gave."""
        x = self.conv(x)
        # Both norms compute in float32 inside, whatever the type; only what they return is cast.
        if isinstance(self.norm, nn.LayerNorm):
            x = self.norm(x.transpose(1, 2)).to(x.dtype).transpose(1, 2)
        elif self.norm is not None:
            x = self.norm(x).to(x.dtype)
        return F.gelu(x)

    def num_outputs(self, samples: int) -> int:
        """How many come out of a number of samples."""
        return (samples - self.conv.kernel_size[0]) // self.conv.stride[0] + 1

    def forward_window(self, x: Tensor, pieces: list[Tensor], memory: Tensor) -> Tensor:
        """Return what `forward` does, for one clip channels-last: (S, C_in) -> (S', C_out).

        `memory` (rows, C_out) is for what stands between convolution and norm: fresh memory for it
        would cost more than the smaller products. It holds what comes out of a whole window.
        """
        length = self.num_outputs(len(x))
        # oneDNN compiles a GELU for every shape and keeps it: few shapes, few kernels. What is in
        # the rows beyond `length` does not matter.
        rounded = memory[: _round_up(length)]
        y = rounded[:length]
        views = piece_views(x, pieces, self.conv.stride[0], length)
        torch.mm(views[0], pieces[0], out=y)
        for view, piece in zip(views[1:], pieces[1:], strict=True):
            y.addmm_(view, piece)
        assert self.norm is not None
        return torch.ops.aten.gelu_(self.norm(rounded).to(y.dtype))[:length]


def _round_up(rows: int) -> int:
    """Return the next of eight numbers an octave.

    >>> [_round_up(n) for n in (7, 15, 17, 33, 49)]
    [7, 15, 18, 36, 52]
    """
    step = 1 << max(rows.bit_length() - 4, 0)
    return -(-rows // step) * step


def _computed_in(waveform: Tensor) -> torch.dtype:
    """Return the type of products: under autocast, which knows nothing of `out=`, its own."""
    device = waveform.device.type
    if torch.is_autocast_enabled(device) and waveform.dtype == torch.float32:
        return torch.get_autocast_dtype(device)
    return waveform.dtype


class FeatureEncoder(nn.Module):
    """Waveform to frames: (B, S) -> (B, T, C), one frame every 20 ms.

    Source: paper section 3.1 "feature encoder"; data2vec 2.0's ConvFeatureExtractionModel.
    """

    def __init__(self, config: Emotion2vecConfig) -> None:
        super().__init__()
        self.config = config
        inputs = (1, *config.conv_channels[:-1])
        norms = [config.conv_norm] * len(inputs)
        if config.conv_norm == "group":  # only after the first convolution
            norms = ["group"] + ["none"] * (len(inputs) - 1)
        shapes = list(
            zip(
                zip(inputs, config.conv_channels, strict=True),
                config.conv_kernels,
                config.conv_strides,
                norms,
                strict=True,
            )
        )
        self.log_mel: LogMel | None = None
        if config.first_layer == "logmel":
            (_, bands), window, hop, _ = shapes.pop(0)
            self.log_mel = LogMel(bands, window, hop)
        self.layers = nn.ModuleList(ConvLayer(*shape) for shape in shapes)

    def forward(self, waveform: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Return the frames of normalized waveforms, without padding of their own.

        Args:
            waveform: (B, S)
            num_frames: (B,), how many frames of each clip are wanted; the others may be anything
        """
        if self._can_use_windows(waveform):
            return self._forward_windows(waveform, num_frames)
        if not self._can_use_products(waveform):
            return self.forward_convolutions(waveform)
        return self._forward_products(waveform)

    def forward_convolutions(self, waveform: Tensor) -> Tensor:
        """Return the frames as the paper's figure has them: (B, S) -> (B, T, C).

        For export and accelerators, and to check `forward` against.
        """
        x = self._inputs(waveform).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)

    def _inputs(self, waveform: Tensor) -> Tensor:
        """Return what the convolutions see: the waveform (B, S, 1), or log-mel (B, S', bands)."""
        return waveform.unsqueeze(2) if self.log_mel is None else self.log_mel(waveform)

    def _can_use_windows(self, waveform: Tensor) -> bool:
        """Whether nothing but the numbers is asked for, of convolutions over the waveform."""
        return (
            waveform.device.type == "cpu"
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and self.log_mel is None
            and all(isinstance(layer.norm, nn.LayerNorm) for layer in self.layers)
        )

    def _can_use_products(self, waveform: Tensor) -> bool:
        """Whether matrix products give the same: on a CPU, and no norm over the whole clip."""
        return can_use_products(waveform) and all(
            isinstance(layer.norm, nn.LayerNorm) for layer in self.layers
        )

    def _forward_products(self, waveform: Tensor) -> Tensor:
        """Return the frames by products that have gradients, twice as fast as the convolutions."""
        x = self._inputs(waveform)
        for layer in self.layers:
            assert isinstance(layer, ConvLayer)
            assert isinstance(layer.norm, nn.LayerNorm)
            x = normed_convolution(x, layer.conv, layer.norm)
        return x

    def _forward_windows(self, waveform: Tensor, num_frames: Tensor | None) -> Tensor:
        """Return the frames, computed clip by clip in windows that stay in the processor's cache.

        2 to 3 times faster than the convolutions on CPUs, and padding costs nothing.
        """
        config = self.config
        layers = [layer for layer in self.layers if isinstance(layer, ConvLayer)]
        kind = _computed_in(waveform)
        waveform = waveform.to(kind)
        pieces = [
            [piece.to(kind) for piece in kernel_pieces(layer.conv.weight, taps_a_piece(layer.conv))]
            for layer in layers
        ]
        samples = (WINDOW_FRAMES - 1) * config.hop_samples + config.min_samples
        memory = self._memory_of_a_window(waveform, samples)
        total = config.num_frames(waveform.shape[1])
        frames = waveform.new_zeros(len(waveform), total, config.conv_channels[-1])
        wanted = [total] * len(waveform) if num_frames is None else num_frames.tolist()
        # Views are laid over the samples, which are therefore to lie side by side.
        for clip, out, count in zip(waveform.contiguous(), frames, wanted, strict=True):
            for first in range(0, count, WINDOW_FRAMES):
                last = min(first + WINDOW_FRAMES, count)
                end = (last - 1) * config.hop_samples + config.min_samples
                x = clip[first * config.hop_samples : end].unsqueeze(1)
                for layer, weights, rows in zip(layers, pieces, memory, strict=True):
                    x = layer.forward_window(x, weights, rows)
                out[first:last] = x
        return frames

    def _memory_of_a_window(self, like: Tensor, samples: int) -> list[Tensor]:
        """Return room for each layer's output, all in the same place: (rows, C)."""
        shapes = []
        for layer in self.layers:
            assert isinstance(layer, ConvLayer)
            samples = layer.num_outputs(samples)
            shapes.append((samples, layer.conv.out_channels))
        memory = like.new_zeros(max(rows * channels for rows, channels in shapes))
        return [memory[: rows * channels].view(rows, channels) for rows, channels in shapes]
