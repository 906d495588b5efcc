"""Classifiers of wav2vec 2.0 and its kin: trained, saved, loaded here and by transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import call, relative_error
from test_finetune_runs import CONFIG, clips

from emotion2vec import Recognizer
from emotion2vec.finetuning.run import finetune
from emotion2vec.loading import load_classifier, new_classifier
from emotion2vec.manifest import write_manifest
from emotion2vec.other_classifiers import CLASSIFIERS, OtherClassifier

SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": (16,) * 3, "conv_kernel": (10, 8, 8), "conv_stride": (5, 8, 8),
    "num_conv_pos_embeddings": 15, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16,
    "mask_time_prob": 0.0,
}  # fmt: skip


def encoder(folder: Path, kind: str = "wav2vec2", norm: str = "layer") -> Path:
    """A small encoder of a family, as transformers saves it."""
    torch.manual_seed(0)
    changes = {} if kind == "data2vec-audio" else {"feat_extract_norm": norm}
    config = transformers.AutoConfig.for_model(kind, **SIZES, **changes)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_every_family_is_built_around_its_encoder(tmp_path: Path, kind: str) -> None:
    folder = encoder(tmp_path / "enc", kind)
    made = new_classifier(f"hf:{folder}", ("happy", "sad"), ("arousal",), seed=1)
    assert isinstance(made, OtherClassifier)
    base = getattr(made.model, made.model.base_model_prefix)
    expected = transformers.AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(v, expected[n]) for n, v in base.state_dict().items())
    parts = made.parts()
    assert len(parts.blocks) == 2 and len(parts.convolutions) == 1
    counted = {id(p) for modules in parts for m in modules for p in m.parameters()}
    left = [n for n, p in made.named_parameters() if id(p) not in counted]
    assert all("masked_spec_embed" in name for name in left), left
    names = {name.split(".")[-2] for name, _ in made.named_parameters()}
    assert set(made.lora_layers) <= names  # what LoRA adds to


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_saved_and_loaded_is_the_same(tmp_path: Path, norm: str) -> None:
    made = new_classifier(f"hf:{encoder(tmp_path / 'enc', norm=norm)}", ("a", "b"), ("arousal",))
    assert isinstance(made, OtherClassifier)
    made.eval()
    sound = [np.random.default_rng(i).normal(0, 0.1, n).astype(np.float32)
             for i, n in enumerate((16_000, 9_000, 30_000))]  # fmt: skip
    before = made.answer(sound)
    made.save(tmp_path / "saved")
    assert tuple(made.model.classifier.weight.shape) == (3, 16)  # saving changes nothing
    again = load_classifier(tmp_path / "saved")
    assert again.labels == ("a", "b") and again.dimensions == ("arousal",)
    for ours, theirs in zip(again.answer(sound), before, strict=True):
        assert relative_error(ours, theirs) <= 1e-5
    for i, clip in enumerate(sound):  # a batch is each alone
        for ours, theirs in zip(again.answer([clip]), before, strict=True):
            assert torch.allclose(ours[0], theirs[i], atol=1e-5)
    again.temper(2.0)
    assert torch.allclose(again.answer(sound).logits, before.logits / 2, atol=1e-5)
    assert torch.allclose(again.answer(sound).values, before.values, atol=1e-5)


def test_a_long_recording_is_the_mean_of_its_parts(tmp_path: Path, monkeypatch: Any) -> None:
    made = new_classifier(f"hf:{encoder(tmp_path / 'enc', norm='group')}", ("a", "b"))
    assert isinstance(made, OtherClassifier)
    made.eval()
    sound = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    monkeypatch.setattr("emotion2vec.other_classifiers.LONGEST_FRAMES", 50)
    found = made.answer([sound]).logits[0]
    ready, window, hop = made.prepare(sound), 10 + 7 * 5 + 7 * 40, 320
    total = (len(sound) - window) // hop + 1
    mean = torch.zeros(2)
    for part in np.array_split(np.arange(total), -(-total // 50)):
        end = len(ready) if part[-1] == total - 1 else part[-1] * hop + window
        piece = torch.from_numpy(ready[part[0] * hop : end])[None]
        mean += made.model(piece).logits[0].detach() * len(part) / total
    assert torch.allclose(found, mean, atol=1e-5)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_lora_reaches_every_family(tmp_path: Path, kind: str) -> None:
    folder = encoder(tmp_path / "enc", kind)
    config = replace(CONFIG, epochs=3, scope="lora", validation="none")
    result = finetune(f"hf:{folder}", clips(1, 2), tmp_path / "run", config)
    before = transformers.AutoModel.from_pretrained(folder).state_dict()
    made = load_classifier(result.model)
    assert isinstance(made, OtherClassifier)
    after = getattr(made.model, made.model.base_model_prefix).state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed and all(name.split(".")[-2] in made.lora_layers for name in changed)


@pytest.mark.parametrize("scope", ["full", "lora"])
def test_fine_tuned_through_the_same_command(tmp_path: Path, scope: str) -> None:
    folder = encoder(tmp_path / "enc")
    data = tmp_path / "data.jsonl"
    write_manifest(clips(1, 4), data)
    code = call(
        "finetune", "--model", f"hf:{folder}", "--data", data, "--out", tmp_path / "run",
        "--scope", scope, "--epochs", "1", "--set", "num_workers=0", "--set", "peak_lr=0.001",
        "--quiet",
    )  # fmt: skip
    assert code == 0
    final = tmp_path / "run" / "final"
    record = clips(1, 1)[0]
    answer = Recognizer.from_pretrained(final)(record.path)
    pipe = transformers.pipeline("audio-classification", model=str(final), top_k=None)
    theirs = {row["label"]: row["score"] for row in pipe(record.load())}
    assert theirs == pytest.approx(dict(answer.scores), abs=1e-5)
    assert set(theirs) == {"angry", "happy", "neutral", "sad"}
    assert (final / "README.md").is_file()


def test_values_beside_and_instead_of_classes(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "enc")
    records = [replace(r, labels={**r.labels, "arousal": str(i / 16)}) for i, r in
               enumerate(clips(1, 4))]  # fmt: skip
    config = replace(CONFIG, epochs=1, dimensions=("arousal",))
    both = finetune(f"hf:{folder}", records, tmp_path / "both", config)
    answer = Recognizer.from_pretrained(both.model)(records[0].path)
    assert answer.label in both.outputs.labels and list(answer.dimensions) == ["arousal"]
    pipe = transformers.pipeline("audio-classification", model=str(both.model), top_k=None)
    assert {row["label"] for row in pipe(records[0].load())} == set(both.outputs.labels)
    values = finetune(f"hf:{folder}", records, tmp_path / "values", replace(config, classes=False))
    only = Recognizer.from_pretrained(values.model)(records[0].path)
    pipe = transformers.pipeline("audio-classification", model=str(values.model))
    assert only.label is None and only.score is None
    row = pipe(records[0].load())[0]
    assert row["label"] == "arousal"
    assert row["score"] == pytest.approx(only.dimensions["arousal"], abs=1e-5)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classifiers can be of wav2vec2"):
        new_classifier("hf-random:whisper", ("a", "b"))
    with pytest.raises(ValueError, match="lacks .* weights of the architecture"):
        load_classifier(encoder(tmp_path / "enc"))  # an encoder has no head
