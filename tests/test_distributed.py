"""Several processes: what they learn, hold and save, and how they end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call
from safetensors import safe_open
from test_pretraining_loop import CONFIG, assert_same, run, weights
from test_resume import StopAfter, children, command, environment, family, kill_when, start_until

from emotion2vec import Emotion2vec
from emotion2vec.jsonl import read_jsonl
from emotion2vec.pretraining import loop
from emotion2vec.pretraining.config import PretrainConfig, write_config
from emotion2vec.pretraining.loop import new_state

# Noise, dropouts and dropped blocks are on, and the norm of the gradient counts.
NOISY = replace(CONFIG, block_drop=0.3, clip_norm=20.0, accumulate=2)


def write(config: PretrainConfig, path: Path) -> Path:
    write_config(config, path)
    return path


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    """Equal but for the order in which gradients were added."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("reduction, sharding", [("sum", "none"), ("mean", "full")])
def test_two_processes_learn_what_one_does(
    reduction: str, sharding: str, tones: Path, tmp_path: Path
) -> None:
    # One process with two micro-batches an update sees what two processes see with one each.
    config = replace(NOISY, utterance_reduction=reduction)
    one, two = tmp_path / "one", tmp_path / "two"
    run(config, tones, one)
    path = write(replace(config, accumulate=1, sharding=sharding), tmp_path / "two.toml")
    words = command(path, tones, two, processes=2, resume=False)
    subprocess.run(words, env=environment(), check=True)
    losses = [[line["loss"] for line in read_jsonl(out / "metrics.jsonl")] for out in (one, two)]
    norms = [
        [line["gradient_norm"] for line in read_jsonl(o / "metrics.jsonl")] for o in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    assert min(norms[0]) > config.clip_norm
    assert_close(weights(one), weights(two))
    models = [Emotion2vec.from_pretrained(out / "final") for out in (one, two)]
    assert_close(*(model.state_dict() for model in models))


@pytest.mark.slow
def test_a_run_moves_between_one_process_copies_and_parts(tones: Path, tmp_path: Path) -> None:
    config = replace(NOISY, max_updates=14, save_every=3, num_workers=1, accumulate=4)
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    run(config, tones, whole)
    copies = write(replace(config, accumulate=2), tmp_path / "copies.toml")
    parts = write(replace(config, accumulate=2, sharding="full"), tmp_path / "parts.toml")
    kill_when([4, 5], command(copies, tones, moved, processes=2, resume=False), moved)
    kill_when([8, 9], command(parts, tones, moved, processes=2, resume=True), moved)
    run(config, tones, moved, resume=True)
    assert_close(weights(whole), weights(moved))
    lines = [read_jsonl(out / "metrics.jsonl") for out in (whole, moved)]
    assert [line["update"] for line in lines[1]] == list(range(1, 15))
    for first, second in zip(*lines, strict=True):
        assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)


