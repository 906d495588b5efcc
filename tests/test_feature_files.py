"""Folders of features: formats, what is read back, kills, full disks, lists of Kaldi's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from conftest import TINY

from emotion2vec import Emotion2vecConfig, feature_files
from emotion2vec.audio import load_audio
from emotion2vec.backbones import Backbone, encoder_backbone, random_encoder
from emotion2vec.extract import NOT_YET, extract, extract_to_folder
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import Record, find_recordings

FORMATS = ("npy", "npz", "parquet")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return encoder_backbone(random_encoder(Emotion2vecConfig(**TINY)), "tiny", device="cpu")


def index_of(out: Path) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_jsonl(out / "index.jsonl")}


def read_back(out: Path) -> dict[str, tuple[Any, ...]]:
    """What a folder holds, in the index's order: key -> values, path, start, end."""
    found: dict[str, tuple[Any, ...]] = {}
    index = index_of(out)
    for key, row in index.items():
        if row["file"] is None:
            continue
        source = (row["path"], row["start"], row["end"])
        if row["file"].endswith(".npy"):
            found[key] = (np.load(out / row["file"]), *source)
        elif row["file"].endswith(".npz"):
            with np.load(out / row["file"]) as held:
                end = None if np.isnan(held["end"]) else float(held["end"])
                found[key] = (held["values"], str(held["path"]), float(held["start"]), end)
        else:
            for r in pyarrow.parquet.read_table(out / row["file"]).to_pylist():
                values = np.array(r["values"], np.float16).reshape(r["shape"])
                found[r["key"]] = (values, r["path"], r["start"], r["end"])
    return {key: found[key] for key in index if key in found}


