"""The model in the box: small, offline, described, and as good as it says where corpora are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, call

from emotion2vec import Emotion2vec, Emotion2vecClassifier, Recognizer
from emotion2vec.metrics import classification_scores
from emotion2vec.nonspeech import make_nonspeech
from emotion2vec.published.hub import EMBEDDED, MINI_FOLDER
from emotion2vec.weights import read_weights

CLIPS = ROOT / "data" / "moods" / "clips"
EMOTIONS = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_pretrained(device="cpu")


def test_it_is_small_and_what_its_entry_says() -> None:
    weights = read_weights(MINI_FOLDER)
    assert sum(f.stat().st_size for f in MINI_FOLDER.iterdir()) <= 12_000_000
    assert {v.dtype for v in weights.values()} == {torch.float16}
    model = Emotion2vecClassifier.from_pretrained("mini")
    assert sum(p.numel() for p in model.parameters()) == EMBEDDED.parameters
    assert model.config.labels == EMBEDDED.labels == (*EMOTIONS, "unknown")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert Emotion2vec.from_pretrained("mini").config.embed_dim == model.config.embed_dim


def test_its_card_states_corpora_licences_scores_and_limits() -> None:
    card = (MINI_FOLDER / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "cc-by-nc-sa-4.0"
    for text in (
        "RAVDESS", "EmoDB", "URDU", "CC BY-NC-SA 4.0", "official folds", "95 %", "Out of domain",
        "Expected calibration error", "research",
    ):  # fmt: skip
        assert text in card, text
    for path in (str(Path.home()), "/work", "/tmp"):
        assert path not in card


def test_the_command_needs_no_model_and_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    clips = sorted(CLIPS.glob("f1-*-01.ogg"))
    assert call("recognize", *clips, "--format", "json") == 0
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "--model plus-large fetches" in printed.err
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["key"] for row in rows] == [clip.stem for clip in clips]
    assert all(set(row["scores"]) == set(EMBEDDED.labels) for row in rows)
    assert call("recognize", *clips, "--model", "mini", "--quiet") == 0
    assert "plus-large" not in capsys.readouterr().err


def test_it_asks_no_network() -> None:
    script = (
        "import socket\n"
        "def refuse(*_): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from emotion2vec import Recognizer\n"
        f"print(Recognizer.from_pretrained()({str(next(CLIPS.glob('*.ogg')))!r}).label)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() in EMBEDDED.labels, done.stderr


def test_transformers_answers_alike(recognizer: Recognizer) -> None:
    from transformers import pipeline

    import emotion2vec.hf  # noqa: F401
    from emotion2vec.audio import load_audio

    clip = load_audio(next(CLIPS.glob("m1-*.ogg")))
    pipe = pipeline("audio-classification", model=str(MINI_FOLDER), top_k=None)
    theirs = {row["label"]: row["score"] for row in pipe(clip)}
    assert theirs == pytest.approx(dict(recognizer((clip, 16_000)).scores), abs=1e-4)


def test_what_is_no_speech_tends_to_unknown(recognizer: Recognizer) -> None:
    random = np.random.default_rng(7)
    kinds = ("noise", "hum", "tones", "music", "silence")
    sounds = [(make_nonspeech(40_000, random, kind), 16_000) for kind in kinds for _ in range(8)]
    called = np.mean([answer.label == "unknown" for answer in recognizer(sounds)])
    assert called >= 0.8
    speech = recognizer(sorted(CLIPS.glob("*-0[1-3].ogg")))
    assert np.mean([answer.label == "unknown" for answer in speech]) <= 0.2


def test_the_wheel_takes_its_files_along() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["emotion2vec"]
    package = MINI_FOLDER.parent
    taken = {path for pattern in patterns for path in package.glob(pattern)}
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "README.md"):
        assert MINI_FOLDER / name in taken


@pytest.mark.data
def test_it_learned_its_corpora(recognizer: Recognizer) -> None:
    """Not a score: it was trained on these. That the file is whole and the labels in order."""
    from emotion2vec.manifest import read_manifest

    data = Path(os.environ.get("EMOTION2VEC_DATA", ROOT.parent / "shared" / "data"))
    manifest = data / "ravdess" / "manifest.jsonl"
    if not manifest.is_file():
        pytest.skip("RAVDESS is not here")
    records = read_manifest(manifest)[::12]
    answers = recognizer(list(records))
    truth = [str(record.emotion) for record in records]
    assert classification_scores(truth, [str(a.label) for a in answers]).wa >= 0.75
