"""Everything that sound can be when it comes in."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import write_tone

from emotion2vec.audio import check_clip, load_audio, normalize, num_samples, pad_clips


def tone(rate: int, seconds: float = 1.0, pitch: float = 440.0) -> np.ndarray[Any, Any]:
    return np.sin(2 * np.pi * pitch * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("suffix, tolerance", [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.1)])
def test_files_of_every_kind(tmp_path: Path, suffix: str, tolerance: float) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, 0.5 * tone(16000), 16000)
    samples = load_audio(path)
    assert samples.dtype == np.float32 and samples.shape == (16000,)
    assert np.abs(samples - 0.5 * tone(16000)).max() < tolerance
    assert num_samples(path) == 16000


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_wrong_sampling_rate_is_resampled(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.5 * tone(rate), rate)
    samples = load_audio(path)
    assert abs(len(samples) - 16000) <= 1
    middle = slice(2000, 14000)
    assert np.abs(samples[middle] - 0.5 * tone(16000)[middle]).max() < 2e-3
    assert abs(num_samples(path) - 16000) <= 1


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone(16000), 0.5 * tone(16000)], axis=1), 16000, "FLOAT")
    assert np.allclose(load_audio(path), 0.75 * tone(16000), atol=1e-6)


def test_bytes_file_objects_and_arrays_give_the_same(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav")
    expected = load_audio(path)
    encoded = path.read_bytes()
    assert (load_audio(encoded) == expected).all()
    assert (load_audio(io.BytesIO(encoded)) == expected).all()
    assert (load_audio(expected, sampling_rate=16000) == expected).all()
    integers = (expected * 32768).astype(np.int16)
    assert np.abs(load_audio(integers, sampling_rate=16000) - expected).max() < 1e-4


def test_a_part_is_that_part_of_the_whole(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav", 2.0)
    whole = load_audio(path)
    assert (load_audio(path, start=0.5, end=1.25) == whole[8000:20000]).all()
    part = load_audio(whole, sampling_rate=16000, start=0.5, end=1.25)
    assert (part == whole[8000:20000]).all()


DEPTHS = [  # how the wav stores a sample, and how far that may be from the truth
    ("PCM_U8", 0.008),
    ("PCM_16", 1e-4),
    ("PCM_24", 1e-6),
    ("PCM_32", 1e-6),
    ("FLOAT", 1e-6),
    ("DOUBLE", 1e-6),
    ("ULAW", 0.02),
    ("ALAW", 0.02),
    ("IMA_ADPCM", 0.1),
]


@pytest.mark.parametrize("depth, tolerance", DEPTHS, ids=[depth for depth, _ in DEPTHS])
def test_any_bit_depth(tmp_path: Path, depth: str, tolerance: float) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.5 * tone(16000), 16000, depth)
    settled = slice(1000, 16000)  # ADPCM feels its way from silence
    assert np.abs(load_audio(path)[settled] - 0.5 * tone(16000)[settled]).max() < tolerance


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_any_rate_and_number_of_channels(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.wav"
    weights = np.arange(1, channels + 1) / channels
    soundfile.write(path, 0.5 * tone(rate)[:, None] * weights, rate, "FLOAT")
    samples = load_audio(path)
    expected = 0.5 * weights.mean() * tone(16000)
    assert len(samples) == num_samples(path) == 16000
    assert np.abs(samples - expected)[2000:14000].max() < 2e-3


def test_integer_arrays_of_every_depth_are_the_same_sound() -> None:
    floats = 0.5 * tone(16000)
    for kind in (np.int8, np.int16, np.int32, np.int64):
        scaled = (floats.astype(np.float64) * (np.iinfo(kind).max + 1.0)).astype(kind)
        samples = load_audio(scaled, sampling_rate=16000)
        assert np.abs(samples - floats).max() < 0.01
    unsigned = np.round(128 + 128 * floats).astype(np.uint8)  # as 8-bit wav has it
    assert np.abs(load_audio(unsigned, sampling_rate=16000) - floats).max() < 0.01


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav")
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(path.read_bytes())
    with os.fdopen(read, "rb") as file:
        assert (load_audio(file) == load_audio(path)).all()


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        self.count += (got := super().readinto(buffer))
        return got

    def read(self, size: int | None = -1) -> bytes:
        self.count += len(got := super().read(size))
        return got


@pytest.mark.parametrize(
    "kind, subtype, share",
    [("WAV", "PCM_16", 0.03), ("FLAC", "PCM_16", 0.08), ("OGG", "VORBIS", 0.75)],
)
def test_a_part_is_read_without_the_rest(kind: str, subtype: str, share: float) -> None:
    encoded = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * 16000)
    soundfile.write(encoded, noise, 16000, subtype, format=kind)
    file = Counting(encoded.getvalue())
    part = load_audio(file, start=40, end=41)  # a sixtieth
    assert file.count < share * len(encoded.getvalue())
    assert (part == load_audio(encoded.getvalue())[640000:656000]).all()


@pytest.mark.parametrize("kind, subtype", [("MP3", None), ("OGG", "OPUS")])
def test_only_the_part_is_decoded(
    kind: str, subtype: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * 16000)
    soundfile.write(encoded, noise, 16000, subtype, format=kind)
    whole = load_audio(encoded.getvalue())
    asked: list[int] = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda file, n, **kw: asked.append(n) or read(file, n, **kw)
    )
    part = load_audio(encoded.getvalue(), start=4.5, end=5)
    assert asked == [8000]
    assert np.abs(part - whole[72000:80000]).max() < 1e-6


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 12345])
def test_lengths_are_known_before_decoding(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    for count in range(rate, rate + 40, 3):
        soundfile.write(path, tone(rate, 1.1)[:count], rate)
        for start, end in [(0.0, None), (0.29, 0.57), (0.111, 9.0)]:
            ready = load_audio(path, start=start, end=end)
            assert num_samples(path, start=start, end=end) == len(ready)


BAD_FILES = [
    ("missing", None, FileNotFoundError, "is not a file; check the path"),
    ("empty", b"", ValueError, r"is empty \(0 bytes\); copy or download it again"),
    ("corrupt", b"RIFF\x24\x00\x00\x00WAVEfmt ", ValueError, "cannot be decoded as audio"),
    ("no audio", b"Dear diary, " * 99, ValueError, "convert it to wav or flac"),
    ("a folder", "folder", FileNotFoundError, "is not a file"),
    ("too short", tone(16000)[:399], ValueError, r"0.025 s long; the model needs at least 0.025 s"),
    ("no sample", tone(16000)[:0], ValueError, "needs at least 0.025 s .400 samples at 16 kHz"),
    ("silent", np.zeros(16000, np.float32), ValueError, r"is silent \(every sample is 0\)"),
    ("constant", np.full(16000, 0.25, np.float32), ValueError, "every sample is 0.25"),
    ("nan", np.where(np.arange(16000) == 7, np.nan, 0.1), ValueError, "1 samples that are NaN"),
    ("infinite", np.where(np.arange(16000) < 2, np.inf, 0.1), ValueError, "2 samples that are NaN"),
]


@pytest.mark.parametrize("name, content, kind, message", BAD_FILES, ids=[b[0] for b in BAD_FILES])
def test_what_cannot_be_answered_is_one_clear_error(
    tmp_path: Path, name: str, content: Any, kind: type[Exception], message: str
) -> None:
    path = tmp_path / "clip.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        soundfile.write(path, content, 16000, "FLOAT")
    elif content == "folder":
        path.mkdir()
    with pytest.raises(kind, match=message) as caught:
        load_audio(path)
    assert str(path) in str(caught.value)


def test_samples_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "clip.raw").write_bytes(bytes(9999))
    with pytest.raises(ValueError, match=r"clip\.raw cannot be decoded as audio"):
        load_audio(tmp_path / "clip.raw")


def test_random_bytes_never_crash(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = write_tone(tmp_path / "a.flac", 0.5).read_bytes()
    for _ in range(50):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 20):
            damaged[place] = random.integers(0, 256)
        try:
            samples = load_audio(bytes(damaged[: random.integers(1, len(whole))]))
        except ValueError as error:
            assert "the bytes given" in str(error)
        else:
            assert np.isfinite(samples).all()


@pytest.mark.parametrize(
    "array, rate, message",
    [
        (tone(16000), None, "comes with sampling_rate=None; pass its rate in Hz"),
        (tone(16000), 0, "sampling_rate=0"),
        (tone(16000), -8000, "sampling_rate=-8000"),
        (np.zeros((2, 16000), np.float32), 16000, "transpose it if channels come first"),
        (np.zeros((2, 2, 2), np.float32), 16000, r"has shape \(2, 2, 2\)"),
        (np.zeros(800, np.uint16), 16000, "holds uint16"),
        (np.array(["a"] * 800), 16000, "holds <U1"),
    ],
)
def test_arrays_that_are_no_sound(array: Any, rate: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_audio(array, sampling_rate=rate)


@pytest.mark.parametrize("start, end", [(1.0, 1.0), (1.0, 0.5), (-1.0, None)])
def test_parts_that_are_empty(tmp_path: Path, start: float, end: float | None) -> None:
    with pytest.raises(ValueError, match="is empty; swap or widen it"):
        load_audio(write_tone(tmp_path / "a.wav"), start=start, end=end)


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 1)
    with pytest.raises(ValueError, match="says it has 1 samples a second"):
        load_audio(path)
    whole = bytearray(write_tone(tmp_path / "a.flac").read_bytes())
    whole[21] &= 0xF0  # the 36 bits of the number of samples: 0 means unknown
    whole[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(bytes(whole))
    for ask in (load_audio, num_samples):
        with pytest.raises(ValueError, match=r"a\.flac"):
            ask(tmp_path / "a.flac")


def test_a_part_behind_the_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1.000 s long, but the part asked for begins at 9"):
        load_audio(write_tone(tmp_path / "a.wav"), start=9.0)


@pytest.mark.parametrize("samples", [400, 960_000, 960_001, 2_500_000])
def test_normalizing_by_blocks_is_normalizing_the_whole(samples: int) -> None:
    clip = np.random.default_rng(0).normal(0.3, 0.1, samples).astype(np.float32)
    before, wide = clip.copy(), clip.astype(np.float64)
    expected = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5)
    assert np.abs(normalize(clip) - expected).max() <= 1e-6 and normalize(clip).dtype == np.float32
    assert np.array_equal(clip, before)


def test_normalized_clips_have_zero_mean_and_unit_variance() -> None:
    clip = 0.3 + 0.01 * np.random.default_rng(0).normal(size=8000).astype(np.float32)
    normed = normalize(clip)
    assert normed.dtype == np.float32
    assert abs(normed.mean()) < 1e-5 and normed.std() == pytest.approx(0.95, abs=0.01)  # eps


def test_padding_marks_what_is_real() -> None:
    batch, mask = pad_clips([tone(16000)[:500], tone(16000)[:800]])
    assert batch.shape == mask.shape == (2, 800)
    assert mask.sum(axis=1).tolist() == [500, 800] and (batch[0, 500:] == 0).all()


def test_checks_can_be_left_to_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 16000)
    assert len(load_audio(path, check=False)) == 100
    with pytest.raises(ValueError, match="a is 0.006 s long"):
        check_clip(load_audio(path, check=False), "a")


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write_tone(tmp_path / "a.wav")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(PermissionError, match=r"a\.wav"):
        load_audio(path)
