"""`emotion2vec ablate` as people meet it: a small grid, killed, resumed, failing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY, call
from test_documents import MOODS

from emotion2vec import Emotion2vecConfig
from emotion2vec.manifest import read_manifest, write_manifest
from emotion2vec.pretraining.config import PretrainConfig, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A grid of two cells and two seeds on some clips of `data/moods`, without its --out."""
    folder = tmp_path_factory.mktemp("grid")
    config = PretrainConfig(
        model=Emotion2vecConfig(**TINY), max_updates=8, max_batch_seconds=4.0, top_k=2,
        max_clip_seconds=1.0, num_workers=0, warmup_updates=1, log_every=1, save_every=2,
    )  # fmt: skip
    write_config(config, folder / "c.toml")
    write_manifest(read_manifest(MOODS / "manifest.jsonl")[::8], folder / "clips.jsonl")
    clips = str(folder / "clips.jsonl")
    return ["ablate", str(folder / "c.toml"), "--data", clips, "--probe", clips, "--num-folds", "2",
            "--vary", "utterance_loss=chunk,none", "--epochs", "2", "--quiet"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a grid that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    assert call(*words, "--seeds", "2", "--out", out, "--jobs", "2") == 0
    return out


def test_a_grid_leaves_what_it_promises(
    words: list[str], whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (whole / "ablation.png").is_file()
    for cell in ("chunk", "none"):
        assert (whole / f"utterance_loss={cell}" / "seed2" / "final" / "config.json").is_file()
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("seed*/**/*")}
    for format, suffix in (("table", "txt"), ("json", "json"), ("csv", "csv")):
        options = ("--seeds", "2", "--out", whole, "--format", format)
        assert call(*words, *options) == 0
        assert capsys.readouterr().out == (whole / f"results.{suffix}").read_text()
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("seed*/**/*")} == before
    found = json.loads((whole / "results.json").read_text())
    names = [result["name"] for result in found["baselines"]]
    assert names == ["random weights", "log-mel statistics", "constant"]
    assert all(set(cell["scores"]["wa"]["of_seeds"]) == {"1", "2"} for cell in found["cells"])


def wait_for_group(group: int, seconds: float = 30.0) -> None:
    """Wait until no process of the group is left."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def test_killed_and_resumed_is_the_same_table(
    words: list[str], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--seeds", "1", "--out", str(tmp_path)]
    line = [sys.executable, "-m", "emotion2vec", *words, *options]
    seed = tmp_path / "utterance_loss=chunk" / "seed1"
    for mark in ("last.safetensors", "final/config.json"):  # in the pre-training, in the probe
        process = subprocess.Popen(line, start_new_session=True)
        while not (seed / mark).exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_group(process.pid)  # its subprocesses hold the folder until they are gone
    assert call(*words, *options, "--plan") == 0
    states = ["utterance_loss=chunk, seed 1: trained", "utterance_loss=none, seed 1: to be run"]
    assert capsys.readouterr().out.splitlines() == states
    assert call(*words, *options, "--jobs", "2", "--format", "json") == 0
    resumed = json.loads(capsys.readouterr().out)
    undisturbed = json.loads((whole / "results.json").read_text())
    assert resumed["baselines"] == undisturbed["baselines"]
    for ours, theirs in zip(resumed["cells"], undisturbed["cells"], strict=True):
        of_seeds = [{n: s["of_seeds"]["1"] for n, s in c["scores"].items()} for c in (ours, theirs)]
        assert of_seeds[0] == of_seeds[1]


def test_collapse_and_failure_are_rows(
    words: list[str], whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collapsing, failing = "collapse_after=3 min_target_spread=100", "init=no/such.pt"
    more = ("--cell", collapsing, "--cell", failing, "--seeds", "1", "--out", whole)
    assert call(*words, *more, "--jobs", "2", "--format", "json") == 3
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [bool(cell["scores"]) for cell in cells] == [True, True, True, False]
    assert cells[2]["notes"] == {"1": "collapsed at update 3"} and cells[2]["difference"]
    assert "failed: " in cells[3]["notes"]["1"] and "no/such.pt" in cells[3]["notes"]["1"]


def test_what_cannot_work_is_refused_before_the_work(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, message in (
        (("--seeds", "0"), "give at least 1 of each"),
        (("--data", "-"), "give a file of them instead of -"),
        (("--folds", "none.json"), "none.json are not a file"),
        (("--vary", "top_k=9"), "cell utterance_loss=chunk+top_k=9: top_k is 9"),
    ):
        assert call(*words, "--out", tmp_path / "out", *options) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
