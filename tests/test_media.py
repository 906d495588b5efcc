"""What soundfile does not read: m4a, mp4, webm and their kin, made here with PyAV itself."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_tone
from numpy.typing import NDArray

from emotion2vec.audio import AUDIO_SUFFIXES, load_audio, num_samples
from emotion2vec.manifest import find_recordings
from emotion2vec.media import MEDIA_SUFFIXES, PREROLL_SECONDS, MediaFile

av = pytest.importorskip("av")


def chirp(rate: int, seconds: float) -> NDArray[np.float32]:
    """From 200 Hz up by 200 Hz a second, so that no two places sound alike."""
    time = np.arange(int(rate * seconds)) / rate
    return (0.4 * np.sin(2 * np.pi * (200 * time + 100 * time**2))).astype(np.float32)


def encode(
    target: Path | io.BytesIO,
    codec: str,
    *,
    rate: int = 44100,
    seconds: float = 5.0,
    levels: tuple[float, ...] = (1.0, 0.5),
    kind: str | None = None,
    options: dict[str, str] | None = None,
    film_seconds: float = 0.0,
    streams: int = 1,
    hole_seconds: float = 0.0,
) -> Any:
    """Write a chirp on channels of these `levels`; a hole in the timestamps comes at 2 s."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(levels)]
    # Without aac_pns, which fills noisy bands at random, AAC decodes the same each time.
    details = {"aac_pns": "0", "aac_coder": "fast"} if codec == "aac" else {}
    with av.open(target, "w", format=kind, options=options or {}) as out:
        film = out.add_stream("mpeg4", rate=10) if film_seconds else None
        sounds = [
            out.add_stream(codec, rate=rate, layout=layout, options=details) for _ in range(streams)
        ]
        for stream in sounds:
            stream.bit_rate = 128_000
        if film:
            film.width = film.height = 64
            film.pix_fmt = "yuv420p"
            for i in range(round(film_seconds * 10)):
                gray = np.full((64, 64, 3), i % 255, np.uint8)
                picture = av.VideoFrame.from_ndarray(gray, format="rgb24")
                picture.pts, picture.time_base = i, Fraction(1, 10)
                out.mux(film.encode(picture))
            out.mux(film.encode(None))
        for number, stream in enumerate(sounds):
            planes = np.stack([level * chirp(rate, seconds) for level in levels]) / (1 + number)
            cut = 2 * rate // 960 * 960 if hole_seconds else 0
            for begin, part in ((0, planes[:, :cut]), (cut, planes[:, cut:])):
                if not part.shape[1]:
                    continue
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(part), format="fltp", layout=layout
                )
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = begin + (round(hole_seconds * rate) if begin else 0)
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return target


# Name, codec, settings, how far from the chirp, how much longer than it (encoders pad). The bass
# channel of 5.1 has no room for it; a pad of half samples stays between the fragments and it.
KINDS: list[tuple[str, str, dict[str, Any], float, int]] = [
    ("a.m4a", "aac", {}, 0.02, 0),
    ("a.m4a", "alac", {}, 0.002, 0),
    ("a.mp4", "aac", {"film_seconds": 6.0}, 0.02, 0),
    ("a.mov", "aac", {"rate": 22050}, 0.02, 0),
    ("a.3gp", "aac", {"rate": 8000, "levels": (1.0,)}, 0.02, 0),
    ("a.mkv", "aac", {"rate": 48000, "levels": (1, 1, 1, 0, 1, 1)}, 0.02, 800),
    ("a.webm", "libopus", {"rate": 48000}, 0.02, 0),
    ("live.webm", "libopus", {"rate": 48000, "options": {"live": "1"}}, 0.02, 0),
    ("a.mka", "flac", {}, 0.002, 0),
    ("film.mkv", "aac", {"film_seconds": 8.0, "streams": 2}, 0.02, 800),
    ("a.wma", "wmav2", {}, 0.05, 800),
    ("fragments.mp4", "aac", {"options": {"movflags": "frag_keyframe+empty_moov"}}, 0.06, 800),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, dict[str, Any]], Path]:
    """Encodes each of the kinds once."""

    def make(name: str, codec: str, settings: dict[str, Any]) -> Path:
        path = tmp_path_factory.getbasetemp() / f"{codec}-{name}"
        return path if path.exists() else encode(path, codec, **settings)

    return make


