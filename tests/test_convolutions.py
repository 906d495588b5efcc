"""Windows on a CPU give what the convolutions give, and everything else takes the plain path."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import load_golden, relative_error
from torch import Tensor, nn

from emotion2vec import Emotion2vecConfig
from emotion2vec.convolutions import WINDOW_FRAMES, FeatureEncoder
from emotion2vec.encoding import arrange_weights
from emotion2vec.layers import SameConv
from emotion2vec.published.reference import config_from_reference

HOP, FRAME = 320, 400
BORDER = (WINDOW_FRAMES - 1) * HOP + FRAME
"""Samples of one full window."""


ODD_CONVOLUTIONS: list[dict[str, Any]] = [
    {"conv_kernels": (4, 3, 2), "conv_strides": (2, 2, 2)},
    {"conv_kernels": (10, 8, 4, 4, 4), "conv_strides": (5, 4, 2, 2, 2)},
    {"conv_kernels": (5, 7), "conv_strides": (5, 2)},  # 3.5 strides a kernel
    {"conv_kernels": (2, 1, 3), "conv_strides": (3, 2, 2)},  # samples between kernels
    {"conv_kernels": (3,), "conv_strides": (1,)},
    {"conv_kernels": (10, 3, 2), "conv_channels": (8, 24, 16), "conv_strides": (5, 2, 2)},
]


def build(**changes: Any) -> FeatureEncoder:
    """An encoder of 32 channels in which every weight matters."""
    config = Emotion2vecConfig(**{"conv_channels": (32,) * 7, "embed_dim": 48, **changes})  # type: ignore[arg-type]
    encoder = FeatureEncoder(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return encoder


@pytest.fixture
def encoder() -> FeatureEncoder:
    return build()


@torch.no_grad()
def both(
    encoder: FeatureEncoder, waveform: Tensor, num_frames: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Frames by windows and by convolutions."""
    with patch.object(encoder, "forward_convolutions", side_effect=AssertionError("plain path")):
        ours = encoder(waveform, num_frames)
    return ours, encoder.forward_convolutions(waveform)


@pytest.mark.parametrize(
    "samples",
    [400, 401, 719, 720, 721, 2 * BORDER, 80_000]
    + [BORDER + n for n in (-1, 0, 1, HOP - 1, HOP, HOP + 1)],
)
def test_windows_equal_the_convolutions(encoder: FeatureEncoder, samples: int) -> None:
    ours, theirs = both(encoder, torch.randn(2, samples))
    assert ours.shape == theirs.shape == (2, encoder.config.num_frames(samples), 32)
    assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("changes", ODD_CONVOLUTIONS)
def test_other_convolutions(changes: dict[str, Any]) -> None:
    encoder = build(**{"conv_channels": (16,) * len(changes["conv_kernels"]), **changes})
    config = encoder.config
    for samples in (config.min_samples, config.min_samples + 1, 60 * config.hop_samples + 7):
        ours, theirs = both(encoder, torch.randn(2, samples))
        assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("variant", ["base_tiny", "pluslarge_like_tiny", "preln_tiny"])
def test_convolutions_of_the_golden_models(variant: str) -> None:
    golden = load_golden(f"inference/{variant}")
    encoder = FeatureEncoder(config_from_reference(golden.facts["model_conf"], ())).eval()
    ours, theirs = both(encoder, torch.randn(1, 48_123))
    assert relative_error(ours, theirs) <= 1e-5


def test_float64(encoder: FeatureEncoder) -> None:
    ours, theirs = both(encoder.double(), torch.randn(1, 40_000, dtype=torch.float64))
    assert ours.dtype == torch.float64
    assert relative_error(ours, theirs) <= 1e-13


def test_frames_nobody_wants_are_not_computed(encoder: FeatureEncoder) -> None:
    waveform, wanted = torch.randn(4, 40_000), torch.tensor([124, 51, 50, 1])
    whole = encoder.forward_convolutions(waveform).detach()
    for row, count in enumerate(wanted.tolist()):
        waveform[row, (count - 1) * HOP + FRAME :] = torch.nan
    ours, _ = both(encoder, waveform, wanted)
    for row, count in enumerate(wanted.tolist()):
        assert relative_error(ours[row, :count], whole[row, :count]) <= 1e-5
        assert ours[row, count:].eq(0).all()


def test_waveforms_that_lie_scattered_in_memory(encoder: FeatureEncoder) -> None:
    stereo = torch.randn(20_000, 2)
    channels_first = stereo.T  # rows whose samples are two apart
    backwards = torch.randn(20_000).flip(0).expand(2, -1)
    for waveform in (channels_first, stereo[:, 1].unsqueeze(0), backwards):
        ours, theirs = both(encoder, waveform)
        assert relative_error(ours, theirs) <= 1e-5


