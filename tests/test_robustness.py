"""Heads under conditions they have not heard: what is tested, what is kept, what is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import call, write_tone

from emotion2vec.audio import Waveform
from emotion2vec.backbones import load_backbone
from emotion2vec.benchmark import robustness as module
from emotion2vec.benchmark.robustness import robustness
from emotion2vec.cli import app
from emotion2vec.conditions import Condition, parse_conditions
from emotion2vec.frame_cache import cached_frames
from emotion2vec.manifest import Record, write_manifest
from emotion2vec.probing.folds import Folds, folds_by_speaker
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import probe
from emotion2vec.probing.tasks import TASKS

PITCHES = {"happy": 2400.0, "sad": 300.0}
HEAD = HeadConfig("linear", epochs=6, batch_size=16)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTION2VEC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Tones of four speakers: happy ones are high, sad ones low."""
    folder = tmp_path_factory.mktemp("tones")
    found = []
    for speaker in range(4):
        for emotion, pitch in PITCHES.items():
            for take in range(3):
                key = f"{speaker}-{emotion}-{take}"
                path = write_tone(folder / f"{key}.wav", 0.5, pitch=pitch + 17 * speaker + 5 * take)
                labels = {"emotion": emotion, "arousal": str(pitch / 1000 + take / 10)}
                found.append(Record(key, str(path), speaker=f"s{speaker}", labels=labels))
    return found


@pytest.fixture(scope="module")
def folds(records: list[Record]) -> Folds:
    return folds_by_speaker(records, 2)


def run(folds: Folds, out: Path, names: Sequence[str], **options: object) -> dict[str, object]:
    options = {"corpus": "tones", "head": HEAD, "seeds": (0, 1)} | options
    return robustness(folds, load_backbone("logmel"), parse_conditions(names), out, **options)


def test_what_is_taken_from_the_sound_costs_the_score(folds: Folds, tmp_path: Path) -> None:
    found = run(folds, tmp_path, ["gain:-20", "lowpass:1000", "white:-20"])
    rows = {row["name"]: row for row in found["conditions"]}
    assert list(rows) == ["clean", "gain:-20", "lowpass:1000", "white:-20"]
    assert rows["clean"]["scores"]["ua"] == 1.0
    # log_mel sets the peak to 1: the same frames, the same answers.
    assert rows["gain:-20"]["scores"] == rows["clean"]["scores"]
    assert rows["gain:-20"]["change"] == {"ua": [0.0, 0.0, 0.0, 1.0]}
    assert rows["lowpass:1000"]["scores"]["ua"] <= 0.6  # what was high is gone
    difference, low, high, _ = rows["white:-20"]["change"]["ua"]
    assert difference == rows["white:-20"]["scores"]["ua"] - 1 and low <= difference <= high < 0
    path = tmp_path / "robustness" / "tones" / "logmel.linear.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(found))
    assert (rows["white:-20"]["level"], rows["white:-20"]["unit"]) == (-20.0, "dB SNR")
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]  # no frames are left


def test_clean_scores_are_the_probes(records: list[Record], folds: Folds, tmp_path: Path) -> None:
    backbone = load_backbone("mfcc")
    head = HeadConfig("linear", epochs=2, batch_size=16)
    frames, _ = cached_frames(records, backbone)
    wanted = probe(folds, "mfcc", frames, head=head, seeds=(3,))
    found = robustness(folds, backbone, [], tmp_path, corpus="tones", head=head, seeds=(3,))
    [clean] = found["conditions"]
    assert clean["scores"] == wanted.mean() and clean["name"] == "clean"
    assert clean["interval_95"]["wf1"] == list(wanted.interval("wf1"))


