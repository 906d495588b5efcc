"""Features on a cluster of two actors: the local engine's rows, and no more, whoever is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from conftest import TINY, call, write_tone

from emotion2vec import Emotion2vecConfig, feature_files, ray_actor, ray_extract
from emotion2vec.audio import load_audio
from emotion2vec.backbones import load_backbone, random_encoder
from emotion2vec.extract import extract_to_folder
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import Record, find_recordings, write_manifest
from emotion2vec.ray_actor import Extractor, Job, packed, task_name
from emotion2vec.ray_extract import _check_answers, extract_with_ray
from emotion2vec.ray_watch import DeathWatch

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two processors, as far as Ray is concerned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        memory = 80 * 2**20
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=memory)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    random_encoder(Emotion2vecConfig(**TINY)).save_pretrained(folder)
    return str(folder)


def rows_in(out: Path) -> dict[str, Any]:
    """The rows of all parts by key; none may come twice."""
    tables = [pyarrow.parquet.read_table(path) for path in sorted(out.glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def assert_same(out: Path, expected: Path) -> None:
    """Both folders hold the same rows, values but for float16's rounding."""
    found, wanted = rows_in(out), rows_in(expected)
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        values, other = (np.array(r.pop("values"), np.float16) for r in (row, found[key]))
        assert found[key] == row
        assert np.allclose(values, other, rtol=1e-3, atol=1e-3)
    index, other_index = (read_jsonl(folder / "index.jsonl") for folder in (out, expected))
    for one, two in zip(index, other_index, strict=True):
        assert one | {"file": None} == two | {"file": None}
        assert (one["file"] is None) == (two["file"] is None) == bool(one["error"])
        assert one["file"] is None or (out / one["file"]).is_file()
    schemas = [pyarrow.parquet.read_schema(next(f.glob("*.parquet"))) for f in (out, expected)]
    assert schemas[0] == schemas[1]


