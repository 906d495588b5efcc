"""The paper's recipe as a file: whole, with sources, and of the reference's values."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields

import numpy as np
import pytest
from conftest import PARITY, ROOT, load_golden

from emotion2vec import Emotion2vecConfig
from emotion2vec.pretraining.config import PretrainConfig, read_config
from emotion2vec.pretraining.masking import MASKERS
from emotion2vec.pretraining.schedules import ema_decay, learning_rate

FILE = ROOT / "configs" / "pretrain_base.toml"
BASE = read_config(FILE)
SCHEDULES = json.loads((PARITY / "schedules" / "schedules.json").read_text())


def test_every_setting_stands_in_the_file() -> None:
    values = tomllib.loads(FILE.read_text())
    model = values.pop("model")
    assert set(values) == {field.name for field in fields(PretrainConfig)} - {"model"}
    assert set(model) == {field.name for field in fields(Emotion2vecConfig)} - {
        "labels",
        "dimensions",
    }


def test_every_setting_of_a_run_has_its_source() -> None:
    run = FILE.read_text().split("[model]")[0]
    without = [
        line.split(" = ")[0]
        for line in run.splitlines()
        if " = " in line and not re.search(r"# (paper|released|data2vec|ours|what ran)\b", line)
    ]
    # Said once for all, in the comment on `clusters`.
    assert without == ["cluster_model", "cluster_layer", "cluster_frames"]


def test_the_defaults_are_the_recipe_but_for_one_device() -> None:
    differ = {
        field.name
        for field in fields(PretrainConfig)
        if getattr(BASE, field.name) != getattr(PretrainConfig(), field.name)
    }
    assert differ == {"accumulate"}


def test_the_released_values_are_those_the_goldens_ran_with() -> None:
    conf = load_golden("pretrain/chunk").facts["model_conf"]
    audio = conf["modalities"]["audio"]
    assert (BASE.ema_start, BASE.ema_end) == (conf["ema_decay"], conf["ema_end_decay"])
    assert BASE.ema_anneal_updates == conf["ema_anneal_end_step"]
    assert BASE.max_updates == conf["max_update"]
    assert BASE.utterance_loss == conf["cls_type"]
    assert (BASE.utterance_weight, BASE.frame_weight) == (conf["cls_loss"], conf["d2v_loss"])
    assert (BASE.mask_share, BASE.mask_span) == (audio["mask_prob"], audio["mask_length"])
    assert BASE.mask_adjust == audio["mask_prob_adjust"]
    assert (BASE.min_target_spread, BASE.min_prediction_spread) == (
        conf["min_target_var"],
        conf["min_pred_var"],
    )
    assert BASE.model.num_utterance_tokens == audio["num_extra_tokens"]
    assert BASE.model.norm_eps == conf["norm_eps"]
    assert (BASE.top_k, BASE.num_masks, BASE.block_drop) == (8, 8, 0.05)


@pytest.mark.parametrize("updates, rate", SCHEDULES["lr_cosine"]["lr_at_n"].items())
def test_the_rate_is_the_reference_s(updates: str, rate: float) -> None:
    ours = learning_rate(
        int(updates),
        peak=BASE.peak_lr,
        warmup_updates=BASE.warmup_updates,
        max_updates=BASE.max_updates,
    )
    assert ours == pytest.approx(rate, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize("updates, decay", SCHEDULES["ema_decay"]["decay_at_n"].items())
def test_tau_is_the_reference_s(updates: str, decay: float) -> None:
    ours = ema_decay(
        int(updates),
        start=BASE.ema_start,
        end=BASE.ema_end,
        anneal_updates=BASE.ema_anneal_updates,
    )
    assert ours == pytest.approx(decay, rel=1e-12)


def test_masks_hide_exactly_half_as_the_reference_s_dataset() -> None:
    generator = np.random.default_rng(0)
    for frames, hidden in ((50, 25), (499, 249)):  # golden/masks: 249 of 499, always
        mask = MASKERS[BASE.masker](
            4,
            frames,
            share=BASE.mask_share,
            span=BASE.mask_span,
            adjust=BASE.mask_adjust,
            generator=generator,
        )
        assert mask.sum(axis=1).tolist() == [hidden] * 4
