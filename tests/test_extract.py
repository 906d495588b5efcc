"""Features of recordings: the same in any batch, any order, interrupted or not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, write_tone

from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.audio import load_audio, normalize
from emotion2vec.backbones import (
    Backbone,
    encoder_backbone,
    load_backbone,
    random_encoder,
)
from emotion2vec.encoding import Encoded
from emotion2vec.extract import extract, extract_to_folder
from emotion2vec.folders import Folder
from emotion2vec.jsonl import read_jsonl
from emotion2vec.layer_choice import parse_layer
from emotion2vec.manifest import Record, find_recordings


@pytest.fixture(scope="module")
def model() -> Emotion2vec:
    return random_encoder(Emotion2vecConfig(**TINY))


@pytest.fixture
def backbone(model: Emotion2vec) -> Backbone:
    return encoder_backbone(model, "tiny", device="cpu")


def alone(model: Emotion2vec, path: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    waveform = torch.from_numpy(normalize(load_audio(path))).unsqueeze(0)
    with torch.no_grad():
        return model(waveform).last_hidden_state[0].numpy()


@pytest.mark.parametrize("batch_seconds", [0.1, 2.0, 1000.0])
def test_features_do_not_depend_on_the_batch(
    model: Emotion2vec, backbone: Backbone, tones: Path, batch_seconds: float
) -> None:
    records = find_recordings(tones)
    found = {f.key: f for f in extract(records, backbone, batch_seconds=batch_seconds)}
    assert found.keys() == {r.key for r in records}
    for record in records:
        features, expected = found[record.key].values, alone(model, record.path)
        assert features is not None and features.shape == expected.shape
        assert found[record.key].num_frames == len(expected)
        assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()


def test_utterances_are_means_over_frames(backbone: Backbone, tones: Path) -> None:
    records = find_recordings(tones)
    frames = {f.key: f.values for f in extract(records, backbone)}
    for features in extract(records, backbone, level="utterance"):
        assert features.values is not None and features.values.shape == (48,)
        assert np.allclose(features.values, frames[features.key].mean(axis=0), atol=1e-6)


def test_any_layer(model: Emotion2vec, tones: Path) -> None:
    record = find_recordings(tones)[0]
    waveform = torch.from_numpy(normalize(record.load())).unsqueeze(0)
    with torch.no_grad():
        states = model(waveform, output_hidden_states=True).hidden_states
    assert len(states) == 4
    for layer, state in [*enumerate(states), (-1, states[-1])]:
        (features,) = extract([record], encoder_backbone(model, "tiny", layer=layer))
        assert features.values is not None
        assert np.allclose(features.values, state[0].numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="has no layer 4; choose 0 .* to 3"):
        encoder_backbone(model, "tiny", layer=4)


@pytest.mark.parametrize("seconds", [1.0, 65.0])
@pytest.mark.parametrize(
    "layer, weights",
    [
        ("mean", [0.25] * 4),
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
        ((0.0, 2.0, -1.0, 0.0), [0.0, 2.0, -1.0, 0.0]),
        (2, [0.0, 0.0, 1.0, 0.0]),
        (None, None),
    ],
)
def test_layers_and_their_means_at_all_levels(
    layer: Any, weights: list[float] | None, seconds: float, model: Emotion2vec, tmp_path: Path
) -> None:
    records = find_recordings(write_tone(tmp_path / "a.wav", seconds))
    waveform = torch.from_numpy(normalize(records[0].load())).unsqueeze(0)
    with torch.no_grad():
        output = model(waveform, output_hidden_states=True)
    frames, tokens = output.last_hidden_state[0].numpy(), output.utterance_tokens[0].numpy()
    if weights is not None:
        frames, tokens = (
            sum(w * x[0].numpy() for w, x in zip(weights, states, strict=True))
            for states in (output.hidden_states, output.token_states)
        )
    levels = {"frame": frames, "utterance": frames.mean(axis=0), "tokens": tokens}
    backbone = encoder_backbone(model, "tiny", layer=layer)
    for level, expected in levels.items():
        (features,) = extract(records, backbone, level=level)
        assert features.values is not None and features.values.dtype == np.float32
        assert features.values.shape == expected.shape
        assert np.abs(features.values - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "layer, message",
    [
        ([0.5, 0.5], "2 layer weights with the sum 1 are given; tiny needs 4"),
        ([0.5, 0.5, 0.5, 0.5], "with the sum 2 are given"),
        ([float("nan"), 0.0, 0.0, 1.0], "with the sum nan"),
        (-4, "has no layer -4; choose 0 .* to 3, or -3 to -1"),
    ],
)
def test_layers_that_there_are_not(layer: Any, message: str, model: Emotion2vec) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_backbone(model, "tiny", layer=layer)


@pytest.mark.parametrize("text", ["third", "0.5;0.5", "1,", ""])
def test_layers_that_nobody_understands(text: str) -> None:
    with pytest.raises(ValueError, match='give a number such as 6 or -1, "mean", "all", or one'):
        parse_layer(text)


def test_no_tokens_where_there_are_none(tones: Path) -> None:
    with pytest.raises(ValueError, match="logmel has no utterance tokens; choose frame or"):
        list(extract(find_recordings(tones), load_backbone("logmel"), level="tokens"))


def test_the_mean_over_many_frames_is_exact(model: Emotion2vec, tmp_path: Path) -> None:
    # Adding 100,000 numbers in float32 one after another is off by 1e-4.
    frames = np.random.default_rng(0).normal(30, 1, (100_000, 8)).astype(np.float32)
    records = find_recordings(write_tone(tmp_path / "a.wav"))
    nothing = np.zeros((0, 8), np.float32)
    fixed = Backbone("fixed", 8, "1", lambda clips: [Encoded(frames, nothing)])
    (features,) = extract(records, fixed, level="utterance")
    assert features.values is not None
    assert np.allclose(features.values, frames.mean(axis=0, dtype=np.float64), rtol=2e-7)


def test_backbones_by_name(model: Emotion2vec, tmp_path: Path, tones: Path) -> None:
    model.save_pretrained(tmp_path / "model")
    record = find_recordings(tones)[0]
    (own,) = extract([record], load_backbone(str(tmp_path / "model")))
    assert own.values is not None
    assert np.allclose(own.values, alone(model, record.path), atol=1e-5)
    (random,) = extract([record], load_backbone(f"random:{tmp_path / 'model'}"))
    assert random.values is not None and random.values.shape == own.values.shape
    with pytest.raises(FileNotFoundError, match="neither a folder nor a name on the hub"):
        load_backbone(str(tmp_path / "none"))


def test_a_folder_of_features_with_bad_files_and_a_second_run(
    model: Emotion2vec, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    (tones / "empty.wav").write_bytes(b"")
    write_tone(tones / "deep" / "short.wav", 0.02)
    whole = write_tone(tones / "cut.flac").read_bytes()
    (tones / "cut.flac").write_bytes(whole[: len(whole) // 2])
    records, out = find_recordings(tones), tmp_path / "features"
    assert extract_to_folder(records, backbone, out, dtype="float32") == (12, 0, 3)
    rows = {row["key"]: row for row in read_jsonl(out / "index.jsonl")}
    assert list(rows) == [r.key for r in records]
    assert "empty (0 bytes)" in rows["empty"]["error"]
    assert "0.020 s long" in rows["deep/short"]["error"]
    assert "cannot be decoded" in rows["cut"]["error"]
    for record in records:
        row = rows[record.key]
        assert (row["file"] is None) == bool(row["error"])
        if row["file"]:
            expected = alone(model, record.path)
            assert np.allclose(np.load(out / row["file"]), expected, atol=1e-4)
    kept = out / "clip03.npy"
    (out / "clip05.npy").unlink()
    kept.write_bytes(b"not computed again")
    assert extract_to_folder(records, backbone, out, dtype="float32") == (1, 11, 3)
    assert kept.read_bytes() == b"not computed again"
    assert (out / "clip05.npy").exists()


def test_a_key_that_stands_for_other_sound_is_computed_again(
    backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records, out = find_recordings(tones), tmp_path / "out"
    first = Record("same", records[0].path)
    other = Record("same", records[5].path)
    assert extract_to_folder([first, records[1]], backbone, out) == (2, 0, 0)
    before = np.load(out / "same.npy")
    assert extract_to_folder([other], backbone, out) == (1, 0, 0)
    assert np.load(out / "same.npy").shape != before.shape
    assert {row["key"] for row in read_jsonl(out / "index.jsonl")} == {"same", records[1].key}


def test_weights_trained_anew_are_other_features(tones: Path, tmp_path: Path) -> None:
    records = find_recordings(tones)[:1]
    for seed in (0, 1):
        model = random_encoder(Emotion2vecConfig(**TINY), seed)
        backbone = encoder_backbone(model, "tiny")
        if seed:
            with pytest.raises(ValueError, match="choose another folder"):
                extract_to_folder(records, backbone, tmp_path / "out")
        else:
            extract_to_folder(records, backbone, tmp_path / "out")


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_what_does_not_fit_the_memory_is_a_row(
    kind: type[Exception], backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records = find_recordings(tones)

    def encode(clips: Any) -> Any:
        if max(map(len, clips)) > 18000:
            raise kind("out of memory")
        return backbone.encode(clips)

    small = replace(backbone, encode=encode)
    summary = extract_to_folder(records, small, tmp_path / "out")
    rows = read_jsonl(tmp_path / "out" / "index.jsonl")
    failed = [row for row in rows if row["error"] == "cannot be encoded: out of memory"]
    assert summary.failed == len(failed) == sum(r.num_samples() > 18000 for r in records) == 1
    assert summary.written == len(records) - 1


def test_a_folder_holds_one_kind_of_features(
    backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records = find_recordings(tones)[:1]
    extract_to_folder(records, backbone, tmp_path / "out")
    with pytest.raises(ValueError, match="holds features made with .*choose another folder"):
        extract_to_folder(records, backbone, tmp_path / "out", level="utterance")


def test_keys_and_levels_that_are_refused(backbone: Backbone, tones: Path, tmp_path: Path) -> None:
    path = find_recordings(tones)[0].path
    with pytest.raises(ValueError, match="points out of"):
        extract_to_folder([Record("../../a", path)], backbone, tmp_path / "out")
    with pytest.raises(ValueError, match="level is 'word'; choose one of frame, utterance"):
        extract_to_folder([Record("a", path)], backbone, tmp_path / "out", level="word")
    assert not (tmp_path / "out" / "settings.json").exists()


def test_an_output_that_cannot_be_written(backbone: Backbone, tones: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write"):
        extract_to_folder(find_recordings(tones), backbone, tmp_path / "file" / "out")


def test_a_recording_that_cannot_be_held_is_a_row(backbone: Backbone, tones: Path) -> None:
    class Huge(Record):
        def load(self) -> Any:
            raise MemoryError("no room for 3 TB")

    records = [*find_recordings(tones)[:2], Huge("huge", find_recordings(tones)[2].path)]
    errors = {features.key: features.error for features in extract(records, backbone)}
    assert errors == {
        "clip00": "",
        "clip01": "",
        "huge": "does not fit the memory: no room for 3 TB",
    }


def test_memory_goes_back_to_the_system(
    backbone: Backbone, tones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[int] = []
    monkeypatch.setattr("emotion2vec.batching._trim_memory", lambda: trims.append(1))
    list(extract(find_recordings(tones), backbone, batch_seconds=0.1))
    assert len(trims) == 5  # of 12 batches, every second after the first
    list(extract(find_recordings(tones)[:1], backbone))
    assert len(trims) == 5  # a single one would only be slower for it


def test_one_run_a_folder(backbone: Backbone, tones: Path, tmp_path: Path) -> None:
    records = find_recordings(tones)
    refused = pytest.raises(OSError, match="another run is writing to")
    with Folder(tmp_path / "out").locked(), refused:
        extract_to_folder(records, backbone, tmp_path / "out")
    assert extract_to_folder(records, backbone, tmp_path / "out").written == len(records)
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_relative_path_means_another_file_elsewhere(
    backbone: Backbone, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = sorted(tones.glob("*.wav"))[:2]
    written = []
    for name, sound in zip("ab", sounds, strict=True):
        (tmp_path / name).mkdir()
        shutil.copy(sound, tmp_path / name / "x.wav")
        monkeypatch.chdir(tmp_path / name)
        summary = extract_to_folder(find_recordings("x.wav"), backbone, tmp_path / "out")
        written.append(((tmp_path / "out" / "x.npy").read_bytes(), summary.written))
    assert written[0][0] != written[1][0] and written[1][1] == 1
    monkeypatch.chdir(tmp_path)  # the same file by another name
    again = find_recordings(tmp_path / "b" / "x.wav")
    assert extract_to_folder(again, backbone, tmp_path / "out").skipped == 1


def test_parquet_refuses_keys_that_are_no_text(
    backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    record = Record("b\udcff", find_recordings(tones)[0].path)
    with pytest.raises(ValueError, match="no valid text, which parquet needs"):
        extract_to_folder([record], backbone, tmp_path / "out", file_format="parquet")
