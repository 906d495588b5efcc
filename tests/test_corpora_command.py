"""`emotion2vec corpora`, corpora of one's own, and what is counted in them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from emotion2vec.cli import main
from emotion2vec.corpora.known import CORPORA, read_corpus
from emotion2vec.corpora.own import read_own
from emotion2vec.corpora.summary import MOST_VALUES, speaker_tells, summary
from emotion2vec.manifest import Record

MOODS = ROOT / "data" / "moods" / "manifest.jsonl"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["corpora", *arguments])
    said = capsys.readouterr()
    return int(exit_.value.code or 0), said.out, said.err


def sound(path: Path, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(int(16000 * seconds)) / 8), 16000)


def test_the_list_says_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert set(CORPORA) <= set(lines) and "CC BY-NC-SA 4.0" in lines["ravdess"]
    rows = [json.loads(line) for line in run(capsys, "--format", "json")[1].splitlines()]
    assert [row["name"] for row in rows] == list(CORPORA)
    assert rows[0]["traps"] == list(CORPORA["ravdess"].traps)
    table = list(csv.DictReader(run(capsys, "--format", "csv")[1].splitlines()))
    assert [row["speakers"] for row in table] == [str(c.speakers) for c in CORPORA.values()]
    assert "; " in table[0]["classes"]


def test_one_corpus_says_its_traps_and_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "urdu")[1]
    assert "26 of the 29 speakers have one emotion only" in out
    assert "layout: Sad/SF10_F1_S01.wav" in out and "language: ur" in out


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in (
        (["urdo"], "there is no corpus 'urdo'; there are aesdd"),
        (["urdu", "--root", str(tmp_path)], "URDU: 400 of 400 recordings are missing under"),
        (["urdu", "--root", f"{tmp_path}/no"], "the corpus's folder"),
        (["--root", f"{tmp_path}/no"], "is not a file; check the path"),
        (["--emobox", str(tmp_path)], "is no copy of EmoBox"),
        (["urdu", "--emobox", str(tmp_path)], "is no copy of EmoBox"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1) and message in err


def test_a_corpus_of_ones_own_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "--root", str(MOODS))[1]
    assert "480 recordings" in out and "12 speakers, en" in out
    assert "emotion  angry    120         12" in out
    assert "The speaker alone tells the emotion of 25.0 %" in out
    found = json.loads(run(capsys, "--root", str(MOODS), "--format", "json")[1])
    assert found["recordings"] == 480 and found["by_speaker"] == 0.25
    rows = list(csv.reader(run(capsys, "--root", str(MOODS), "--format", "csv")[1].splitlines()))
    assert rows[:2] == [
        ["label", "value", "recordings", "speakers"],
        ["emotion", "angry", "120", "12"],
    ]


def test_emobox_lists_what_is_there_and_reads_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "tess" / "fold_1"
    folder.mkdir(parents=True)
    for side, word in (("train", "sad"), ("test", "ps")):
        sound(tmp_path / "downloads" / "tess" / f"{word}.wav")
        row = {"key": f"tess-{word}", "wav": f"downloads/tess/{word}.wav", "emo": word}
        (folder / f"tess_{side}_fold_1.jsonl").write_text(json.dumps(row))
    (folder.parent / "label_map.json").write_text('{"sad": "Sad", "ps": "Surprise"}')
    rows = [
        json.loads(line)
        for line in run(capsys, "--emobox", str(tmp_path), "--format", "json")[1].splitlines()
    ]
    assert len(rows) == 32 and [r["name"] for r in rows if r["folds"]] == ["tess"]
    out = run(capsys, "tess", "--emobox", str(tmp_path))[1]
    assert "EmoBox's tess: 2 recordings" in out and "surprised" in out
    assert "The speaker alone" not in out  # nobody says who speaks


def test_folders_named_after_emotions(tmp_path: Path) -> None:
    for name in ("happy/a.wav", "happy/anna/a.wav", "sad/bob/deep/b.wav"):
        sound(tmp_path / "plain" / name)
    found = [(r.key, r.emotion, r.speaker) for r in read_own(tmp_path / "plain")]
    assert found == [
        ("happy/a", "happy", None),
        ("happy/anna/a", "happy", "anna"),
        ("sad/bob/deep/b", "sad", "bob"),
    ]
    for name in ("train/happy/a.wav", "test/happy/b.wav"):
        sound(tmp_path / "split" / name)
    assert [r.labels for r in read_own(tmp_path / "split")] == [
        {"emotion": "happy", "split": "test"},
        {"emotion": "happy", "split": "train"},
    ]
    sound(tmp_path / "plain" / "loose.wav")
    with pytest.raises(ValueError, match=r"1 of 4 recordings have no label, such as loose; put"):
        read_own(tmp_path / "plain")


def test_lists_need_emotions(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("path,emotion,speaker\na.wav,sad,anna\nb.wav,,bob\n")
    with pytest.raises(ValueError, match=r"1 of 2 recordings have no label, such as b; add a"):
        read_own(table)
    table.write_text("path,emotion,speaker\na.wav,sad,anna\n")
    assert [(r.emotion, r.speaker) for r in read_own(table)] == [("sad", "anna")]


def test_a_list_may_have_any_label_as_a_column(tmp_path: Path) -> None:
    table = tmp_path / "own.csv"
    table.write_text("path,arousal,traces,turn,mood\na.wav,0.5,a.csv,3,good\n")
    labels = {"arousal": "0.5", "traces": str(tmp_path / "a.csv"), "turn": "3"}
    assert read_own(table)[0].labels == labels
    line = {"key": "a", "path": "a.wav", "arousal": 0.5, "labels": {"turn": "3", "traces": "a.csv"}}
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps(line))
    assert read_own(lines)[0].labels == labels


def test_one_door_to_every_kind_of_corpus(tmp_path: Path) -> None:
    assert len(read_corpus("mine", MOODS)) == 480
    assert len(read_corpus("ravdess", MOODS)) == 480  # a list of one's own, whatever its name
    with pytest.raises(ValueError, match="1,440 of 1,440 recordings are missing"):
        read_corpus("ravdess", tmp_path)
    with pytest.raises(FileNotFoundError, match="is no copy of EmoBox"):
        read_corpus("ravdess", None, emobox=tmp_path)
    with pytest.raises(ValueError, match="the corpus ravdess is read from a folder; say which"):
        read_corpus("ravdess", None)


def test_what_is_counted(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", seconds=1.8)
    clips = [
        Record("a", str(tmp_path / "a.wav"), speaker="x", labels={"emotion": "sad"}),
        Record("b", "b.wav", start=1.0, end=2.8, speaker="y", labels={"emotion": "sad"}),
        Record("c", "c.wav", duration=1.8, speaker="y", labels={"emotion": "angry"}),
    ]
    found = summary(clips)
    assert found["hours"] == pytest.approx(5.4 / 3600)
    assert (found["speakers"], found["constant"]) == (2, pytest.approx(2 / 3))
    assert summary([*clips, Record("d", "d.mp4")])["hours"] is None
    values = [Record(str(i), "", duration=1, labels={"arousal": str(i)}) for i in range(30)]
    assert len(values) > MOST_VALUES
    assert summary(values)["labels"][0]["value"] == "30 values"
    folds = [Record(str(i), "", duration=1, labels={"fold": str(i)}) for i in (10, 9, 2)]
    assert [row["value"] for row in summary(folds)["labels"]] == ["2", "9", "10"]


def test_how_well_the_speaker_alone_tells_the_emotion() -> None:
    words = [("x", "sad")] * 3 + [("y", "angry")] * 2 + [("y", "sad")]
    clips = [Record("", "", speaker=who, labels={"emotion": how}) for who, how in words]
    assert speaker_tells(clips) == (pytest.approx(4 / 6), pytest.approx(5 / 6))
