"""`Recognizer`: FunASR's own scores, every kind of input, labels, abstaining, long recordings."""

from __future__ import annotations

import copy
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import CKPT, PARITY, TINY, write_tone
from safetensors.torch import load_file

import emotion2vec.recognize
from emotion2vec import Emotion2vecConfig, Recognition, Recognizer, convert_checkpoint
from emotion2vec.audio import load_audio, normalize
from emotion2vec.backbones import random_encoder
from emotion2vec.long import LONG_SECONDS
from emotion2vec.manifest import Record
from emotion2vec.model import Emotion2vecClassifier

GOLDEN = json.loads((CKPT / "funasr_tiny_expected.json").read_text())
WAVEFORMS = load_file(PARITY / "inference" / "waveforms.safetensors")
ENGLISH = ["angry", "happy", "neutral", "other", "sad", "surprised", "<unk>"]
CHINESE = ["生气", "开心", "中立", "其他", "难过", "吃惊", "<unk>"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FunASR's tiny folder, converted: seven labels and two that are unused."""
    return convert_checkpoint(CKPT / "funasr_tiny", tmp_path_factory.mktemp("m") / "tiny").folder


@pytest.fixture(scope="module")
def recognizer(model: Path) -> Recognizer:
    return Recognizer.from_pretrained(model)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_tone(tmp_path / "clip.wav", 1.3, pitch=300)


def values(found: Recognition) -> list[float]:
    return list(found.scores.values())


def assert_same(ours: Recognition, theirs: Recognition) -> None:
    assert (ours.label, list(ours.scores)) == (theirs.label, list(theirs.scores))
    assert values(ours) == pytest.approx(values(theirs), abs=1e-5)
    assert ours.duration == theirs.duration and not ours.error


# Against FunASR.


@pytest.mark.parametrize("name", GOLDEN["scores"])
def test_scores_are_those_of_funasr(name: str, model: Path, recognizer: Recognizer) -> None:
    expected = GOLDEN["scores"][name]
    found = recognizer(WAVEFORMS[name].numpy(), sampling_rate=16000)
    assert list(found.scores) == ENGLISH
    np.testing.assert_allclose(values(found), expected, atol=1e-5, rtol=0)
    assert found.label == ENGLISH[int(np.argmax(expected))] == "neutral"
    assert found.score == pytest.approx(max(expected), abs=1e-5)
    assert sum(values(found)) == pytest.approx(1, abs=1e-6)
    whole = Recognizer.from_pretrained(model, language="both")
    assert list(whole((WAVEFORMS[name], 16000)).scores) == GOLDEN["labels"]


@pytest.mark.parametrize("do_normalize", [True, False])
def test_the_pipeline_of_transformers_gives_the_same(
    do_normalize: bool, model: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    import emotion2vec.hf  # noqa: F401 - registers the classes

    native = Emotion2vecClassifier.from_pretrained(model)
    config = native.config.to_dict() | {"normalize_waveform": do_normalize}
    native.config = Emotion2vecConfig.from_dict(config)
    native.encoder.config = native.config
    native.save_pretrained(tmp_path / "saved")
    answer = transformers.pipeline("audio-classification", model=str(tmp_path / "saved"))
    assert answer.feature_extractor.do_normalize is do_normalize
    ours = Recognizer.from_pretrained(tmp_path / "saved", language="both")
    waveforms = [wave.numpy() * 0.3 + 0.05 for wave in WAVEFORMS.values() if len(wave) >= 400]
    assert len(waveforms) > 2
    for theirs, waveform in zip(answer(waveforms, top_k=None), waveforms, strict=True):
        scores = {row["label"]: row["score"] for row in theirs}
        expected = dict(ours((waveform, 16000)).scores) | {"unuse_0": 0.0, "unuse_1": 0.0}
        assert set(scores) == set(native.config.labels) == set(expected)
        assert scores == {name: pytest.approx(expected[name], abs=1e-5) for name in scores}
        assert scores["unuse_0"] == scores["unuse_1"] == 0


# What goes in.

KINDS: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "path": lambda path: path,
    "bytes": lambda path: path.read_bytes(),
    "open file": lambda path: path.open("rb"),
    "bytes in a file object": lambda path: io.BytesIO(path.read_bytes()),
    "pair": lambda path: soundfile.read(path, dtype="float32"),
    "pair of integers": lambda path: soundfile.read(path, dtype="int16"),
    "mapping": lambda path: {"array": soundfile.read(path)[0], "sampling_rate": 16000},
    "tensor": lambda path: (torch.tensor(soundfile.read(path)[0], requires_grad=True), 16000),
    "integer tensor": lambda path: (torch.tensor(soundfile.read(path, dtype="int16")[0]), 16000),
    "record": lambda path: Record("clip", str(path)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input(kind: str, recognizer: Recognizer, clip: Path) -> None:
    expected = recognizer(load_audio(clip), sampling_rate=16000)
    assert expected.key == "input" and expected.path is None
    alone = recognizer(KINDS[kind](clip))
    [listed] = recognizer([KINDS[kind](clip)])
    for found in (alone, listed):
        assert_same(found, expected)
        assert (found.start, found.end, found.duration) == (0, 1.3, 1.3)
        in_file = kind in ("text", "path", "record")
        assert found.path == (str(clip) if in_file else None)
    names = {"text": str(clip), "path": str(clip), "record": "clip"}
    assert (alone.key, listed.key) == (names.get(kind, "input"), names.get(kind, "input 0"))


def test_any_rate_and_channels(recognizer: Recognizer, clip: Path) -> None:
    time = np.arange(44100) / 44100
    stereo = np.stack([np.sin(1300 * time), np.sin(2900 * time)], axis=1)
    path = clip.with_name("stereo.flac")
    soundfile.write(path, stereo, 44100, subtype="PCM_24")
    assert_same(recognizer((stereo, 44100)), recognizer(path))
    assert_same(recognizer([stereo], sampling_rate=44100)[0], recognizer(path))


def test_a_part_of_a_file(recognizer: Recognizer, clip: Path) -> None:
    part = Record("part", str(clip), start=0.25, end=0.75)
    expected = recognizer(load_audio(clip)[4000:12000], sampling_rate=16000)
    for found in (recognizer(part), *recognizer([part])):
        assert_same(found, expected)
        assert (found.key, found.start, found.end, found.duration) == ("part", 0.25, 0.75, 0.5)
    tail = recognizer(Record("tail", str(clip), start=1.0))
    assert (tail.start, tail.end) == (1.0, 1.3) and tail.duration == pytest.approx(0.3)


@pytest.mark.parametrize("batch_seconds", [0.1, 3.0, 60.0])
def test_a_list_equals_one_by_one(
    batch_seconds: float, model: Path, tones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer.from_pretrained(model, batch_seconds=batch_seconds)
    paths = sorted(tones.glob("*.wav"))
    paths = [*paths[::2], *paths[::-2]]  # lengths up and down
    inputs = [path if i % 3 else load_audio(path) for i, path in enumerate(paths)]
    monkeypatch.setattr(emotion2vec.recognize, "BLOCK_RECORDS", 5)
    found = recognizer(inputs, sampling_rate=16000)
    assert [f.key for f in found] == [
        str(path) if i % 3 else f"input {i}" for i, path in enumerate(paths)
    ]
    for ours, path in zip(found, paths, strict=True):
        assert_same(ours, recognizer(path))
    any_order = recognizer.recognize_all(inputs, sampling_rate=16000, in_order=False)
    assert sorted(any_order, key=str) == sorted(found, key=str)
    assert recognizer([]) == []


def test_answers_come_before_all_inputs_are_read(
    recognizer: Recognizer, tones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emotion2vec.recognize, "BLOCK_RECORDS", 4)
    read: list[str] = []
    load = Record.load
    monkeypatch.setattr(Record, "load", lambda self: read.append(self.key) or load(self))
    answers = recognizer.recognize_all(sorted(tones.glob("*.wav")))
    assert next(answers).key.endswith("clip00.wav") and len(read) == 4


# What cannot be answered.


def test_what_is_bad_in_a_list_becomes_an_error(
    recognizer: Recognizer, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "noise.wav").write_bytes(bytes(range(256)) * 9)
    cases: list[tuple[Any, str]] = [
        (tmp_path / "none.wav", "none.wav is not a file"),
        (tmp_path / "empty.wav", "is empty"),
        (tmp_path / "noise.wav", "noise.wav cannot be decoded"),
        (b"no sound", "the bytes given cannot be decoded"),
        ((np.zeros(16000), 16000), "silent"),
        ((np.full(16000, np.nan), 16000), "NaN"),
        ((np.ones(16000, complex), 16000), "holds complex128"),
        (np.ones((2, 16000)), "pass its rate"),
        ((np.ones((2, 16000)), 16000), r"channels"),
        ((np.ones(16000), "16000"), "a sampling rate is '16000'"),
        ((np.sin(np.arange(100)), 16000), "0.006 s long"),
        (Record("late", str(clip), start=2.0), "begins at 2.0 s"),
        (None, "an input is NoneType; give a path, bytes"),
        (("a.wav", "b.wav"), "an input is tuple; give a path"),
        ({"path": "a.wav"}, "an input is NoneType"),
        (iter([clip]), "or a list of these"),
        (io.StringIO("text"), "an input is StringIO; give a path, bytes, an open binary file"),
    ]
    found = recognizer([clip, *(source for source, _ in cases), clip])
    assert not found[0].error and not found[-1].error
    assert_same(found[0], found[-1])
    for answer, (source, message) in zip(found[1:-1], cases, strict=True):
        assert message in answer.error and "\n" not in answer.error
        assert (answer.label, answer.score, dict(answer.scores)) == (None, None, {})
        assert answer.duration is None and answer.policy == recognizer.policy
        kind = FileNotFoundError if "is not a file" in message else ValueError
        if not hasattr(source, "__next__"):
            with pytest.raises(kind, match=message.replace("(", r"\(")):
                recognizer(source)


def test_a_batch_without_memory_is_tried_one_by_one(
    model: Path, tones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer.from_pretrained(model)
    paths = sorted(tones.glob("*.wav"))
    expected = recognizer(paths)
    scores, longest = Recognizer.answers, len(load_audio(paths[-1]))

    def scarce(self: Recognizer, clips: Any) -> Any:
        if len(clips) > 1 or len(clips[0]) == longest:
            raise RuntimeError("out of memory")
        return scores(self, clips)

    monkeypatch.setattr(Recognizer, "answers", scarce)
    *found, last = recognizer(paths)
    for ours, theirs in zip(found, expected[:-1], strict=True):
        assert_same(ours, theirs)
    assert last.error == "cannot be encoded: out of memory" and last.label is None


def test_an_encoder_is_no_recognizer(tmp_path: Path) -> None:
    random_encoder(Emotion2vecConfig(**TINY)).save_pretrained(tmp_path / "encoder")
    for load in (Recognizer, Emotion2vecClassifier):
        with pytest.raises(ValueError, match=r"encoder is an encoder without a classifier; take"):
            load.from_pretrained(tmp_path / "encoder")


# Labels.


@pytest.mark.parametrize(
    "wanted", [["happy", "sad"], ["难过", "开心"], ["开心/happy", "SAD"], ["sad", "happy", "sad"]]
)
def test_labels_are_restricted_and_renormalized(
    wanted: list[str], model: Path, recognizer: Recognizer, clip: Path
) -> None:
    whole = recognizer(clip)
    few = Recognizer.from_pretrained(model, labels=wanted)(clip)
    total = whole.scores["happy"] + whole.scores["sad"]
    assert list(few.scores) == ["happy", "sad"]  # in the model's order
    for name in few.scores:
        assert few.scores[name] == pytest.approx(whole.scores[name] / total, abs=1e-6)
    assert few.label == max(few.scores, key=lambda name: few.scores[name])
    assert few.policy == "highest of 2 softmax scores, renormalized from 7"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"labels": ["happy", "joy"]}, "'joy', which the model does not know; it knows angry, ha"),
        ({"labels": ["unuse_0"]}, "it knows angry, happy, neutral, other, sad, surprised, <unk>"),
        ({"labels": []}, "labels is empty; choose some of angry"),
        ({"labels": "happy,sad"}, r"give a list, such as \['happy', 'sad'\]"),
        ({"abstain": 1.5}, "abstain is 1.5; give a score from 0"),
        ({"abstain": float("nan")}, "abstain is nan"),
        ({"language": "de"}, "language is 'de'; choose one of en, zh, both"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str, model: Path) -> None:
    with pytest.raises(ValueError, match=message):
        Recognizer.from_pretrained(model, **options)


def test_languages(model: Path, clip: Path) -> None:
    for language, names in (("en", ENGLISH), ("zh", CHINESE), ("both", GOLDEN["labels"])):
        found = Recognizer.from_pretrained(model, language=language)(clip)
        assert list(found.scores) == names and found.label in names
    restricted = Recognizer.from_pretrained(model, labels=["sad"], language="zh")
    assert restricted.labels == ("难过",)


@pytest.mark.parametrize(
    "labels, shown",
    [
        (("happy", "n/a"), ("happy", "n/a")),  # a slash alone makes no second language
        (("生气/angry", "愤怒/angry"), ("生气/angry", "愤怒/angry")),  # or two would be one
        (("生气/angry", "unuse_0", "sad"), ("angry", "sad")),
    ],
)
def test_labels_of_other_models(labels: tuple[str, ...], shown: tuple[str, ...]) -> None:
    config = Emotion2vecConfig(**TINY, labels=labels)
    assert Recognizer(Emotion2vecClassifier(config)).labels == shown


def test_abstaining(model: Path, recognizer: Recognizer, clip: Path) -> None:
    plain = recognizer(clip)
    assert plain.score is not None and plain.policy == "highest of 7 softmax scores"
    for limit, label in ((plain.score - 1e-3, plain.label), (plain.score + 1e-3, "unknown")):
        found = Recognizer.from_pretrained(model, abstain=limit)(clip)
        assert (found.label, found.score, found.scores) == (label, plain.score, plain.scores)
    half = Recognizer.from_pretrained(model, abstain=0.5, labels=["sad", "happy", "angry"])
    assert half.policy == "highest of 3 softmax scores, renormalized from 7; unknown below 0.5"
    assert half(clip).policy == half.policy


# Length, and the result itself.


def test_a_long_recording_equals_the_plain_forward(model: Path, recognizer: Recognizer) -> None:
    samples = int((LONG_SECONDS + 7) * 16000)
    time = np.arange(samples) / 16000
    wave = (np.sin(1500 * time) * np.sin(3 * time)).astype(np.float32)
    wave += np.random.default_rng(1).normal(0, 0.1, samples).astype(np.float32)
    native = Emotion2vecClassifier.from_pretrained(model)
    with torch.inference_mode():
        logits = native(torch.from_numpy(normalize(wave)).unsqueeze(0))[0]
    used = [i for i, label in enumerate(native.config.labels) if not label.startswith("unuse")]
    short = wave[:20000]
    first, second = recognizer([(wave, 16000), (short, 16000)])
    np.testing.assert_allclose(values(first), logits.softmax(dim=0)[used], atol=1e-5)
    assert first.duration == LONG_SECONDS + 7
    assert_same(second, recognizer((short, 16000)))


def test_a_result_prints_pickles_and_becomes_json(recognizer: Recognizer, clip: Path) -> None:
    good, bad = recognizer([Record("a", str(clip)), Record("b", "none.wav")])
    assert repr(good) == f"<Recognition a: neutral {good.score:.2f}>"
    assert repr(bad) == "<Recognition b: error: none.wav is not a file; check the path.>"
    for found in (good, bad):
        assert pickle.loads(pickle.dumps(found)) == copy.deepcopy(found) == found
        assert Recognition(**json.loads(json.dumps(found.to_dict()))) == found
    assert list(good.to_dict()) == [
        *(
            "key",
            "label",
            "score",
            "scores",
            "dimensions",
            "start",
            "end",
            "duration",
            "path",
            "error",
        ),
        "policy",
    ]
    with pytest.raises(AttributeError):
        good.label = "happy"  # type: ignore[misc]
