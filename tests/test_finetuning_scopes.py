"""What fine-tuning trains, how fast, and what it folds away; its settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import relative_error
from test_finetuning_parts import classifier

from emotion2vec import Emotion2vec
from emotion2vec.classifiers import NativeClassifier
from emotion2vec.finetuning.config import FinetuneConfig, read_finetune_config
from emotion2vec.finetuning.scopes import (
    choose_parts,
    fold_heads,
    merge_lora,
    parameter_groups,
    standardize_heads,
)
from emotion2vec.loading import new_classifier


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("full", {"feature_projection", "context", "classifier"}),
        ("partial", {"context.blocks.2", "classifier"}),
        ("head", {"classifier"}),
        ("lora", {"context.blocks", "classifier"}),
    ],
)
def test_what_is_trained(scope: str, expected: set[str]) -> None:
    made = classifier()
    choose_parts(made, FinetuneConfig(scope=scope, top_blocks=1))
    trained = [n for n, p in made.named_parameters() if p.requires_grad]
    assert all(any(part in name for part in expected) for name in trained)
    assert all(any(part in name for name in trained) for part in expected)
    assert all("lora" in n or "classifier" in n for n in trained) == (scope in ("lora", "head"))


def test_convolutions_are_trained_on_request() -> None:
    made = classifier()
    choose_parts(made, FinetuneConfig(train_convolutions=True))
    assert all(p.requires_grad for p in made.parameters())


def test_rates_fall_from_the_head_down() -> None:
    made = classifier()
    config = FinetuneConfig(peak_lr=1e-3, head_lr=1e-2, layer_decay=0.5, train_convolutions=True)
    choose_parts(made, config)
    rate_of = {
        id(p): group["lr"] for group in parameter_groups(made, config) for p in group["params"]
    }
    rates = {name: rate_of[id(p)] for name, p in made.named_parameters()}
    assert rates["model.classifier.weight"] == 1e-2
    for block, rate in ((2, 1e-3), (1, 5e-4), (0, 2.5e-4)):
        assert rates[f"model.encoder.context.blocks.{block}.mlp.fc1.weight"] == rate
    assert rates["model.encoder.feature_encoder.layers.0.conv.weight"] == 1.25e-4
    decays = {
        p.ndim: group["weight_decay"]
        for group in parameter_groups(made, config)
        for p in group["params"]
    }
    assert decays[1] == 0 and decays[2] == config.weight_decay


@pytest.mark.parametrize("dimensions", [(), ("arousal",)])
def test_folded_heads_answer_alike(dimensions: tuple[str, ...]) -> None:
    made = classifier(dimensions=dimensions)
    standardize_heads(made)
    made.train()
    for _ in range(5):
        made(torch.randn(6, 8000))
    made(torch.randn(1, 8000))  # a single clip has no variance
    made.eval()
    waveform = torch.randn(3, 8000)
    before = made(waveform)
    names = set(classifier(dimensions=dimensions).state_dict())
    fold_heads(made)
    assert set(made.state_dict()) == names
    for ours, theirs in zip(made(waveform), before, strict=True):
        if ours.shape[1]:
            assert relative_error(ours.detach(), theirs.detach()) <= 1e-5


def test_merged_lora_answers_alike() -> None:
    made = classifier().eval()
    waveform = torch.randn(2, 8000)
    untouched = made(waveform).logits
    names = set(made.state_dict())
    choose_parts(made, FinetuneConfig(scope="lora"))
    assert relative_error(made(waveform).logits.detach(), untouched.detach()) <= 1e-6
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    before = made(waveform).logits
    assert relative_error(before.detach(), untouched.detach()) > 1e-3
    merge_lora(made)
    assert set(made.state_dict()) == names
    assert relative_error(made(waveform).logits.detach(), before.detach()) <= 1e-5


def test_settings_are_read_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "ft.toml"
    path.write_text('scope = "lora"\nspeeds = [0.9, 1.1]\n')
    assert read_finetune_config(path, {"epochs": 3}) == FinetuneConfig(
        scope="lora", speeds=(0.9, 1.1), epochs=3
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"epoch": 3}, "epoch is no setting; known are"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number from 1"),
        ({"patience": -1}, "patience is -1"),
        ({"peak_lr": 0}, "peak_lr is 0; it must be over 0"),
        ({"unknown_share": 1.0}, "unknown_share is 1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"mixup": -1}, "mixup is -1"),
        ({"speeds": [9.0]}, "speeds is"),
        ({"noise_snr": [9.0, 1.0]}, "noise_snr is"),
        ({"classes": False}, "classes is false and dimensions is empty"),
        ({"emotions": ["sad", "sad"]}, "emotions has a name twice"),
        ({"scope": 3}, "scope is 3; choose one of"),
        ({"train_convolutions": "False"}, "train_convolutions is 'False'; write true or false"),
        ({"label_smoothing": "much"}, "has a value of the wrong type"),
    ]
    for values, message in cases:
        with pytest.raises(ValueError, match=message):
            read_finetune_config(path, values)


def test_encoders_are_taken_from_classifiers_and_students(tmp_path: Path) -> None:
    trained = classifier()
    trained.save(tmp_path / "classifier")
    again = new_classifier(tmp_path / "classifier", ("a", "b", "c"), ("arousal",), seed=3)
    same = new_classifier(tmp_path / "classifier", ("a", "b", "c"), ("arousal",), seed=3)
    assert again.labels == ("a", "b", "c") and again.dimensions == ("arousal",)
    assert isinstance(again, NativeClassifier) and isinstance(same, NativeClassifier)
    encoder = Emotion2vec.from_pretrained(tmp_path / "classifier")
    for name, value in again.model.encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name])
    assert again.model.classifier is not None and same.model.classifier is not None
    assert torch.equal(again.model.classifier.weight, same.model.classifier.weight)
    plain = {"labels": (), "dimensions": ()}
    assert replace(again.model.config, **plain) == replace(encoder.config, **plain)