IDS = [f"{name}-{codec}" for name, codec, *_ in KINDS]


@pytest.mark.parametrize("name, codec, settings, tolerance, padding", KINDS, ids=IDS)
def test_containers(
    made: Any, name: str, codec: str, settings: dict[str, Any], tolerance: float, padding: int
) -> None:
    path = made(name, codec, settings)
    samples = load_audio(path)
    assert samples.dtype == np.float32
    assert num_samples(path) == len(samples)
    assert abs(len(samples) - 80000) <= padding
    level = np.mean(settings.get("levels", (1.0, 0.5)))
    expected = level * chirp(16000, 5.0)
    # Where the container does not say what the encoder put in front, find it.
    shifts = range(-800, 801) if padding else [0]
    middle = slice(20000, 60000)
    errors = [np.abs(np.roll(samples, -s)[middle] - expected[middle]).max() for s in shifts]
    assert min(errors) < tolerance
    for source in (path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert (load_audio(source) == samples).all()


@pytest.mark.parametrize("name, codec, settings, tolerance, padding", KINDS, ids=IDS)
@pytest.mark.parametrize("start, end", [(0.2, 0.7), (1.7, 1.9), (2.503, 4.1), (4.6, None)])
def test_a_part_is_that_part_of_the_whole(
    made: Any,
    name: str,
    codec: str,
    settings: dict[str, Any],
    tolerance: float,
    padding: int,
    start: float,
    end: float | None,
) -> None:
    path = made(name, codec, settings)
    with MediaFile(path, name) as file:
        whole = np.concatenate(list(file.blocks(0, None)))
        first = round(start * file.samplerate)
        last = None if end is None else round(end * file.samplerate)
    with MediaFile(path, name) as file:
        part = np.concatenate(list(file.blocks(first, last)))
    assert len(part) == len(whole[first:last])  # to the sample
    assert np.abs(part - whole[first:last]).max() < 1e-5
    assert num_samples(path, start=start, end=end) == len(load_audio(path, start=start, end=end))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all frames that are decoded."""
    lengths: list[int] = []
    numbered = MediaFile._numbered

    def spy(file: MediaFile, first: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for number, mono in numbered(file, first):
            lengths.append(len(mono))
            yield number, mono

    monkeypatch.setattr(MediaFile, "_numbered", spy)
    return lengths


@pytest.mark.parametrize(
    "name, codec, cluster_seconds", [("a.m4a", "aac", 0), ("a.webm", "libopus", 5)]
)
def test_a_part_is_decoded_without_the_rest(
    tmp_path: Path, name: str, codec: str, cluster_seconds: int, decoded: list[int]
) -> None:
    path = encode(tmp_path / name, codec, rate=48000, seconds=60.0)
    assert len(load_audio(path, start=40, end=41)) == 16000
    # The part, what the codec leans on, and what Matroska bundles under one address.
    assert sum(decoded) <= (1 + PREROLL_SECONDS + 0.1 + cluster_seconds) * 48000


def test_mp4_tells_its_length_without_decoding(tmp_path: Path, decoded: list[int]) -> None:
    path = encode(tmp_path / "a.m4a", "aac", seconds=20.0)
    assert num_samples(path) == 320000 and decoded == []
    path = encode(tmp_path / "a.webm", "libopus", rate=48000, seconds=20.0)
    assert num_samples(path) == 320000 and sum(decoded) < 7 * 48000


def test_blocks_are_short_and_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.m4a", "aac")
    whole = load_audio(path)
    with MediaFile(path, "a.m4a") as file:
        assert [len(block) // 44100 for block in file.blocks(0, None, 1.0)] == [1, 1, 1, 1, 0]
    assert np.abs(load_audio(path) - whole).max() <= 1e-6


def test_the_first_of_several_streams_counts(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", "aac", streams=2, levels=(1.0,))
    assert np.abs(load_audio(path)[20000:40000]).max() == pytest.approx(0.4, abs=0.02)


def test_raw_aac(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.aac", "aac", kind="adts", seconds=8.0)
    whole = load_audio(path)
    assert num_samples(path) == len(whole) and abs(len(whole) - 128000) < 900
    part = load_audio(path, start=3.0, end=4.0)
    assert np.abs(part - whole[48000:64000])[50:-50].max() < 1e-4


def test_a_hole_in_time_is_silence(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.webm", "libopus", rate=48000, hole_seconds=3.0)
    samples = load_audio(path)
    assert len(samples) == num_samples(path) == 128000
    assert np.abs(samples[33000:79000]).max() < 0.01
    assert np.abs(samples[81000:] - 0.75 * chirp(16000, 5.0)[33000:]).max() < 0.05
    assert np.abs(load_audio(path, start=6, end=7) - samples[96000:112000])[50:-50].max() < 1e-3


def test_folders_are_searched_for_them(tmp_path: Path) -> None:
    assert set(MEDIA_SUFFIXES) < set(AUDIO_SUFFIXES)
    encode(tmp_path / "a.m4a", "aac", seconds=1.0)
    write_tone(tmp_path / "b.wav")
    records = find_recordings(tmp_path)
    assert [(r.key, r.num_samples()) for r in records] == [("a", 16000), ("b", 16000)]
    assert len(records[0].load()) == 16000


def test_a_film_without_sound(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "aac", streams=0, film_seconds=1.0)
    for ask in (load_audio, num_samples):
        with pytest.raises(ValueError, match=r"a\.mp4 has no sound; give the file"):
            ask(path)


def test_broken_containers(tmp_path: Path) -> None:
    whole = encode(tmp_path / "a.m4a", "aac").read_bytes()
    path = tmp_path / "b.m4a"
    path.write_bytes(whole[: len(whole) // 2])  # mp4 keeps its table at the end
    with pytest.raises(ValueError, match=r"b\.m4a cannot be decoded as audio .*wav or flac"):
        load_audio(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        load_audio(path)


@pytest.mark.parametrize("name, codec", [("a.m4a", "aac"), ("a.webm", "libopus")])
def test_damage_never_crashes(tmp_path: Path, name: str, codec: str) -> None:
    random = np.random.default_rng(0)
    whole = encode(tmp_path / name, codec, rate=48000, seconds=1.0).read_bytes()
    for _ in range(30):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 20):
            damaged[place] = random.integers(0, 256)
        try:
            samples = load_audio(bytes(damaged[: random.integers(1, len(whole))]), check=False)
        except ValueError as error:
            assert "the bytes given" in str(error)
        else:
            assert samples.dtype == np.float32


def test_a_playlist_is_no_recording(tmp_path: Path) -> None:
    """FFmpeg would open what it names, be it another file or an address."""
    encode(tmp_path / "a.aac", "aac", kind="adts")
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\na.aac\n#EXT-X-ENDLIST\n")
    with pytest.raises(ValueError, match="cannot be decoded as audio"):
        load_audio(path)


def test_a_part_behind_the_end(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.m4a", "aac")
    with pytest.raises(ValueError, match=r"a\.m4a ends before 9 s, where the part asked for"):
        load_audio(path, start=9.0)
    with pytest.raises(ValueError, match="5.000 s long, but the part asked for begins at 9"):
        num_samples(path, start=9.0)


def test_without_the_extra_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.m4a", "aac", seconds=1.0)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"pip install 'emotion2vec\[media\]'") as caught:
        load_audio(path)
    assert str(caught.value).startswith(str(path)) and str(caught.value).count("\n") == 0
    assert len(load_audio(write_tone(tmp_path / "a.wav"))) == 16000
