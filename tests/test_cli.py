"""The command line as people and scripts meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, call, write_tone

from emotion2vec import Emotion2vecConfig
from emotion2vec.backbones import random_encoder
from emotion2vec.cli import main
from emotion2vec.manifest import Record, write_manifest
from emotion2vec.pretraining.config import PretrainConfig, write_config


@pytest.fixture
def model(tmp_path: Path) -> Path:
    random_encoder(Emotion2vecConfig(**TINY)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A manifest of 4 speakers who are happy at a high and sad at a low pitch."""
    records = []
    for speaker in range(4):
        for clip in range(4):
            mood = ("happy", "sad")[clip % 2]
            pitch = (600 if mood == "happy" else 150) + 20 * speaker + 5 * clip
            path = write_tone(tmp_path / "clips" / f"{speaker}{clip}.wav", 0.5, pitch=pitch)
            records.append(
                Record(path.stem, str(path), speaker=f"s{speaker}", labels={"emotion": mood})
            )
    write_manifest(records, tmp_path / "labelled.jsonl")
    return tmp_path / "labelled.jsonl"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from emotion2vec.cli import app; app(['--help'], result_action='return_value')"
        "; app(['probe', '--help'], result_action='return_value')"
        "; print([m for m in ('torch', 'numpy', 'accelerate', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for word in ("pretrain", "extract", "probe", "--debug", "runs/tiny/final"):
        assert word in done.stdout


COMMANDS = [
    "recognize",
    "extract",
    "models",
    "convert",
    "pretrain",
    "probe",
    "benchmark",
    "ablate",
    "doctor",
]


def test_commands_stand_in_the_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    printed = capsys.readouterr().out
    places = [printed.index(f"\u2502 {command} ") for command in COMMANDS]
    assert places == sorted(places)
    assert "\x1b" not in printed  # no terminal, no colours


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert f"emotion2vec {command} " in capsys.readouterr().out


def test_from_speech_to_scores(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = PretrainConfig(
        model=Emotion2vecConfig(**TINY), max_updates=3, max_batch_seconds=4.0,
        max_clip_seconds=2.0, num_workers=0, top_k=2, warmup_updates=1,
    )  # fmt: skip
    write_config(config, tmp_path / "c.toml")
    out = tmp_path / "run"
    words = ("pretrain", tmp_path / "c.toml", "--data", labelled, "--out", out, "--quiet")
    assert call(*words, "--set", "seed=2") == 0
    assert f"The encoder is in {out}/final." in capsys.readouterr().out
    assert "seed = 2" in (out / "config.toml").read_text()

    features = tmp_path / "features"
    words = ("extract", tmp_path / "clips", "--model", out / "final", "--out", features, "--quiet")
    assert call(*words, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"written": 16, "skipped": 0, "failed": 0}
    assert np.load(features / "00.npy").shape == (48,)

    report = tmp_path / "report"
    words = ("probe", out / "final", "--data", labelled, "--num-folds", "2", "--epochs", "3",
             "--seeds", "2", "--out", report, "--quiet")  # fmt: skip
    assert call(*words) == 0
    printed = capsys.readouterr().out
    for name in (str(out / "final"), f"random:{out / 'final'}", "log-mel statistics", "constant"):
        assert f"\n{name} " in printed
    assert (report / "results.txt").read_text() == printed
    values = json.loads((report / "results.json").read_text())
    assert values["results"][2]["pooled"]["ua"] == 1.0  # the pitch gives it away
    assert values["results"][3]["pooled"]["ua"] == 0.5
    for picture in ("confusion.png", "map.png"):
        assert (report / picture).read_bytes().startswith(b"\x89PNG")
    assert call(*words, "--format", "json", "--folds", tmp_path / "none.json") == 1


def test_features_of_frames_and_layers(model: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    words = ("extract", labelled, "--model", model, "--out", out, "--level", "frame")
    assert call(*words, "--layer", "1", "--quiet") == 0
    assert np.load(out / "00.npy").shape == (24, 48)


def test_a_bad_file_is_a_row_and_an_exit_code(
    model: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips" / "00.wav").write_bytes(b"")
    out = tmp_path / "features"
    assert call("extract", tmp_path / "clips", "--model", model, "--out", out, "--quiet") == 3
    assert "15 written, 0 already there, 1 failed" in capsys.readouterr().out
    words = ("probe", model, "--data", labelled, "--num-folds", "2", "--epochs", "1", "--quiet")
    assert call(*words) == 3
    assert "left out: 00: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["extract", "none.wav", "--model", "M", "--out", "o"], "nor a published model"),
        (["pretrain", "none.toml", "--data", "d", "--out", "o"], "none.toml is not a file"),
        (["probe", "M", "--data", "none.jsonl"], "none.jsonl is not a file"),
        (["pretrain", "none.toml", "--data", "d", "--out", "o", "--set", "x"], "has no value"),
        (["recognise"], 'Unknown command "recognise". Did you mean "recognize"?'),
        (["recognize"], "SOURCES requires an argument. (emotion2vec recognize --help)"),
        (["recognize", "a", "--nope"], "Unknown option: --nope"),
        (["recognize", "a", "--abstain", "x"], 'unable to convert "x" into float'),
        (["recognize", "a", "--format", "xml"], 'Choose from: "table", "json", "csv"'),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call(*words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        main(["--debug", "probe", "M", "--data", str(tmp_path / "none.jsonl")])


def test_a_missing_extra_says_how_to_install_it(
    tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "c.toml").write_text("")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.delitem(sys.modules, "emotion2vec.pretraining.loop", raising=False)
    monkeypatch.delitem(sys.modules, "emotion2vec.pretraining.step", raising=False)
    assert call("pretrain", tmp_path / "c.toml", "--data", labelled, "--out", tmp_path / "o") == 1
    assert "pip install 'emotion2vec[train]'" in capsys.readouterr().err
