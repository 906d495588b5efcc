"""The examples for clusters: what they start, when they resume or go back into the queue."""

from __future__ import annotations

import os
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from torch.distributed.run import get_args_parser

from emotion2vec.cli import app
from emotion2vec.pretraining.config import read_config
from emotion2vec.settings import parse_override

EXAMPLES = ROOT / "examples" / "cluster"
SLURM = EXAMPLES / "pretrain.sbatch"
SERVICE, JOB = yaml.safe_load_all((EXAMPLES / "pretrain-job.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]

# Stands for srun, torchrun and scontrol: notes its words; may save, and fail.
STUB = """#!/bin/bash
echo "${0##*/} $*" >> "$NOTES"
case "${0##*/} $*" in
    *"show hostnames"*) echo node1; echo node2;;
    *requeue*) ;;
    *) [ -z "${SAVES:-}" ] || touch "$OUT/last.safetensors"; exit "${CODE:-0}";;
esac
"""


class Shell:
    """Runs a script where the cluster's commands are stubs."""

    def __init__(self, folder: Path) -> None:
        self.out, self.notes = folder / "run", folder / "notes"
        self.out.mkdir()
        (folder / "bin").mkdir()
        for name in ("srun", "scontrol", "torchrun"):
            (folder / "bin" / name).write_text(STUB)
            (folder / "bin" / name).chmod(0o755)
        self.path = f"{folder / 'bin'}:{os.environ['PATH']}"

    def __call__(self, words: list[str], **variables: Any) -> tuple[int, list[list[str]]]:
        """The exit code, and the words of each command that was called."""
        self.notes.write_text("")
        known = {"PATH": self.path, "NOTES": self.notes, "OUT": self.out, "DATA": "/data/a.jsonl"}
        environment = {k: str(v) for k, v in (known | variables).items()}
        done = subprocess.run(words, env=environment, check=False)
        return done.returncode, [shlex.split(x) for x in self.notes.read_text().splitlines()]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def check(words: list[str]) -> Any:
    """Torchrun's options, if it and our command line understand all words."""
    options = get_args_parser().parse_args(words[words.index("torchrun") + 1 :])
    assert options.module and options.training_script == "emotion2vec"
    app.parse_args(options.training_script_args, exit_on_error=False, print_error=False)
    given = options.training_script_args
    overrides = dict(parse_override(value) for name, value in pairwise(given) if name == "--set")
    config = read_config(ROOT / given[1], overrides)
    assert config.accumulate * int(options.nnodes) * 4 == 16  # the paper's update, 4 GPUs a node
    return options


SLURM_JOB = {"SLURM_JOB_ID": 7, "SLURM_JOB_NUM_NODES": 2, "SLURM_JOB_NODELIST": "node[1-2]"}


def test_slurm_starts_then_resumes(shell: Shell) -> None:
    code, (_, srun) = shell(["bash", str(SLURM)], **SLURM_JOB)
    options = check(srun)
    assert code == 0 and "--resume" not in srun
    assert options.nnodes == "2" and options.rdzv_endpoint == "node1:29500"
    (shell.out / "last.safetensors").touch()
    code, (_, srun) = shell(["bash", str(SLURM)], SLURM_RESTART_COUNT=1, **SLURM_JOB)
    assert code == 0 and srun[-1] == "--resume" and check(srun).rdzv_id == "7-1"


def test_slurm_goes_back_into_the_queue_only_where_the_run_got_further(shell: Shell) -> None:
    code, commands = shell(["bash", str(SLURM)], CODE=1, SAVES=1, **SLURM_JOB)
    assert code == 1 and commands[-1] == ["scontrol", "requeue", "7"]
    code, commands = shell(["bash", str(SLURM)], CODE=1, **SLURM_JOB)
    assert code == 1 and len(commands) == 2


def test_slurm_leaves_time_to_save() -> None:
    text = SLURM.read_text()
    subprocess.run(["bash", "-n", SLURM], check=True)
    assert "#SBATCH --signal=TERM@180 " in text and "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=150 " in text
    assert "#SBATCH --requeue" in text


def test_kubernetes_starts_then_resumes(shell: Shell) -> None:
    words = [*CONTAINER["command"], *CONTAINER["args"]]
    code, (torchrun,) = shell(words, JOB_COMPLETION_INDEX=1)
    options = check(torchrun)
    assert code == 0 and "--resume" not in torchrun
    assert options.node_rank == 1 and int(options.nnodes) == JOB["spec"]["completions"]
    # The host name of an indexed Job's pod, in the domain of the headless Service.
    name = JOB["metadata"]["name"]
    assert options.master_addr == f"{name}-0.{POD['subdomain']}"
    (shell.out / "last.safetensors").touch()
    code, (torchrun,) = shell(words, JOB_COMPLETION_INDEX=0, CODE=1)
    assert code == 1 and torchrun[-1] == "--resume"


def test_kubernetes_objects_fit_each_other() -> None:
    assert (SERVICE["kind"], SERVICE["spec"]["clusterIP"]) == ("Service", "None")
    assert SERVICE["metadata"]["name"] == POD["subdomain"]
    assert SERVICE["spec"]["publishNotReadyAddresses"]  # they find each other before they run
    labels = JOB["spec"]["template"]["metadata"]["labels"]
    assert SERVICE["spec"]["selector"].items() <= labels.items()
    assert (JOB["kind"], JOB["spec"]["completionMode"]) == ("Job", "Indexed")
    assert JOB["spec"]["parallelism"] == JOB["spec"]["completions"]
    assert POD["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    mounts = {mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {volume["name"] for volume in POD["volumes"]}
    values = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    assert int(values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < POD["terminationGracePeriodSeconds"]
    assert all(isinstance(value, str) for value in values.values())
