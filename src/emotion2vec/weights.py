"""A model's folder on disk: `config.json`, `model.safetensors`, `preprocessor_config.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.config import Emotion2vecConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
PREPROCESSOR_NAME = "preprocessor_config.json"


def read_config(folder: Path) -> Emotion2vecConfig:
    """The config in a folder of weights.

    Raises:
        FileNotFoundError: if it has none
        ValueError: if it is no JSON or describes another kind of model
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {CONFIG_NAME}; point at a folder that save_pretrained wrote."
        )
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); save the model again.") from error
    return Emotion2vecConfig.from_dict(values)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors in a folder of weights.

    Raises:
        FileNotFoundError: if it has none
        ValueError: if the file is damaged
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {WEIGHTS_NAME}; only safetensors are read, convert other checkpoints."
        )
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file.

    Raises:
        ValueError: if the file is damaged
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); save or download it again.") from error


def write_weights(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: if the disk is full or the place cannot be written; safetensors has an error
            of its own for that, which callers could not tell from damage
    """
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        raise OSError(f"{error}") from error
    path.chmod(mode)  # safetensors makes a file that only its owner may read


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Any) -> None:
    """Copy `weights` into `model`, every name and shape exactly.

    Raises:
        ValueError: that lists what is missing, left over or of another shape
    """
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"left over {name}" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"the weights in {source} do not fit {type(model).__name__}: "
            f"{'; '.join(problems[:8])}{more}; load them with the class that saved them."
        )
    with torch.no_grad():
        model.load_state_dict(dict(weights))


def write_folder(config: Emotion2vecConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model's folder; the preprocessor's file tells transformers how clips are prepared.

    Raises:
        OSError: if the folder cannot be written
    """
    with atomic_path(folder / WEIGHTS_NAME) as path:
        write_weights({k: v.detach().contiguous() for k, v in weights.items()}, path)
    preprocessor = {
        "feature_extractor_type": "Emotion2vecFeatureExtractor",
        "sampling_rate": SAMPLE_RATE,
        "do_normalize": config.normalize_waveform,
    }
    # transformers would compute in the precision of the file, which may be half.
    settings = {**config.to_dict(), "dtype": "float32"}
    for name, values in ((CONFIG_NAME, settings), (PREPROCESSOR_NAME, preprocessor)):
        with atomic_path(folder / name) as path:
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
