"""Killed at any moment, resumed, out of disk: the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_pretraining_loop import CONFIG, assert_same, run, weights

from emotion2vec.jsonl import read_jsonl
from emotion2vec.pretraining.config import write_config


def command(config: Path, data: Path, out: Path, *, processes: int, resume: bool) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                     str(processes)]  # fmt: skip
    words = ["-m", "emotion2vec", "pretrain", str(config), "--data", str(data), "--out", str(out)]
    return [*launcher, *words, "--quiet", *(["--resume"] if resume else [])]


def environment() -> dict[str, str]:
    return {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}


def start_until(done: Sequence[int], words: list[str], out: Path) -> subprocess.Popen[str]:
    """Start a command and wait until one of the updates `done` is in its metrics."""
    process = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while not any(line["update"] in done for line in read_jsonl(out / "metrics.jsonl")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    """A process, its children, and theirs: torchrun, its ranks, their loading processes."""
    return [pid, *(relative for child in children(pid) for relative in family(child))]


def kill_when(done: Sequence[int], words: list[str], out: Path) -> None:
    """Start a command and SIGKILL it and its family once update `done` is in the metrics."""
    process = start_until(done, words, out)
    for pid in family(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_ends_as_if_it_had_not_been(
    processes: int, tones: Path, tmp_path: Path
) -> None:
    # Dropouts, dropped blocks and loader processes on; the checkpoint lags behind the kill.
    config = replace(CONFIG, max_updates=14, save_every=3, num_workers=2, accumulate=2)
    path = tmp_path / "config.toml"
    write_config(config, path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options: dict[str, Any] = {"processes": processes}
    subprocess.run(
        command(path, tones, whole, resume=False, **options), env=environment(), check=True
    )
    kill_when([4, 5], command(path, tones, broken, resume=False, **options), broken)
    kill_when([8, 9], command(path, tones, broken, resume=True, **options), broken)
    assert not (broken / "final").exists()
    subprocess.run(
        command(path, tones, broken, resume=True, **options), env=environment(), check=True
    )
    assert_same(weights(whole), weights(broken))
    final = "final/model.safetensors"
    assert (whole / final).read_bytes() == (broken / final).read_bytes()
    lines = [read_jsonl(out / "metrics.jsonl") for out in (whole, broken)]
    assert [line["update"] for line in lines[1]] == list(range(1, 15))
    for first, second in zip(*lines, strict=True):
        assert first["loss"] == second["loss"]


def test_resuming_at_every_update_changes_nothing(tones: Path, tmp_path: Path) -> None:
    run(CONFIG, tones, tmp_path / "whole")
    for stop in range(1, 9):  # the schedule ends at 8 in both: max_updates is not what stops
        stopped = StopAfter(stop)
        with pytest.raises(KeyboardInterrupt), stopped:
            run(CONFIG, tones, tmp_path / "parts", resume=stop > 1)
    run(CONFIG, tones, tmp_path / "parts", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


class StopAfter:
    """Interrupt a run right after it has logged update `stop`, before it saves."""

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        from emotion2vec.pretraining import loop

        original = loop.save_checkpoint

        def save(state: Any, *arguments: Any, **options: Any) -> None:
            original(state, *arguments, **options)
            if state.updates == self.stop:
                raise KeyboardInterrupt

        self.patch.setattr(loop, "save_checkpoint", save)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(tones: Path, tmp_path: Path) -> None:
    # A process's limit on the size of files stands for the disk: the write fails in the middle.
    import resource

    path, out = tmp_path / "config.toml", tmp_path / "run"
    write_config(CONFIG, path)
    with pytest.raises(KeyboardInterrupt), StopAfter(2):
        run(CONFIG, tones, out)
    before = (out / "last.safetensors").read_bytes()
    limit = (len(before) // 2, len(before) // 2)
    words = command(path, tones, out, processes=1, resume=True)
    failed = subprocess.run(
        words,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert failed.returncode == 1
    assert f"error: cannot write {out}/last.safetensors" in failed.stderr
    assert "what was there before is untouched" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (out / "last.safetensors").read_bytes() == before
    assert not [file for file in out.iterdir() if file.name.endswith(".tmp")]
    run(CONFIG, tones, out, resume=True)
    run(CONFIG, tones, tmp_path / "whole")
    assert_same(weights(tmp_path / "whole"), weights(out))
