"""`emotion2vec recognize` and `doctor`: formats, exit codes, kills, pipes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CKPT, ROOT, call, write_tone

import emotion2vec.recognize
from emotion2vec import Recognizer, convert_checkpoint
from emotion2vec.cli import main
from emotion2vec.commands.doctor import EXTRAS
from emotion2vec.commands.output import shows_bar, text_width
from emotion2vec.manifest import Record, write_manifest
from emotion2vec.model import Emotion2vecClassifier

COMMAND = [sys.executable, "-m", "emotion2vec"]
LABELS = ["angry", "happy", "neutral", "other", "sad", "surprised", "<unk>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_checkpoint(CKPT / "funasr_tiny", tmp_path_factory.mktemp("m") / "tiny").folder


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda: capsys.readouterr().out


# What is printed.


def test_a_table(model: Path, tones: Path, printed: Any) -> None:
    assert call("recognize", tones, "--model", model) == 0
    header, *rows, empty, policy = printed().splitlines()
    assert header.split() == ["recording", "label", "score", "seconds", "next"]
    assert (empty, policy) == ("", "label: highest of 7 softmax scores.")
    found = Recognizer.from_pretrained(model)(sorted(tones.glob("*.wav")))
    assert len(rows) == 12
    for row, answer in zip(rows, found, strict=True):
        key, label, score, seconds, *_ = row.split()
        assert key == Path(str(answer.path)).stem and label == answer.label
        assert (score, seconds) == (f"{answer.score:.2f}", f"{answer.duration:.2f}")
        best = sorted(answer.scores.items(), key=lambda item: -item[1])[1:3]
        assert row.endswith(", ".join(f"{name} {value:.2f}" for name, value in best))


def test_columns_align_for_chinese_and_long_names(
    model: Path, tmp_path: Path, printed: Any
) -> None:
    tone, speech = write_tone(tmp_path / "a.wav", 0.5), ROOT / "data/moods/clips/f1-angry-01.ogg"
    paths = {"a": tone, "录音一": speech, f"{'folder/' * 12}end": speech, "lost": tmp_path / "none"}
    write_manifest([Record(k, str(p)) for k, p in paths.items()], tmp_path / "list.jsonl")
    words = ("recognize", tmp_path / "list.jsonl", "--model", model, "--language", "both")
    assert call(*words, "--abstain", "0.2") == 3
    header, *rows = printed().splitlines()[:5]
    assert rows[1].startswith("录音一 ") and rows[2].startswith("...lder/folder/folder/")
    assert f"error: {tmp_path / 'none'} is not a file" in rows[3]
    labels = ["<unk>", "中立/neutral", "中立/neutral"]
    starts = {text_width(row.split(label)[0]) for row, label in zip(rows[:3], labels, strict=True)}
    assert starts == {header.index("label")}
    assert {text_width(row.split(" 0.")[0]) for row in rows[:3]} == {header.index("score")}
    assert call(*words, "--abstain", "0.99") == 3
    row = printed().splitlines()[2]
    assert " unknown " in row and "  中立/neutral 0." in row  # among the next


def test_json_lines_and_csv_say_the_same(model: Path, tones: Path, printed: Any) -> None:
    write_tone(tones / "tiny.wav", 0.01)
    words = ("recognize", tones, "--model", model, "--labels", "happy, sad", "--abstain", "0.6")
    assert call(*words, "--format", "json") == 3
    rows = [json.loads(line) for line in printed().splitlines()]
    expected = Recognizer.from_pretrained(model, labels=["happy", "sad"], abstain=0.6)(
        [Record(path.stem, str(path)) for path in sorted(tones.glob("*.wav"))]
    )
    assert [row["key"] for row in rows] == [answer.key for answer in expected]
    assert [row["error"] for row in rows[:-1]] == [""] * 12 and "0.010 s long" in rows[-1]["error"]
    assert {row["policy"] for row in rows} == {
        "highest of 2 softmax scores, renormalized from 7; unknown below 0.6"
    }
    for row, answer in zip(rows[:-1], expected, strict=False):
        assert row["scores"] == pytest.approx(dict(answer.scores), abs=1e-5)
        assert row["label"] == answer.label
    assert call(*words, "--format", "csv") == 3
    for row, line in zip(rows, csv.DictReader(io.StringIO(printed())), strict=True):
        for name in ("key", "path", "label", "error", "policy"):
            assert line[name] == (row[name] or "")
        for name in ("score", "start", "end", "duration"):
            assert (float(line[name]) if line[name] else None) == row[name]
        scores = {name: line[f"scores.{name}"] for name in ("happy", "sad")}
        assert {n: float(s) for n, s in scores.items() if s} == row["scores"]


def test_names_that_are_no_text(model: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav")
    write_tone(tmp_path / "a.wav", 0.5).rename(path)
    for out in ("o.jsonl", "o.csv"):
        assert call("recognize", path, "--model", model, "--out", tmp_path / out) == 0
        assert "\\udcff" in (tmp_path / out).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "o.jsonl").read_text())["path"] == path


# Errors.


@pytest.mark.parametrize(
    "words, message",
    [
        (["--labels", "joy"], "'joy', which the model does not know; it knows angry, happy"),
        (["--abstain", "2"], "abstain is 2.0; give a score"),
        (["--language", "de"], 'Choose from: "en", "zh", "both"'),
        (["--out", "o.txt"], "--out is o.txt; give a file that ends in .jsonl or .csv"),
        (["--out", "folder.csv"], "--out is folder.csv"),
        (["--out", "a.wav/o.csv"], "a.wav"),
        (["b/a.wav"], "1 keys come twice, such as 'a'; give their common folder"),
        (["none.wav"], "none.wav is no file or folder"),
        (["-"], "- is standard input, which names nothing"),
    ],
)
def test_errors_come_before_any_work(
    words: list[str], message: str, model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b/a.wav"):
        write_tone(tmp_path / name, 0.5)
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    monkeypatch.setattr(Recognizer, "answers", None)
    assert call("recognize", "a.wav", "--model", model, *words) == 1
    out, error = capsys.readouterr()
    assert not out and error.startswith("error: ") and message in error and error.count("\n") == 1


def test_debug_shows_where(
    model: Path, tones: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(Recognizer, "answers", broken)
    words = ["recognize", str(tones), "--model", str(model)]
    assert call(*words) == 1
    error = "error: unexpected KeyError: 'x' (--debug shows where)\n"
    assert capsys.readouterr().err == error
    with pytest.raises(KeyError):
        main(["--debug", *words])


def test_paths_on_standard_input(model: Path, tones: Path) -> None:
    paths = [tones / "clip01.wav", tones / "none.wav", tones / "clip00.wav"]
    done = subprocess.run(
        [*COMMAND, "recognize", "-", "--model", model, "--format", "json"],
        input="".join(f"{path}\n" for path in paths), capture_output=True, text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert done.returncode == 3 and done.stderr == ""  # no bar where nobody looks


def test_a_reader_that_leaves_is_no_error(model: Path, tones: Path) -> None:
    command = [*COMMAND, "recognize", tones, "--model", model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()  # as `head` does when it has enough
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(
    "quiet, printing, out, err, expected",
    [
        (False, True, True, True, False),  # it would run through the answers
        (False, True, False, True, True),  # answers go to a file
        (False, False, True, True, True),  # --out
        (False, False, True, False, False),  # nobody looks
        (True, False, True, True, False),
    ],
)
def test_where_a_bar_is_shown(
    quiet: bool, printing: bool, out: bool, err: bool, expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, terminal in (("stdout", out), ("stderr", err)):
        monkeypatch.setattr(sys, name, types.SimpleNamespace(isatty=lambda t=terminal: t))
    assert shows_bar(quiet=quiet, printing=printing) is expected


# Files of answers.


def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each call of the model gets, from now on."""
    counts: list[int] = []
    scores = Recognizer.answers

    def counting(self: Recognizer, clips: Any) -> Any:
        counts.append(len(clips))
        return scores(self, clips)

    monkeypatch.setattr(Recognizer, "answers", counting)
    return counts


