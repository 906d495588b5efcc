"""The quick probe: what it measures, and that a run does not notice it."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, call, write_tone
from sklearn.linear_model import RidgeClassifier
from test_pretraining_loop import CONFIG, assert_same, run, weights

from emotion2vec import Emotion2vecConfig
from emotion2vec.backbones import random_encoder
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import Record, write_manifest
from emotion2vec.pretraining.config import write_config
from emotion2vec.probing.quick import QuickProbe, choose, classify

PITCHES = {"calm": 150, "angry": 900}


@pytest.fixture
def labelled(tmp_path: Path) -> list[Record]:
    """Two emotions told apart by pitch, 4 speakers, 3 clips of each."""
    return [
        Record(
            f"{speaker}{emotion}{i}",
            str(write_tone(tmp_path / f"{speaker}{emotion}{i}.wav", 0.3, pitch=pitch + 9 * i)),
            speaker=speaker,
            labels={"emotion": emotion},
        )
        for speaker in "abcd"
        for emotion, pitch in PITCHES.items()
        for i in range(3)
    ]


def test_the_classifier_is_ridge_regression_on_balanced_classes() -> None:
    generator = np.random.default_rng(0)
    classes = generator.choice(3, 90, p=[0.6, 0.3, 0.1])
    train = generator.normal(size=(90, 20)) * np.linspace(0.1, 3, 20)
    train[:, :3] += 0.6 * np.eye(3)[classes]
    test = generator.normal(size=(200, 20))
    mean = np.mean([train[classes == c].mean(axis=0) for c in range(3)], axis=0)
    # One scale for all channels, and every class weighs the same.
    scale = np.mean([((train[classes == c] - mean) ** 2).mean() for c in range(3)]) ** 0.5
    expected = RidgeClassifier(alpha=90, class_weight="balanced").fit(train / scale, classes)
    found = classify(torch.from_numpy(train), torch.from_numpy(classes), torch.from_numpy(test))
    assert len(set(found.tolist())) == 3
    assert found.tolist() == expected.predict(test / scale).tolist()


def test_what_is_told_by_a_channel_that_hardly_varies_does_not_count() -> None:
    # So a collapse of rank shows: the line carries no emotion, and the rest is next to nothing.
    classes = torch.arange(200) % 2
    line = torch.randn(200, 1).double() * torch.ones(48)
    line[:, 0] += 0.01 * (2 * classes - 1)
    healthy = torch.randn(200, 48).double()
    healthy[:, 0] += 2 * (2 * classes - 1)
    right = [
        float((classify(x[:100], classes[:100], x[100:]) == classes[100:]).double().mean())
        for x in (line, healthy)
    ]
    assert right[0] < 0.65 and right[1] > 0.9


def test_clips_are_drawn_evenly_and_always_the_same(labelled: list[Record]) -> None:
    many = [*labelled, *(replace(r, key=f"more{r.key}") for r in labelled if r.emotion == "calm")]
    drawn = choose(many, 16)
    assert drawn == choose(many, 16)
    assert set(Counter((r.emotion, r.speaker) for r in drawn).values()) == {2}


def test_it_hears_pitch_and_leaves_the_encoder_as_it_was(labelled: list[Record]) -> None:
    encoder = random_encoder(Emotion2vecConfig(**TINY)).train()
    encoder.context.eval()  # of all modules, each stays in its mode
    modes = [module.training for module in encoder.modules()]
    state = torch.get_rng_state()
    probe = QuickProbe(labelled)
    found = probe(encoder)
    assert found["chance"] == 50 and found["ua"] > 90 and 1 < found["clip_rank"] < 24
    assert found == probe(encoder)
    assert [module.training for module in encoder.modules()] == modes
    assert torch.get_rng_state().equal(state)


def test_labels_and_speakers_are_asked_for_at_once(labelled: list[Record]) -> None:
    for wrong, message in (
        ([*labelled, Record("x", "x.wav", speaker="a")], "no label 'emotion'"),
        ([*labelled, replace(labelled[0], key="x", speaker=None)], "1 recordings have no speaker"),
        ([r for r in labelled if r.speaker in "ab"], "2 folds of 2 speakers cannot be made"),
        ([r for r in labelled if r.emotion == "calm"], "every recording has the emotion 'calm'"),
    ):
        with pytest.raises(ValueError, match=message):
            QuickProbe(wrong)


def test_a_run_does_not_notice_the_probe(
    labelled: list[Record], tones: Path, tmp_path: Path
) -> None:
    run(CONFIG, tones, tmp_path / "without")
    run(CONFIG, tones, tmp_path / "with", probe=QuickProbe(labelled), probe_every=3)
    assert_same(weights(tmp_path / "without"), weights(tmp_path / "with"))
    lines = read_jsonl(tmp_path / "with" / "probe.jsonl")
    assert [line["update"] for line in lines] == [0, 3, 6, 8]
    assert {"ua", "chance", "clip_rank", "seconds"} < lines[0].keys()
    # Resumed from its checkpoint at 8, with more probes: what there was stays.
    run(CONFIG, tones, tmp_path / "with", probe=QuickProbe(labelled), resume=True)
    assert read_jsonl(tmp_path / "with" / "probe.jsonl") == lines


def test_a_probe_that_fails(
    labelled: list[Record], tones: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = iter([{"ua": 50.0}, RuntimeError("out of memory"), {"ua": 60.0}])

    def probe(_: object) -> dict[str, float]:
        found = next(calls)
        if isinstance(found, Exception):
            raise found
        return found

    run(CONFIG, tones, tmp_path / "run", probe=probe, probe_every=4)
    lines = read_jsonl(tmp_path / "run" / "probe.jsonl")
    assert [line["ua"] for line in lines] == [50.0, 60.0]
    assert "the probe failed after update 4: out of memory" in caplog.text
    # Before the first update it is an error: nobody wants to hear of it after the run.
    for record in labelled:
        Path(record.path).write_bytes(b"")
    with pytest.raises(ValueError, match="each part needs some"):
        run(CONFIG, tones, tmp_path / "other", probe=QuickProbe(labelled))
    assert not (tmp_path / "other" / "last.safetensors").exists()


def test_recordings_that_cannot_be_read_are_left_out(
    labelled: list[Record], caplog: pytest.LogCaptureFixture
) -> None:
    Path(labelled[0].path).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        found = QuickProbe(labelled)(random_encoder(Emotion2vecConfig(**TINY)))
    assert found["ua"] > 90 and "left out of the quick probe" in caplog.text


def test_the_command(
    labelled: list[Record], tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(replace(CONFIG, max_updates=2), tmp_path / "c.toml")
    write_manifest(labelled, tmp_path / "labelled.jsonl")
    words = ["pretrain", tmp_path / "c.toml", "--data", tones, "--quiet", "--probe"]
    words += [tmp_path / "labelled.jsonl", "--out"]
    assert call(*words, tmp_path / "run", "--probe-every", "1") == 0
    assert len(read_jsonl(tmp_path / "run" / "probe.jsonl")) == 3
    assert call(*words, tmp_path / "other", "--probe-every", "0") == 1
    assert "--probe-every is 0" in capsys.readouterr().err