def test_heads_are_trained_on_recordings_as_they_are(
    folds: Folds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def change(clip: Waveform, level: object, random: np.random.Generator) -> Waveform:
        heard.append(clip)
        return clip[::-1].copy()

    condition = Condition("backwards", "backwards", None, "", change)
    one = folds._replace(folds=folds.folds[:1])
    backbone = load_backbone("logmel")
    robustness(one, backbone, [condition], tmp_path, corpus="tones", head=HEAD)
    assert len(heard) == 1 + len(one.folds[0].test)  # and a trial before the work


def test_a_run_goes_on_and_takes_more_conditions(
    folds: Folds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(folds, tmp_path / "whole", ["white:0", "mulaw"])

    def write(path: Path, values: dict[str, list[object]]) -> None:
        if len(values["conditions"]) == 3:
            raise KeyboardInterrupt
        real(path, values)

    real = module.write_results
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_results", write)
        with pytest.raises(KeyboardInterrupt):
            run(folds, tmp_path / "cut", ["white:0", "mulaw"])
    resumed = run(folds, tmp_path / "cut", ["white:0", "mulaw"])
    assert resumed["conditions"] == whole["conditions"]

    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_fold", None)  # nothing is trained again
        assert run(folds, tmp_path / "cut", ["mulaw", "white:0"]) == resumed
    more = run(folds, tmp_path / "cut", ["gain:3"], command="emotion2vec {}".format)
    assert more["command"] == "emotion2vec clean,white:0,mulaw,gain:3"  # all that is in the file
    assert [row["name"] for row in more["conditions"]] == ["clean", "white:0", "mulaw", "gain:3"]
    assert more["conditions"][:3] == whole["conditions"]


def test_a_file_of_another_run_is_left_alone(folds: Folds, tmp_path: Path) -> None:
    run(folds, tmp_path, [])
    with pytest.raises(ValueError, match=r"of another run: its seeds is \[0, 1\], not \[5\]"):
        run(folds, tmp_path, [], seeds=(5,))
    with pytest.raises(ValueError, match="its condition_seed is 0, not 1"):
        run(folds, tmp_path, [], condition_seed=1)
    path = tmp_path / "robustness" / "tones" / "logmel.linear.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="is no file of results"):
        run(folds, tmp_path, [])


def test_values_are_scored_by_ccc(folds: Folds, tmp_path: Path) -> None:
    found = run(folds, tmp_path, ["white:-20"], task=TASKS["dimensions"])
    clean, noisy = found["conditions"]
    assert found["labels"] == ["arousal"] and set(clean["scores"]) == {"ccc", "ccc_arousal"}
    assert clean["scores"]["ccc"] > 0.5 > noisy["scores"]["ccc"]
    difference = noisy["scores"]["ccc"] - clean["scores"]["ccc"]
    assert noisy["change"]["ccc"][0] == pytest.approx(difference)


def test_what_cannot_be_done_shows_before_the_work(
    folds: Folds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="conversation is not of single recordings"):
        run(folds, tmp_path, [], task=TASKS["conversation"])
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match="amr cannot be written here"):
        run(folds, tmp_path, ["white:0", "amr:12.2"])
    assert not list(tmp_path.iterdir())


def test_the_command_prints_draws_and_can_be_repeated(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("Dear diary")
    lost = Record("lost", str(broken), speaker="s0", labels={"emotion": "sad"})
    data = tmp_path / "tones.jsonl"
    write_manifest([*records, lost], data)
    words = ["robustness", "logmel", "mfcc", "--data", data, "--num-folds", "2", "--epochs", "3",
             "--head", "linear", "--conditions", "white:10,shorten:0.2", "--quiet",
             "--out", tmp_path / "out"]  # fmt: skip
    assert call(*words) == 3
    printed = capsys.readouterr()
    assert "left out: lost: " in printed.err
    lines = printed.out.splitlines()
    assert lines[0].startswith("tones, emotion. Protocol: 2 folds by speaker with seed 0")
    assert [line.split()[0] for line in lines[2:5]] == ["clean", "white:10", "shorten:0.2"]
    folder = tmp_path / "out" / "robustness" / "tones"
    assert sorted(path.name for path in folder.iterdir()) == [
        "conditions.png", "logmel.linear.json", "mfcc.linear.json",
    ]  # fmt: skip
    values = json.loads((folder / "mfcc.linear.json").read_text())
    assert values["backbone"]["kind"] == "hand-made" and set(values["errors"]) == {"lost"}
    repeated = shlex.split(values["command"])[1:]
    app.parse_args(repeated, exit_on_error=False, print_error=False)
    before = (folder / "mfcc.linear.json").stat().st_mtime_ns
    assert call(*repeated) == 3
    assert (folder / "mfcc.linear.json").stat().st_mtime_ns == before
    capsys.readouterr()
    assert call(*words, "--format", "csv") == 3
    header, *rows = capsys.readouterr().out.splitlines()
    assert values["command"].count("clean,white:10,shorten:0.2") == 1
    assert header.startswith("backbone,head,condition,family,level,unit,wa,ua") and len(rows) == 6


def test_the_command_takes_protocols(
    records: list[Record], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(records, tmp_path / "tones.jsonl")
    words = ["robustness", "logmel", "--data", tmp_path / "tones.jsonl", "--corpus", "mine",
             "--conditions", "gain:-6", "--head", "linear", "--epochs", "2", "--quiet"]  # fmt: skip
    assert call(*words, "--protocol", "speaker-out", "--out", tmp_path / "out") == 0
    assert "mine, emotion. Protocol: leave one speaker out (4 folds)" in capsys.readouterr().out
    assert call(*words, "--protocol", "session-out", "--out", tmp_path / "out") == 1
    assert "no label 'session'" in capsys.readouterr().err
