"""The parts of fine-tuning: targets, losses, batches, augmentation, scopes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY

from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig
from emotion2vec.classifiers import NativeClassifier
from emotion2vec.concordance import concordance
from emotion2vec.conditions import keyed_generator
from emotion2vec.finetuning.augment import augment
from emotion2vec.finetuning.batches import ClipSet, Collate, EpochBatches, mix
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.objective import Truth, class_loss, objective, value_loss
from emotion2vec.finetuning.targets import Outputs, class_weights, outputs_of, targets_of
from emotion2vec.manifest import Record
from emotion2vec.model import Answers

HAPPY = Record("a", "a.wav", labels={"emotion": "happy", "arousal": "0.5"})
SAD = Record("b", "b.wav", labels={"emotion": "sad"}, weight=2.0)
SOFT = Record("c", "c.wav", scores={"happy": 0.6, "sad": 0.2, "other": 0.2})
BOTH = Record("d", "d.wav", labels={"emotion": "sad"}, scores={"happy": 1.0})


def classifier(**changes: Any) -> NativeClassifier:
    torch.manual_seed(0)
    config = Emotion2vecConfig(**{**TINY, "labels": ("happy", "sad"), **changes})
    return NativeClassifier(Emotion2vecClassifier(config))


# Targets


def test_targets_are_hard_soft_or_both() -> None:
    outputs = outputs_of([HAPPY, SAD], FinetuneConfig(dimensions=("arousal",)))
    assert outputs == Outputs(("happy", "sad"), ("arousal",))
    kept, targets, left_out = targets_of([HAPPY, SAD, SOFT, BOTH], outputs, soft_share=0.25)
    assert kept == [HAPPY, SAD, SOFT, BOTH] and left_out == {}
    assert np.allclose(targets.classes, [[1, 0], [0, 1], [0.75, 0.25], [0.25, 0.75]])
    assert targets.weights.tolist() == [1, 2, 1, 1]
    assert targets.values[0] == 0.5 and np.isnan(targets.values[1:]).all()


def test_what_has_no_target_is_left_out_with_a_reason() -> None:
    odd = Record("e", "e.wav", labels={"emotion": "bored"})
    nothing = Record("f", "f.wav")
    broken = Record("g", "g.wav", labels={"emotion": "sad", "arousal": "high"})
    endless = Record("h", "h.wav", labels={"emotion": "sad", "arousal": "inf"})
    other = Record("i", "i.wav", scores={"bored": 0.7, "sad": 0.3})
    told = Record("j", "j.wav", labels={"emotion": "bored"}, scores={"sad": 0.9, "bored": 0.1})
    kept, _, left_out = targets_of(
        [odd, nothing, broken, endless, other, told, HAPPY],
        Outputs(("happy", "sad"), ("arousal",)),
    )
    assert kept == [HAPPY]
    assert left_out["i"] == "most of its scores is of classes other than happy, sad"
    assert left_out["j"] == "its emotion 'bored' is none of happy, sad"
    assert left_out["e"] == "its emotion 'bored' is none of happy, sad"
    assert left_out["f"] == "it has no emotion or arousal"
    assert left_out["g"] == "its arousal is 'high', no number; mend the list"
    assert left_out["h"] == "its arousal is inf; mend the list"


def test_a_classifier_needs_two_classes_that_are_there() -> None:
    with pytest.raises(ValueError, match="the data have 1 emotion"):
        outputs_of([HAPPY], FinetuneConfig())
    with pytest.raises(ValueError, match="emotions asks for 'calm', which no recording has"):
        outputs_of([HAPPY, SAD], FinetuneConfig(emotions=("happy", "calm")))
    with pytest.raises(ValueError, match="dimensions asks for 'arosal', which no recording has"):
        outputs_of([HAPPY, SAD], FinetuneConfig(dimensions=("arosal",)))
    assert outputs_of([SOFT], FinetuneConfig()).labels == ("happy", "other", "sad")
    assert outputs_of([HAPPY], FinetuneConfig(classes=False, dimensions=("arousal",))) == (
        Outputs((), ("arousal",))
    )


def test_balanced_weights_are_scikit_learn_s() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    names = np.array([0] * 6 + [1] * 3 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=names)
    mass = np.bincount(names).astype(np.float32)
    assert np.allclose(class_weights(mass, "balanced"), expected)
    assert class_weights(mass, "none").tolist() == [1, 1, 1]


# Losses


def truth_of(classes: torch.Tensor) -> Truth:
    return Truth(classes, torch.zeros(len(classes), 0), torch.ones(len(classes)))


def test_cross_entropy_is_torch_s() -> None:
    logits, names = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    soft = torch.rand(6, 4)
    soft /= soft.sum(dim=1, keepdim=True)
    truth, ones = truth_of(F.one_hot(names, 4).float()), torch.ones(4)
    for smoothing in (0.0, 0.2):
        expected = F.cross_entropy(logits, names, label_smoothing=smoothing)
        found = class_loss(logits, truth, ones, label_smoothing=smoothing)
        assert torch.allclose(found, expected, atol=1e-6)
    expected = F.cross_entropy(logits, soft)
    assert torch.allclose(class_loss(logits, truth_of(soft), ones), expected, atol=1e-6)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = F.cross_entropy(logits, names, weight=weights, reduction="sum") / 6
    assert torch.allclose(class_loss(logits, truth, weights), expected, atol=1e-6)


def test_focal_loss_is_the_formula_and_spares_what_is_right() -> None:
    logits, names = torch.tensor([[4.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 1])
    truth = truth_of(F.one_hot(names, 2).float())
    p = logits.softmax(dim=1)[torch.arange(2), names]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert torch.allclose(class_loss(logits, truth, torch.ones(2), focal_gamma=2.0), expected)


def test_clips_without_a_class_and_weights_of_clips() -> None:
    logits = torch.randn(3, 2)
    classes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    alone = class_loss(logits[[0, 2]], truth_of(classes[[0, 2]]), torch.ones(2))
    assert torch.allclose(class_loss(logits, truth_of(classes), torch.ones(2)), alone)
    weighed = Truth(classes, torch.zeros(3, 0), torch.tensor([2.0, 1.0, 0.0]))
    expected = F.cross_entropy(logits[:1], torch.tensor([0]))  # 2 * it / 2 clips
    assert torch.allclose(class_loss(logits, weighed, torch.ones(2)), expected)


def test_the_loss_of_values_is_one_less_ccc_of_what_is_known() -> None:
    values, truth = torch.randn(8, 2), torch.randn(8, 2)
    truth[5:, 1] = torch.nan
    expected = [concordance(truth[:n, i], values[:n, i]) for i, n in ((0, 8), (1, 5))]
    ones = torch.ones(8)
    assert value_loss(values, truth, ones).item() == pytest.approx(1 - np.mean(expected), abs=1e-6)
    few = torch.tensor([1.0] * 4 + [0.0] * 4)  # a clip of weight 0 does not count
    assert value_loss(values, truth, few) == pytest.approx(
        value_loss(values[:4], truth[:4], ones[:4])
    )
    twice = torch.cat([values, values[:3]]), torch.cat([truth, truth[:3]])
    weights = torch.tensor([2.0] * 3 + [1.0] * 5)
    assert value_loss(values, truth, weights) == pytest.approx(value_loss(*twice, torch.ones(11)))
    values.requires_grad_()
    nothing = value_loss(values, torch.full((8, 2), torch.nan), ones)
    nothing.backward()
    assert nothing.item() == 0 and values.grad is not None and not values.grad.any()


def test_both_losses_are_weighed() -> None:
    answers = Answers(torch.randn(4, 2), torch.randn(4, 1))
    truth = Truth(torch.eye(2)[[0, 1, 0, 1]], torch.randn(4, 1), torch.ones(4))
    parts = class_loss(answers.logits, truth, torch.ones(2)), value_loss(answers.values, *truth[1:])
    found = objective(answers, truth, torch.ones(2), dimension_weight=0.5)
    assert torch.allclose(found, parts[0] + 0.5 * parts[1])


# Batches


def test_every_clip_comes_once_an_epoch_in_another_order() -> None:
    lengths = np.random.default_rng(0).integers(100, 1000, 53).tolist()
    batches = EpochBatches(lengths, 8, seed=1)
    first = list(batches)
    assert len(first) == len(batches) == 6
    assert sorted(i for batch in first for _, i in batch) == list(range(53))
    assert all(len(batch) >= 8 for batch in first)
    batches.set_epoch(1)
    second = list(batches)
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [[i for _, i in b] for b in first] != [[i for _, i in b] for b in second]
    batches.set_epoch(0)
    assert list(batches) == first
    spans = [max(lengths[i] for _, i in b) - min(lengths[i] for _, i in b) for b in first]
    assert np.mean(spans) < (max(lengths) - min(lengths)) / 3  # of like length


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_clips_out(world: int) -> None:
    parts = [list(EpochBatches([5] * 40, 4, seed=1, rank=r, world=world)) for r in range(world)]
    assert len({len(part) for part in parts}) == 1
    seen = [i for part in parts for batch in part for _, i in batch]
    assert sorted(seen) == list(range(40))


def test_few_clips_still_make_batches() -> None:
    assert [len(b) for b in EpochBatches([1, 2, 3], 16, seed=0)] == [3]
    parts = [list(EpochBatches([1], 4, seed=0, rank=r, world=2)) for r in range(2)]
    assert [[len(b) for b in part] for part in parts] == [[1], [1]]


def clip_set(tmp_path: Path, config: FinetuneConfig) -> ClipSet:
    import soundfile

    records = []
    for number, seconds in enumerate((0.5, 1.0, 2.0)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(
            path, np.random.default_rng(number).normal(0, 0.1, int(16000 * seconds)), 16000
        )
        labels = {"emotion": ("happy", "sad")[number % 2]}
        records.append(Record(str(number), str(path), duration=seconds, labels=labels))
    records.append(Record("lost", str(tmp_path / "lost.wav"), duration=1.0, labels=labels))
    _, targets, _ = targets_of(records, outputs_of(records, config))
    labels_ = outputs_of(records, config).labels
    return ClipSet(records, targets, labels_, classifier(), config)


def test_items_follow_from_seed_epoch_and_clip(tmp_path: Path) -> None:
    config = FinetuneConfig(speeds=(0.9, 1.1), noise_share=1.0, unknown_share=0.4)
    clips = clip_set(tmp_path, config)
    assert len(clips) == 4 + 3 and len(clips.num_samples()) == 7
    for index in range(7):
        one, again, later = clips[(0, index)], clips[(0, index)], clips[(1, index)]
        assert np.array_equal(one.waveform, again.waveform)
        assert index == 3 or not np.array_equal(one.waveform, later.waveform)
    assert clips[(0, 5)].classes.tolist() == [0, 0, 1]  # made sound is of the class "unknown"
    lost = clips[(0, 3)]
    assert lost.weight == 0 and not lost.classes.any() and "lost.wav" in lost.error


def test_batches_are_padded_and_tell_errors(tmp_path: Path) -> None:
    config = FinetuneConfig()
    clips = clip_set(tmp_path, config)
    made = Collate([r.key for r in clips.records], config)([clips[(0, i)] for i in range(4)])
    assert made["waveform"].shape == made["keep"].shape == (4, 32_000)
    assert made["keep"].sum(dim=1).tolist()[:3] == [8000, 16_000, 32_000]
    assert set(made["errors"]) == {"lost"}


def test_mixing_keeps_variance_and_adds_up() -> None:
    waveform = torch.randn(6, 16_000)
    keep = torch.ones(6, 16_000, dtype=torch.bool)
    waveform[0, 8000:], keep[0, 8000:] = 0, False
    truth = truth_of(torch.eye(3)[[0, 1, 2, 0, 1, 2]])
    mixed = [mix(waveform, keep, truth, 0.5, keyed_generator(seed)) for seed in range(40)]
    left = sum(torch.equal(m[0], waveform) for m in mixed)
    assert 8 < left < 32  # half of the batches
    for heard, both, target in mixed:
        assert torch.allclose(target.classes.sum(dim=1), torch.ones(6))
        power = heard.square().sum(dim=1) / both.sum(dim=1)
        assert torch.allclose(power, torch.ones(6), atol=0.05)
        assert bool((both | ~keep).all())


# Augmentation


def test_augmentation_is_off_by_default_and_keyed() -> None:
    clip = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    assert np.array_equal(augment(clip, FinetuneConfig(), keyed_generator(1)), clip)
    config = FinetuneConfig(
        speeds=(0.9, 1.1), noise_share=0.5, equalize_db=3, band_stop=0.3, hide_share=0.2,
        max_clip_seconds=1.0,
    )  # fmt: skip
    for seed in range(20):
        heard = augment(clip, config, keyed_generator(seed))
        assert len(heard) == 16_000 and np.isfinite(heard).all() and heard.dtype == np.float32
        assert np.array_equal(heard, augment(clip, config, keyed_generator(seed)))


def test_a_band_is_taken_out() -> None:
    clip = np.random.default_rng(0).normal(0, 0.1, 1 << 15).astype(np.float32)
    heard = augment(clip, FinetuneConfig(band_stop=0.5), keyed_generator(3))
    power = np.abs(np.fft.rfft(heard)) ** 2
    silent = power < 1e-6 * np.median(power)
    assert 0.01 < silent.mean() < 0.9


def test_hidden_stretches_are_silent() -> None:
    clip = np.ones(160_000, np.float32)
    share = [
        (augment(clip, FinetuneConfig(hide_share=0.2), keyed_generator(s)) == 0).mean()
        for s in range(9)
    ]
    assert 0.1 < np.mean(share) < 0.25
