"""`emotion2vec timeline` and `listen`: files of segments, speaker turns, what goes wrong."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from emotion2vec.audio import load_audio
from emotion2vec.cli import main
from emotion2vec.commands.recognizers import Hearing
from emotion2vec.segment_files import SEGMENT_FILES, read_rttm, turns_for
from emotion2vec.segments import Segment, Turn
from emotion2vec.stream import StreamSettings
from emotion2vec.timeline import Timeline

pytest.importorskip("silero_vad")

CLIPS = ROOT / "data" / "moods" / "clips"


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pause = np.zeros(16_000, np.float32)
    names = ("f1-sad-01", "m1-angry-01")
    parts = [part for name in names for part in (load_audio(CLIPS / f"{name}.ogg"), pause)]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate(parts), 16_000)
    return path


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


MADE = Timeline(
    "a talk",
    3725.5,
    (
        Segment(0.5, 3.25, "sad", 0.75, {"sad": 0.75, "happy": 0.25}, "anna"),
        Segment(3725.0, 3725.5, "happy", 0.5, {"sad": 0.5, "happy": 0.5}, None),
    ),
    ("sad", "happy"),
    0.5,
)


def test_each_kind_of_file_says_the_same() -> None:
    text = {kind: write(MADE) for kind, write in SEGMENT_FILES.items()}
    assert json.loads(text["json"])["segments"][0]["end"] == 3.25
    rows = list(csv.DictReader(io.StringIO(text["csv"])))
    assert [row["label"] for row in rows] == ["sad", "happy"]
    assert float(rows[0]["scores.happy"]) == 0.25 and rows[1]["speaker"] == ""
    assert text["srt"].startswith("1\n00:00:00,500 --> 00:00:03,250\nanna: sad 75%\n\n2\n")
    assert "01:02:05.000 --> 01:02:05.500\nhappy 50%" in text["vtt"]
    assert text["vtt"].startswith("WEBVTT\n\n00:00:00.500 --> 00:00:03.250\n<v anna>sad 75%\n")
    assert text["txt"].splitlines()[0] == "0.500000\t3.250000\tanna: sad 75%"


def test_rttm_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.rttm").write_text(SEGMENT_FILES["rttm"](MADE))
    assert read_rttm(tmp_path / "a.rttm") == {
        "a_talk": [Turn(0.5, 3.25, "sad"), Turn(3725.0, 3725.5, "happy")]
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no SPEAKER line"),
        ("SPKR-INFO a 1 <NA> <NA> <NA> unknown x <NA>", "has no SPEAKER line"),
        ("SPEAKER a 1 zero 2 <NA> <NA> x", "line 1 is 'SPEAKER a 1 zero"),
        ("SPEAKER a 1 0 -2 <NA> <NA> x", "a turn is SPEAKER file 1 start"),
        ("SPEAKER a 1 nan 2 <NA> <NA> x", "a turn is SPEAKER file 1 start"),
        ("SPEAKER a 1 inf 2 <NA> <NA> x", "a turn is SPEAKER file 1 start"),
        ("SPEAKER a 1 0 0 <NA> <NA> x", "with a duration above 0"),
    ],
)
def test_broken_turns_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.rttm").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_rttm(tmp_path / "a.rttm")


def test_turns_of_another_recording_are_refused() -> None:
    turns = {"a": [Turn(0, 1)], "b": [Turn(1, 2)]}
    assert turns_for("talks/b.wav", turns) == turns["b"]
    with pytest.raises(ValueError, match=r"turns are of a, b, none of c;"):
        turns_for("c", turns)


def test_a_folder_of_timelines(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    out = tmp_path / "out"
    words = ("timeline", talk, tmp_path / "broken.wav", "--out", out, "--to", "json,csv,png")
    assert run(*words) == 3
    told = capsys.readouterr()
    assert re.search(r"talk: \d.\d s, \d segments", told.out)
    assert "left out: broken: " in told.err
    names = sorted(path.name for path in out.iterdir())
    assert names == [".settings.json", "talk.csv", "talk.json", "talk.png"]
    assert (out / "talk.png").read_bytes().startswith(b"\x89PNG")
    before = (out / "talk.csv").stat().st_mtime_ns
    assert run(*words) == 3 and (out / "talk.csv").stat().st_mtime_ns == before  # it is there
    (out / "talk.csv").unlink()
    assert run(*words) == 3 and (out / "talk.csv").is_file()
    assert run(*words, "--hop", "0.25") == 1
    assert "choose another folder" in capsys.readouterr().err


def test_one_file_by_its_suffix(talk: Path, tmp_path: Path) -> None:
    assert run("timeline", talk, "--out", tmp_path / "a.srt", "--quiet") == 0
    assert re.match(r"1\n00:00:0\d,\d{3} --> ", (tmp_path / "a.srt").read_text())
    assert run("timeline", talk, "--out", tmp_path / "a.doc", "--quiet") == 1
    assert run("timeline", talk, CLIPS / "f1-sad-01.ogg", "--out", tmp_path / "b.srt") == 1


def test_what_is_printed(talk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("timeline", talk, "--quiet", "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["key"] == "talk" and len(facts["segments"]) >= 2
    assert run("timeline", talk, "--quiet", "--labels", "sad,angry") == 0
    table = capsys.readouterr().out
    assert "label" in table and ("sad" in table or "angry" in table)


def test_turns_from_a_file(talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "talk.rttm").write_text("SPEAKER talk 1 0.1 2.0 <NA> <NA> anna <NA> <NA>\n")
    words = ("timeline", talk, "--turns", tmp_path / "talk.rttm", "--quiet", "--format", "json")
    assert run(*words) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert {s["speaker"] for s in segments} == {"anna"}
    assert (segments[0]["start"], segments[-1]["end"]) == (0.1, 2.1)


def test_nothing_is_said_about_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, 80_000)
    soundfile.write(tmp_path / "quiet.wav", noise, 16_000)
    assert run("timeline", tmp_path / "quiet.wav", "--quiet") == 0
    assert "no speech was found" in capsys.readouterr().out
    assert run("timeline", tmp_path / "quiet.wav", "--out", tmp_path / "quiet.png") == 0


def test_listening_to_another_program(talk: Path) -> None:
    sound, _ = soundfile.read(talk, dtype="int16")
    words = [sys.executable, "-m", "emotion2vec", "listen", "-", "--format", "json", "--quiet"]
    done = subprocess.run(words, input=sound.tobytes() + b"\0", capture_output=True)
    assert done.returncode == 0, done.stderr
    segments = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(segments) >= 2 and segments[0]["start"] < 1


def test_turns_of_one_recording_are_not_those_of_two(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.rttm").write_text("\ufeffSPEAKER x 1 0.1 1.0 <NA> <NA> anna\r\n", "utf-8")
    other = CLIPS / "f1-sad-01.ogg"
    assert run("timeline", talk, other, "--turns", tmp_path / "x.rttm", "--quiet") == 3
    assert "the speaker turns are of x, none of talk" in capsys.readouterr().err
    assert run("timeline", talk, "--turns", tmp_path / "x.rttm", "--quiet") == 0
    assert "anna: " in capsys.readouterr().out


def test_a_recording_may_be_called_settings(talk: Path, tmp_path: Path) -> None:
    shutil.copy(talk, tmp_path / "settings.wav")
    for _ in range(2):
        words = ("timeline", tmp_path / "settings.wav", "--out", tmp_path / "out", "--to", "json")
        assert run(*words, "--quiet") == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["key"] == "settings"


def test_names_that_subtitles_would_misread() -> None:
    odd = Timeline(
        "a", 1.0, (Segment(0.0, 1.0, "a & b", 0.5, {"a & b": 0.5}, "<NA>\n-->"),), ("a & b",), 0.5
    )
    assert "<v &lt;NA&gt; --&gt;>a &amp; b 50%" in SEGMENT_FILES["vtt"](odd)
    assert SEGMENT_FILES["srt"](odd).splitlines()[2] == "<NA> -->: a & b 50%"


def test_flags_have_the_defaults_of_the_library() -> None:
    assert Hearing().settings() == StreamSettings()
    assert Hearing(whole=True).settings() == StreamSettings(detect_speech=False)


def test_what_cannot_be_meant_is_refused(
    talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (("timeline", talk, "--to", "srt"), "--to srt is for a folder"),
        (("listen", talk), "is a file; emotion2vec timeline"),
        (("listen", "--rate", 3), "--rate is 3"),
        (("export", tmp_path / "a.onnx"), "is exported already"),
    ):
        assert run(*words) == 1
        assert said in capsys.readouterr().err
    words = [sys.executable, "-m", "emotion2vec", "listen", "-"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "no samples came" in done.stderr
