"""Runs of a grid in processes of their own, several at once; what is there is taken as it is."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from emotion2vec.ablation.grid import Run
from emotion2vec.ablation.scores import Probing
from emotion2vec.pretraining.checkpoint import load_student

logger = logging.getLogger(__name__)

_FINISHED = (0, 3)
"""Exit codes of a command that did its work; 3 says that recordings were left out."""

_DONE = {"pretrain": "pre-trained", "probe": "probed"}


@dataclass
class _Step:
    """One command of a run."""

    run: Run
    kind: str
    """"pretrain" or "probe", which is the command's name, too"""
    words: list[str]
    log: Path
    """what the command prints"""
    since: float = field(default_factory=time.monotonic)


def carry_out(
    runs: Sequence[Run],
    data: Sequence[str],
    probing: Probing,
    out: Path,
    *,
    jobs: int = 1,
    changed: Callable[[dict[Run, str]], object] = lambda failures: None,
) -> dict[Run, str]:
    """Pre-train and probe all runs that are not done; returns why some failed, by run.

    Everything that counts is in the runs' folders, so that a grid that was killed goes on where it
    stood. Commands that still run are ended when this is left in any way but SIGKILL; a lock on
    `out`, which they hold too, keeps a second grid off what a killed one left running.

    Args:
        runs: in the order in which they are begun
        data: what to train on, as `emotion2vec pretrain` takes it
        probing: how encoders are scored
        out: folder of the grid
        jobs: runs at once; each has its share of the processors
        changed: called with the failures so far whenever a run is done or has failed

    Raises:
        BlockingIOError: if another grid works in `out`
    """
    failures: dict[Run, str] = {}
    waiting = list(runs)
    working: dict[subprocess.Popen[bytes], _Step] = {}
    with _lock(out) as lock:
        try:
            while waiting or working:
                while waiting and len(working) < jobs:
                    step = _next_step(waiting.pop(0), data, probing)
                    if step:
                        working[_start(step, jobs, lock)] = step
                for process in [p for p in working if p.poll() is not None]:
                    step = working.pop(process)
                    error = _outcome(step, process.returncode, probing)
                    took = time.monotonic() - step.since
                    done = error or _DONE[step.kind]
                    logger.info("%s: %s (after %.0f s)", step.run.name, done, took)
                    if error:
                        failures[step.run] = error
                    elif step.kind == "pretrain":
                        waiting.insert(0, step.run)  # its probe comes next
                    if error or step.kind == "probe":
                        changed(failures)
                time.sleep(0.05)
        finally:
            for process in working:
                process.terminate()
            for process in working:
                process.wait()
    return failures


@contextmanager
def _lock(out: Path) -> Iterator[int]:
    """The descriptor of a lock on the folder, free again when all who hold it have ended."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                f"{out} is in use by another grid, or by what a killed one left running; wait for "
                "it or end it."
            ) from error
        yield file.fileno()


def _next_step(run: Run, data: Sequence[str], probing: Probing) -> _Step | None:
    """Return what a run needs next; None if it is done."""
    if not run.is_trained and not run.collapsed.is_file():
        run.prepare()
        resume = ["--resume"] if (run.folder / "last.safetensors").is_file() else []
        words = [sys.executable, "-m", "emotion2vec", "pretrain", str(run.folder / "config.toml")]
        words += ["--data", *data, "--out", str(run.folder), *resume, "--quiet"]
        return _Step(run, "pretrain", words, run.folder / "pretrain.log")
    if probing.read(run.probe):
        return None
    if run.probe.is_file():
        logger.info("%s: probed anew, because it was probed in another way.", run.name)
    model = run.final
    if not run.is_trained:
        model = run.folder / "collapsed"
        load_student(run.collapsed)[0].encoder.save_pretrained(model)
    run.probe.parent.mkdir(exist_ok=True)
    return _Step(run, "probe", probing.command(model), run.probe.with_name("probe.log"))


def _start(step: _Step, jobs: int, lock: int) -> subprocess.Popen[bytes]:
    """Start a step's command; what it prints goes into its log, a probe's scores beside."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    answers = step.log if step.kind == "pretrain" else _unfinished(step.run.probe)
    with answers.open("wb") as stdout, step.log.open("wb") as stderr:
        return subprocess.Popen(
            step.words,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(lock,),
        )


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _outcome(step: _Step, code: int, probing: Probing) -> str:
    """Return what went wrong, "" if nothing did; a probe's scores go to their place."""
    run = step.run
    if step.kind == "pretrain" and (run.is_trained or run.collapsed.is_file()):
        return ""
    if step.kind == "probe" and code in _FINISHED:
        os.replace(_unfinished(run.probe), run.probe)
        if probing.read(run.probe):
            return ""
    if code < 0:
        return f"{step.kind} was killed by signal {-code}"
    lines = step.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return (lines or [f"{step.kind} left no result"])[-1].removeprefix("error: ")