def test_rows_are_those_of_the_local_engine(
    cluster: None, model: str, tones: Path, tmp_path: Path
) -> None:
    (tones / "empty.wav").write_bytes(b"")
    whole = write_tone(tones / "cut.flac").read_bytes()
    (tones / "cut.flac").write_bytes(whole[: len(whole) // 2])
    records = [replace(r, path=f"file://{r.path}") for r in find_recordings(tones)]
    records += [Record("gone", str(tones / "gone.wav"), duration=1.0)]
    records += [Record("part", str(tones / "clip11.wav"), 0.25, 0.75)]
    write_manifest(records, tmp_path / "list.jsonl")
    words = [str(tmp_path / "list.jsonl"), "--model", model, "--level", "utterance"]
    local, out = tmp_path / "local", tmp_path / "ray"
    assert call("extract", *words, "--out", str(local), "--to", "parquet", "--quiet") == 3
    words += ["--engine", "ray", "--actors", "2", "--quiet"]
    assert call("extract", *words, "--out", f"file://{out}") == 3
    assert_same(out, local)
    errors = {row["key"]: row["error"] for row in read_jsonl(out / "index.jsonl") if row["error"]}
    assert "empty (0 bytes)" in errors["empty"] and "cannot be decoded" in errors["cut"]
    assert set(errors) == {"empty", "cut", "gone"}
    # Each engine finds what the other has done: only what failed is tried again.
    backbone = load_backbone(model)
    options = {"level": "utterance", "file_format": "parquet"}
    good = [record for record in records if record.key not in errors]
    assert extract_to_folder(good, backbone, out, **options) == (0, 13, 0)  # type: ignore[arg-type]
    assert extract_with_ray(good, model, local, level="utterance") == (0, 13, 0)
    # What is missing is computed, and nothing else.
    parts = sorted(out.glob("part-*.parquet"))
    lost = len(pyarrow.parquet.read_table(parts[0]))
    parts[0].unlink()
    kept = {part: part.stat().st_mtime_ns for part in parts[1:]}
    summary = extract_with_ray(good, model, out, level="utterance", actors=2)
    assert summary == (lost, 13 - lost, 0)
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert rows_in(out).keys() == {record.key for record in good}


def killed_twice(folder: Path) -> type[Extractor]:
    """An actor that is killed in the middle of a group, and one that is before it can answer."""

    class Killed(Extractor):
        def compute(self, group: Any) -> Any:
            feature_files.PART_ROWS = 1
            backbone, calls = load_backbone(self.job.model), 0

            def encode(clips: Any) -> Any:
                nonlocal calls
                calls += 1
                with (folder / "encoded").open("a") as log:
                    log.write(f"{len(clips)}\n")
                if calls == 2:
                    die("in a group")
                return backbone.encode(clips)

            def die(when: str) -> None:
                if not (folder / when).exists():
                    (folder / when).touch()
                    os.kill(os.getpid(), signal.SIGKILL)

            self.backbone = replace(backbone, encode=encode)
            rows = super().compute(group)
            die("before the answer")
            return rows

    return Killed


def test_killed_actors_lose_nothing_and_double_nothing(
    cluster: None, model: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_extract, "Extractor", killed_twice(tmp_path))
    records, out = find_recordings(tones), tmp_path / "out"
    options: dict[str, Any] = {"level": "frame", "batch_seconds": 0.1}
    # Far away, for all that is known of it: whatever is written there goes through fsspec.
    far = f"simplecache::file://{out}"
    assert extract_with_ray(records, model, far, actors=2, **options) == (12, 0, 0)
    assert (tmp_path / "in a group").exists() and (tmp_path / "before the answer").exists()
    monkeypatch.setattr(feature_files, "PART_ROWS", 1)
    options["file_format"] = "parquet"
    extract_to_folder(records, load_backbone(model), tmp_path / "local", **options)
    assert_same(out, tmp_path / "local")
    # The group whose rows were written was not computed again, of the other one recording was.
    assert len((tmp_path / "encoded").read_text().split()) == 13
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_what_no_actor_can_do_ends_the_run(
    cluster: None, model: str, tones: Path, tmp_path: Path
) -> None:
    records, out = find_recordings(tones), tmp_path / "out"
    with pytest.raises(RuntimeError, match="an actor cannot load .*nonsense"):
        extract_with_ray(records, model, out, device="nonsense", actors=1)
    assert {row["error"] for row in read_jsonl(out / "index.jsonl")} == {"not computed yet"}
    with pytest.raises(ValueError, match="gpus is 1, and the cluster has no GPU; leave it out"):
        extract_with_ray(records, model, out, gpus=1)


def job_of(model: str, out: Path, **changes: Any) -> Job:
    """What an actor is told, after the folder was begun."""
    out.mkdir(exist_ok=True)
    (out / "settings.json").touch()
    backbone = load_backbone(model, device="cpu")
    options = {"layer": None, "device": "cpu", "fingerprint": backbone.fingerprint}
    options |= {"level": "utterance", "dtype": "float32", "batch_seconds": 20.0}
    return Job(model, **{**options, "out": str(out), **changes})


def test_a_group_that_is_run_again_writes_the_same_parts(
    model: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_files, "PART_ROWS", 5)
    group, out = find_recordings(tones), tmp_path / "out"
    job = job_of(model, out, batch_seconds=0.1)  # one by one: the same to the last bit
    first = Extractor(job).compute(group)
    before = {path: path.read_bytes() for path in out.glob("*.parquet")}
    assert len(before) == 3 and {row["error"] for row in first} == {""}
    again = Extractor(job)
    again.backbone = replace(again.backbone, encode=lambda clips: pytest.fail("computed again"))
    assert again.compute(group) == first
    sorted(before)[-1].unlink()  # killed before the last part was written
    assert Extractor(job).compute(group) == first
    assert {path: path.read_bytes() for path in out.glob("*.parquet")} == before


class Death(BaseException):
    """Ends a process, for all that the code can do about it."""


def test_what_kills_whoever_reads_it_is_a_row(
    model: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, watch, deaths = find_recordings(tones), DeathWatch(), 0
    deadly = {len(load_audio(r.path)) for r in group if r.key in ("clip03", "clip08")}
    monkeypatch.setattr(Extractor, "_tell", lambda self, what, *words: getattr(watch, what)(*words))
    rows: list[Any] = []
    while not rows:
        actor = Extractor(job_of(model, tmp_path))
        encode = actor.backbone.encode

        def read(clips: Any, encode: Any = encode) -> Any:
            if deadly & {len(clip) for clip in clips}:
                raise Death
            return encode(clips)

        actor.backbone = replace(actor.backbone, encode=read)
        try:
            rows = actor.compute(group)
        except Death:
            deaths += 1
    assert deaths == 4  # two unexplained, then one for each of the two
    errors = {row["key"]: row["error"] for row in rows if row["error"]}
    assert errors == dict.fromkeys(("clip03", "clip08"), ray_actor.DIED)
    assert rows_in(tmp_path).keys() == {r.key for r in group} - set(errors)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_actors_that_stop(model: str, tones: Path, tmp_path: Path) -> None:
    records = find_recordings(tones)[:2]
    group, name = json.loads(packed(records)), f".part-{task_name(records)}-00000.parquet.tmp"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / name).symlink_to("/dev/full")
    (tmp_path / "full" / "settings.json").touch()
    for changes, message in (
        ({"fingerprint": "other"}, "an actor found other weights in "),
        ({"model": "no/such"}, "an actor cannot load no/such, or reach "),
        ({"out": str(tmp_path / "elsewhere")}, "an actor finds nothing in "),
        ({"out": str(tmp_path / "full")}, "cannot write "),
    ):
        actor = Extractor(replace(job_of(model, tmp_path), **changes))  # type: ignore[arg-type]
        for _ in range(2):
            answer = actor.answer(group)
            assert message in answer["stop"] and not answer["rows"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--engine", "ray", "--to", "npy"], "to is npy, and --engine ray writes parquet"),
        (["--engine", "ray", "--actors", "0"], "actors is 0; give at least 1"),
        (["--actors", "2", "--gpus", "1"], "--actors, --gpus: for --engine ray only"),
        (["--engine", "ray", "--level", "frame"], "holds features made with .* choose another"),
        (["--engine", "ray", "--layer", "9"], "has no layer 9"),
    ],
)
def test_options_that_are_refused(
    words: list[str], message: str, model: str, tones: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    records = find_recordings(tones)[:1]
    options = {"level": "utterance", "file_format": "parquet"}
    extract_to_folder(records, load_backbone(model), out, **options)  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert call("extract", tones, "--model", model, "--out", out, *words) == 1
    assert re.search(message, capsys.readouterr().err)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_the_local_engine_names_the_other(model: str, tones: Path, capsys: Any) -> None:
    assert call("extract", tones, "--model", model, "--out", "s3://bucket/out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: out is s3://bucket/out") and "--engine ray" in error


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError, match=f"no Ray answers at 127.0.0.1:{port}"):
        _check_answers(f"127.0.0.1:{port}")
    for name in ("auto", "local"):
        _check_answers(name)
