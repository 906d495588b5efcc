"""Settings of pre-training: read, laid over, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TINY

from emotion2vec import Emotion2vecConfig
from emotion2vec.pretraining.config import (
    PretrainConfig,
    read_config,
    write_config,
)
from emotion2vec.settings import parse_override

CONFIG = PretrainConfig(model=Emotion2vecConfig(**TINY), top_k=2, max_updates=8)


def test_settings_are_read_written_and_laid_over(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path / "c.toml")
    assert read_config(tmp_path / "c.toml") == CONFIG
    laid_over = read_config(
        tmp_path / "c.toml", dict([parse_override("peak_lr=1e-4"), parse_override("model.depth=3")])
    )
    assert laid_over.peak_lr == 1e-4 and laid_over.model.depth == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("max_update = 3", "max_update is no setting; known are"),
        ("[model]\nwidth = 3", "model.width is no setting"),
        ("seed = ", "is not TOML of settings"),
        ('max_updates = "many"', "max_updates is many; it must be a whole number from 1"),
        ('peak_lr = 3\nmask_share = "half"', "wrong type"),
        ("accumulate = 1.5", "accumulate is 1.5; it must be a whole number"),
        ("save_every = 0", "save_every is 0"),
        ("seed = -1", "seed is -1; it must be a whole number from 0"),
        ("model = 3", "is not TOML of settings"),
        ('masker = "span"\nmin_clip_seconds = 0.1', "would hide so short a clip whole"),
        ("[model]\nposition_groups = 0", "position_groups is 0; it must be at least 1"),
        ('masker = "blocks"', "masker is 'blocks'; choose one of block, span"),
        ("top_k = 12", "top_k is 12, but model.depth is 8"),
        ("mask_share = 1.5", r"mask_share is 1.5; it must be in \[0, 1\)"),
        ("max_clip_seconds = 90", "one clip must fit a batch"),
        ("min_clip_seconds = 0.03", "no frame to hide"),
        ("[model]\nembed_dim = 100", "100, which 12 heads"),
        ("[model]\nconv_kernels = [3]", "7, 1 and 7 entries"),
        ("[model]\nnum_utterance_tokens = 0", "num_utterance_tokens is 0"),
        ("[model]\nmlp_dropout = 1.0", "mlp_dropout is 1.0"),
        ("[model]\ndrop_residual = true", "pre_norm is false"),
        ("clusters = [64]", 'utterance_loss is "chunk", but clusters have no target for it'),
        ('clusters = [1]\nutterance_loss = "none"', r"clusters is \[1\]; each must be a whole"),
        ('clusters = [64]\nutterance_loss = "none"\ncluster_frames = 9', "under the 64 clusters"),
        ('cluster_model = "base"', "cluster_model is base, but clusters is empty"),
        ("clusters = 64", "wrong type"),
    ],
)
def test_settings_that_contradict(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "c.toml")


def test_the_configs_that_ship_are_valid() -> None:
    folder = Path(__file__).parent.parent / "configs"
    names = sorted(path.name for path in folder.glob("pretrain_*.toml"))
    assert {"pretrain_base.toml", "pretrain_tiny.toml", "pretrain_demo.toml"} <= set(names)
    names += ["tapt.toml", "ptapt.toml"]
    for name in names:
        read_config(folder / name)
    base = read_config(folder / "pretrain_base.toml")
    assert json.loads(json.dumps(base.model.to_dict())) == json.loads(
        json.dumps(Emotion2vecConfig().to_dict())
    )
