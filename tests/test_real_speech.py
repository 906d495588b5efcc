"""Real speech, where it is at hand: the log-mel baseline reproduces its published floor.

The corpora's licences forbid shipping them; set EMOTION2VEC_DATA to a folder that has them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import ROOT

from emotion2vec.backbones import load_backbone
from emotion2vec.manifest import read_manifest
from emotion2vec.probing.baselines import constant_baseline, statistics_baseline
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


@pytest.mark.slow
def test_log_mel_statistics_reach_their_floor_on_emodb() -> None:
    records = read_manifest(DATA / "emodb" / "manifest.jsonl")
    folds = folds_from_file(DATA / "emodb" / "folds.json", records, name="speaker_independent")
    frames, errors = extract_frames(folds, load_backbone("logmel"))
    assert not errors
    scores = statistics_baseline(folds, frames, "log-mel").mean()
    # 55.3 / 52.3 WA / UA, measured elsewhere with another implementation.
    assert 100 * scores["wa"] == pytest.approx(55.3, abs=3)
    assert 100 * scores["ua"] == pytest.approx(52.3, abs=3)
