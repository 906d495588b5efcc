"""Grids of pre-trainings: cells, what is taken as it is, what is refused, tables."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY

from emotion2vec import Emotion2vecConfig
from emotion2vec.ablation import report, work
from emotion2vec.ablation.grid import Cell, Run, make_cells, make_runs
from emotion2vec.ablation.scores import Probing
from emotion2vec.jsonl import write_jsonl
from emotion2vec.manifest import Record
from emotion2vec.pretraining.config import PretrainConfig, write_config
from emotion2vec.probing.baselines import constant_baseline
from emotion2vec.probing.folds import Folds, folds_by_speaker
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.report import to_json
from emotion2vec.probing.results import ProbeResult

CONFIG = PretrainConfig(model=Emotion2vecConfig(**TINY), top_k=2, max_updates=4)
MOODS = ("happy", "sad")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_config(CONFIG, tmp_path / "c.toml")
    return tmp_path / "c.toml"


@pytest.fixture
def probing() -> Probing:
    records = [
        Record(f"{speaker}{i}", "a.wav", speaker=f"s{speaker}", labels={"emotion": MOODS[i % 2]})
        for speaker in range(4)
        for i in range(4)
    ]
    return Probing(folds_by_speaker(records, 2), ("--data", "x"), HeadConfig(epochs=2), 1)


def answering(folds: Folds, right: int) -> ProbeResult:
    """A result in which the first `right` clips of each fold are answered rightly, no other."""
    [*runs] = constant_baseline(folds).runs
    for place, run in enumerate(runs):
        wrong = [MOODS[1 - MOODS.index(truth)] for truth in run.truth]
        answers = (*run.truth[:right], *wrong[right:])
        runs[place] = replace(run, prediction=answers)
    return ProbeResult("model", tuple(runs))


def finish(run: Run, probing: Probing, right: int) -> None:
    """Leave in the run's folder what a pre-training and a probe leave."""
    run.prepare()
    run.final.mkdir()
    (run.final / "config.json").write_text("{}")
    line = {"update": 4, "frame_loss": 2.0 + run.seed, "utterance_loss": 0.5, "target_spread": 0.7}
    write_jsonl(
        [{**line, "seconds": 30.0}, {**line, "seconds": 40.0}], run.folder / "metrics.jsonl"
    )
    run.probe.parent.mkdir()
    run.probe.write_text(to_json([answering(probing.folds, right)], probing.folds, probing.head))


@pytest.mark.parametrize(
    "vary, extra, names",
    [
        ([], [], ["base"]),
        ([], ["", "depth=1 alpha=2"], ["base", "depth=1+alpha=2"]),
        (["a=1,2", "b=x"], ["c=3"], ["a=1+b=x", "a=2+b=x", "c=3"]),
    ],
)
def test_cells(vary: list[str], extra: list[str], names: list[str]) -> None:
    assert [cell.name for cell in make_cells(vary, extra)] == names


def test_folders_have_safe_names() -> None:
    assert Cell(("init=../models/a b",)).folder == "init=.._models_a_b"


