"""Tasks: classes, sentiment, turns before, values of clips and of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from emotion2vec.concordance import concordance, concordance_interval, concordance_scores
from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Fold, Folds, folds_by_speaker
from emotion2vec.probing.heads import HeadConfig
from emotion2vec.probing.probe import fit_fold, probe
from emotion2vec.probing.tasks import TASKS, inputs, label_set, trace, turns_before, usable


def said(dialogue: str, turn: int, emotion: str | None = None, speaker: str = "a") -> Record:
    labels = {"dialogue": dialogue, "turn": str(turn)} | ({"emotion": emotion} if emotion else {})
    return Record(f"{dialogue}-{turn}", "none.wav", speaker=speaker, labels=labels)


def test_turns_before_are_of_the_dialogue_and_in_order() -> None:
    records = [said("x", turn) for turn in (3, 0, 10, 2)] + [said("y", 1), Record("z", "z.wav")]
    before = turns_before(records, 2)
    assert [r.key for r in before["x-10"]] == ["x-2", "x-3"]  # by number, not as text
    assert before["x-0"] == [] and before["y-1"] == [] and "z" not in before


def test_conversation_asks_for_labelled_turns_with_turns_before() -> None:
    records = [said("x", 0, "sad"), said("x", 1), said("x", 2, "sad"), said("y", 0, "happy")]
    assert [r.key for r in usable(TASKS["conversation"], records)] == ["x-2"]
    frames = {r.key: np.full((3, 2), i, np.float32) for i, r in enumerate(records)}
    given = inputs(TASKS["conversation"], records, frames)
    assert given["x-2"].tolist() == [[0, 0], [1, 1]]  # never the turn itself
    del frames["x-0"]  # could not be read
    assert inputs(TASKS["conversation"], records, frames)["x-2"].tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="none of 1 recordings has a label 'emotion' and turns"):
        usable(TASKS["conversation"], [Record("a", "a.wav", labels={"emotion": "sad"})])


def test_an_emotion_that_the_turns_before_foretell_is_predicted() -> None:
    # The emotion of a turn is told by the vector of the turn before it, and by nothing else.
    random = np.random.default_rng(0)
    records, frames = [], {}
    for number in range(60):
        sign = 1.0
        for turn in range(6):
            record = said(
                f"d{number}", turn, "happy" if sign > 0 else "sad", speaker=f"s{number % 6}"
            )
            sign = float(random.choice([-1, 1]))
            values = random.normal(size=(4, 8)).astype(np.float32)
            values[:, 0] += 3 * sign
            records.append(record)
            frames[record.key] = values
    task = TASKS["conversation"]
    folds = folds_by_speaker(usable(task, records), 3)
    found = probe(
        folds,
        "x",
        inputs(task, records, frames),
        task=task,
        head=HeadConfig("gru", 16, epochs=10, batch_size=32),
    )
    assert found.mean()["ua"] > 0.9


def valued(count: int = 90) -> tuple[list[Record], dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    records, frames = [], {}
    for i in range(count):
        clip = random.normal(size=(random.integers(3, 9), 6)).astype(np.float32) + random.normal(
            size=6
        ).astype(np.float32)
        arousal, valence = 4 + 2 * clip.mean(axis=0)[:2]  # a scale of its own
        labels = {"arousal": f"{arousal:.3f}", "valence": f"{valence:.3f}"}
        records.append(Record(f"c{i}", "none.wav", speaker=f"s{i % 9}", labels=labels))
        frames[f"c{i}"] = clip
    return records, frames


@pytest.mark.parametrize("head", ["linear", "logistic"])
def test_values_are_predicted_in_the_scale_of_the_labels(head: str) -> None:
    records, frames = valued()
    folds = folds_by_speaker(records, 3)
    task = TASKS["dimensions"]
    assert label_set(folds, task) == ["arousal", "valence"]  # dominance nobody gave
    config = HeadConfig(head, epochs=20, batch_size=16)
    found = probe(folds, "x", frames, task=task, head=config, seeds=(0, 1))
    scores = found.mean()
    assert found.score_names == ["ccc", "ccc_arousal", "ccc_valence"] and scores["ccc"] > 0.8
    low, high = found.interval("ccc_arousal")
    assert low < scores["ccc_arousal"] < high
    assert found.fold_mean()["ccc"] == pytest.approx(scores["ccc"], abs=0.1)


def test_a_value_that_is_no_number_is_refused() -> None:
    records, frames = valued(20)
    records[3] = Record("c3", "n.wav", speaker="s3", labels={"arousal": "high", "valence": "1"})
    folds = folds_by_speaker(records, 3)
    with pytest.raises(ValueError, match="c3: arousal is 'high'; it must be a number"):
        for fold in folds.folds:
            fit_fold(
                fold, frames, ["arousal", "valence"], task=TASKS["dimensions"], head=HeadConfig()
            )


def test_values_of_frames_come_from_traces(tmp_path: Path) -> None:
    task, random = TASKS["frame-dimensions"], np.random.default_rng(0)
    records, frames = [], {}
    for i in range(18):
        seconds = 0.4 + 0.02 * i
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(int(16000 * seconds)), 16000)
        times = np.arange(0, seconds, 0.05)
        values = np.sin(3 * times + i)
        lines = [f"{t:.3f},{v:.4f},{-v:.4f},0" for t, v in zip(times, values, strict=True)]
        (tmp_path / f"{i}.csv").write_text(
            "seconds,arousal,valence,dominance\n" + "\n".join(lines) + "\n"
        )
        record = Record(
            f"c{i}", str(tmp_path / f"{i}.wav"), speaker=f"s{i % 6}",
            labels={"traces": str(tmp_path / f"{i}.csv")},
        )  # fmt: skip
        records.append(record)
        given = trace(record, task.labels, 20)
        middles = (np.arange(20) + 0.5) / 20 * seconds
        assert np.allclose(given[:-2, 0], np.sin(3 * middles + i)[:-2], atol=4e-3)
        clip = random.normal(size=(20, 5))
        clip[:, :2] += 3 * given[:, :2]
        frames[record.key] = clip.astype(np.float32)
    folds = folds_by_speaker(usable(task, records), 3)
    config = HeadConfig("frames", 16, epochs=20, batch_size=4)
    found = probe(folds, "x", frames, task=task, head=config)
    assert found.mean()["ccc_arousal"] > 0.8 and found.mean()["ccc_valence"] > 0.8
    low, high = found.interval("ccc_valence")
    assert low <= found.mean()["ccc_valence"] <= high
    (tmp_path / "0.csv").write_text("seconds,arousal\n0,1\n")
    bad = Record("b", "b.wav", labels={"traces": str(tmp_path / "0.csv")})
    with pytest.raises((ValueError, OSError), match=r"b\.wav|holds no traces"):
        trace(bad, ("arousal", "valence"), 3)


def test_concordance_is_its_formula() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 2))
    y = 0.7 * x + 0.3 + 0.5 * random.normal(size=(50, 2))
    for i, name in enumerate(("arousal", "valence")):
        r = np.corrcoef(x[:, i], y[:, i])[0, 1]
        sx, sy = x[:, i].std(), y[:, i].std()
        formula = 2 * r * sx * sy / (sx**2 + sy**2 + (x[:, i].mean() - y[:, i].mean()) ** 2)
        assert concordance(x[:, i], y[:, i]) == pytest.approx(formula)
        scores = concordance_scores(x, y, ("arousal", "valence"))
        assert scores[f"ccc_{name}"] == pytest.approx(formula)
    assert concordance([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert concordance([1, 2, 3], [5, 5, 5]) == 0
    with pytest.raises(ValueError, match="truth has values of shape"):
        concordance([1.0], [1.0, 2.0])


def test_intervals_of_concordance_agree_with_resampling_by_hand() -> None:
    random = np.random.default_rng(1)
    x = random.normal(size=(120, 1))
    y = x + random.normal(size=(120, 1))
    groups = (np.arange(120) // 10).tolist()
    drawn = []
    for _ in range(2000):
        chosen = random.integers(0, 12, 12)
        rows = np.concatenate([np.arange(10) + 10 * g for g in chosen])
        drawn.append(concordance(x[rows, 0], y[rows, 0]))
    low, high = concordance_interval(x, y, groups, ["arousal"], draws=4000)
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.02)


def test_sentiment_is_a_task_of_its_own() -> None:
    records = [
        Record(f"c{i}", "n.wav", speaker=f"s{i}", labels={"sentiment": label})
        for i, label in enumerate(["negative", "positive"] * 3)
    ]
    fold = Fold(tuple(records[:2]), tuple(records[2:4]), tuple(records[4:]))
    assert label_set(Folds((fold,), "by hand"), TASKS["sentiment"]) == ["negative", "positive"]
    with pytest.raises(ValueError, match="none of 6 recordings has a label 'emotion'"):
        usable(TASKS["emotion"], records)


def test_one_class_cannot_be_told_from_others() -> None:
    clips = [Record(f"c{i}", "n.wav", speaker=f"s{i}", labels={"emotion": "clips"}) for i in "abc"]
    fold = Fold((clips[0],), (clips[1],), (clips[2],))
    with pytest.raises(ValueError, match="every recording has the emotion 'clips'"):
        label_set(Folds((fold,), "by hand"))
