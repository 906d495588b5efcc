"""What tests share: golden tensors, tiny models, small recordings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from emotion2vec import Emotion2vecConfig
from emotion2vec.cli import main
from emotion2vec.published.pickles import read_pickle
from emotion2vec.published.reference import reference_table

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported; no test asks a hub

ROOT = Path(__file__).parent.parent
PARITY = Path(__file__).parent / "parity"
CKPT = PARITY / "ckpt"


class Golden(NamedTuple):
    """Tensors that the reference made, and the facts about them."""

    facts: dict[str, Any]
    tensors: dict[str, Tensor]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


def load_golden(name: str) -> Golden:
    """The golden pair `name`, such as "inference/base_tiny"."""
    facts = json.loads((PARITY / f"{name}.json").read_text())
    tensors = load_file(PARITY / f"{name}.safetensors")
    tensors |= {name: tensors[twin] for name, twin in facts["same_as"].items()}
    shared = facts["shared_with_chunk"]
    if shared:
        chunk = load_golden("pretrain/chunk").tensors
        tensors |= {name: chunk[name] for name in shared}
    return Golden(facts, tensors)


def under_our_names(theirs: dict[str, Tensor], config: Emotion2vecConfig) -> dict[str, Tensor]:
    """Tensors of any kind under the names of our student and classifier."""
    names = {origin.names[0]: ours for ours, origin in reference_table(config).items()}
    return {
        names[name]: value.flatten(1) if name.endswith("alibi_scale") else value
        for name, value in theirs.items()
    }


def pack(folder: Path, golden: Golden, **changes: Any) -> Path:
    """A golden state dict as FunASR's folder of a published model."""
    folder.mkdir(parents=True)
    tokens = golden.facts.get("tokens")
    settings = {
        "model": "Emotion2vec",
        "model_conf": golden.facts["model_conf"],
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    metas: dict[str, Any] = {"init_param": "model.pt", "config": "config.yaml"}
    if tokens:
        metas["tokenizer_conf"] = {"token_list": "tokens.txt"}
        (folder / "tokens.txt").write_text("\n".join(tokens), encoding="utf-8")
    (folder / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    torch.save({"model": golden.under("state/")}, folder / "model.pt")
    return folder


@pytest.fixture
def funasr(tmp_path: Path) -> Path:
    """A copy of the golden FunASR folder, to be changed."""
    shutil.copytree(CKPT / "funasr_tiny", tmp_path / "funasr")
    return tmp_path / "funasr"


def save(content: Any, file: Path) -> None:
    """torch.save beside `file`, then rename: tensors that were read from it are mapped to it."""
    new = file.with_suffix(".new")
    torch.save(content, new)
    new.replace(file)


def change(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the weights in a checkpoint."""
    content = read_pickle(file)
    edit(content["model"])
    save(content, file)


class Call:
    """Pickled as a call of `function`: what an attacker puts into a file."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max() / theirs.abs().max())


TINY = {
    "embed_dim": 48,
    "num_heads": 4,
    "conv_channels": (32,) * 7,
    "prenet_depth": 1,
    "depth": 2,
    "decoder_dim": 32,
    "num_utterance_tokens": 4,
}


@pytest.fixture
def tiny_config() -> Emotion2vecConfig:
    """An encoder that runs in milliseconds."""
    return Emotion2vecConfig(**TINY)


def write_tone(
    path: Path, seconds: float = 1.0, *, pitch: float = 220.0, rate: int = 16000
) -> Path:
    """A wav of a tone with some noise, always the same for the same arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(int(pitch)).normal(0, 0.05, len(time))
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * pitch * time) + noise, rate)
    return path


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A folder of 12 short clips of different lengths."""
    folder = tmp_path / "tones"
    for i in range(12):
        write_tone(folder / f"clip{i:02d}.wav", 0.6 + 0.05 * i, pitch=110 + 20 * i)
    return folder


def call(*words: str | Path) -> int:
    """The exit code of the command line."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
