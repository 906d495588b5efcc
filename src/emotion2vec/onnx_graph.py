"""A classifier as an ONNX graph, with all that is between sound and answers.

B clips, S samples, T frames, C channels, D width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.convolutions import ENERGY_FLOOR, ConvLayer, LogMel
from emotion2vec.filterbank import fourier_matrix, mel_filters
from emotion2vec.model import Emotion2vecClassifier, mean_pool

LARGEST_BYTES = 2**31 - 1
"""What one ONNX file can hold."""

FRONT = ("transform", "filters", "model.encoder.feature_encoder.", "projection")
"""How the names of the weights begin that stand before positions and blocks. An error there goes
through all of them: with mini half of what eight bits do comes from these few weights."""


LEAST_BIAS = -60.0
"""What distance takes off an attention score at most. A weight of e**-60 is nothing beside another,
the answers are the same to the last bit; but e**-88 and less are numbers with which onnxruntime's
products take ten times as long (30 s of sound: twice as long in all)."""


class _Whole(nn.Module):
    """Raw clips and their lengths in, answers out: what is traced."""

    transform: Tensor
    """(2 * bins, 1, window), the DFT as a convolution; only with log-mel"""
    filters: Tensor
    """(bins, bands)"""
    projection: Tensor
    """(C, D)"""

    def __init__(self, model: Emotion2vecClassifier) -> None:
        super().__init__()
        self.model = model
        model.encoder.set_attention("eager")  # the fused one cannot be traced over free lengths
        model.encoder.context.least_bias = LEAST_BIAS
        log_mel = model.encoder.feature_encoder.log_mel
        if log_mel is not None:
            transform, filters = _spectral_weights(log_mel)
            self.register_buffer("transform", transform)
            self.register_buffer("filters", filters)
        # Under a name of its own, which the weight of a linear layer loses when it is turned.
        self.register_buffer("projection", model.encoder.feature_projection.linear.weight.T)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """Return logits and values where there are any, pooled, frames."""
        encoder = self.model.encoder
        x = self._prepared(waveform, lengths)  # (B, S)
        features = self._features(x, lengths)
        num_frames = encoder.config.num_frames(lengths).unsqueeze(1)
        keep = torch.arange(features.shape[1]) < num_frames  # (B, T)
        project = encoder.feature_projection
        projected = project.norm(features) @ self.projection + project.linear.bias
        projected = _zeroed(projected, keep)  # (B, T, D)
        frames = _zeroed(encoder.context(projected, keep=keep).frames, keep)  # (B, T, D)
        pooled = mean_pool(frames, keep)  # (B, D)
        answers = [part for part in self.model.answer(pooled) if part.shape[1]]
        return (*answers, pooled, frames)

    def _prepared(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Return clips as `emotion2vec.audio.normalize` leaves them, zeros behind their ends."""
        keep = torch.arange(waveform.shape[1]) < lengths.unsqueeze(1)
        if not self.model.config.normalize_waveform:
            return waveform.masked_fill(~keep, 0.0)
        count = lengths.unsqueeze(1).double()  # in float64: of minutes, sums would lose digits
        x = waveform.double().masked_fill(~keep, 0.0)
        x = (x - x.sum(dim=1, keepdim=True) / count).masked_fill(~keep, 0.0)
        variance = x.square().sum(dim=1, keepdim=True) / count
        return (x * (variance + 1e-5).rsqrt()).float()

    def _features(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the convolutions' frames, (B, T, C)."""
        encoder = self.model.encoder.feature_encoder
        x = x.unsqueeze(1)  # (B, 1, S)
        if encoder.log_mel is not None:
            parts = F.conv1d(x, self.transform, stride=encoder.log_mel.hop)
            cosines, sines = parts.transpose(1, 2).chunk(2, dim=-1)
            energy = (cosines.square() + sines.square()) @ self.filters
            x = ((energy + ENERGY_FLOOR).log() / 4).transpose(1, 2)
        for layer in encoder.layers:
            assert isinstance(layer, ConvLayer)
            grouped = isinstance(layer.norm, nn.GroupNorm)
            x = _group_normed(layer, x, lengths) if grouped else layer(x)
        return x.transpose(1, 2)


def _zeroed(frames: Tensor, keep: Tensor) -> Tensor:
    return frames.masked_fill(~keep.unsqueeze(-1), 0.0)


def _spectral_weights(log_mel: LogMel) -> tuple[Tensor, Tensor]:
    """Return the DFT as a convolution (2 * bins, 1, window), and the mel filters (bins, bands)."""
    fft = 1 << (log_mel.window - 1).bit_length()
    transform = torch.from_numpy(fourier_matrix(log_mel.window, fft)).float()
    filters = torch.from_numpy(mel_filters(log_mel.bands, fft, SAMPLE_RATE)).float()
    return transform.T.contiguous().unsqueeze(1), filters.T.contiguous()


def _group_normed(layer: ConvLayer, x: Tensor, lengths: Tensor) -> Tensor:
    """Return the first layer's output, its norm over each clip's own time: (B, 1, S) -> (B, C, S').

    torch's norm would take the padding in, which is why the model runs such clips one by one.
    """
    norm, conv = layer.norm, layer.conv
    assert isinstance(norm, nn.GroupNorm)
    x = conv(x)
    count = ((lengths - conv.kernel_size[0]) // conv.stride[0] + 1).view(-1, 1, 1)
    hidden = torch.arange(x.shape[2]).view(1, 1, -1) >= count
    mean = x.masked_fill(hidden, 0.0).sum(dim=2, keepdim=True) / count
    variance = (x - mean).masked_fill(hidden, 0.0).square().sum(dim=2, keepdim=True) / count
    x = (x - mean) * (variance + norm.eps).rsqrt()
    return F.gelu(x * norm.weight.unsqueeze(1) + norm.bias.unsqueeze(1))


def trace(model: Emotion2vecClassifier) -> Any:
    """The `onnx.ModelProto` of a classifier, whose attention becomes the eager one.

    Inputs and outputs as `emotion2vec.export.export_onnx` says. Nothing is said in it of the
    files and folders that it comes from.

    Args:
        model: in float32, on the CPU, in eval mode

    Raises:
        ModuleNotFoundError: without the extra `export`
        ValueError: if the model has over 2 GB
    """
    import onnx

    whole = _Whole(model).eval()
    config = model.config
    names = ["logits"] * bool(config.labels) + ["values"] * bool(config.dimensions)
    free = torch.export.Dim.DYNAMIC
    samples = config.min_samples + 40 * config.hop_samples
    example = (torch.randn(2, samples), torch.tensor([samples, samples - config.hop_samples]))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            whole,
            example,
            dynamo=True,
            dynamic_shapes={"waveform": {0: free, 1: free}, "lengths": {0: free}},
            input_names=["waveform", "lengths"],
            output_names=[*names, "pooled", "frames"],
            verbose=False,
        )
    assert program is not None
    traced = program.model_proto
    if traced.ByteSize() > LARGEST_BYTES:
        raise ValueError(
            f"the model has {traced.ByteSize() / 1e9:.1f} GB, one ONNX file holds 2.1; export a "
            "smaller one."
        )
    for node in traced.graph.node:  # where in the source each came from, paths included
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for field in ("doc_string", "metadata_props", "value_info"):
        traced.graph.ClearField(field)
    traced.ClearField("metadata_props")
    onnx.checker.check_model(traced)
    return traced


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what torch says of a trace that works."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
