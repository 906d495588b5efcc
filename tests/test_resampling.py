"""Resampling: by blocks as in one piece, and a second resampler gives the same labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from conftest import ROOT, TINY
from numpy.typing import NDArray

from emotion2vec import Emotion2vecConfig, audio
from emotion2vec.audio import load_audio, num_samples
from emotion2vec.backbones import encoder_backbone, random_encoder
from emotion2vec.manifest import read_manifest


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000, 12345])
@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.7])  # under, just, and several blocks
def test_blocks_give_what_one_piece_gives(
    tmp_path: Path, rate: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    path = tmp_path / "a.wav"
    stereo = np.random.default_rng(rate).normal(0, 0.1, (int(rate * seconds), 2))
    soundfile.write(path, stereo, rate, "FLOAT")
    mono = stereo.astype(np.float32).mean(axis=1)
    expected = soxr.resample(mono, rate, 16000, quality="VHQ")
    samples = load_audio(path)
    assert len(samples) == len(expected) == num_samples(path)
    assert np.abs(samples - expected).max() <= 1e-6


def test_a_part_of_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 5 * 16000), 16000)
    whole = load_audio(path)
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 1)
    assert (load_audio(path) == whole).all()
    assert (load_audio(path, start=0.7, end=4.2) == whole[11200:67200]).all()


def test_what_cannot_be_heard_at_16_khz_leaves_nothing_behind() -> None:
    time = np.arange(3 * 44100) / 44100
    for pitch, least, most in [(7400, -0.02, 0.02), (8100, -999, -130), (12000, -999, -130)]:
        tone = np.sin(2 * np.pi * pitch * time).astype(np.float32)
        middle = load_audio(tone, sampling_rate=44100, check=False)[8000:-8000]
        level = 10 * np.log10(2 * np.mean(middle.astype(np.float64) ** 2))  # dB of a full sine
        assert least < level < most, pitch


def test_two_resamplers_give_the_same_labels() -> None:
    """The demo's clips at 44.1 kHz, to 16 kHz by soxr and by scipy, through a random encoder."""
    signal = pytest.importorskip("scipy.signal")
    linear = pytest.importorskip("sklearn.linear_model")
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    records = read_manifest(ROOT / "data" / "moods" / "manifest.jsonl")[::3]
    backbone = encoder_backbone(random_encoder(Emotion2vecConfig(**TINY)), "random", device="cpu")
    # As steep as soxr: at its default of 10 zero crossings, 8.6 kHz comes back at -17 dB.
    taps = signal.firwin(2 * 64 * 441 + 1, 0.96 / 441, window=("kaiser", 10.0))

    def features(clips: list[NDArray[Any]]) -> NDArray[Any]:
        return np.stack([backbone.encode([clip])[0].frames.mean(axis=0) for clip in clips])

    def at_44100(clip: NDArray[Any]) -> NDArray[Any]:
        return signal.resample(clip, round(len(clip) * 44100 / 16000)).astype(np.float32)

    high = [at_44100(record.load()) for record in records]
    by_soxr = [load_audio(clip, sampling_rate=44100) for clip in high]
    by_scipy = [
        signal.resample_poly(clip, 160, 441, window=taps).astype(np.float32) for clip in high[1::2]
    ]
    moods = [record.emotion for record in records]
    train = scaler.fit_transform(features(by_soxr[::2]))
    head = linear.LogisticRegression(C=0.1, max_iter=1000).fit(train, moods[::2])
    ours = head.predict(scaler.transform(features(by_soxr[1::2])))
    theirs = head.predict(scaler.transform(features(by_scipy)))
    assert len(ours) == 80 and len(set(ours)) == 4
    assert (ours == theirs).all()