@pytest.mark.parametrize("level", ["frame", "utterance", "tokens"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_read_back(
    file_format: str, level: str, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    whole = find_recordings(tones)
    records = [*whole[:3], Record("deep/part", whole[5].path, 0.1, 0.7)]
    records += [Record("a b.c", whole[6].path, 0.05)]
    out = tmp_path / "out"
    assert extract_to_folder(records, backbone, out, level=level, file_format=file_format) == (
        5,
        0,
        0,
    )
    found = read_back(out)
    expected = {f.key: f.values for f in extract(records, backbone, level=level)}
    assert list(found) == [r.key for r in records]
    for record in records:
        values, *source = found[record.key]
        assert values.dtype == np.float16 and tuple(source) == (
            record.path,
            record.start,
            record.end,
        )
        assert values.shape == expected[record.key].shape  # type: ignore[union-attr]
        assert np.allclose(values, expected[record.key], rtol=2e-3, atol=2e-3)


def test_parts_of_parquet(
    backbone: Backbone, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, out = find_recordings(tones), tmp_path / "out"
    monkeypatch.setattr(feature_files, "PART_ROWS", 5)
    options = {"level": "utterance", "file_format": "parquet", "dtype": "float32"}
    extract_to_folder(records, backbone, out, **options)  # type: ignore[arg-type]
    parts = sorted(path.name for path in out.glob("*.parquet"))
    assert parts == [f"part-0000{i}.parquet" for i in range(3)]
    table = pyarrow.parquet.read_table(sorted(out.glob("*.parquet")))
    assert table.column_names == ["key", "path", "start", "end", "shape", "values"]
    assert table["end"].type == pyarrow.float64() and table["end"].null_count == 12
    assert sorted(table["key"].to_pylist()) == [r.key for r in records]
    values = np.stack(table["values"].to_numpy())
    expected = {f.key: f.values for f in extract(records, backbone, level="utterance")}
    for key, row in zip(table["key"].to_pylist(), values, strict=True):
        assert np.allclose(row, expected[key], atol=1e-5)
    monkeypatch.setattr(feature_files, "PART_BYTES", 1)
    more = [*records, Record("again", records[0].path)]
    assert extract_to_folder(more, backbone, out, **options) == (1, 12, 0)  # type: ignore[arg-type]
    assert index_of(out)["again"]["file"] == "part-00003.parquet"


KILLED = """
import os, signal, sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from conftest import TINY
from emotion2vec import Emotion2vecConfig, feature_files
from emotion2vec.backbones import encoder_backbone, random_encoder
from emotion2vec.extract import extract_to_folder
from emotion2vec.manifest import find_recordings
tests, tones, out, file_format, when = sys.argv[1:]
backbone = encoder_backbone(random_encoder(Emotion2vecConfig(**TINY)), "tiny", device="cpu")
feature_files.PART_ROWS = 3
calls = 0
def encode(clips):
    global calls
    calls += 1
    if calls > 7:
        if when == "writing":
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return backbone.encode(clips)
extract_to_folder(
    find_recordings(tones), replace(backbone, encode=encode), out, level="utterance",
    file_format=file_format, batch_seconds=0.1,
)
"""


@pytest.mark.parametrize("when", ["encoding", "writing"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_killed_run_goes_on(
    file_format: str, when: str, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [str(Path(__file__).parent), str(tones), str(out), file_format, when]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # What was written is there; the index, from before the work, does not know it yet.
    there = 6 if file_format == "parquet" else 7  # two parts of three, or seven files
    assert {row["error"] for row in index_of(out).values()} == {NOT_YET}
    computed: list[int] = []

    def encode(clips: Any) -> Any:
        computed.append(len(clips))
        return backbone.encode(clips)

    records = find_recordings(tones)
    spied, options = replace(backbone, encode=encode), {"level": "utterance"}
    options["file_format"] = file_format
    assert extract_to_folder(records, spied, out, **options) == (12 - there, there, 0)  # type: ignore[arg-type]
    assert sum(computed) == 12 - there
    extract_to_folder(records, backbone, tmp_path / "whole", **options)  # type: ignore[arg-type]
    resumed, whole = read_back(out), read_back(tmp_path / "whole")
    assert list(resumed) == list(whole) == [r.key for r in records]
    for key, (values, *source) in whole.items():
        assert np.allclose(resumed[key][0], values, atol=2e-3) and list(resumed[key][1:]) == source
    assert not list(out.glob(".*"))  # nothing half written is left


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_stopped_run_keeps_what_it_has(
    file_format: str, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records, out, seen = find_recordings(tones), tmp_path / "out", []

    def encode(clips: Any) -> Any:
        seen.append({row["error"] for row in index_of(out).values()})
        if len(seen) == 4:
            raise KeyboardInterrupt
        return backbone.encode(clips)

    with pytest.raises(KeyboardInterrupt):
        extract_to_folder(
            records,
            replace(backbone, encode=encode),
            out,
            file_format=file_format,
            batch_seconds=0.1,
        )
    assert seen == [{NOT_YET}] * 4  # the index while the run is going on
    rows = index_of(out).values()
    assert sorted(row["error"] for row in rows) == [""] * 3 + [NOT_YET] * 9
    assert all((row["file"] is None) == bool(row["error"]) for row in rows)
    assert extract_to_folder(records, backbone, out, file_format=file_format) == (9, 3, 0)


@pytest.mark.parametrize("file_format", ["npy", "npz"])
def test_other_sound_under_a_key(
    file_format: str, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    path = find_recordings(tones)[3].path
    for record in (Record("a", path), Record("a", path, 0.1), Record("a", path, 0.1, 0.5)):
        assert extract_to_folder([record], backbone, tmp_path, file_format=file_format).written
        assert read_back(tmp_path)["a"][1:] == (path, record.start, record.end)
    twisted = Record("a", os.path.relpath(path), 0.1, 0.5)  # the same file
    assert extract_to_folder([twisted], backbone, tmp_path, file_format=file_format).skipped


def test_other_sound_under_a_key_of_parquet(
    backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records = find_recordings(tones)[:2]
    extract_to_folder(records, backbone, tmp_path, file_format="parquet")
    before = (tmp_path / "index.jsonl").read_bytes()
    other = Record(records[0].key, records[1].path)
    with pytest.raises(ValueError, match="stands for other sound .* choose another folder"):
        extract_to_folder([other], backbone, tmp_path, file_format="parquet")
    assert (tmp_path / "index.jsonl").read_bytes() == before


def scaled(backbone: Backbone, factor: float) -> Backbone:
    def encode(clips: Any) -> Any:
        return [e._replace(frames=e.frames * np.float32(factor)) for e in backbone.encode(clips)]

    return replace(backbone, encode=encode)


@pytest.mark.parametrize(
    "factor, dtype, error",
    [
        (1e6, "float16", "beyond float16; extract them as float32"),
        (1e6, "float32", ""),
        (np.nan, "float32", "beyond float32; check the model's weights"),
    ],
)
def test_values_that_the_type_cannot_hold(
    factor: float, dtype: str, error: str, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records = find_recordings(tones)[:2]
    summary = extract_to_folder(records, scaled(backbone, factor), tmp_path, dtype=dtype)
    assert summary.failed == (2 if error else 0)
    for row in index_of(tmp_path).values():
        assert error in row["error"] and (row["file"] is None) == bool(error)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    "file_format, temporary",
    [
        ("npy", ".clip05.npy.tmp"),
        ("npz", ".clip05.npz.tmp"),
        ("parquet", ".part-00001.parquet.tmp"),
    ],
)
def test_a_full_disk(
    file_format: str,
    temporary: str,
    backbone: Backbone,
    tones: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feature_files, "PART_ROWS", 5)
    records, out = find_recordings(tones), tmp_path / "out"
    out.mkdir()
    (out / temporary).symlink_to("/dev/full")
    with pytest.raises(OSError, match="cannot write .*(clip05|part-00001).*free space"):
        extract_to_folder(records, backbone, out, file_format=file_format)
    rows = index_of(out).values()
    assert {row["error"] for row in rows} == {"", NOT_YET}
    assert all((row["file"] is None) == bool(row["error"]) for row in rows)
    there = len(read_back(out))
    assert extract_to_folder(records, backbone, out, file_format=file_format) == (
        12 - there,
        there,
        0,
    )
    assert len(read_back(out)) == 12


@pytest.mark.parametrize(
    "key", ["../a", "b/../a", "./a", "a//b", "/a", "x" * 250, "deep/" + "ä" * 125]
)
def test_keys_that_are_no_names_of_files(
    key: str, backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    path, out = find_recordings(tones)[0].path, tmp_path / "out"
    with pytest.raises(ValueError, match="give the recording another key"):
        extract_to_folder([Record("fine", path), Record(key, path)], backbone, out)
    assert not out.exists()
    assert extract_to_folder([Record(key, path)], backbone, out, file_format="parquet").written
    assert list(read_back(out)) == [key]


def test_long_and_odd_keys(backbone: Backbone, tones: Path, tmp_path: Path) -> None:
    path = find_recordings(tones)[0].path
    keys = ["x" * 245, "..a", "a.npy", "ä ö", "a\\b", "n\nl", "d/e/f", ".hidden"]
    assert extract_to_folder([Record(k, path) for k in keys], backbone, tmp_path).written == 8
    assert list(read_back(tmp_path)) == keys


def test_a_key_that_comes_twice(backbone: Backbone, tones: Path, tmp_path: Path) -> None:
    records = find_recordings(tones)
    with pytest.raises(ValueError, match="the key 'clip00' comes twice"):
        extract_to_folder([*records, records[0]], backbone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_are_the_model_not_its_folder(
    backbone: Backbone, tones: Path, tmp_path: Path
) -> None:
    records, out = find_recordings(tones)[:2], tmp_path / "out"
    extract_to_folder(records, backbone, out)
    settings = json.loads((out / "settings.json").read_text())
    assert settings == {
        "backbone": "tiny",
        "weights": backbone.fingerprint,
        "level": "frame",
        "format": "npy",
        "dtype": "float16",
    }
    assert extract_to_folder(records, replace(backbone, name="/moved"), out) == (0, 2, 0)
    for options in ({"level": "tokens"}, {"file_format": "npz"}, {"dtype": "float32"}):
        with pytest.raises(ValueError, match="choose another folder"):
            extract_to_folder(records, backbone, out, **options)  # type: ignore[arg-type]
    model = random_encoder(Emotion2vecConfig(**TINY))
    prints = {encoder_backbone(model, "t", layer=x).fingerprint for x in (None, 0, 1, -2, 3, -1)}
    assert len(prints) == 5  # 3 and -1 are one
    assert len(prints | {encoder_backbone(model, "t", layer="mean").fingerprint}) == 6


@pytest.mark.parametrize("name", ["dtype", "format"])
def test_unknown_options(name: str, backbone: Backbone, tmp_path: Path) -> None:
    option = {"dtype": {"dtype": "int8"}, "format": {"file_format": "hdf5"}}[name]
    with pytest.raises(ValueError, match=f"the {name} is .*; choose one of"):
        extract_to_folder([], backbone, tmp_path / "out", **option)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_lists_of_kaldis(backbone: Backbone, tones: Path, tmp_path: Path) -> None:
    (tones / "wav.scp").write_text("call1 clip10.wav\ncall2 clip11.wav\nbad gone.wav\n")
    out = tmp_path / "whole"
    assert extract_to_folder(find_recordings(tones / "wav.scp"), backbone, out) == (2, 0, 1)
    assert "gone.wav is not a file" in index_of(out)["bad"]["error"]
    (tones / "segments").write_text(
        "call1-a call1 0.0 0.5\ncall1-b call1 0.5 -1\ncall2-a call2 0.25 0.75\n"
    )
    records, out = find_recordings(tones / "wav.scp"), tmp_path / "parts"
    assert extract_to_folder(records, backbone, out, dtype="float32") == (3, 0, 0)
    times = {"call1-a": (0.0, 0.5), "call1-b": (0.5, None), "call2-a": (0.25, 0.75)}
    found = read_back(out)
    assert {key: source[-2:] for key, source in found.items()} == times
    for key, (start, end) in times.items():
        sound = load_audio(
            tones / f"clip{'11' if 'call2' in key else '10'}.wav", start=start, end=end
        )
        (expected,) = backbone.encode([sound])
        assert np.allclose(found[key][0], expected.frames, atol=1e-4)
