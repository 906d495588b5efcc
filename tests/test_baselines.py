"""Answers that need no representation: what they score, and what they must not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tone

from emotion2vec.manifest import Record
from emotion2vec.probing.baselines import (
    constant_baseline,
    speaker_baseline,
    statistics_baseline,
)
from emotion2vec.probing.folds import Fold, Folds
from emotion2vec.probing.protocols import split, starred
from emotion2vec.probing.tasks import TASKS

MOODS = ("angry", "happy", "sad")


def one_mood_each(clips: int = 12) -> list[Record]:
    """Six speakers, each of whom has one mood but for one clip: as in URDU."""
    return [
        Record(
            f"s{s}-{i}",
            "none.wav",
            speaker=f"s{s}",
            labels={
                "emotion": MOODS[(s + (i == 0)) % 3],
                "arousal": str(s % 3 + 0.01 * i),
                "valence": "1.5",
            },
        )
        for s in range(6)
        for i in range(clips)
    ]


def test_knowing_the_speaker_tells_the_mood_where_speakers_are_shared() -> None:
    records = one_mood_each()
    shared, apart = split("random", records), split("speaker-out", records)
    assert speaker_baseline(shared).mean()["wa"] == pytest.approx(11 / 12)
    assert constant_baseline(shared).mean()["wa"] < 0.5
    # Nobody who is tested was heard before: it falls back to the constant answer.
    constant, of_speaker = constant_baseline(apart), speaker_baseline(apart)
    assert [r.prediction for r in of_speaker.runs] == [r.prediction for r in constant.runs]


def test_nobody_in_particular_has_the_constant_answer() -> None:
    records = [replace(record, speaker=None) for record in one_mood_each()]
    folds = split("random", records)
    runs = zip(speaker_baseline(folds).runs, constant_baseline(folds).runs, strict=True)
    assert all(one.prediction == other.prediction for one, other in runs)


@pytest.mark.parametrize("baseline", [constant_baseline, speaker_baseline])
def test_values_are_answered_with_their_mean(baseline: object) -> None:
    records = one_mood_each()
    folds = split("random", records)
    found = baseline(folds, task=TASKS["dimensions"])  # type: ignore[operator]
    assert found.dimensions == ("arousal", "valence")
    seen = [float(r.labels["arousal"]) for r in folds.folds[0].seen]
    if baseline is constant_baseline:
        assert found.runs[0].prediction[0] == pytest.approx((np.mean(seen), 1.5))
        assert abs(found.mean()["ccc_arousal"]) < 0.1
    else:
        assert found.mean()["ccc_arousal"] > 0.95
    assert found.mean()["ccc_valence"] == 1.0  # never varies, and is answered so


def test_values_of_frames_are_answered_for_every_frame(tmp_path: Path) -> None:
    records = []
    for i in range(6):
        traces = tmp_path / f"{i}.csv"
        traces.write_text(f"seconds,arousal,valence,dominance\n0,{i},0,1\n1,{i},0,1\n")
        audio = write_tone(tmp_path / f"{i}.wav", 0.5)
        labels = {"traces": str(traces)}
        records.append(Record(str(i), str(audio), speaker=f"s{i}", labels=labels))
    folds = Folds((Fold(tuple(records[:3]), tuple(records[3:4]), tuple(records[4:])),), "by hand")
    (run,) = constant_baseline(folds, task=TASKS["frame-dimensions"]).runs
    assert len(run.prediction[0]) == len(run.truth[0]) == 25
    assert run.prediction[0][0] == pytest.approx((1.5, 0, 1))


def test_no_baseline_learns_from_the_test_part_where_it_selects() -> None:
    records = one_mood_each()
    train, test = tuple(records[:36]), tuple(records[36:])
    told = tuple(replace(r, labels={"emotion": "sad"}) for r in test)
    fold = Fold(train[:24] + train[25:], (train[24],), told)
    folds = starred(Folds((fold,), "by hand"))
    assert folds.folds[0].valid == folds.folds[0].test
    assert set(constant_baseline(folds).runs[0].prediction) != {"sad"}
    # They sound angry: only who has seen their labels calls them sad.
    sound = {"angry": 0.0, "happy": 1.0, "sad": 2.0}
    frames = {r.key: np.full((2, 1), sound[str(r.emotion)], np.float32) for r in train}
    frames |= {r.key: np.zeros((2, 1), np.float32) for r in told}
    assert statistics_baseline(folds, frames, "x").mean()["wa"] == 0
