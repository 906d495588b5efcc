"""Real speech, where it is at hand: baselines reproduce what was measured elsewhere.

The corpora's licences forbid shipping them; set EMOTION2VEC_DATA to a folder that has them.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest
from conftest import ROOT

from emotion2vec import Recognizer
from emotion2vec.backbones import load_backbone
from emotion2vec.manifest import read_manifest
from emotion2vec.probing.baselines import (
    constant_baseline,
    speaker_baseline,
    statistics_baseline,
)
from emotion2vec.probing.folds import folds_from_file, shared_speakers
from emotion2vec.probing.probe import extract_frames

DATA = Path(os.environ.get("EMOTION2VEC_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "emodb").is_dir(), reason="the corpora are not at hand"),
]


def test_official_folds_of_ravdess_keep_speakers_apart() -> None:
    records = read_manifest(DATA / "ravdess" / "manifest.jsonl")
    folds = folds_from_file(DATA / "ravdess" / "folds.json", records, name="emobox")
    assert len(folds.folds) == 6 and sum(len(fold.test) for fold in folds.folds) == 1440
    assert all(shared_speakers(fold) == 0 for fold in folds.folds)
    assert all(len({r.speaker for r in fold.test}) == 4 for fold in folds.folds)
    assert constant_baseline(folds).mean()["ua"] == pytest.approx(0.125)


# WA / UA, measured elsewhere with another implementation.
FLOORS = [
    ("emodb", "speaker_independent", "logmel", 55.3, 52.3),
    ("emodb", "speaker_independent", "trivial", 40.7, 34.0),
    ("emodb", "emobox", "logmel", 66.2, 63.7),
    ("urdu", "speaker_independent", "logmel", 52.0, 52.0),
    ("urdu", "speaker_independent", "trivial", 61.5, 61.5),
    ("urdu", "emobox", "logmel", 88.0, 88.0),
    ("urdu", "emobox", "trivial", 67.0, 67.0),
]


@pytest.mark.slow
@pytest.mark.parametrize("corpus, folds, backbone, wa, ua", FLOORS)
def test_statistics_reach_their_floors(
    corpus: str, folds: str, backbone: str, wa: float, ua: float
) -> None:
    records = read_manifest(DATA / corpus / "manifest.jsonl")
    made = folds_from_file(DATA / corpus / "folds.json", records, name=folds)
    frames, errors = extract_frames(made, load_backbone(backbone))
    assert not errors
    scores = statistics_baseline(made, frames, backbone).mean()
    assert 100 * scores["wa"] == pytest.approx(wa, abs=2)
    assert 100 * scores["ua"] == pytest.approx(ua, abs=2)


def test_urdus_official_fold_tells_the_emotion_by_the_speaker() -> None:
    records = read_manifest(DATA / "urdu" / "manifest.jsonl")
    folds = folds_from_file(DATA / "urdu" / "folds.json", records, name="emobox")
    assert shared_speakers(folds.folds[0]) == 18
    assert speaker_baseline(folds).mean()["wa"] == pytest.approx(0.95)


def test_a_timeline_of_real_clips_has_fewer_errors_than_fixed_windows() -> None:
    pytest.importorskip("silero_vad")
    measure = runpy.run_path(str(ROOT / "benchmarks" / "timeline.py"))
    records = read_manifest(DATA / "ravdess" / "manifest.jsonl")
    recordings = measure["joined"](records, clips=6, count=4, pause=1.5, seed=0)
    recognizer = Recognizer.from_pretrained(device="cpu")  # which learned from these very clips
    ours, _ = measure["errors_of"](recordings, recognizer, measure["WAYS"]["timeline"])
    fixed, _ = measure["errors_of"](recordings, recognizer, measure["WAYS"]["fixed windows"])
    assert ours.rate < fixed.rate - 0.1
    assert ours.missed / ours.duration < 0.12 and ours.false_alarm < fixed.false_alarm / 2
