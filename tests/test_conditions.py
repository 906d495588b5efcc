"""Conditions: levels as stated, spectra as stated, rooms as stated, the same for everybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import ROOT
from numpy.typing import NDArray

from emotion2vec.audio import Waveform, load_audio
from emotion2vec.coding import CODECS, through_amr, through_codec
from emotion2vec.conditions import (
    CONDITIONS,
    STANDARD,
    families,
    parse_condition,
    parse_conditions,
    read_response,
)
from emotion2vec.degradations import (
    SPEECH_SPECTRUM,
    active_speech,
    clip_share,
    decaying_response,
    low_pass,
    pink_noise,
    power,
    resample_through,
    reverberate,
    speech_noise,
    white_noise,
)


@pytest.fixture(scope="module")
def clip() -> Waveform:
    """A sentence with a second of silence on both sides."""
    speech = load_audio(ROOT / "data/moods/clips/f1-angry-01.ogg")
    return np.pad(speech, 16000)


def decibels(values: NDArray[np.floating]) -> float:
    return 10 * np.log10(np.mean(np.square(values, dtype=np.float64)))


def lag(late: Waveform, early: Waveform) -> int:
    """Samples by which `late` comes after `early`."""
    size = 2 * len(early)
    product = np.fft.rfft(late, size) * np.conj(np.fft.rfft(early, size))
    place = int(np.argmax(np.fft.irfft(product, size)))
    return place if place < len(early) else place - size


def hear(name: str, clip: Waveform, key: str = "a", seed: int = 0) -> Waveform:
    return parse_condition(name).apply(clip, key, seed=seed)


@pytest.mark.parametrize("family", ["white", "pink", "speech"])
@pytest.mark.parametrize("snr", [20, 0, -10])
def test_the_snr_is_that_over_active_speech(family: str, snr: int, clip: Waveform) -> None:
    noise = hear(f"{family}:{snr}", clip).astype(np.float64) - clip
    assert decibels(active_speech(clip)) - decibels(noise) == pytest.approx(snr, abs=0.01)
    # The silence around it weakens the clip's mean, not its active speech.
    speech = clip[16000:-16000]
    assert decibels(clip) < decibels(speech) - 3
    assert power(active_speech(clip)) == pytest.approx(power(active_speech(speech)), rel=0.02)


def band(noise: NDArray[np.floating], low: float, high: float) -> float:
    """Power in 1 Hz between two frequencies, in dB."""
    hertz = np.fft.rfftfreq(len(noise), 1 / 16000)
    chosen = (hertz >= low) & (hertz < high)
    return float(10 * np.log10(np.mean(np.abs(np.fft.rfft(noise)[chosen]) ** 2)))


def test_noise_has_the_spectrum_of_its_name() -> None:
    white, pink, speech = (
        make(400_000, np.random.default_rng(0)) for make in (white_noise, pink_noise, speech_noise)
    )
    for low in (125, 500, 2000):
        assert band(white, low, 2 * low) - band(white, 4000, 8000) == pytest.approx(0, abs=0.5)
        octaves = np.log2(4000 / low)
        difference = band(pink, low, 2 * low) - band(pink, 4000, 8000)
        assert difference == pytest.approx(3.01 * octaves, abs=0.5)
    for hertz in (250, 1000, 4000):
        found = band(speech, hertz * 0.97, hertz * 1.03) - band(speech, 485, 515)
        wanted = SPEECH_SPECTRUM[hertz] - SPEECH_SPECTRUM[500]
        assert found == pytest.approx(wanted, abs=1.0)
    assert band(pink, 1, 18) < band(pink, 20, 40) - 30


@pytest.mark.parametrize("rt60", [0.3, 0.6, 1.2])
def test_rooms_decay_by_60_db_in_their_rt60(rt60: float, clip: Waveform) -> None:
    response = decaying_response(rt60, np.random.default_rng(1))
    # Schroeder's curve: the energy still to come, in dB; ISO 3382's T20, from -5 to -25 dB.
    curve = 10 * np.log10(np.cumsum(np.square(response[::-1]))[::-1] / np.square(response).sum())
    part = (curve <= -5) & (curve >= -25)
    slope = np.polyfit(np.flatnonzero(part) / 16000, curve[part], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.05)
    assert response[0] ** 2 == pytest.approx(np.square(response[1:]).sum())
    wet = reverberate(clip, response)
    assert decibels(wet) == pytest.approx(decibels(clip), abs=0.01)
    assert len(wet) == len(clip) and lag(wet, clip) == 0
    direct = np.convolve(clip, response)[: len(clip)]
    assert np.corrcoef(wet, direct)[0, 1] == pytest.approx(1, abs=1e-6)


def tone(hertz: float) -> Waveform:
    time = np.arange(16000) / 16000
    return np.sin(2 * np.pi * hertz * time).astype(np.float32)


def middle(samples: Waveform) -> Waveform:
    return samples[4000:-4000]


@pytest.mark.parametrize("hertz", [500, 2000, 4000])
def test_low_pass_passes_what_is_below_and_nothing_above(hertz: int, clip: Waveform) -> None:
    def gain(of: float) -> float:
        return decibels(middle(low_pass(tone(of), hertz))) - decibels(middle(tone(of)))

    assert gain(0.9 * hertz) == pytest.approx(0, abs=0.01)
    assert gain(hertz) == pytest.approx(-6.02, abs=0.1)
    assert gain(1.1 * hertz) < -60
    assert lag(low_pass(clip, hertz), clip) == 0
    click = np.eye(1, 16000, 15999, dtype=np.float32)[0]
    assert np.abs(low_pass(click, hertz)[:8000]).max() < 1e-4  # the end is not the beginning


def test_a_lower_rate_takes_what_is_above_half_of_it(clip: Waveform) -> None:
    through = resample_through(clip, 8000)
    assert len(through) == len(clip) and lag(through, clip) == 0
    assert decibels(middle(resample_through(tone(3500), 8000))) == pytest.approx(-3.01, abs=0.01)
    fading = tone(4500) * np.hanning(16000).astype(np.float32)  # an edge would have all frequencies
    assert decibels(resample_through(fading, 8000)) < -100


@pytest.mark.parametrize("name", [*CODECS, "amr"])
def test_codecs_keep_length_and_place(name: str, clip: Waveform) -> None:
    levels = {"mp3": (16, 32, 96), "opus": (6, 16, 64), "vorbis": (0, 5, 10), "amr": (4.75, 12.2)}
    quality = []
    for level in levels.get(name, (None,)):
        through = through_amr(clip, level) if name == "amr" else through_codec(clip, name, level)
        assert through.dtype == np.float32 and len(through) == len(clip)
        assert abs(lag(through, clip)) <= 1
        quality.append(decibels(clip) - decibels(through - clip))
    assert quality == sorted(quality) and quality[-1] > 3


def expanded_mulaw() -> NDArray[np.float64]:
    """All 256 values that G.711 mu-law can stand for: eight chords of sixteen steps, both signs."""
    chords, steps = np.meshgrid(np.arange(8), np.arange(16), indexing="ij")
    values = ((2 * steps + 33) << chords) - 33
    return np.unique(np.concatenate([-values.ravel(), values.ravel()])) / 8192


def test_mulaw_is_g711(clip: Waveform) -> None:
    values = expanded_mulaw()
    scale = np.float32(np.sqrt(10**-2.6 / power(active_speech(clip))))  # to -26 dB of full scale
    sent = soxr.resample(scale * clip, 16000, 8000, quality="VHQ")
    nearest = values[np.abs(sent[:, None] - values).argmin(axis=1)].astype(np.float32)
    wanted = soxr.resample(nearest, 8000, 16000, quality="VHQ")[: len(clip)] / scale
    found = through_codec(clip, "mulaw")[: len(wanted)]
    # Where a sample lies between two values, rounding may choose either.
    assert decibels(found - wanted) < decibels(found - clip[: len(wanted)]) - 25


def test_telephone_codecs_pass_no_more_than_telephones() -> None:
    for name in ("mulaw", "alaw", "gsm"):
        assert np.abs(middle(through_codec(0.5 * tone(6000), name))).max() < 0.01


def test_clipping_cuts_the_stated_share_of_speech(clip: Waveform) -> None:
    cut = clip_share(clip, 10)
    top = np.abs(cut).max()
    assert np.mean(np.abs(active_speech(clip)) >= top) == pytest.approx(0.1, abs=0.001)
    assert np.array_equal(cut[np.abs(clip) < top], clip[np.abs(clip) < top])
    assert np.array_equal(clip_share(clip, 0), clip)


def test_what_is_short_or_soft(clip: Waveform) -> None:
    part = hear("shorten:0.5", clip)
    start = (len(clip) - 8000) // 2
    assert np.array_equal(part, clip[start : start + 8000])
    assert np.array_equal(hear("shorten:60", clip), clip)
    assert decibels(hear("gain:-20", clip)) == pytest.approx(decibels(clip) - 20, abs=0.001)


def test_everybody_hears_the_same(clip: Waveform) -> None:
    for name in ("white:10", "pink:5", "speech:0", "reverb:0.4"):
        assert np.array_equal(hear(name, clip), hear(name, clip))
        assert not np.array_equal(hear(name, clip), hear(name, clip, key="b"))
        assert not np.array_equal(hear(name, clip), hear(name, clip, seed=1))
    loud, soft = (hear(f"white:{snr}", clip) - clip for snr in (0, 20))
    assert np.allclose(loud, 10 * soft, atol=1e-6)  # one noise at every level


def test_the_standard_conditions_give_sound(clip: Waveform) -> None:
    found = parse_conditions(["standard"])
    assert tuple(condition.name for condition in found) == STANDARD
    for condition in found:
        heard = condition.apply(clip, "a")
        assert heard.dtype == np.float32 and np.isfinite(heard).all() and np.ptp(heard) > 0
        if condition.family != "shorten":
            assert len(heard) == len(clip)
            assert not np.array_equal(heard, clip)


@pytest.mark.parametrize("name", [*STANDARD, "amr:12.2", "alaw", "vorbis:3"])
def test_what_is_soft_sounds_the_same_but_softer(name: str, clip: Waveform) -> None:
    # A power of two: floats then differ in their exponents only.
    assert np.array_equal(hear(name, clip / 256), hear(name, clip) / 256)


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    folder = tmp_path / "noises"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, seconds, rate in (("long", 9, 44100), ("short", 0.7, 16000), ("exact", 5, 8000)):
        soundfile.write(folder / f"{name}.wav", random.normal(0, 0.1, int(seconds * rate)), rate)
    return folder


def test_recorded_noise_is_drawn_and_set_as_exactly(noises: Path, clip: Waveform) -> None:
    known = families(noise=noises)
    condition = parse_condition("noise:10", known)
    heard = {key: condition.apply(clip, key) for key in "abcdefgh"}
    for key, mixed in heard.items():
        noise = mixed.astype(np.float64) - clip
        assert decibels(active_speech(clip)) - decibels(noise) == pytest.approx(10, abs=0.01)
        assert np.array_equal(mixed, condition.apply(clip, key))
    assert len({mixed.tobytes() for mixed in heard.values()}) == len(heard)
    assert condition.identity(0) == parse_condition("noise:10", families(noise=noises)).identity(0)
    (noises / "short.wav").unlink()
    fewer = parse_condition("noise:10", families(noise=noises))
    assert len({condition.identity(0), condition.identity(1), fewer.identity(0)}) == 3
    assert [c.name for c in parse_conditions(["standard"], known)][-1] == "noise:0"


def test_noise_that_is_silent_is_refused(tmp_path: Path, clip: Waveform) -> None:
    soundfile.write(tmp_path / "still.wav", np.zeros(160_000), 16000)
    condition = parse_condition("noise:10", families(noise=tmp_path))
    with pytest.raises(ValueError, match=r"20 random parts .* silent.*still.wav; leave"):
        condition.apply(clip, "a")


def test_recorded_rooms_keep_place_and_level(tmp_path: Path, clip: Waveform) -> None:
    response = np.zeros((9600, 2))
    response[480, 0], response[4800, 0], response[7000, 1] = 0.8, -0.4, 1.0
    soundfile.write(tmp_path / "hall.wav", response, 48000, subtype="FLOAT")
    room = read_response(str(tmp_path / "hall.wav"))
    assert np.abs(room).argmax() == 0 and np.abs(room[1000:]).argmax() == 1440 - 1000
    heard = parse_condition("room", families(impulse_responses=tmp_path)).apply(clip, "a")
    assert lag(heard, clip) == 0 and decibels(heard) == pytest.approx(decibels(clip), abs=0.01)
    soundfile.write(tmp_path / "none.wav", np.zeros(100), 16000)
    with pytest.raises(ValueError, match=r"none.wav is silent or not finite"):
        read_response(str(tmp_path / "none.wav"))
    (tmp_path / "text.wav").write_text("Dear diary")
    with pytest.raises(ValueError, match=r"text.wav cannot be decoded as an impulse response"):
        read_response(str(tmp_path / "text.wav"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("whitr:3", "no condition 'whitr:3'; choose of clean, white"),
        ("white", "no level that white takes; write white:NUMBER from -30 to 60"),
        ("white:loud", "no level that white takes"),
        ("white:nan", "no level that white takes"),
        ("mp3:500", r"from 16 to 160 \(kb/s\)"),
        ("mulaw:3", "has a level; mulaw has none, write mulaw"),
        ("noise:10", "it needs --noise FOLDER"),
        ("room", "it needs --impulse-responses FOLDER"),
    ],
)
def test_conditions_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_conditions([name])


def test_names_are_written_one_way_and_taken_once() -> None:
    names = [c.name for c in parse_conditions(["white:10.0", "white:10", "shorten:.5", "mulaw"])]
    assert names == ["white:10", "shorten:0.5", "mulaw"]


def test_a_codec_that_is_not_there_is_told(clip: Waveform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "check_format", lambda *_: False)
    with pytest.raises(ValueError, match="libsndfile .* cannot write opus; leave"):
        through_codec(clip, "opus", 16)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match="amr cannot be written here"):
        through_amr(clip, 12.2)


def test_every_family_says_what_it_is() -> None:
    for name, family in CONDITIONS.items():
        assert family.title and (family.low < family.high) == bool(family.unit), name
