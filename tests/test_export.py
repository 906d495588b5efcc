"""Files that run without torch: they answer as torch does, or they are not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, call

import emotion2vec.export
from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig, Recognizer
from emotion2vec.audio import Waveform, load_audio
from emotion2vec.classifiers import NativeClassifier
from emotion2vec.commands.export import _name
from emotion2vec.encoding import encode_clips
from emotion2vec.export import EXPORTERS, Exported, checked_clips, export_onnx, labels_agree
from emotion2vec.manifest import read_manifest
from emotion2vec.onnx_graph import trace
from emotion2vec.onnx_runtime import OnnxClassifier

pytest.importorskip("onnxscript")
import onnx

CLIPS = sorted((ROOT / "data" / "moods" / "clips").glob("*.ogg"))
DATA = Path(os.environ.get("EMOTION2VEC_DATA", ROOT.parent / "shared" / "data"))
LABELS = ("happy", "sad", "unuse_0")
CONFIGS = {
    "learned convolutions": {"labels": LABELS, "dimensions": ("arousal", "valence")},
    "group norm": {"labels": LABELS, "conv_norm": "group", "alibi": False},
    "values alone": {
        **{"dimensions": ("arousal",), "normalize_waveform": False, "pre_norm": True},
        **{"num_utterance_tokens": 0, "position_pre_norm": True},
    },
}
TRACES: dict[str, Any] = {}
"""Tracing takes seconds, whatever the weights: once for each architecture."""


def trace_once(model: Emotion2vecClassifier) -> Any:
    key = repr(model.config)
    if key not in TRACES:
        TRACES[key] = trace(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(TRACES[key])
    return copy


@pytest.fixture(scope="module", autouse=True)
def _traces_are_kept() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emotion2vec.export, "trace", trace_once)
        yield


def tiny(**settings: Any) -> Emotion2vecClassifier:
    torch.manual_seed(0)
    model = Emotion2vecClassifier(Emotion2vecConfig(**(TINY | settings))).eval()
    for layer in (model.classifier, model.regressor):
        if layer is not None:
            torch.nn.init.normal_(layer.weight)
    return model


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """mini in both precisions."""
    folder = tmp_path_factory.mktemp("mini")
    model = Recognizer.from_pretrained("mini", device="cpu").classifier
    return {
        "float32": export_onnx(model, folder / "mini.onnx", name="mini"),
        "int8": export_onnx(model, folder / "mini-int8.onnx", int8=True, name="mini"),
    }


def assert_answers_alike(path: Path, model: Emotion2vecClassifier, clips: list[Waveform]) -> None:
    """One by one and padded, against torch, clip by clip."""
    file, ours = OnnxClassifier(path, padded=True), NativeClassifier(model)
    for batch in [*([clip] for clip in clips), clips, clips[::-1]]:
        found, frames = file.answer(batch), file.frames(batch)
        for row, clip in enumerate(batch):
            expected = ours.answer([clip])
            scores = torch.from_numpy(found.logits[row]).softmax(dim=0)
            np.testing.assert_allclose(scores, expected.logits[0].softmax(dim=0), atol=1e-5)
            np.testing.assert_allclose(found.values[row], expected.values[0], atol=2e-5)
            [encoded] = encode_clips(model.encoder, [clip])
            np.testing.assert_allclose(frames[row], encoded.frames, atol=5e-5)


# The same as torch.


@pytest.mark.parametrize("name", CONFIGS)
def test_tiny_models_answer_as_torch(name: str, tmp_path: Path) -> None:
    model = tiny(**CONFIGS[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    made = export_onnx(model, tmp_path / "tiny.onnx")
    assert made.difference < 2e-5 and made.int8_difference is None
    lengths = (400, 719, 720, 7777, 33333)
    random = np.random.default_rng(1)
    clips = [random.normal(0.1, 0.3, length).astype(np.float32) for length in lengths]
    assert_answers_alike(made.path, model, clips)
    # The model itself is what it was.
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert {block.attention.implementation for block in model.encoder.context.blocks} == {"sdpa"}


def test_mini_answers_as_torch(mini: dict[str, Exported]) -> None:
    model = Emotion2vecClassifier.from_pretrained("mini").eval()
    clips = [load_audio(path) for path in CLIPS[::160]] + checked_clips(400, 320)[:5]
    assert_answers_alike(mini["float32"].path, model, clips)
    assert mini["float32"].difference < 2e-5


def test_the_recognizer_answers_as_torch(mini: dict[str, Exported]) -> None:
    path = mini["float32"].path
    ours = Recognizer.from_pretrained("mini", device="cpu", labels=["sad", "happy"])
    file = Recognizer.from_pretrained(path, labels=["sad", "happy"], batch_seconds=60)
    assert file.labels == ours.labels and file.policy == ours.policy
    for a, b in zip(ours(CLIPS[::48]), file(CLIPS[::48]), strict=True):
        assert (a.key, a.label, a.duration) == (b.key, b.label, b.duration)
        assert dict(b.scores) == pytest.approx(dict(a.scores), abs=1e-5)
    assert file((load_audio(CLIPS[0]), 16000)).scores == pytest.approx(file(CLIPS[0]).scores)
    assert Recognizer(path, runtime="onnx").fingerprint() == Recognizer(path).fingerprint()
    assert file.fingerprint("a") != file.fingerprint("b")


def test_what_users_of_plain_onnxruntime_see(mini: dict[str, Exported], tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(mini["float32"].path)
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("waveform", "tensor(float)"), ("lengths", "tensor(int64)"),
    ]  # fmt: skip
    assert [o.name for o in session.get_outputs()] == ["logits", "pooled", "frames"]
    clip = load_audio(CLIPS[0])
    padded = np.concatenate([clip, np.full(5000, 7, np.float32)])[None]  # whatever is behind it
    feed = {"waveform": padded, "lengths": np.array([len(clip)])}
    logits, pooled, frames = session.run(None, feed)
    count = (len(clip) - 400) // 320 + 1
    np.testing.assert_allclose(frames[0, :count].mean(axis=0), pooled[0], atol=1e-5)
    assert frames.shape[1] > count and not frames[0, count:].any()
    expected = Recognizer.from_pretrained("mini", device="cpu").classifier.answer([clip])
    np.testing.assert_allclose(logits, expected.logits, atol=5e-5)


# The file.


def test_the_file_says_what_it_is(mini: dict[str, Exported]) -> None:
    for precision, made in mini.items():
        assert [f.name for f in made.path.parent.glob(f"{made.path.stem}.*")] == [made.path.name]
        facts = OnnxClassifier(made.path).facts
        assert json.loads(facts["labels"]) == list(made.labels)
        assert (facts["sampling_rate"], facts["min_samples"]) == ("16000", "400")
        assert (facts["model"], facts["precision"]) == ("mini", precision)
        assert facts["emotion2vec_version"] == emotion2vec.__version__
        assert len(facts["fingerprint"]) == 8 and json.loads(facts["dimensions"]) == []
        content = made.path.read_bytes()
        assert made.bytes == len(content)
        for path in (str(ROOT), "site-packages", ".py"):  # nothing of the machine it was made on
            assert path.encode() not in content


@pytest.mark.parametrize(
    "limit, int8", [("TOLERANCE", False), ("TOLERANCE", True), ("INT8_TOLERANCE", True)]
)
def test_a_file_that_answers_otherwise_is_not_written(
    limit: str, int8: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emotion2vec.export, limit, 0.0)
    model = tiny(**CONFIGS["learned convolutions"])
    precision = "int8" if limit == "INT8_TOLERANCE" else "float32"
    message = f"the {precision} file for .*tiny.onnx differs from torch by .*was not written"
    with pytest.raises(ValueError, match=message):
        export_onnx(model, tmp_path / "tiny.onnx", int8=int8)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    model = tiny(labels=LABELS)
    with pytest.raises(ValueError, match=r"model\.bin; give a name that ends in \.onnx"):
        export_onnx(model, tmp_path / "model.bin")
    with pytest.raises(ValueError, match=r"the model is Linear; classifiers of this package's own"):
        export_onnx(torch.nn.Linear(2, 2), tmp_path / "a.onnx")  # type: ignore[arg-type]
    assert list(EXPORTERS) == ["onnx"]


# Eight bits.


def test_int8_is_small_and_answers_nearly_alike(mini: dict[str, Exported]) -> None:
    assert mini["int8"].bytes <= 0.3 * mini["float32"].bytes
    assert mini["int8"].int8_difference == pytest.approx(0, abs=0.05)
    found = [Recognizer(mini[name].path)(CLIPS[::4]) for name in ("float32", "int8")]
    assert labels_agree(*found) >= 0.99


def test_int8_does_not_depend_on_the_batch(mini: dict[str, Exported]) -> None:
    file = OnnxClassifier(mini["int8"].path, padded=True)
    clips = [load_audio(path) for path in CLIPS[::60]]
    clips.append(30 * np.sin(np.arange(50000) ** 1.5 / 9000).astype(np.float32))
    alone = np.concatenate([file.answer([clip]).logits for clip in clips])
    # An input that lies between two steps may fall on either.
    np.testing.assert_allclose(file.answer(clips).logits, alone, atol=0.03)
    one_by_one = OnnxClassifier(mini["int8"].path)  # as the CPU does
    np.testing.assert_array_equal(one_by_one.answer(clips).logits, alone)
    assert np.median(np.abs(file.answer(clips).logits - alone)) < 1e-3


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "emodb").is_dir(), reason="the corpora are not at hand")
def test_int8_on_real_speech(mini: dict[str, Exported]) -> None:
    records = [
        *read_manifest(DATA / "ravdess" / "manifest.jsonl")[::8],
        *read_manifest(DATA / "emodb" / "manifest.jsonl")[::8],
    ]
    ours = Recognizer.from_pretrained("mini", device="cpu")(records)
    assert labels_agree(ours, Recognizer(mini["float32"].path)(records)) == 1
    assert labels_agree(ours, Recognizer(mini["int8"].path)(records)) >= 0.99


def test_labels_agree() -> None:
    good = Recognizer.from_pretrained(device="cpu")(CLIPS[:2])
    bad = Recognizer.from_pretrained(device="cpu")(["none.wav", "none.wav"])
    assert labels_agree(good, good) == 1 and labels_agree(good, [bad[0], good[1]]) == 1
    with pytest.raises(ValueError, match="no recording could be read by both"):
        labels_agree(good, bad)


# Without torch.

WITHOUT_TORCH = """
import sys
for name in "torch transformers safetensors huggingface_hub yaml fsspec filelock onnx".split():
    sys.modules[name] = None
