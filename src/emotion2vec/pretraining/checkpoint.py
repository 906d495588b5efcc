"""A run's state as one safetensors file: student, teacher, optimizer moments, position.

One file, so that one rename makes a checkpoint: a kill at any moment leaves the last or the next.
Nothing random is stored, because every draw is keyed by the seed and a number.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from emotion2vec.atomic import atomic_path
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.model import Emotion2vecStudent
from emotion2vec.pretraining.clusters import ClusterTeacher
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.distributed import gather, split_like
from emotion2vec.pretraining.teacher import Teacher
from emotion2vec.weights import load_weights, write_weights

# Settings that may change between a run and its continuation. All but `accumulate`, by which a run
# moves to another number of processes, leave its result as it is.
FREE = {
    "num_workers",
    "log_every",
    "save_every",
    "accumulate",
    "sharding",
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


def save_checkpoint(
    state: TrainState, config: PretrainConfig, digest: str, path: Path, *, write: bool = True
) -> None:
    """Write the state as one file, whole or not at all; the same file however it is split.

    All processes must call it, for their shards; the one that is to `write` does.

    Raises:
        OSError: if it cannot be written; an older checkpoint then stays
    """
    tensors = {f"student.{k}": v for k, v in state.student.state_dict().items()}
    tensors |= {f"teacher.{k}": v for k, v in state.teacher.state_dict().items()}
    tensors = gather(tensors | _moments(state), keep=write)
    if not write:
        return
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
    tensors, metadata = _read(path)
    _check_same(json.loads(metadata["config"]), config, metadata["corpus"], digest, path)
    _fill(state.student, tensors, "student.", path)
    _fill(state.teacher, tensors, "teacher.", path)
    for name, parameter in state.student.named_parameters():
        step, *moments = (tensors[f"optimizer.{kind}.{name}"] for kind in _MOMENTS)
        values = [step.to(parameter.device), *(split_like(m, parameter) for m in moments)]
        state.optimizer.state[parameter] = dict(zip(_MOMENTS, values, strict=True))
    state.updates = int(metadata["updates"])
    state.micro_batches = int(metadata["micro_batches"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a checkpoint's tensors and metadata."""
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
    return tensors, metadata


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Load the tensors under a prefix into a model."""
    part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = model.state_dict()
    load_weights(model, {k: split_like(v, own.get(k, v)) for k, v in part.items()}, path)


def load_student(path: Path) -> tuple[Emotion2vecStudent, int]:
    """The student in a checkpoint, and after how many updates it was saved.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is damaged, or no checkpoint
    """
    tensors, metadata = _read(path)
    config = Emotion2vecConfig(**json.loads(metadata["config"])["model"])
    student = Emotion2vecStudent(config)
    _fill(student, tensors, "student.", path)
    return student, int(metadata["updates"])


def differences(
    saved: Mapping[str, object], config: PretrainConfig, *, free: Collection[str] = FREE
) -> list[str]:
    """What distinguishes a config from the values of another one, in words; [] if nothing matters.

    Args:
        saved: the other one's values by name, as `dataclasses.asdict` gives them
        config: the config
        free: settings that may differ

    >>> from dataclasses import asdict
    >>> differences(asdict(PretrainConfig()), PretrainConfig(top_k=4, log_every=1))
    ['top_k was 8 and is 4']
    """
    was, now = _flat(saved), _flat(asdict(config))
    return [
        f"{name} was {was.get(name)} and is {now[name]}"
        for name in now
        if name not in free and was.get(name) != now[name]
    ]


def _flat(values: Mapping[str, object]) -> dict[str, object]:
    """Return a config's values as JSON has them, those of its model as "model.depth"."""
    plain = json.loads(json.dumps(values))
    model = plain.pop("model", {})
    return plain | {f"model.{name}": value for name, value in model.items()}


def _check_same(
    saved: dict[str, object], config: PretrainConfig, corpus: str, digest: str, path: Path
) -> None:
    changed = differences(saved, config)
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
