"""Recordings in stretches: the frames and tokens of the whole, without its memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, load_golden, relative_error
from test_model import VARIANTS, load_variant
from torch import Tensor

from emotion2vec import Emotion2vec, Emotion2vecConfig, long
from emotion2vec.encoding import encode_clips
from emotion2vec.long import STRETCH_FRAMES, encode_long
from emotion2vec.model import Emotion2vecOutput

HOP, FRAME = 320, 400
BORDER = (STRETCH_FRAMES - 1) * HOP + FRAME
"""Samples of one stretch."""


def build(sharpness: float = 1.0, **changes: Any) -> Emotion2vec:
    """A tiny model; `sharpness` multiplies its attention scores."""
    model = Emotion2vec(Emotion2vecConfig(**{**TINY, **changes})).eval()
    width = model.config.embed_dim
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # so that every one of them matters
                parameter.add_(0.1 * torch.randn(parameter.shape))
            if name.endswith("qkv.weight"):
                parameter[: 2 * width] *= (sharpness * 768 / width) ** 0.5  # as if 768 wide
    return model


@torch.no_grad()
def plain(model: Emotion2vec, waveform: Tensor) -> Emotion2vecOutput:
    return model(waveform.unsqueeze(0), output_hidden_states=True)


def assert_equal(model: Emotion2vec, waveform: Tensor, tolerance: float = 1e-5) -> None:
    ours, theirs = encode_long(model, waveform), plain(model, waveform)
    assert relative_error(ours.frames, theirs.last_hidden_state[0]) <= tolerance
    assert ours.tokens.shape == theirs.utterance_tokens.shape[1:]
    if ours.tokens.numel():
        assert relative_error(ours.tokens, theirs.utterance_tokens[0]) <= tolerance


@pytest.mark.parametrize("samples", [400, 5000, BORDER, BORDER + HOP, 2 * BORDER + 777, 400_000])
@pytest.mark.parametrize("variant", VARIANTS)
def test_stretches_equal_the_whole(variant: str, samples: int) -> None:
    """All architectures that exist: both norms, all kinds of ALiBi and none, no tokens."""
    assert_equal(load_variant(load_golden(f"inference/{variant}")), torch.randn(samples))


@pytest.mark.parametrize("tokens", [0, 1, 4])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_views_that_end_before_the_recording(
    tokens: int, pre_norm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long, "STRETCH_FRAMES", 20)
    model = build(10.0, num_utterance_tokens=tokens, pre_norm=pre_norm)
    with torch.no_grad():
        model.context.alibi_scale.copy_(torch.tensor([[20.0, 40.0, 100.0, 20.0]]))  # type: ignore[union-attr]
    waveform = torch.randn(25 * 16000)
    groups = long._by_reach(model.context.head_slopes(0), 1249)
    assert [group.reach for group in groups] == [1, 13]  # of 63 stretches
    assert_equal(model, waveform, 1e-4)
    monkeypatch.setattr(long, "FORGET", 1.0)  # a view that is too short shows
    frames, theirs = encode_long(model, waveform).frames, plain(model, waveform)
    assert relative_error(frames, theirs.last_hidden_state[0]) > 1e-3


def test_a_recording_of_minutes_at_the_real_settings() -> None:
    model = build(10.0)
    waveform = torch.randn(150 * 16000)
    assert min(g.reach for g in long._by_reach(model.context.head_slopes(0), 7499)) < 25
    assert_equal(model, waveform, 1e-4)


@pytest.mark.parametrize("scale", [[0.0, 1.0, 1.0, 1.0], [1e-4, 30.0, -1.0, 3.0], [0.0] * 4])
def test_heads_that_never_forget_see_everything(
    scale: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long, "STRETCH_FRAMES", 40)
    monkeypatch.setattr(long, "BIAS_NUMBERS", 1)  # one head at a time
    model = build(3.0)
    with torch.no_grad():
        model.context.alibi_scale.copy_(torch.tensor([scale]))  # type: ignore[union-attr]
    assert_equal(model, torch.randn(400_000))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_sums_of_layers(pre_norm: bool) -> None:
    model, waveform = build(pre_norm=pre_norm), torch.randn(200_000)
    states = torch.stack(plain(model, waveform).hidden_states)[:, 0]  # (blocks + 1, T, D)
    for weights in ([0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4]):
        mixed = encode_long(model, waveform, layer_weights=torch.tensor(weights)).frames
        expected = (states * torch.tensor(weights).view(-1, 1, 1)).sum(dim=0)
        assert relative_error(mixed, expected) <= 1e-5


def test_float64() -> None:
    model, waveform = build(conv_norm="group").double(), torch.randn(150_000, dtype=torch.float64)
    ours, theirs = encode_long(model, waveform), plain(model, waveform)
    assert ours.frames.dtype == torch.float64
    assert relative_error(ours.frames, theirs.last_hidden_state[0]) <= 1e-10


def test_what_is_refused() -> None:
    for shape in ((399,), (1, 16000)):
        with pytest.raises(ValueError, match=r"the model needs|needs \(clips, samples\)"):
            encode_long(build(), torch.randn(shape))


def test_clips_over_a_minute_are_encoded_in_stretches_and_the_others_not() -> None:
    model, generator = build(), np.random.default_rng(0)
    clips = [
        generator.normal(size=int(s * 16000)).astype(np.float32) for s in (61.0, 1.0, 60.0, 2.5)
    ]
    for clip, encoded in zip(clips, encode_clips(model, clips), strict=True):
        (alone,) = encode_clips(model, [clip])
        assert np.abs(encoded.frames - alone.frames).max() <= 1e-5 * np.abs(alone.frames).max()
        ready = torch.from_numpy((clip - clip.mean()) / np.sqrt(clip.var() + 1e-5))
        expected = plain(model, ready)
        assert (
            relative_error(torch.from_numpy(encoded.frames), expected.last_hidden_state[0]) <= 1e-4
        )
        assert (
            relative_error(torch.from_numpy(encoded.tokens), expected.utterance_tokens[0]) <= 1e-4
        )


PEAK = """
import resource, sys, torch
from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.long import encode_long
model = Emotion2vec(Emotion2vecConfig(
    conv_channels=(8,) * 7, embed_dim=16, num_heads=4, prenet_depth=0, depth=1, position_depth=1
)).eval()
for minutes in (1, 10):
    encode_long(model, torch.randn(minutes * 60 * 16000))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_square_of_the_length() -> None:
    # 30,000 frames: scores of all pairs would be 14 GB, those of a head 3.6 GB; waveform and
    # frames are 40 MB.
    run = [sys.executable, "-c", PEAK]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    short, long_ = map(int, done.stdout.split())
    assert long_ - short < 250, (short, long_)