path, clip, out = sys.argv[1:]
import numpy as np
from emotion2vec import Recognizer
from emotion2vec.cli import main
found = Recognizer.from_pretrained(path, runtime="onnx")([clip, (np.sin(np.arange(9000.0)), 8000)])
print([answer.label for answer in found])
try:
    Recognizer.from_pretrained()
except ModuleNotFoundError as error:
    print(error)
for words in (["--format", "json"], ["--out", out, "--format", "json"]):
    try:
        main(["recognize", clip, "--model", path, *words])
    except SystemExit as stopped:
        assert stopped.code == 0, stopped.code
try:
    main(["recognize", clip, "--quiet"])
except SystemExit as stopped:
    assert stopped.code == 1
"""


def test_nothing_needs_torch(mini: dict[str, Exported], tmp_path: Path) -> None:
    words = [mini["int8"].path, CLIPS[0], tmp_path / "out.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    labels, missing, answer, summary = done.stdout.splitlines()
    expected = Recognizer(mini["int8"].path)(CLIPS[0])
    assert f"['{expected.label}'" in labels and "None" not in labels
    assert "mini needs torch, which is not installed: pip install torch, or take" in missing
    row = json.loads(answer)
    assert row["scores"] == pytest.approx(dict(expected.scores), abs=1e-6)
    assert json.loads(summary)["recognized"] == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["label"] == expected.label
    assert done.stderr == f"error: {missing}\n"


@pytest.mark.parametrize(
    "name, options, kind, message",
    [
        ("none.onnx", {}, FileNotFoundError, r"none\.onnx is not a file .* --out none\.onnx"),
        ("mini", {"runtime": "onnx"}, FileNotFoundError, r"mini is not a file .* --out FILE\.onnx"),
        ("bad.onnx", {}, ValueError, r"bad\.onnx cannot be run by onnxruntime .*; it is damaged"),
        ("other.onnx", {}, ValueError, r"other\.onnx is an ONNX model of another kind; write it"),
        ("tiny.onnx", {"runtime": "torch"}, ValueError, 'the model is of ONNX; leave runtime="to'),
        ("tiny.onnx", {"runtime": "jax"}, ValueError, "runtime is 'jax'; choose one of torch, on"),
        ("tiny.onnx", {"device": "tpu"}, ValueError, "device is 'tpu'; this onnxruntime computes"),
    ],
)
def test_what_cannot_be_run(
    name: str, options: dict[str, str], kind: type[Exception], message: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("bad.onnx").write_bytes(b"nothing of the kind")
    export_onnx(tiny(**CONFIGS["group norm"]), "tiny.onnx")
    other = onnx.load("tiny.onnx")
    other.ClearField("metadata_props")
    onnx.save(other, "other.onnx")
    with pytest.raises(kind, match=message):
        Recognizer.from_pretrained(name, **options)
    with pytest.raises(ValueError, match='runtime is "onnx", the model one of torch; write it'):
        Recognizer(tiny(labels=LABELS), runtime="onnx")


def test_too_long_and_too_short(mini: dict[str, Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion2vec.onnx_runtime.MOST_SCORES", 3 * 200 * 200)
    file = OnnxClassifier(mini["float32"].path, padded=True)
    clips = [load_audio(path)[:30000] for path in CLIPS[:5]]
    assert file.longest_seconds == 4.0 and file.answer(clips).logits.shape == (5, 9)
    recognizer = Recognizer(mini["float32"].path)
    long, good = recognizer([np.sin(np.arange(66000.0)), clips[0]], sampling_rate=16000)
    assert not good.error and long.label is None
    assert "4.1 s; " in long.error and "answers for at most 4 s at once; cut it" in long.error
    with pytest.raises(RuntimeError, match="a clip has 399 samples"):
        file.answer([np.ones(399, np.float32)])
    assert file.answer([]).logits.shape == (0, 9)


# The command.


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny(**CONFIGS["learned convolutions"]).save_pretrained(tmp_path / "models/tiny")
    words = ("export", "models/tiny", "--to", "onnx", "--int8", "--data", *CLIPS[:3])
    assert call(*words, "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == "tiny-int8.onnx" and Path("tiny-int8.onnx").is_file()
    assert facts["recordings"] == 3 and facts["labels"] == list(LABELS)
    (tmp_path / "none.wav").write_bytes(b"")
    assert call(*words, tmp_path / "none.wav", "--out", "a/b.onnx") == 3
    printed = capsys.readouterr()
    assert "none.wav" in printed.err and "100.00 % of 3 recordings" in printed.out
    lines = [line.split("  ")[0] for line in printed.out.splitlines()]
    assert lines == [
        *("file", "size", "labels", "values", "lengths checked", "largest difference"),
        *("with int8", "labels as torch's"),
    ]
    assert call("export", "models/tiny", "--out", "b.txt") == 1
    assert "b.txt; give a name that ends in .onnx" in capsys.readouterr().err


def test_the_check_sees_what_is_no_number() -> None:
    """Python's max would pass over a NaN that does not come first."""
    assert np.isnan(emotion2vec.export._largest([0.0, float("nan"), 1.0]))


def test_the_file_does_not_say_where_it_was_made(tmp_path: Path) -> None:
    assert _name(str(tmp_path)) == tmp_path.name and _name("owner/name") == "owner/name"
