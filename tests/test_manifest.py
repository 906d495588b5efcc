"""Manifests, folders, globs; and files that are whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import write_tone

from emotion2vec.atomic import atomic_path
from emotion2vec.manifest import Record, find_recordings, read_manifest, write_manifest


def test_written_and_read_is_the_same(tmp_path: Path) -> None:
    records = [
        Record("a", str(tmp_path / "clips/a.wav"), 0.5, 1.5, 2.0, "s1", "en", {"emotion": "sad"}),
        Record("b", "/elsewhere/b.wav", labels={"emotion": "happy", "arousal": "0.3"}),
    ]
    write_manifest(records, tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == records
    first = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[0])
    assert first["path"] == "clips/a.wav"  # the folder can move as a whole


def test_a_manifest_elsewhere_finds_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_tone(Path("a.wav"))
    write_manifest([Record("a", "a.wav")], tmp_path / "there" / "m.jsonl")
    monkeypatch.chdir(tmp_path)
    assert read_manifest("there/m.jsonl")[0].num_samples() == 16000


def test_other_names_of_fields_are_understood(tmp_path: Path) -> None:
    line = {"key": "a", "audio": "x/a.flac", "emotion": "sad", "duration_s": 2.5, "speaker": "s"}
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(line) + "\n\n")
    (record,) = read_manifest(path)
    assert record.path == str(tmp_path / "x/a.flac")
    assert (record.emotion, record.duration, record.speaker) == ("sad", 2.5, "s")


GOOD = '{"key": "good", "path": "a.wav"}'


@pytest.mark.parametrize(
    "lines, message",
    [
        ([GOOD, '{"key": "b", "path": '], "1 broken line .line 2: Expecting value"),
        ([GOOD, "[]", "3"], "2 broken lines .line 2: not a JSON object"),
        (['{"path": "a.wav"}'], "line 1: no 'key'"),
        (['{"key": "a"}'], "line 1: key and path must be strings"),
        (['{"key": 3, "path": "a.wav"}'], "key and path must be strings"),
        (['{"key": "a", "path": "a.wav", "start": "soon"}'], "could not convert"),
        ([GOOD, GOOD], "line 2: the key 'good' came before"),
        (["", " "], "lists no recordings"),
        (['{"key": "a", "path": "a.wav", "end": 1e999}'], "inf is no time in seconds"),
        (['{"key": "a", "path": "a.wav", "start": -1}'], "-1 is no time in seconds"),
    ],
)
def test_broken_manifests(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_texts_of_other_editors(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b"\xef\xbb\xbf" + '{"key": "a\u2028b", "path": "a.wav", "speaker": 3}'.encode()
    )
    (record,) = read_manifest(path)
    assert (record.key, record.speaker) == ("a\u2028b", "3")
    path.write_bytes('{"key": "é", "path": "a.wav"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="m.jsonl is not UTF-8"):
        read_manifest(path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    source = write_tone(tmp_path / "a.wav")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    try:
        os.rename(source, odd)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    (record,) = find_recordings(tmp_path)
    assert len(record.load()) == record.num_samples() == 16000
    write_manifest([record], tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl")[0].num_samples() == 16000


def test_a_glob_of_folders_holds_what_they_hold(tmp_path: Path) -> None:
    write_tone(tmp_path / "a1" / "x.wav")
    (tmp_path / "a2").mkdir()
    assert [r.key for r in find_recordings(str(tmp_path / "a*"))] == ["a1/x"]
    with pytest.raises(FileNotFoundError, match="matches no audio"):
        find_recordings(str(tmp_path / "a2*"))


def test_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a file; check the path"):
        read_manifest(tmp_path / "none.jsonl")


def test_folders_globs_files_and_manifests_together(tmp_path: Path) -> None:
    for name in ("in/a.wav", "in/deep/b.FLAC", "in/notes.txt", "other/c.wav", "other/d.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    write_manifest([Record("m", "m.wav")], tmp_path / "m.jsonl")
    sources = [tmp_path / "in", str(tmp_path / "oth*" / "c.wav"), tmp_path / "other/d.wav"]
    keys = [r.key for r in find_recordings([*sources, tmp_path / "m.jsonl"])]
    assert keys == ["a", "deep/b", "other/c", "d", "m"]


def test_two_recordings_with_one_key(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match="1 keys come twice, such as 'a'"):
        find_recordings(tmp_path)


@pytest.mark.parametrize(
    "source, message",
    [("", "holds no audio"), ("none.wav", "matches no audio"), ("*.wav", "match")],
)
def test_sources_that_name_nothing(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        find_recordings(str(tmp_path / source))


def test_a_record_knows_its_length_and_sound(tmp_path: Path) -> None:
    path = str(write_tone(tmp_path / "a.wav", 2.0))
    assert Record("a", path).num_samples() == 32000
    part = Record("a", path, start=0.5, end=1.5)
    assert part.num_samples() == len(part.load()) == 16000
    assert Record("a", path, start=0.5, end=9.0).num_samples() == 24000


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_path(target) as path:
        path.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    with atomic_path(target) as path:
        path.write_text("new")
    assert target.read_text() == "new" and list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="cannot write .*a.txt: No space left on device"),
        atomic_path(tmp_path / "a.txt"),
        open("/dev/full", "w") as full,
    ):
        full.write("x" * 100_000)
    assert not list(tmp_path.iterdir())
