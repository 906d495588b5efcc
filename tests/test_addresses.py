"""Sound, lists and folders at fsspec addresses: as in files, and errors of one sentence."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
from conftest import write_tone

from emotion2vec.addresses import find_files, is_address, open_address
from emotion2vec.audio import load_audio, num_samples
from emotion2vec.corpus import open_corpus
from emotion2vec.folders import Folder
from emotion2vec.manifest import Record, find_recordings, read_manifest, write_manifest


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system under memory://, empty."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def put(files: Any, folder: str, source: Path) -> None:
    """Copy the files under a local folder."""
    for path in source.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/{folder}/{path.relative_to(source)}", path.read_bytes())


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_sound_at_an_address_is_that_of_the_file(suffix: str, memory: Any, tmp_path: Path) -> None:
    sound, rate = soundfile.read(write_tone(tmp_path / "tone.wav", 3.0, rate=22050))
    file = tmp_path / f"a b{suffix}"
    soundfile.write(file, sound, rate)
    memory.pipe_file(f"/clips/a b{suffix}", file.read_bytes())
    for address in (f"memory://clips/a b{suffix}", f"file://{file}", f"simplecache::file://{file}"):
        for start, end in ((0.0, None), (0.5, None), (1.25, 2.0)):
            record = Record("a", address, start, end)
            expected = load_audio(file, start=start, end=end)
            assert np.array_equal(record.load(), expected)
            assert record.num_samples() == num_samples(file, start=start, end=end)
            assert abs(record.num_samples() - len(expected)) <= 1


def test_a_container_at_an_address(memory: Any, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    file = tmp_path / "a.m4a"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = np.random.default_rng(0).normal(0, 0.1, (1, 16384)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    memory.pipe_file("/a.m4a", file.read_bytes())
    assert np.array_equal(load_audio("memory://a.m4a"), load_audio(file))
    assert num_samples("memory://a.m4a") == num_samples(file)


@pytest.mark.parametrize(
    "address, kind, message",
    [
        ("memory://gone.wav", FileNotFoundError, "memory://gone.wav is not there; check the addr"),
        ("file:///gone.wav", FileNotFoundError, "file:///gone.wav is not a file; check the path"),
        ("memory://empty.wav", ValueError, "memory://empty.wav is empty .0 bytes.; copy or"),
        ("memory://text.wav", ValueError, "memory://text.wav cannot be decoded as audio"),
        ("oci://bucket/a.wav", ValueError, "oci://bucket/a.wav needs a library that is not inst"),
        ("nothing://a.wav", ValueError, "nothing://a.wav is no address that fsspec understands"),
        ("zip://a.wav::file:///gone.zip", FileNotFoundError, "gone.zip is not there; check"),
    ],
)
def test_what_cannot_be_read(
    address: str, kind: type[Exception], message: str, memory: Any
) -> None:
    memory.pipe({"/empty.wav": b"", "/text.wav": b"Dear diary"})
    for read in (load_audio, num_samples):
        with pytest.raises(kind, match=message) as caught:
            read(address)
        assert str(caught.value).endswith((".", "e"))


def test_a_read_that_fails_is_no_end_of_the_file(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    memory.pipe_file("/a.wav", write_tone(tmp_path / "a.wav", 5.0).read_bytes())
    fetch = io.BytesIO.read

    class Broken(io.BytesIO):
        """A connection that is lost after 64 kB."""

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 65536:
                raise ConnectionError("reset by peer")
            return fetch(self, size)

    monkeypatch.setattr(
        type(memory), "open", lambda *_, **__: Broken((tmp_path / "a.wav").read_bytes())
    )
    with pytest.raises(OSError, match="memory://a.wav cannot be read .ConnectionError: reset by p"):
        load_audio("memory://a.wav")


def test_addresses_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("s3://b/a.wav", "zip://a.wav::s3://b/c.zip", "simplecache::gs://b/a.wav"):
        assert is_address(address)
    for path in ("a.wav", "/a/b.wav", "C:/a.wav", "odd://"[1:2] + "/x://y", "a::b", Path("s3:/b")):
        assert not is_address(path)
    monkeypatch.chdir(tmp_path)  # a path that looks like two addresses in one is a path
    write_tone(Path("a::b.wav"))
    assert len(load_audio("a::b.wav")) == 16000
    with open_address(f"file://{tmp_path}/a::b.wav".replace("::", "-")) as there:
        assert isinstance(there, Path)


def test_lists_keep_addresses(memory: Any, tones: Path, tmp_path: Path) -> None:
    put(memory, "clips", tones)
    rows = [
        {"key": "far", "path": "memory://clips/clip00.wav", "end": 0.5},
        {"key": "near", "path": "tones/clip01.wav"},
    ]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    far, near = read_manifest(path)
    assert far.path == "memory://clips/clip00.wav" and len(far.load()) == 8000
    assert near.path == str(tones / "clip01.wav")
    write_manifest([far, near], tmp_path / "again.jsonl")
    assert read_manifest(tmp_path / "again.jsonl") == [far, near]
    corpus = open_corpus(str(path))
    assert np.array_equal(corpus.load(0), far.load())
    (tmp_path / "list.csv").write_text("path\nmemory://clips/clip00.wav\n")
    (record,) = read_manifest(tmp_path / "list.csv")
    assert (record.key, record.path) == ("clips/clip00", "memory://clips/clip00.wav")


def test_lists_at_addresses(memory: Any, tones: Path) -> None:
    put(memory, "calls/audio", tones)
    lines = [
        '{"key": "a", "path": "audio/clip00.wav"}',
        f'{{"key": "b", "path": "file://{tones}/clip01.wav"}}',
    ]
    memory.pipe_file("/calls/list.jsonl", "\n".join(lines).encode())
    memory.pipe_file("/calls/broken.jsonl", b"[]")
    memory.pipe_file("/calls/wav.scp", b"call audio/clip02.wav\n")
    memory.pipe_file("/calls/segments", b"call-1 call 0.1 0.4\n")
    first, second = find_recordings("memory://calls/list.jsonl")
    assert first.path == "memory://calls/audio/clip00.wav" and len(first.load()) == 9600
    assert len(second.load()) == len(load_audio(tones / "clip01.wav"))
    (part,) = find_recordings("memory://calls/wav.scp")
    assert (part.key, len(part.load())) == ("call-1", 4800)
    with pytest.raises(ValueError, match="^memory://calls/broken.jsonl has 1 broken line"):
        find_recordings("memory://calls/broken.jsonl")
    with pytest.raises(FileNotFoundError, match="memory://calls/gone.jsonl is not there"):
        find_recordings("memory://calls/gone.jsonl")


def test_folders_and_globs_at_addresses(memory: Any, tones: Path) -> None:
    write_tone(tones / "deep" / "more.wav")
    (tones / "notes.txt").write_text("no audio")
    put(memory, "calls", tones)
    expected = [record.key for record in find_recordings(tones)]
    for source in ("memory://calls", "memory://calls/", f"file://{tones}"):
        records = find_recordings(source)
        assert [record.key for record in records] == expected
        assert all(len(record.load()) == record.num_samples() for record in records)
    found = find_recordings("memory://calls/*/*.wav")
    assert [(r.key, r.path) for r in found] == [("deep/more", "memory:///calls/deep/more.wav")]
    (record,) = find_recordings("memory://calls/clip03.wav")
    assert record.key == "clip03" and record.load().any()
    for source in ("memory://calls/*.mp3", "memory://nowhere", "memory://calls/gone.wav"):
        with pytest.raises(FileNotFoundError, match="names no audio; check the address"):
            find_recordings(source)
    with pytest.raises(ValueError, match="several file systems.* give a list of addresses"):
        find_files(f"simplecache::file://{tones}", [".wav"])


@pytest.mark.parametrize("kind", ["path", "file", "cached", "memory"])
def test_folders_whose_files_are_whole_or_not_there(kind: str, memory: Any, tmp_path: Path) -> None:
    place = {"path": "", "file": "file://", "cached": "simplecache::file://"}.get(kind)
    out = tmp_path / "out"
    folder = Folder("memory://out" if place is None else f"{place}{out}")
    assert folder.names(".txt") == [] and not folder.has("a.txt")
    for text in ("first", "second"):
        with folder.writing("a.txt") as path:
            path.write_text(text)
    with pytest.raises(RuntimeError), folder.writing("a.txt") as path:
        path.write_text("half")
        raise RuntimeError
    assert folder.names(".txt") == ["a.txt"] and folder.read("a.txt") == b"second"
    assert (folder.local is None) == (kind in ("cached", "memory"))
    left = memory.ls("/out", detail=False) if kind == "memory" else list(out.iterdir())
    assert [str(name).rpartition("/")[2] for name in left] == ["a.txt"]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("emotion2vec.folders.time.sleep", waits.append)
    (tmp_path / "file").write_text("in the way")
    folder = Folder(f"simplecache::file://{tmp_path}/file")
    with (
        pytest.raises(
            OSError, match="cannot write simplecache::file://.*a.txt .*check the address"
        ),
        folder.writing("a.txt") as path,
    ):
        path.write_text("x")
    assert waits == [1, 2, 4]


def test_sound_in_a_zip_on_this_disk(tmp_path: Path) -> None:
    """Its file is closed when its file system goes, which is to live while it is read."""
    sound = np.sin(np.arange(16_000) / 9).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 16_000, "FLOAT")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for name in ("d/a.wav", "e/a.wav"):
            archive.write(tmp_path / "a.wav", name)
    addresses = [f"zip://{part}/a.wav::file://{tmp_path}/z.zip" for part in "de"]
    for address in addresses:
        np.testing.assert_array_equal(load_audio(address), sound)
    assert [record.key for record in find_recordings(addresses)] == ["d/a", "e/a"]
    with pytest.raises(ValueError, match="a list within another file"):
        find_recordings(f"zip://l.jsonl::file://{tmp_path}/z.zip")