def test_inference_mode_takes_windows(encoder: FeatureEncoder) -> None:
    waveform = torch.randn(1, 20_000)
    with torch.inference_mode():
        assert encoder._can_use_products(waveform)
        inside = encoder(waveform)
    assert torch.equal(inside, both(encoder, waveform)[0])


def takes_the_plain_path(encoder: FeatureEncoder, waveform: Tensor) -> bool:
    with patch.object(encoder, "_forward_windows", side_effect=AssertionError("windows")):
        encoder(waveform)
    return True


def gradients(encoder: FeatureEncoder, waveform: Tensor, frames: Tensor) -> list[Tensor]:
    """Of a loss in which every frame counts differently."""
    loss = (
        frames * torch.linspace(-1, 1, frames.numel(), dtype=frames.dtype).view(frames.shape)
    ).sum()
    return list(torch.autograd.grad(loss, [waveform, *encoder.parameters()]))


@pytest.mark.parametrize("changes", [{}, *ODD_CONVOLUTIONS])
def test_products_have_the_gradients_of_the_convolutions(changes: dict[str, Any]) -> None:
    kernels = changes.get("conv_kernels", (10, 3, 3, 3, 3, 2, 2))
    encoder = build(**{"conv_channels": (16,) * len(kernels), **changes}).double()
    samples = encoder.config.min_samples + 5003
    waveform = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    with patch.object(encoder, "forward_convolutions", side_effect=AssertionError("plain path")):
        ours = encoder(waveform)
    theirs = encoder.forward_convolutions(waveform)
    assert relative_error(ours.detach(), theirs.detach()) <= 1e-12
    pairs = zip(
        gradients(encoder, waveform, ours), gradients(encoder, waveform, theirs), strict=True
    )
    for mine, expected in pairs:
        assert expected.abs().sum() > 0
        assert relative_error(mine, expected) <= 1e-10


def test_training_under_autocast_takes_the_plain_path(encoder: FeatureEncoder) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert takes_the_plain_path(encoder, torch.randn(1, 4000))


def test_group_norm_takes_the_plain_path() -> None:
    encoder = build(conv_norm="group")
    assert isinstance(encoder.layers[0].norm, nn.GroupNorm)
    with torch.no_grad():
        assert takes_the_plain_path(encoder, torch.randn(1, 4000))


def test_a_compiled_encoder_takes_the_plain_path(encoder: FeatureEncoder) -> None:
    waveform = torch.randn(1, 4000)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(waveform), encoder.forward_convolutions(waveform))


@pytest.mark.parametrize(
    "clips, num_frames, taps", [(1, 1, 19), (2, 1, 19), (3, 50, 19), (5, 7, 3), (2, 60, 4)]
)
def test_grouped_convolutions(clips: int, num_frames: int, taps: int) -> None:
    """By products with and without a graph as by torch's convolution; even kernels, too."""
    config = Emotion2vecConfig(embed_dim=48, position_depth=1, position_width=taps)
    layer = SameConv((48, 48), config.position_kernel, 16)
    x = torch.randn(clips, num_frames, 48)
    loss_weights = torch.randn(clips, num_frames, 48)

    def forward_and_gradients() -> list[Tensor]:
        given = x.clone().requires_grad_()
        output = layer(given)
        inputs = [given, *layer.parameters()]
        return [output.detach(), *torch.autograd.grad((output * loss_weights).sum(), inputs)]

    with patch("emotion2vec.layers.can_use_products", return_value=False):
        expected = forward_and_gradients()
    with patch.object(layer.conv, "forward", side_effect=AssertionError):
        for mine, theirs in zip(forward_and_gradients(), expected, strict=True):
            assert relative_error(mine, theirs) <= 1e-5
        with torch.no_grad():
            twice = layer(torch.cat([x, x]))
            arrange_weights(layer)
            arranged = layer(torch.cat([x, x]))
    for output in (twice[:clips], arranged[clips:]):
        assert relative_error(output, expected[0]) <= 1e-5
    with torch.no_grad():
        assert relative_error(torch.cat([layer(clip[None]) for clip in x]), expected[0]) <= 1e-5


def test_under_autocast_windows_are_the_convolutions_in_bfloat16() -> None:
    """`out=` products know nothing of autocast: the windows cast by themselves."""
    torch.manual_seed(0)
    encoder, waveform = build(), torch.randn(2, 24_000)
    with torch.inference_mode():
        exact = encoder(waveform)
        with torch.autocast("cpu", torch.bfloat16):
            windows, plain = encoder(waveform), encoder.forward_convolutions(waveform)
    assert windows.dtype == plain.dtype == torch.bfloat16
    scale = exact.abs().max()
    assert (windows.float() - exact).abs().max() < 0.03 * scale
    assert (windows.float() - plain.float()).abs().max() < 0.03 * scale
