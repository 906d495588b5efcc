"""The probe, folds, baselines and reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Golden, load_golden, relative_error

from emotion2vec.manifest import Record
from emotion2vec.metrics import bootstrap_interval, classification_scores, confusion_matrix
from emotion2vec.probing.baselines import constant_baseline, statistics_baseline
from emotion2vec.probing.folds import (
    Fold,
    Folds,
    folds_by_speaker,
    folds_from_file,
    shared_speakers,
)
from emotion2vec.probing.heads import HeadConfig, LinearProbe
from emotion2vec.probing.probe import probe, without
from emotion2vec.probing.report import as_dict, table
from emotion2vec.probing.tasks import label_set
from emotion2vec.probing.training import ClipSet, HeadTrainer, fit_heads, predict


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden("downstream/probe")


def load_probe(golden: Golden, prefix: str) -> LinearProbe:
    head = LinearProbe(48, 4)
    names = {"pre_net": "hidden", "post_net": "output"}
    state = {}
    for name, value in golden.under(f"{prefix}/").items():
        layer, parameter = name.split(".")
        state[f"{names[layer]}.{parameter}"] = value.unsqueeze(0)  # of one run
    head.load_state_dict(state)
    return head


def test_the_probe_answers_as_the_official_one(golden: Golden) -> None:
    keep = ~golden.tensors["padding_mask"]
    frames = golden.tensors["feats"][keep]  # clips one after the other
    with torch.no_grad():
        logits = load_probe(golden, "state")(frames, keep.sum(dim=1))[:, 0]
    assert relative_error(logits, golden.tensors["logits"]) <= 1e-6


def test_three_epochs_train_the_probe_as_the_official_script(golden: Golden) -> None:
    head = load_probe(golden, "state")
    lengths, classes = golden.tensors["train_lengths"], golden.tensors["train_labels"]
    clips = [each.numpy() for each in golden.tensors["train_feats"].split(lengths.tolist())]
    train = ClipSet(clips, classes)
    trainer = HeadTrainer(head, HeadConfig(batch_size=16))
    for expected in golden.facts["training_3_epochs"]["log"]:
        group = trainer.optimizer.param_groups[0]
        assert group["lr"] == pytest.approx(expected["lr"])
        assert group["momentum"] == pytest.approx(expected["momentum"])
        assert trainer.epoch(train) == [pytest.approx(expected["mean_batch_loss"], rel=1e-4)]
        answers = predict(head, clips)[:, 0].argmax(dim=1)
        scores = classification_scores(classes.tolist(), answers.tolist())
        assert 100 * scores.wa == pytest.approx(expected["train_WA"])
        assert 100 * scores.ua == pytest.approx(expected["train_UA"])
        assert 100 * scores.wf1 == pytest.approx(expected["train_WF1"])
    after = load_probe(golden, "state_after_3_epochs")
    for ours, theirs in zip(head.parameters(), after.parameters(), strict=True):
        assert relative_error(ours.detach(), theirs.detach()) <= 1e-4


def test_rate_and_momentum_cycle_as_in_the_official_script() -> None:
    trainer = HeadTrainer(LinearProbe(4, 2), HeadConfig())
    epochs = json.loads(
        (Path(__file__).parent / "parity" / "schedules" / "schedules.json").read_text()
    )["downstream_cycliclr"]["epochs"]
    clip = ClipSet([np.ones((3, 4), np.float32)], torch.tensor([0]))
    for rate, momentum in epochs:
        group = trainer.optimizer.param_groups[0]
        assert (group["lr"], group["momentum"]) == pytest.approx((rate, momentum))
        trainer.epoch(clip)


@pytest.mark.parametrize(
    "case", ["random60", "class3_never_predicted", "all_one_class", "perfect", "tiny"]
)
def test_scores_are_the_official_scripts_and_sklearns(golden: Golden, case: str) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    facts = golden.facts["metrics"][case]
    truth, prediction = facts["labels"], facts["predictions"]
    scores = classification_scores(truth, prediction)
    assert 100 * scores.wa == pytest.approx(facts["WA"])
    assert 100 * scores.ua == pytest.approx(facts["UA"])
    assert 100 * scores.wf1 == pytest.approx(facts["WF1"])
    assert scores.wa == pytest.approx(accuracy_score(truth, prediction))
    assert scores.ua == pytest.approx(balanced_accuracy_score(truth, prediction))
    macro = f1_score(truth, prediction, average="macro", labels=sorted(set(truth)))
    assert scores.macro_f1 == pytest.approx(macro)


def test_a_class_that_the_truth_lacks_counts_in_no_mean(golden: Golden) -> None:
    facts = golden.facts["metrics"]["class_absent_in_labels"]
    assert facts["result"] == "ZeroDivisionError"  # of the official script
    scores = classification_scores(facts["labels"], facts["predictions"])
    assert scores.ua == pytest.approx((0.5 + 1 + 0.5) / 3)


def test_scores_refuse_lists_of_different_length() -> None:
    with pytest.raises(ValueError, match="truth has 2 labels and prediction 1"):
        classification_scores(["a", "b"], ["a"])


def test_confusion_counts_as_sklearn() -> None:
    from sklearn.metrics import confusion_matrix as theirs

    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 4, (2, 100)).tolist()
    assert confusion_matrix(truth, prediction, range(4)).tolist() == (
        theirs(truth, prediction).tolist()
    )


def test_intervals_widen_when_clips_share_speakers() -> None:
    # 10 speakers, each all right or all wrong: as little evidence as 10 clips.
    truth = ["a"] * 1000
    prediction = [("a" if i // 100 < 7 else "b") for i in range(1000)]
    low, high = bootstrap_interval(truth, prediction, [i // 100 for i in range(1000)])
    narrow_low, narrow_high = bootstrap_interval(truth, prediction, range(1000))
    assert low < 0.5 and high > 0.85
    assert narrow_low > 0.66 and narrow_high < 0.74


# A corpus whose answer is known: the emotion is the sign of the first channel.

EMOTIONS = ("happy", "sad")


def make_corpus(num_speakers: int = 6, clips: int = 12) -> list[Record]:
    return [
        Record(
            f"s{speaker}-{i:02d}", "none.wav", speaker=f"s{speaker}",
            labels={"emotion": EMOTIONS[i % 2]},
        )
        for speaker in range(num_speakers)
        for i in range(clips)
    ]  # fmt: skip


def make_frames(
    records: Sequence[Record], *, informative: bool = True
) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    random = np.random.default_rng(0)
    frames = {}
    for record in records:
        values = random.normal(size=(random.integers(3, 9), 8)).astype(np.float32)
        if informative:
            values[:, 0] += 2.0 if record.emotion == "happy" else -2.0
        frames[record.key] = values
    return frames


def test_the_probe_finds_what_is_there_and_nothing_else() -> None:
    records = make_corpus()
    folds = folds_by_speaker(records, 3)
    head = HeadConfig(epochs=10, batch_size=16)
    found = probe(folds, "good", make_frames(records), head=head, seeds=(0, 1))
    noise = probe(folds, "noise", make_frames(records, informative=False), head=head)
    assert found.mean()["ua"] > 0.95
    assert 0.3 < noise.mean()["ua"] < 0.7
    assert found.seeds == [0, 1] and len(found.runs) == 6
    statistics = statistics_baseline(folds, make_frames(records), "statistics")
    assert statistics.mean()["ua"] > 0.95
    constant = constant_baseline(folds)
    assert constant.mean()["ua"] == 0.5
    assert set(constant.runs[0].prediction) == {"happy"}  # the first of equals by name


def test_probing_twice_gives_the_same() -> None:
    records = make_corpus()
    folds = folds_by_speaker(records, 2)
    frames = make_frames(records, informative=False)
    head = HeadConfig(epochs=3)
    assert probe(folds, "a", frames, head=head) == probe(folds, "a", frames, head=head)
    assert probe(folds, "a", frames, head=head) != probe(folds, "a", frames, head=head, seeds=(5,))


def test_the_epoch_is_chosen_by_the_validation_part_first_of_equals() -> None:
    records = make_corpus(2)
    frames = make_frames(records)
    train = ClipSet(
        [frames[r.key] for r in records],
        torch.tensor([EMOTIONS.index(str(r.emotion)) for r in records]),
    )
    (fitted,) = fit_heads(train, train, 2, config=HeadConfig(epochs=30))
    assert fitted.scores == [1.0] and fitted.epochs[0] < 30
    (shorter,) = fit_heads(train, train, 2, config=HeadConfig(epochs=fitted.epochs[0]))
    for ours, theirs in zip(fitted.head.parameters(), shorter.head.parameters(), strict=True):
        assert ours.equal(theirs)


def test_folds_by_speaker_share_none() -> None:
    records = make_corpus(7)
    made = folds_by_speaker(records, 3, seed=4)
    tested = [r.key for fold in made.folds for r in fold.test]
    assert sorted(tested) == sorted(r.key for r in records)
    for fold in made.folds:
        sides = [{r.speaker for r in part} for part in fold]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert shared_speakers(fold) == 0
    assert made == folds_by_speaker(records, 3, seed=4)
    assert made.folds != folds_by_speaker(records, 3, seed=5).folds
    assert "seed 4" in made.protocol


def test_shared_speakers_are_counted_and_printed() -> None:
    records = make_corpus(3)
    fold = Fold(tuple(records[:12]), tuple(records[12:24]), tuple(records[20:]))
    assert shared_speakers(fold) == 1
    text = table([constant_baseline(Folds((fold,), "by hand"))], Folds((fold,), "by hand"))
    assert "Not speaker-independent: 1" in text


def write_folds(path: Path, parts: object) -> Path:
    path.write_text(json.dumps({"official": {"folds": parts}}))
    return path


def test_folds_from_a_file(tmp_path: Path) -> None:
    records = make_corpus(6)
    keys = [r.key for r in records]
    path = write_folds(tmp_path / "f.json", [{"train": keys[:60], "test": keys[60:]}])
    made = folds_from_file(path, records)
    (fold,) = made.folds
    assert [r.key for r in fold.test] == keys[60:]
    assert len({r.speaker for r in fold.valid}) == 1
    assert not {r.speaker for r in fold.valid} & {r.speaker for r in fold.train}
    assert "f.json" in made.protocol and "seed 0" in made.protocol
    parts = [{"train": keys[:40], "valid": keys[40:60], "test": keys[60:]}]
    made = folds_from_file(write_folds(path, parts), records)
    assert [r.key for r in made.folds[0].valid] == keys[40:60]
    assert "seed" not in made.protocol


def test_folds_from_a_file_that_does_not_fit(tmp_path: Path) -> None:
    records = make_corpus(3)
    with pytest.raises(FileNotFoundError, match="not a file"):
        folds_from_file(tmp_path / "none.json", records)
    path = tmp_path / "f.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match="is no file of folds"):
        folds_from_file(path, records)
    for parts in ([], [["s0-00"]], [{"train": ["s0-00"]}], [{"train": 3, "test": ["s1-00"]}],
                  [{"train": ["s0-00"], "dev": ["s2-00"], "test": ["s1-00"]}]):  # fmt: skip
        write_folds(path, parts)
        with pytest.raises(ValueError, match="is no file of folds"):
            folds_from_file(path, records)
    write_folds(path, [{"train": ["s0-00", "s1-00"], "test": ["s1-00"]}])
    with pytest.raises(ValueError, match="has a key in two parts"):
        folds_from_file(path, records)
    write_folds(path, [{"train": ["s0-00", "x", "y"], "test": ["s1-00"]}])
    with pytest.raises(ValueError, match="names 2 recordings that are not given, such as 'x'"):
        folds_from_file(path, records)
    with pytest.raises(ValueError, match="has no folds 'emobox'; it has official"):
        folds_from_file(path, records, name="emobox")


@pytest.mark.parametrize(
    "records, message",
    [
        ([Record("a", "a.wav", labels={"emotion": "x"})], "1 recordings have no speaker"),
        (make_corpus(2), "3 folds of 2 speakers cannot be made"),
    ],
)
def test_speakers_that_make_no_folds(records: list[Record], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        folds_by_speaker(records, 3)


def test_labels_that_are_missing_or_unknown_are_refused() -> None:
    records = make_corpus(3)
    bare = Record("bare", "a.wav", speaker="s9")
    strange = Record("strange", "a.wav", speaker="s9", labels={"emotion": "hapy"})
    for record, message in (
        (bare, "1 recordings have no label 'emotion', such as 'bare'"),
        (
            strange,
            "fold 1 tests the label 'hapy', which its training part lacks .it has happy, sad",
        ),
    ):
        fold = Fold(tuple(records[:12]), tuple(records[12:]), (record,))
        with pytest.raises(ValueError, match=message):
            label_set(Folds((fold,), "by hand"))


def test_the_report_holds_every_number() -> None:
    records = make_corpus()
    folds = folds_by_speaker(records, 3)
    head = HeadConfig(epochs=2)
    results = [probe(folds, "ours", make_frames(records), head=head), constant_baseline(folds)]
    text = table(results, folds)
    assert "3 folds by speaker" in text and "50.0" in text
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["ours", "constant"]
    values = json.loads(json.dumps(as_dict(results, folds)))
    first = values["results"][0]
    assert first["pooled"]["wa"] == pytest.approx(results[0].mean()["wa"])
    assert len(first["runs"]) == 3
    assert set(first["runs"][0]["predictions"]) == {r.key for r in folds.folds[0].test}


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
def test_a_head_that_would_not_be_trained_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
        HeadConfig(**{name: 0})


def test_intervals_agree_with_resampling_by_hand() -> None:
    random = np.random.default_rng(1)
    truth, prediction, groups = random.integers(0, 3, (3, 120)).tolist()
    low, high = bootstrap_interval(truth, prediction, groups, score="ua", draws=4000)
    scores = []
    for _ in range(1500):
        drawn = [i for g in random.integers(0, 3, 3) for i in range(120) if groups[i] == g]
        sample = classification_scores([truth[i] for i in drawn], [prediction[i] for i in drawn])
        scores.append(sample.ua)
    assert (low, high) == pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=0.01)


def test_recordings_can_be_left_out() -> None:
    records = make_corpus(3)
    folds = without(folds_by_speaker(records, 3), {"s0-00"})
    assert all(r.key != "s0-00" for fold in folds.folds for part in fold for r in part)
    assert sum(len(fold.test) for fold in folds.folds) == len(records) - 1
