"""Hand-made frames against their formulas; all layers of an encoder at once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.signal
from conftest import TINY, call, write_tone

from emotion2vec import Emotion2vecConfig
from emotion2vec.backbones import BACKBONES, encoder_backbone, load_backbone, random_encoder
from emotion2vec.extract import extract_to_folder
from emotion2vec.handmade import HAND_MADE, log_mel, mfcc, spectrogram, trivial
from emotion2vec.manifest import find_recordings

NOISE = (np.random.default_rng(0).normal(size=20000) * 0.1).astype(np.float32)


def test_log_mel_is_what_it_always_was() -> None:
    # Published floors stand on these numbers; another processor may round the last bit otherwise.
    frames = log_mel(NOISE)
    assert frames.shape == (123, 64)
    assert frames[0, :3] == pytest.approx([1.837662, 0.60991365, 0.45588633], abs=1e-6)
    assert float(frames.sum()) == pytest.approx(24421.822, abs=0.01)


def test_log_mel_sees_the_pitch_and_not_the_level() -> None:
    time = np.arange(16000) / 16000
    low, high = (np.sin(2 * np.pi * f * time).astype(np.float32) for f in (300, 3000))
    assert log_mel(low).mean(axis=0).argmax() < 15 < log_mel(high).mean(axis=0).argmax()
    assert np.allclose(log_mel(low), log_mel(0.01 * low), atol=1e-3)


def test_cepstra_are_the_orthonormal_dct_of_log_mel() -> None:
    expected = scipy.fft.dct(log_mel(NOISE).astype(np.float64), type=2, norm="ortho", axis=1)[
        :, :40
    ]
    assert np.abs(mfcc(NOISE) - expected).max() <= 1e-4  # of values up to 40
    assert mfcc(NOISE).dtype == np.float32


def test_the_spectrogram_is_scipys() -> None:
    peak = NOISE / np.abs(NOISE).max()
    transform = scipy.signal.ShortTimeFFT(
        np.hamming(640), 160, 16000, mfft=800, fft_mode="onesided", phase_shift=None
    )
    power = np.abs(transform.stft(peak)) ** 2
    first = transform.lower_border_end[1]  # windows before it begin before the clip
    expected = np.log(power[:200, first - transform.p_min :].T + 1e-6)
    frames = spectrogram(NOISE)
    assert frames.shape == ((20000 - 640) // 160 + 1, 200)
    assert np.abs(frames - expected[: len(frames)]).max() <= 1e-3
    assert transform.f[199] == 3980
    assert spectrogram(NOISE[:400]).shape == (1, 200)


def test_trivial_statistics_of_the_sound_as_it_is() -> None:
    samples = np.concatenate([NOISE, np.zeros(12000, np.float32)]) + 0
    (row,) = trivial(samples)
    exact = samples.astype(float)
    level = 20 * np.log10(np.sqrt((exact**2).mean()))
    assert row == pytest.approx([2.0, level, np.abs(exact).max(), exact.mean(), 0.625], rel=1e-6)
    half = trivial(samples / 2)[0]
    assert half[1:3] == pytest.approx([level - 20 * np.log10(2), row[2] / 2])
    assert trivial(np.zeros(400, np.float32))[0, 1] == -100


@pytest.mark.parametrize("name", sorted(HAND_MADE.keys() - {"egemaps"}))
def test_hand_made_kinds_by_name(name: str) -> None:
    backbone = load_backbone(name)
    assert backbone.name == name and backbone.kind == "hand-made"
    (encoded,) = backbone.encode([NOISE])
    assert encoded.frames.shape[1] == backbone.dim and encoded.frames.dtype == np.float32
    assert encoded.tokens.shape == (0, backbone.dim)
    (short,) = backbone.encode([NOISE[:400]])
    assert len(short.frames) == 1 and np.isfinite(short.frames).all()
    for asked in ({"layer": 1}, {"layer": "mean"}):
        with pytest.raises(ValueError, match=f"{name} has neither a model nor layers"):
            load_backbone(name, **asked)
    with pytest.raises(ValueError, match=f"ask for plain {name}"):
        load_backbone(f"{name}:model")


def test_fingerprints_tell_frames_apart() -> None:
    prints = {name: made.fingerprint for name, made in HAND_MADE.items()}
    assert prints["afcn"] == prints["spectrogram"]  # the same frames: cached once
    assert len(set(prints.values())) == len(prints) - 1
    assert load_backbone("afcn").default_head == "afcn"
    assert load_backbone("mfcc").default_head == "logistic"
    assert HAND_MADE.keys() < BACKBONES.keys()


def test_egemaps_is_opensmiles(tmp_path: Path) -> None:
    opensmile = pytest.importorskip("opensmile")
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    path = write_tone(tmp_path / "tone.wav", 1.0)
    backbone = load_backbone("egemaps")
    (encoded,) = backbone.encode([find_recordings(path)[0].load()])
    assert encoded.frames.shape == (1, 88) == (1, backbone.dim)
    assert np.allclose(encoded.frames, smile.process_file(str(path)).to_numpy(), rtol=1e-3)
    with pytest.raises(RuntimeError, match="0.059 s long; eGeMAPS needs 0.060 s"):
        backbone.encode([NOISE[:950]])
    assert np.isfinite(backbone.encode([NOISE[:960]])[0].frames).all()


def test_egemaps_without_opensmile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opensmile", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'emotion2vec\[opensmile\]'"):
        load_backbone("egemaps")
    write_tone(tmp_path / "a.wav")
    assert call("extract", tmp_path, "--model", "egemaps", "--out", tmp_path / "out") == 1
    assert "this needs opensmile: pip install 'emotion2vec[opensmile]'" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [[1.0, 0.4, 0.7], [65.0, 0.5]])
def test_all_layers_are_each_of_them(seconds: list[float], tmp_path: Path) -> None:
    model = random_encoder(Emotion2vecConfig(**TINY))
    clips = [
        find_recordings(write_tone(tmp_path / f"{i}.wav", s))[0].load()
        for i, s in enumerate(seconds)
    ]
    backbone = encoder_backbone(model, "tiny", layer="all", device="cpu")
    assert (backbone.name, backbone.dim, backbone.kind) == ("tiny@all", 48, "model")
    found = backbone.encode(clips)
    for layer in range(4):
        one = encoder_backbone(model, "tiny", layer=layer, device="cpu")
        assert one.fingerprint != backbone.fingerprint
        for clip, encoded in zip(clips, found, strict=True):
            (alone,) = one.encode([clip])
            assert encoded.frames.shape == (len(alone.frames), 4, 48)
            assert np.abs(encoded.frames[:, layer] - alone.frames).max() <= 1e-5
            assert np.abs(encoded.tokens[:, layer] - alone.tokens).max() <= 1e-5


def test_all_layers_in_files(tmp_path: Path) -> None:
    backbone = encoder_backbone(random_encoder(Emotion2vecConfig(**TINY)), "tiny", layer="all")
    records = find_recordings(write_tone(tmp_path / "a.wav"))
    extract_to_folder(records, backbone, tmp_path / "out", level="utterance")
    assert np.load(tmp_path / "out" / "a.npy").shape == (4, 48)


def test_a_layer_by_a_name_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="layer is 'max'; the names are mean, all"):
        encoder_backbone(random_encoder(Emotion2vecConfig(**TINY)), "tiny", layer="max")
