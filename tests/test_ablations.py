"""Every ablation of the paper is one flag."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY, call

from emotion2vec import Emotion2vecConfig
from emotion2vec.commands.pretrain import Flags
from emotion2vec.jsonl import read_jsonl
from emotion2vec.pretraining.ablations import FIELDS, overrides_of
from emotion2vec.pretraining.config import PretrainConfig, read_config, write_config

BASE = ROOT / "configs" / "pretrain_base.toml"


def test_flags_and_names_are_the_same() -> None:
    assert {field.name for field in fields(Flags)} == set(FIELDS)


def test_every_field_that_a_flag_sets_exists() -> None:
    run = {field.name for field in fields(PretrainConfig)}
    model = {f"model.{field.name}" for field in fields(Emotion2vecConfig)}
    assert {name for names in FIELDS.values() for name in names} <= run | model


@pytest.mark.parametrize(
    "flags, changed",
    [
        ({"utterance_loss": "token"}, {"utterance_loss": "token", "tokens": 1}),
        ({"utterance_loss": "global"}, {"utterance_loss": "global", "tokens": 0}),
        ({"utterance_loss": "global", "tokens": 5}, {"utterance_loss": "global", "tokens": 5}),
        ({"utterance_loss": "none"}, {"utterance_loss": "none"}),
        ({"tokens": 5}, {"tokens": 5}),
        ({"alpha": 0.1}, {"utterance_weight": 0.1}),
        ({"frame_weight": 0.0}, {"frame_weight": 0.0}),
        ({"top_k": 4}, {"top_k": 4}),
        ({"mask_span": 10}, {"mask_span": 10}),
        ({"mask_share": 0.6}, {"mask_share": 0.6}),
        ({"masks": 2}, {"num_masks": 2}),
        (
            {"tau": "0.99:0.9999:500"},
            {"ema_start": 0.99, "ema_end": 0.9999, "ema_anneal_updates": 500},
        ),
        ({"depth": 4}, {"depth": 4, "top_k": 4}),
        ({"depth": 12}, {"depth": 12}),
        ({"depth": 4, "top_k": 2}, {"depth": 4, "top_k": 2}),
        ({"seed": 7}, {"seed": 7}),
        ({"init": "base_libri.pt"}, {"init": "base_libri.pt"}),
    ],
)
def test_a_flag_changes_what_it_says_and_nothing_else(
    flags: dict[str, Any], changed: dict[str, Any]
) -> None:
    def values(config: PretrainConfig) -> dict[str, Any]:
        found = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "model"}
        model = {f.name: getattr(config.model, f.name) for f in fields(config.model)}
        return found | model | {"tokens": config.model.num_utterance_tokens}

    before, after = values(read_config(BASE)), values(read_config(BASE, flags=flags))
    del before["num_utterance_tokens"], after["num_utterance_tokens"]
    assert {name: after[name] for name in after if after[name] != before[name]} == changed


def test_set_is_laid_over_flags() -> None:
    config = read_config(BASE, {"utterance_weight": 2.0}, flags={"alpha": 0.5, "masks": 3})
    assert (config.utterance_weight, config.num_masks) == (2.0, 3)


def test_what_follows_from_a_flag_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "emotion2vec"):
        read_config(BASE, flags={"depth": 4})
    assert caplog.messages == ["top_k is 4, which follows from the other flags."]


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"width": 3}, "width is no ablation; known are seed, init, utterance_loss"),
        ({"tau": "0.99:0.999"}, "tau is 0.99:0.999; write it as START:END:UPDATES"),
        ({"tau": "0.99:high:500"}, "write it as START:END:UPDATES"),
        ({"utterance_loss": "token", "tokens": 4}, "num_utterance_tokens is 4; set it to 1"),
        ({"depth": 4, "top_k": 6}, "top_k is 6, but model.depth is 4"),
    ],
)
def test_flags_that_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(BASE, flags=flags)


def test_names_alone_can_be_turned_into_settings() -> None:
    assert overrides_of({"depth": 4}) == {"model.depth": 4}
    assert overrides_of({}) == {}


def test_flags_reach_the_run(tones: Path, tmp_path: Path) -> None:
    write_config(
        PretrainConfig(
            Emotion2vecConfig(**TINY), top_k=2, max_updates=1, max_batch_seconds=6.0,
            max_clip_seconds=1.0, num_workers=0, warmup_updates=0,
        ),
        tmp_path / "c.toml",
    )  # fmt: skip
    words = ("pretrain", tmp_path / "c.toml", "--data", tones, "--out", tmp_path / "run", "--quiet")
    flags = ("--utterance-loss", "global", "--masks", 3, "--depth", 1, "--tau", "0.9:0.99:10")
    assert call(*words, *map(str, flags)) == 0
    as_run = read_config(tmp_path / "run" / "config.toml")
    assert (as_run.utterance_loss, as_run.model.num_utterance_tokens) == ("global", 0)
    assert (as_run.num_masks, as_run.model.depth, as_run.top_k) == (3, 1, 1)
    [line] = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert line["tau"] == pytest.approx(0.9 + 0.09 / 10)