KILLED = """
import os, signal, sys
from emotion2vec import Recognizer
from emotion2vec.cli import main
scores, calls = Recognizer.answers, []
def deadly(self, clips):
    calls.append(clips)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return scores(self, clips)
Recognizer.answers = deadly
main(sys.argv[1:])
"""


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_killed_run_goes_on(
    suffix: str, model: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    printed: Any,
) -> None:  # fmt: skip
    out = tmp_path / "out" / f"answers.{suffix}"
    words = [str(w) for w in ("recognize", tones, "--model", model, "--batch-seconds", 0.1)]
    words += ["--language", "zh", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
    assert done.returncode == -9 and not out.exists()
    [part] = out.parent.iterdir()
    with part.open("a") as file:
        file.write('{"key": "clip00", "label": "\\u')  # what a full disk leaves

    (tones / "clip11.wav").rename(tones / "clip12.wav")  # done by the first run, now gone
    counts = computed(monkeypatch)
    assert call(*words) == 0
    assert sum(counts) == 12 - 4  # of the five that were done one is called for no more
    assert f"12 recognized, 0 failed; {out} lists them." in printed()
    assert list(out.parent.iterdir()) == [out]
    whole = tmp_path / f"whole.{suffix}"
    assert call(*words[:-1], whole) == 0 and sum(counts) == 12 - 4 + 12
    assert out.read_text() == whole.read_text()
    lines = out.read_text().splitlines()
    for path, line in zip(sorted(tones.iterdir()), lines[-12:], strict=True):
        assert path.stem in line


def test_only_what_was_asked_alike_is_taken_over(
    model: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.jsonl"
    words = ["recognize", tones, "--model", model, "--out", out, "--batch-seconds", "0.1"]
    counts = computed(monkeypatch)
    counting = Recognizer.answers

    def interrupted(self: Recognizer, clips: Any) -> Any:
        if len(counts) == 7:
            raise KeyboardInterrupt
        return counting(self, clips)

    def stop_after_seven() -> None:
        counts.clear()
        monkeypatch.setattr(Recognizer, "answers", interrupted)
        assert call(*words) == 130 and not out.exists()
        counts.clear()
        monkeypatch.setattr(Recognizer, "answers", counting)

    stop_after_seven()
    for others in (["--labels", "sad,happy"], ["--abstain", "0.5"], ["--language", "zh"]):
        counts.clear()
        assert call(*words, *others) == 0 and sum(counts) == 12
        out.unlink()
    counts.clear()
    assert call(*words) == 0 and sum(counts) == 5  # nor had the others touched it
    out.unlink()

    other = Emotion2vecClassifier.from_pretrained(model)
    torch.nn.init.normal_(other.classifier.weight)
    words[3] = tmp_path / "model"
    shutil.copytree(model, tmp_path / "model")
    stop_after_seven()  # the same name, other weights
    other.save_pretrained(tmp_path / "model")
    assert call(*words) == 0 and sum(counts) == 12
    out.unlink()

    stop_after_seven()  # the same keys, other files
    tones.rename(tmp_path / "moved")
    words[1] = tmp_path / "moved"
    assert call(*words) == 0 and sum(counts) == 12
    assert "/moved/" in out.read_text() and "/tones/" not in out.read_text()


def test_what_failed_is_tried_again(
    model: Path, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Any
) -> None:
    path, out = tones / "clip05.wav", tmp_path / "o.csv"
    sound = path.read_bytes()
    path.write_bytes(b"")
    words = ("recognize", tones, "--model", model, "--out", out)
    assert call(*words, "--format", "json") == 3
    facts = json.loads(printed())
    assert (facts["recognized"], facts["failed"], facts["out"]) == (11, 1, str(out))
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 12 and "is empty" in rows[5]["error"] and rows[5]["label"] == ""
    path.write_bytes(sound)
    counts = computed(monkeypatch)
    assert call(*words) == 0 and sum(counts) == 12  # nothing is kept of a run that ended
    assert all(row["label"] for row in csv.DictReader(out.open()))


def test_a_long_list_in_blocks(
    model: Path, tones: Path, monkeypatch: pytest.MonkeyPatch, printed: Any
) -> None:
    words = ("recognize", tones, "--model", model)
    assert call(*words) == 0
    expected = printed()
    monkeypatch.setattr(emotion2vec.recognize, "BLOCK_RECORDS", 5)
    assert call(*words) == 0 and printed() == expected


# doctor.


def test_doctor(printed: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMOTION2VEC_CACHE", str(tmp_path))
    (tmp_path / "converted-1" / "emotion2vec--emotion2vec_base" / "abc").mkdir(parents=True)
    assert call("doctor", "--format", "json") == 0
    facts = json.loads(printed())
    assert list(facts) == ["versions", "extras", "devices", "sound", "caches"]
    assert facts["versions"]["torch"] and set(facts["extras"]) == set(EXTRAS)
    assert facts["devices"]["used by default"] in ("cpu", "cuda", "mps")
    assert "flac" in facts["sound"]["read by it"] and facts["caches"]["offline"].startswith("yes")
    assert facts["caches"]["converted models"] == "emotion2vec--emotion2vec_base"
    assert call("doctor") == 0
    table = printed()
    for title, values in facts.items():
        assert f"\n{title}\n" in f"\n{table}"
        for name, value in values.items():
            assert f"  {name:<20} {value}\n" in table


def test_doctor_tells_what_is_missing_or_broken(
    printed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import emotion2vec.commands.doctor as doctor

    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "av" else version(name))
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert call("doctor") == 1
    table = printed()
    assert "lacks av: pip install 'emotion2vec[media]'" in table
    assert "ModuleNotFoundError: import of soundfile halted" in table and "caches\n" in table


def test_doctor_knows_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = extras["optional-dependencies"]
    del expected["dev"]
    found = {name: sorted(packages) for name, packages in EXTRAS.items()}
    assert found == {
        name: sorted(re.split(r"[\[>]", p)[0] for p in needs) for name, needs in expected.items()
    }
