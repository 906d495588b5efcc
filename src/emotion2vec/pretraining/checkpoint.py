"""A run's state as one safetensors file: student, teacher, optimizer moments, position.

One file, so that one rename makes a checkpoint: a kill at any moment leaves the last or the next.
Nothing random is stored, because every draw is keyed by the seed and a number.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from emotion2vec.atomic import atomic_path
from emotion2vec.model import Emotion2vecStudent
from emotion2vec.pretraining.clusters import ClusterTeacher
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.teacher import Teacher
from emotion2vec.weights import load_weights, write_weights

# Settings that may change between a run and its continuation. All but `accumulate`, by which a run
# moves to another number of processes, leave its result as it is.
_FREE = {
    "num_workers",
    "log_every",
    "save_every",
    "accumulate",
    "gradient_checkpointing",
    "shard_cache_gb",
}

# What AdamW keeps of a parameter.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class TrainState:
    """All that a run is made of."""

    student: Emotion2vecStudent
    teacher: Teacher | ClusterTeacher
    optimizer: torch.optim.Optimizer
    updates: int = 0
    """finished updates"""
    micro_batches: int = 0
    """consumed by all processes together: the position in the line of micro-batches"""


def _moments(state: TrainState) -> dict[str, Tensor]:
    """Return the optimizer's tensors under names, the very tensors where they exist."""
    names = {id(p): name for name, p in state.student.named_parameters()}
    moments = {}
    for parameter, values in state.optimizer.state.items():
        for kind, value in values.items():
            moments[f"optimizer.{kind}.{names[id(parameter)]}"] = value
    return moments


def save_checkpoint(state: TrainState, config: PretrainConfig, digest: str, path: Path) -> None:
    """Write the state as one file, whole or not at all.

    Raises:
        OSError: if it cannot be written; an older checkpoint then stays
    """
    tensors = {f"student.{k}": v for k, v in state.student.state_dict().items()}
    tensors |= {f"teacher.{k}": v for k, v in state.teacher.state_dict().items()}
    tensors |= _moments(state)
    metadata = {
        "updates": str(state.updates),
        "micro_batches": str(state.micro_batches),
        "corpus": digest,
        "config": json.dumps(asdict(config)),
    }
    with atomic_path(path) as temporary:
        write_weights({k: v.detach().contiguous() for k, v in tensors.items()}, temporary, metadata)


def load_checkpoint(state: TrainState, config: PretrainConfig, digest: str, path: Path) -> None:
    """Fill `state` from a checkpoint.

    Raises:
        FileNotFoundError: if there is none
        ValueError: if it is damaged, or of another corpus, or of a config that differs in what
            matters; the message names the settings
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: nothing to resume; run without --resume.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); start the run anew.") from error
    if not metadata or "config" not in metadata:
        raise ValueError(f"{path} is no checkpoint of a run; start the run anew.")
    _check_same(json.loads(metadata["config"]), config, metadata["corpus"], digest, path)
    for prefix, model in (("student.", state.student), ("teacher.", state.teacher)):
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        load_weights(model, part, path)
    for name, parameter in state.student.named_parameters():
        state.optimizer.state[parameter] = {
            kind: tensors[f"optimizer.{kind}.{name}"].to(parameter.device) for kind in _MOMENTS
        }
    state.updates = int(metadata["updates"])
    state.micro_batches = int(metadata["micro_batches"])


def _check_same(
    saved: dict[str, object], config: PretrainConfig, corpus: str, digest: str, path: Path
) -> None:
    now = json.loads(json.dumps(asdict(config)))
    changed = [
        f"{name} was {saved.get(name)} and is {now[name]}"
        for name in now
        if name not in _FREE and saved.get(name) != now[name]
    ]
    if changed:
        raise ValueError(
            f"{path} belongs to another config ({'; '.join(changed[:4])}); "
            "resume with the config in its folder, or start a run in another folder."
        )
    if corpus != digest:
        raise ValueError(
            f"{path} belongs to other recordings than those given; "
            "resume with the same data, or start a run in another folder."
        )