# The command, and at the end of training what this process holds of tensors that last.
HELD = """
import gc, json, os, sys, torch
from emotion2vec.cli import main
from emotion2vec.pretraining import loop

train = loop._train

def held(state, *arguments):
    answer = train(state, *arguments)
    kinds = {
        "student": list(state.student.parameters()),
        "teacher": list(state.teacher.parameters()),
        "moments": [v for kept in state.optimizer.state.values() for v in kept.values() if v.ndim],
    }
    part = lambda t: t.to_local() if hasattr(t, "to_local") else t
    held = {k: sum(part(t).untyped_storage().nbytes() for t in v) for k, v in kinds.items()}
    print(json.dumps(held))
    return answer

loop._train = held
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_two_processes_hold_half_of_a_split_model_each(tones: Path, tmp_path: Path) -> None:
    (tones / "empty.wav").write_bytes(b"")  # left out, which torchrun need not know
    (tmp_path / "held.py").write_text(HELD)
    found = {}
    for sharding in ("none", "full"):
        config = replace(NOISY, max_updates=2, sharding=sharding)
        path = write(config, tmp_path / f"{sharding}.toml")
        words = command(path, tones, tmp_path / sharding, processes=2, resume=False)
        place = words.index("-m", 3)
        words[place : place + 2] = [str(tmp_path / "held.py")]
        printed = subprocess.run(
            words, env=environment(), check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        assert len(read_jsonl(tmp_path / sharding / "skipped.jsonl")) == 1
        found[sharding] = [json.loads(x) for x in printed.splitlines() if x.startswith("{")]
    whole, split = found["none"], found["full"]
    assert len(whole) == len(split) == 2 and whole[0] == whole[1]
    parameters = sum(p.numel() for p in new_state(CONFIG).student.parameters())
    assert whole[0]["student"] == 4 * parameters and whole[0]["moments"] == 8 * parameters
    for kind, size in whole[0].items():
        assert sum(part[kind] for part in split) == pytest.approx(size, rel=0.02)  # padded
        assert max(part[kind] for part in split) < 0.52 * size


class Run:
    """A run of two processes without end to speak of, and what it left."""

    def __init__(self, folder: Path, data: Path, **changes: Any) -> None:
        changes = {"max_updates": 2000, "num_workers": 1, **changes}
        self.config = replace(NOISY, **changes)
        self.data, self.out = data, folder / "run"
        path = write(replace(self.config, accumulate=1), folder / "run.toml")
        self.words = command(path, data, self.out, processes=2, resume=False)

    def end_by(self, action: Callable[[int], None]) -> tuple[int, str]:
        """Do something to torchrun's process id at some update; the exit code and the errors.

        Then all processes are gone, and the checkpoint goes on as if nothing had happened.
        """
        process = start_until([4, 5, 6], self.words, self.out)
        processes = family(process.pid)
        action(process.pid)
        _, errors = process.communicate(timeout=60)
        deadline = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in processes):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self._check_checkpoint()
        return process.returncode, errors

    def _check_checkpoint(self) -> None:
        with safe_open(self.out / "last.safetensors", "pt") as file:
            updates = int(file.metadata()["updates"])
        assert updates >= 3
        config = replace(self.config, save_every=1)
        for out, resume in ((self.out, True), (self.out.parent / "whole", False)):
            with pytest.raises(KeyboardInterrupt), StopAfter(updates + 2):
                run(config, self.data, out, resume=resume)
        assert_close(weights(self.out), weights(self.out.parent / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run(rank: int, tones: Path, tmp_path: Path) -> None:
    job = Run(tmp_path, tones)
    code, errors = job.end_by(lambda pid: os.kill(children(pid)[rank], signal.SIGKILL))
    assert code == 1
    assert f"local_rank: {rank}" in errors and "SIGKILL" in errors


@pytest.mark.slow
def test_sigterm_saves_the_parts_and_ends_all_processes(tones: Path, tmp_path: Path) -> None:
    # The checkpoint is from the signal: none was due. torchrun tells its children's whole groups.
    job = Run(tmp_path, tones, sharding="full", save_every=1000)
    code, errors = job.end_by(lambda pid: os.kill(pid, signal.SIGTERM))
    assert code != 0
    assert errors.count(f"stopped; the state is saved, --resume goes on with {job.out}") == 1


@pytest.mark.slow
def test_processes_whose_launcher_is_gone_save_and_end(tones: Path, tmp_path: Path) -> None:
    job = Run(tmp_path, tones, save_every=1000)
    _, errors = job.end_by(lambda pid: os.kill(pid, signal.SIGKILL))
    assert errors.count("stopped; the state is saved") == 1


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(
    number: int,
    code: int,
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(number)
    config = replace(NOISY, save_every=1000, log_every=2)
    words = ["pretrain", write(config, tmp_path / "c.toml"), "--data", tones, "--out"]
    out, whole = tmp_path / "run", tmp_path / "whole"
    update = loop.update

    def interrupted(state: Any, *arguments: Any) -> Any:
        if state.updates == 2:
            os.kill(os.getpid(), number)
        return update(state, *arguments)

    monkeypatch.setattr(loop, "update", interrupted)
    assert call(*words, out, "--quiet") == code
    assert f"--resume goes on with {out}" in capsys.readouterr().err
    assert not (out / "final").exists()
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    assert call(*words, out, "--quiet", "--resume") == 0
    assert call(*words, whole, "--quiet") == 0
    assert_same(weights(whole), weights(out))
    assert [line["update"] for line in read_jsonl(out / "metrics.jsonl")] == [2, 4, 6, 8]


def test_a_second_ctrl_c_does_not_wait(tones: Path, tmp_path: Path) -> None:
    def impatient(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "update", impatient)
        with pytest.raises(KeyboardInterrupt):
            run(NOISY, tones, tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()
