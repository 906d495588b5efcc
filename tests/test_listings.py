"""Lists of other people's kinds: csv, Kaldi's wav.scp, standard input."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from conftest import write_tone

from emotion2vec.cli import main
from emotion2vec.manifest import Record, find_recordings, read_manifest, write_manifest

CSV = """\
path,start,end,speaker,language,emotion,note
clips/a.wav,,,s1,en,sad,"two, words"
"clips/b, c.wav",0.25,0.75,s2,de,happy,
"""


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(CSV, encoding="utf-8-sig")  # as spreadsheets write it
    first, second = read_manifest(path)
    assert first == Record(
        "clips/a", str(tmp_path / "clips/a.wav"), speaker="s1", language="en",
        labels={"emotion": "sad"},
    )  # fmt: skip
    assert (second.key, second.start, second.end) == ("clips/b, c", 0.25, 0.75)
    write_tone(tmp_path / "clips" / "b, c.wav")
    assert len(second.load()) == 8000
    write_manifest([first, second], tmp_path / "clips.jsonl")
    assert read_manifest(tmp_path / "clips.jsonl") == [first, second]


def test_tabs_and_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "clips.tsv"
    path.write_text("key\taudio\tstart\tend\nx\ta.wav\t0\t1\n\ny\ta.wav\t1\t2\n")
    records = read_manifest(path)
    assert [(r.key, r.start, r.end) for r in records] == [("x", 0.0, 1.0), ("y", 1.0, 2.0)]
    assert {r.path for r in records} == {str(tmp_path / "a.wav")}
    assert find_recordings(path) == records


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,emotion\na.wav,sad\n", "has no column 'path' or 'audio' but file, emotion"),
        ("path;emotion\na.wav;sad\n", "has no column .* with commas between them"),
        ("", "but nothing"),
        ('"path"x\n', "has a broken first line"),
        ("path\n", "lists no recordings"),
        ("path\na.wav,b.wav\n", "line 2: 1 cells more than the header"),
        ("path,start\na.wav,soon\n", "line 2: could not convert"),
        ("path,end\na.wav,-1\n", "-1 is no time in seconds"),
        ("path,start\na.wav,0\na.wav,1\n", "line 3: the key 'a' came before.*a key of its own"),
        ("path,emotion\n,sad\n", "line 2: key and path must be strings"),
        ('path\n"a.wav"b\n', "1 broken line .line 2: "),
    ],
)
def test_broken_csv(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    """A data folder of Kaldi's, with one recording and sound in another folder."""
    write_tone(tmp_path / "sound" / "rec 1.wav", 2.0)
    data = tmp_path / "data"
    data.mkdir()
    (data / "wav.scp").write_text(f"rec1 ../sound/rec 1.wav\nrec2\t{tmp_path}/sound/b.wav \n")
    return data


def test_scp(kaldi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = read_manifest(kaldi / "wav.scp")
    assert (first.key, first.num_samples(), first.speaker) == ("rec1", 32000, None)
    assert (second.key, second.path) == ("rec2", str(kaldi.parent / "sound/b.wav"))
    monkeypatch.chdir(kaldi.parent)  # relative to the list, wherever the command starts
    assert read_manifest("data/wav.scp")[0].num_samples() == 32000
    assert [r.key for r in find_recordings(kaldi)] == ["rec1", "rec2"]  # the folder will do


def test_segments_and_speakers(kaldi: Path) -> None:
    (kaldi / "segments").write_text("u1 rec1 0.5 1.25\nu2 rec1 1.5 -1\nu3 rec2 0 1\n")
    (kaldi / "utt2spk").write_text("u1 ann\nu2 bob\nu3 ann\n")
    records = read_manifest(kaldi / "wav.scp")
    assert [(r.key, r.start, r.end, r.speaker) for r in records] == [
        ("u1", 0.5, 1.25, "ann"),
        ("u2", 1.5, None, "bob"),
        ("u3", 0.0, 1.0, "ann"),
    ]
    assert [len(r.load()) for r in records[:2]] == [12000, 8000]


def test_commands_are_refused_and_never_run(kaldi: Path) -> None:
    path = kaldi / "wav.scp"
    path.write_text(f"a sound/a.wav\nb touch {kaldi}/ran; cat a.sph |\nc | touch {kaldi}/ran\n")
    with pytest.raises(ValueError, match="2 broken lines .line 2: b is the command .* never run"):
        read_manifest(path)
    assert not (kaldi / "ran").exists()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("wav.scp", "rec1 a.ark:12\n", "line 1: rec1 lies in the archive a.ark:12"),
        ("wav.scp", "rec1\n", "line 1: no path after 'rec1'"),
        ("wav.scp", "rec1 a.wav\nrec1 b.wav\n", "line 2: the key 'rec1' came before"),
        ("wav.scp", "\n", "lists no recordings"),
        ("segments", "u1 rec1 0 1\nu2 rec9 0 1\n", "segments, line 2: wav.scp has no .* 'rec9'"),
        ("segments", "u1 rec1 0 1 A\n", "has 5 fields in line 1, not 4"),
        ("segments", "u1 rec1 0 soon\n", "could not convert"),
        ("utt2spk", "rec1 ann\n", "line 2: utt2spk does not know 'rec2'"),
        ("utt2spk", "rec1\n", "utt2spk has 1 fields in line 1, not 2"),
    ],
)
def test_broken_kaldi_folders(kaldi: Path, name: str, text: str, message: str) -> None:
    (kaldi / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(kaldi / "wav.scp")


def give_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_paths_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("s1/a.wav", "s2/a.wav", "[b] c.wav"):
        write_tone(Path(name))
    give_input(monkeypatch, f"s1/a.wav\n./s2/a.wav\r\n\n{tmp_path}/[b] c.wav\n".encode())
    records = find_recordings("-")
    folder = tmp_path.as_posix().strip("/")
    assert [r.key for r in records] == ["s1/a", "s2/a", f"{folder}/[b] c"]
    assert [r.num_samples() for r in records] == [16000] * 3


def test_names_that_are_no_text_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        os.rename(write_tone(tmp_path / "a.wav"), odd)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    give_input(monkeypatch, odd + b"\n")
    (record,) = find_recordings(["-"])
    assert len(record.load()) == 16000


def test_a_hyphen_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tone(tmp_path / "a.wav")
    give_input(monkeypatch, os.fsencode(path))
    with pytest.raises(SystemExit) as stop:
        main(["extract", "-", "--model", "logmel", "--out", str(tmp_path / "out"), "--quiet"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("1 written")


def test_standard_input_that_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    give_input(monkeypatch, b"\n")
    with pytest.raises(FileNotFoundError, match="standard input, which names nothing"):
        find_recordings("-")