@pytest.mark.parametrize(
    "vary, extra, message",
    [
        (["alpha"], [], "--vary alpha lacks a value"),
        (["alpha=1,"], [], "--vary alpha=1, lacks a value"),
        (["alpha=1,1"], [], "has the cell alpha=1 twice"),
        (["width=1"], [], "cell width=1: .*width is no setting"),
        (["top_k=1,7"], [], "cell top_k=7: top_k is 7, but model.depth is 2"),
        ([], ["seed=3"], "--seeds says how many"),
        (["alpha=1,2"], ["utterance_weight=2.0"], "alpha=2 and utterance_weight=2.0 are the same"),
    ],
)
def test_grids_that_are_refused(
    vary: list[str], extra: list[str], message: str, config: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        make_runs(config, make_cells(vary, extra), [1], tmp_path)


def test_short_names_and_fields_are_laid_over_the_config(config: Path, tmp_path: Path) -> None:
    cells = make_cells([], ["utterance_loss=token", "depth=1", "model.depth=3 peak_lr=1e-4"])
    token, shallow, deep = (run.config for run in make_runs(config, cells, [5], tmp_path))
    assert token.model.num_utterance_tokens == 1 and token.seed == 5
    assert shallow.model.depth == shallow.top_k == 1
    assert deep.model.depth == 3 and deep.peak_lr == 1e-4


def test_the_first_seed_of_all_cells_comes_first(config: Path, tmp_path: Path) -> None:
    runs = make_runs(config, make_cells(["alpha=1,2"], []), [1, 2], tmp_path)
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == [
        *("alpha=1/seed1", "alpha=2/seed1", "alpha=1/seed2", "alpha=2/seed2")
    ]


def test_runs_with_other_settings_are_refused(config: Path, tmp_path: Path) -> None:
    [run] = make_runs(config, make_cells([], ["alpha=2"]), [1], tmp_path)
    replace(run, config=replace(run.config, log_every=1)).prepare()  # which does not matter
    make_runs(config, make_cells([], ["alpha=2"]), [1], tmp_path)
    (run.folder / "config.toml").unlink()
    replace(run, config=replace(run.config, top_k=1, accumulate=2)).prepare()
    with pytest.raises(
        ValueError, match=r"seed1 holds .*accumulate was 2 and is 1; top_k was 1 and"
    ):
        make_runs(config, make_cells([], ["alpha=2"]), [1], tmp_path)


def test_what_is_done_is_taken_as_it_is(
    config: Path, probing: Probing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_start", pytest.fail)
    runs = make_runs(config, make_cells(["alpha=1,2"], []), [1, 2], tmp_path)
    for run in runs:
        finish(run, probing, right=2)
    assert work.carry_out(runs, ["x"], probing, tmp_path) == {}
    # Scores of another way of probing are none.
    assert replace(probing, seeds=2).read(runs[0].probe) == []
    assert replace(probing, head=HeadConfig(epochs=3)).read(runs[0].probe) == []
    [read] = probing.read(runs[0].probe)
    assert read == answering(probing.folds, 2)


def test_the_table_and_its_files(config: Path, probing: Probing, tmp_path: Path) -> None:
    runs = make_runs(config, make_cells([], ["", "alpha=2", "masks=2", "tau=0.9:0.99:5"]), [1, 2],
                     tmp_path)  # fmt: skip
    for place, right in {0: 4, 1: 4, 2: 0, 4: 6, 5: 6}.items():
        finish(runs[place], probing, right)
    failures = {runs[6]: "the disk is full"}
    rows = report.summarize([report.look(run, probing, failures) for run in runs])
    base, alpha, masks, tau = rows
    assert base["scores"]["wa"]["mean"] == (4 + 6) / 16 and base["difference"] == {}
    assert base["scores"]["wa"]["of_seeds"] == {1: 0.5, 2: 0.75}
    assert base["scores"]["wa"]["deviation"] == pytest.approx(0.25 / 2**0.5)
    assert alpha["difference"]["wa"] == {"mean": 0.0, "interval_95": (0.0, 0.0)}
    assert masks["difference"]["ua"]["mean"] == -0.5  # from seed 1 alone
    assert masks["scored_seeds"] == [1] and masks["notes"] == {2: "failed: the disk is full"}
    assert tau["scores"] == tau["training"] == {}
    assert base["training"]["frame_loss"] == 3.5 and base["training"]["seconds"] == 70
    report.write(rows, [constant_baseline(probing.folds)], probing, tmp_path, "emotion2vec ablate")
    lines = (tmp_path / "results.txt").read_text().splitlines()
    assert lines[1].split()[:5] == ["base", "2", "62.5", "±", "17.7"] and "1:10 min" in lines[1]
    assert lines[3].startswith("masks=2") and lines[3].endswith("seed 2: failed: the disk is full")
    assert " 1/2 " in lines[3] and " 0/2" in lines[4]
    assert lines[6].split() == ["constant", "50.0", "50.0", "33.3"]
    assert lines[-1] == "$ emotion2vec ablate"
    header, *table = (line.split(",") for line in (tmp_path / "results.csv").open())
    assert {len(line) for line in table} == {len(header)}
    assert (tmp_path / "ablation.png").read_bytes().startswith(b"\x89PNG")


class Started:
    """Stands for `work._start`: other commands, remembered."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words, self.processes = words, []

    def __call__(self, step: Any, jobs: int, lock: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.words, stderr=step.log.open("wb"), pass_fds=(lock,))
        self.processes.append(process)
        return process


def test_stopping_ends_what_runs_and_frees_the_folder(
    config: Path, probing: Probing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(config, make_cells(["alpha=1,2,3"], []), [1], tmp_path / "out")
    started = Started(["sleep", "60"])
    monkeypatch.setattr(work, "_start", started)

    def stop(seconds: float) -> None:
        with pytest.raises(BlockingIOError, match="in use by another grid"):
            work.carry_out(runs, ["x"], probing, tmp_path / "out")
        raise KeyboardInterrupt

    monkeypatch.setattr(work.time, "sleep", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            work.carry_out(runs, ["x"], probing, tmp_path / "out", jobs=2)
    assert [process.returncode for process in started.processes] == [-15] * 4


def test_a_failing_run_does_not_stop_the_others(
    config: Path, probing: Probing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(config, make_cells(["alpha=1,2"], []), [1], tmp_path)
    monkeypatch.setattr(work, "_start", Started(["sh", "-c", "echo 'error: no disk' >&2; exit 1"]))
    assert set(work.carry_out(runs, ["x"], probing, tmp_path).values()) == {"no disk"}
    monkeypatch.setattr(work, "_start", Started(["sh", "-c", "kill -9 $$"]))
    failures = work.carry_out(runs, ["x"], probing, tmp_path)
    assert set(failures.values()) == {"pretrain was killed by signal 9"}


def test_the_study_that_ships_allows_the_papers_ablations(tmp_path: Path) -> None:
    vary = ["utterance_loss=chunk,token,global,none", "alpha=0.1,1"]
    cells = make_cells(vary, ["frame_weight=0", "top_k=1", "mask_span=10", "mask_share=0.8"])
    assert (
        len(make_runs(ROOT / "configs" / "pretrain_study.toml", cells, [1, 2, 3], tmp_path)) == 36
    )
