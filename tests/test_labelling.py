"""Labels by a teacher: which are kept, and the command that writes them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, call

from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig, Recognizer
from emotion2vec.classifiers import NativeClassifier
from emotion2vec.jsonl import read_jsonl
from emotion2vec.labelling import VIEWS, Opinion, Rules, judge, labelled, opinions
from emotion2vec.manifest import Record, find_recordings, read_manifest

CLIPS = ROOT / "data" / "moods" / "clips"


@pytest.fixture
def teacher() -> Recognizer:
    """Whose labels stand in two languages, as those of published models."""
    torch.manual_seed(0)
    config = Emotion2vecConfig(**{**TINY, "labels": ("开心/happy", "难过/sad", "unuse_0")})
    return Recognizer(Emotion2vecClassifier(config), device="cpu")


def opinion(key: str, label: str, score: float, agreement: float = 1.0) -> Opinion:
    scores = {label: score, "rest": 1 - score}
    return Opinion(Record(key, f"{key}.wav"), label, scores, agreement)


def test_what_is_kept() -> None:
    found = [
        opinion("sure", "sad", 0.9),
        opinion("unsure", "sad", 0.5),
        opinion("torn", "sad", 0.9, 0.8),
        opinion("noise", "unknown", 0.9),
        Opinion(Record("lost", "lost.wav"), error="gone"),
    ]
    assert judge(found, Rules()) == {
        "sure": "kept",
        "unsure": "unsure",
        "torn": "inconsistent",
        "noise": "dropped",
        "lost": "unreadable",
    }
    easy = Rules(min_score=0.5, min_agreement=0.8, drop=())
    assert Counter(judge(found, easy).values()) == {"kept": 4, "unreadable": 1}


def test_the_surest_of_a_frequent_class_are_kept() -> None:
    scores = np.linspace(0.7, 0.99, 10)
    found = [opinion(f"sad{i}", "sad", float(score)) for i, score in enumerate(scores)]
    found += [opinion("happy0", "happy", 0.8), opinion("happy1", "happy", 0.8)]
    verdicts = judge(found, Rules(max_ratio=2))
    kept = {key for key, verdict in verdicts.items() if verdict == "kept"}
    assert kept == {"sad6", "sad7", "sad8", "sad9", "happy0", "happy1"}
    assert set(judge(found, Rules(max_ratio=0)).values()) == {"kept"}


def test_labels_are_soft_targets_unless_hard() -> None:
    made = Opinion(Record("a", "a.wav", speaker="s"), "sad", {"sad": 0.6, "unknown": 0.4}, 1.0)
    soft = labelled(made, Rules(weigh=True))
    assert (soft.emotion, soft.scores, soft.weight, soft.speaker) == ("sad", {"sad": 1.0}, 0.6, "s")
    assert labelled(made, Rules(soft=False)).scores == {}


def test_views_leave_a_clip_a_clip() -> None:
    for seconds in (0.03, 0.5, 2.0):
        clip = np.random.default_rng(0).normal(0, 0.1, int(16_000 * seconds)).astype(np.float32)
        for name, view in VIEWS.items():
            heard = view(clip)
            assert heard.dtype == np.float32 and np.isfinite(heard).all(), name
            assert 400 <= len(heard) <= 1.06 * len(clip), name
            assert np.array_equal(heard, view(clip)), name


def test_opinions_are_means_over_views(teacher: Recognizer) -> None:
    records = find_recordings(sorted(CLIPS.glob("f1-sad-0[1-4].ogg")))
    lost = Record("lost", "lost.wav")
    found = {o.record.key: o for o in opinions(teacher, [*records, lost], batch_seconds=5)}
    assert "not a file" in found["lost"].error and found["lost"].score == 0
    for record in records:
        views = [VIEWS[name](record.load()) for name in VIEWS]
        each = np.concatenate([teacher.scores([view]) for view in views])
        assert teacher.labels == ("happy", "sad") and each.shape == (len(VIEWS), 2)
        mean = each.mean(axis=0)
        made = found[record.key]
        assert made.scores == pytest.approx(dict(zip(teacher.labels, mean, strict=True)), abs=1e-5)
        assert made.label == teacher.labels[mean.argmax()]
        assert made.agreement == (each.argmax(axis=1) == mean.argmax()).mean()
        assert made.record.duration == pytest.approx(len(record.load()) / 16_000)


def test_what_cannot_be_asked(teacher: Recognizer) -> None:
    with pytest.raises(ValueError, match="views has upside; choose of whole"):
        list(opinions(teacher, [], views=["upside"]))
    with pytest.raises(ValueError, match="min_score is 60"):
        Rules(min_score=60)
    with pytest.raises(ValueError, match="max_ratio is 0.5"):
        Rules(max_ratio=0.5)


def test_the_command_writes_a_list_for_the_next_round(
    teacher: Recognizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    teacher.classifier.save(tmp_path / "teacher")
    sources = [str(p) for p in sorted(CLIPS.glob("m1-*-0[1-5].ogg"))]
    (tmp_path / "torn.wav").write_bytes(b"no sound")
    out = tmp_path / "round.jsonl"
    words = [
        "label", *sources, str(tmp_path / "torn.wav"), "--teacher", str(tmp_path / "teacher"),
        "--out", str(out), "--min-score", "0", "--max-ratio", "0", "--format", "json",
    ]  # fmt: skip
    assert call(*words) == 3
    printed = capsys.readouterr()
    assert "left out: torn:" in printed.err
    verdicts = json.loads(printed.out)["verdicts"]
    assert verdicts["unreadable"] == 1 and sum(verdicts.values()) == len(sources) + 1
    kept = read_manifest(out) if verdicts.get("kept") else []
    assert len(kept) == verdicts.get("kept", 0)
    assert all(r.emotion in ("happy", "sad") and r.scores for r in kept)
    assert [p.name for p in tmp_path.glob(".round*")] == []

    # A killed run goes on: what was known is not computed again.
    heard: list[int] = []
    answer = NativeClassifier.answer

    def counting(self: NativeClassifier, clips: Any) -> Any:
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(len(clips))
        return answer(self, clips)

    monkeypatch.setattr(NativeClassifier, "answer", counting)
    assert call(*words, "--batch-seconds", "5") == 130
    part = next(tmp_path.glob(".round.jsonl.*.part"))
    known = len(list(read_jsonl(part)))
    assert 0 < known < len(sources)
    monkeypatch.setattr(NativeClassifier, "answer", answer)
    before = read_manifest(out)
    assert call(*words, "--batch-seconds", "5") == 3
    after = read_manifest(out)  # batches of another size: the last digits differ
    assert [r.key for r in after] == [r.key for r in before] and not part.exists()
    for one, other in zip(after, before, strict=True):
        assert one.scores == pytest.approx(dict(other.scores), abs=1e-5)
    assert call("label", *words[1:-5], "--out", "o.csv") == 1


def test_labels_that_were_there_are_not_looked_at(teacher: Recognizer) -> None:
    record = find_recordings([CLIPS / "f1-sad-01.ogg"])[0]
    told = replace(record, labels={"emotion": "angry"})
    one, other = next(opinions(teacher, [record])), next(opinions(teacher, [told]))
    assert one.label == other.label and one.scores == other.scores
    assert labelled(other, Rules(drop=())).emotion == one.label
