"""Encoders whose first layer is log-mel: against numpy's FFT, and as all others are tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import relative_error

from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.convolutions import ENERGY_FLOOR, FeatureEncoder
from emotion2vec.filterbank import mel_filters
from emotion2vec.long import encode_long
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.costs import flops

SHAPE = {"conv_channels": (80, 64), "conv_kernels": (400, 1), "conv_strides": (320, 1)}


def config(**changes: object) -> Emotion2vecConfig:
    small = {"embed_dim": 48, "num_heads": 4, "depth": 2, "prenet_depth": 1}
    return Emotion2vecConfig(**{"first_layer": "logmel", **SHAPE, **small, **changes})  # type: ignore[arg-type]


@pytest.fixture
def model() -> Emotion2vec:
    torch.manual_seed(0)
    return Emotion2vec(config()).eval()


def test_energies_are_those_of_an_fft() -> None:
    encoder = FeatureEncoder(config())
    assert encoder.log_mel is not None
    waveform = torch.randn(2, 4000)
    windows = np.lib.stride_tricks.sliding_window_view(waveform.double().numpy(), 400, axis=1)
    spectrum = np.fft.rfft(windows[:, ::320] * np.hanning(400), 512)
    energy = np.abs(spectrum) ** 2 @ mel_filters(80, 512, 16_000).T
    expected = torch.from_numpy(np.log(energy + ENERGY_FLOOR) / 4)
    found = encoder.log_mel(waveform)
    assert found.dtype == torch.float32
    assert relative_error(found.double(), expected) <= 1e-5
    with torch.autocast("cpu", torch.bfloat16):  # the spectrum of a soft sound would drown
        assert torch.equal(encoder.log_mel(waveform), found)


def test_products_equal_convolutions_with_and_without_gradients(model: Emotion2vec) -> None:
    encoder, waveform = model.feature_encoder, torch.randn(2, 9000)
    learned = encoder(waveform)
    expected = encoder.forward_convolutions(waveform)
    assert relative_error(learned.detach(), expected.detach()) <= 1e-5
    weights = list(encoder.parameters())
    factors = torch.randn(expected.shape)
    pairs = zip(
        torch.autograd.grad((learned * factors).sum(), weights),
        torch.autograd.grad((expected * factors).sum(), weights),
        strict=True,
    )
    assert all(relative_error(a, b) <= 1e-4 for a, b in pairs)
    with torch.no_grad():
        assert relative_error(encoder(waveform), expected) <= 1e-5


@torch.no_grad()
def test_batched_is_single_and_long_is_whole(model: Emotion2vec) -> None:
    clips = [torch.randn(n) for n in (16_000, 9_000, 400)]
    batch = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    keep = torch.arange(batch.shape[1]) < torch.tensor([[len(clip)] for clip in clips])
    frames = model(batch, keep).last_hidden_state
    for row, clip in zip(frames, clips, strict=True):
        alone = model(clip.unsqueeze(0)).last_hidden_state[0]
        assert len(alone) == model.config.num_frames(len(clip))
        assert relative_error(row[: len(alone)], alone) <= 1e-5
    whole = model(clips[0].unsqueeze(0)).last_hidden_state[0]
    assert relative_error(encode_long(model, clips[0]).frames, whole) <= 1e-5


def test_it_has_no_weights_and_survives_saving(model: Emotion2vec, tmp_path: Path) -> None:
    assert [name for name in model.state_dict() if "log_mel" in name] == []
    assert tuple(model.feature_encoder.layers[0].conv.weight.shape) == (64, 80, 1)
    model.save_pretrained(tmp_path)
    again = Emotion2vec.from_pretrained(tmp_path)
    waveform = torch.randn(1, 5000)
    assert torch.equal(again(waveform).pooled, model(waveform).pooled)


def test_it_costs_next_to_nothing() -> None:
    learned = flops(PretrainConfig(model=Emotion2vecConfig(depth=8)), 1, 80_000)
    fixed = flops(PretrainConfig(model=config(depth=8)), 1, 80_000)
    assert fixed["convolutions"] < learned["convolutions"] / 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_layer": "mel"}, 'first_layer is \'mel\'; choose "convolution" or "logmel"'),
        ({"conv_norm": "group"}, "needs a convolution after it"),
        (
            {"conv_channels": (80,), "conv_kernels": (400,), "conv_strides": (320,)},
            "needs a convolution after it",
        ),
    ],
)
def test_contradictions(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)
