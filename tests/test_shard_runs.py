"""Runs on lists and shards: killed and resumed, spread over processes; the cache of shards."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import write_tone
from test_pretraining_loop import CONFIG, assert_same, weights
from test_resume import StopAfter, command, environment, kill_when

from emotion2vec import shards as shards_module
from emotion2vec.corpus import open_corpus
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import find_recordings, write_manifest
from emotion2vec.pack import pack
from emotion2vec.pretraining.config import write_config
from emotion2vec.pretraining.data import Batches, batch_loader, scan
from emotion2vec.pretraining.loop import pretrain
from emotion2vec.shards import Shard, ShardCache, UnreachableError, find_shards

SMALL = 0.08  # MB: the tones make 5 shards
FAR = replace(CONFIG, shards_together=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that shards are fetched to."""
    monkeypatch.setenv("EMOTION2VEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def far_away(folder: Path) -> str:
    """The address of a copy that fsspec has to fetch, and that other processes know, too."""
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"shards/{path.name}")
    return f"zip://shards::{folder.with_suffix('.zip')}"


def make(kind: str, tones: Path) -> str:
    """The tones as a list, as shards at hand, or as shards from afar."""
    if kind == "list":
        records = [replace(r, duration=r.num_samples() / 16000) for r in find_recordings(tones)]
        write_manifest(records, tones.parent / "list.jsonl")
        return str(tones.parent / "list.jsonl")
    pack(tones, tones.parent / "packed", shard_mb=SMALL)
    return str(tones.parent / "packed") if kind == "near" else far_away(tones.parent / "packed")


@pytest.mark.slow
@pytest.mark.parametrize("kind, workers", [("list", 0), ("far", 2)])
def test_killed_in_an_epoch_and_resumed_is_uninterrupted(
    kind: str, workers: int, tones: Path, tmp_path: Path
) -> None:
    config = replace(FAR, max_updates=13, save_every=3, num_workers=workers)
    write_config(config, tmp_path / "c.toml")
    data: Any = make(kind, tones)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options: dict[str, Any] = {"processes": 1}
    words = command(tmp_path / "c.toml", data, whole, resume=False, **options)
    subprocess.run(words, env=environment(), check=True)
    kill_when([4, 5], command(tmp_path / "c.toml", data, broken, resume=False, **options), broken)
    words = command(tmp_path / "c.toml", data, broken, resume=True, **options)
    subprocess.run(words, env=environment(), check=True)
    assert_same(weights(whole), weights(broken))
    epochs = [line["epoch"] for line in read_jsonl(broken / "metrics.jsonl")]
    assert 0 < epochs[3] < 1 < epochs[-1]  # killed in the middle of the first


@pytest.mark.parametrize("kind, workers", [("list", 2), ("near", 0), ("far", 0)])
def test_resuming_goes_on_in_the_middle_of_an_epoch(
    kind: str, workers: int, tones: Path, tmp_path: Path
) -> None:
    config, data = replace(FAR, max_updates=7, num_workers=workers), make(kind, tones)
    pretrain(config, data, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt), StopAfter(2):
        pretrain(config, data, tmp_path / "parts", progress=False)
    with pytest.MonkeyPatch.context() as patch:  # nothing is read again
        patch.setattr("emotion2vec.corpus._index", None)
        pretrain(config, data, tmp_path / "parts", resume=True, progress=False)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_shards_here_and_far_away_are_not_one_corpus(tones: Path) -> None:
    near, far = open_corpus(make("near", tones)), open_corpus(make("far", tones))
    assert near.lengths.tolist() == far.lengths.tolist()
    assert near.digest != far.digest  # their orders differ


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_meet_each_clip_of_shards_once_an_epoch(
    workers: int, tmp_path: Path, cache: Path
) -> None:
    for i in range(16):
        write_tone(tmp_path / "tones" / f"{i}.wav", 0.5, pitch=100 + i)
    pack(tmp_path / "tones", tmp_path / "packed", shard_mb=0.05)
    config = replace(FAR, max_batch_seconds=1.0, max_clip_seconds=1.0, num_masks=1)
    batches = Batches(scan(far_away(tmp_path / "packed"), config, progress=False), config)
    size = batches.batches_per_epoch
    assert batches.groups and len(batches.groups.sources) >= 3 and size >= 8
    loaders = [
        batch_loader(batches, first=0, rank=rank, world=2, workers=workers) for rank in (0, 1)
    ]
    epochs = []
    for epoch in range(2):
        rows = []
        for number in range(epoch * size, (epoch + 1) * size):  # the processes take turns
            rows += [row.tobytes() for row in next(loaders[number % 2]).waveform.numpy()]
        assert len(rows) == len(set(rows)) == 16
        epochs.append(rows)
    assert epochs[0] != epochs[1] and set(epochs[0]) == set(epochs[1])


def test_each_shard_is_fetched_once_an_epoch(
    tones: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    original = shards_module._fetch

    def fetch(shard: Shard, path: Path) -> None:
        fetched.append(shard.name)
        original(shard, path)

    monkeypatch.setattr(shards_module, "_fetch", fetch)
    corpus = scan(make("far", tones), FAR, progress=False)
    sizes = sorted(s.size for s in corpus.sources if isinstance(s, Shard))
    assert len(sizes) >= 5
    config = replace(FAR, shards_together=1, shard_cache_gb=sum(sizes[-3:]) / 1e9)
    batches = Batches(corpus, config)
    for number in range(batches.batches_per_epoch):
        assert len(batches[number].waveform)
        time.sleep(0.02)  # the next shard is on its way
        files = list(cache.glob("*.tar"))
        assert sum(file.stat().st_size for file in files) <= sum(sizes[-3:])
    assert max(Counter(fetched).values()) <= 2 and len(set(fetched)) == len(sizes)
    assert len(fetched) <= len(sizes) + 1  # the first of the next epoch
    with pytest.raises(ValueError, match="two groups of 2 shards take .* raise it, or lower"):
        Batches(corpus, replace(FAR, shard_cache_gb=sum(sizes[-2:]) / 1e9))


def _read_all(address: str, limit: int, answers: Any) -> None:
    corpus, cache = open_corpus(address), ShardCache(limit)
    answers.put([corpus.load(i % len(corpus), cache).sum() for i in range(3 * len(corpus))])


@pytest.mark.slow
def test_processes_share_a_cache_that_is_too_small_for_them(tones: Path, cache: Path) -> None:
    address, context = make("far", tones), multiprocessing.get_context("spawn")
    near = open_corpus(tones.parent / "packed")
    largest = max(shard.size for shard in find_shards(address))
    cache.mkdir(parents=True)
    (cache / ".killed.tar.tmp").write_bytes(b"half")  # goes, so that the bound holds
    answers: Any = context.Queue()
    processes = [
        context.Process(target=_read_all, args=(address, 2 * largest, answers)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    expected = [near.load(i % len(near)).sum() for i in range(3 * len(near))]
    assert all(answers.get(timeout=120) == expected for _ in processes)
    for process in processes:
        process.join()
    assert sum(file.stat().st_size for file in cache.iterdir()) <= 2 * largest


def test_shards_that_cannot_be_fetched_stop_the_run(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = make("far", tones)
    waits: list[float] = []
    monkeypatch.setattr(shards_module.time, "sleep", waits.append)
    cache = ShardCache(folder=tmp_path / "own")
    shard = replace(find_shards(address)[0], size=5)
    with pytest.raises(UnreachableError, match=r"\(OSError: \d+ of 5 bytes came\)"):
        cache.get(shard)
    assert waits == [1, 2, 4] and not list((tmp_path / "own").glob("*.tar"))
    with pytest.raises(UnreachableError, match="FileNotFoundError"):
        cache.get(replace(shard, name="gone.tar"))

    def fails(shard: Shard, path: Path) -> None:
        raise UnreachableError(f"{shard} cannot be fetched (no network)")

    monkeypatch.setattr(shards_module, "_fetch", fails)
    with pytest.raises(ValueError, match=r"cannot be fetched \(no network\).*then --resume"):
        pretrain(FAR, address, tmp_path / "run", progress=False)


def test_damaged_shards_cost_their_clips_only(tones: Path, tmp_path: Path) -> None:
    packed = Path(make("near", tones))
    tar = packed / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:20000])
    index = packed / "shard-000002.jsonl"
    rows = read_jsonl(index)
    config = replace(CONFIG, max_updates=10)
    result = pretrain(config, packed, tmp_path / "run", progress=False)
    skipped = {row["key"]: row["error"] for row in read_jsonl(tmp_path / "run/skipped.jsonl")}
    assert result.skipped == len(skipped) > 0
    assert all("shard-000001.tar" in error for error in skipped.values())
    assert skipped.keys() <= {row["key"] for row in read_jsonl(packed / "shard-000001.jsonl")}
    index.write_text('{"key": "a"}\n')
    with pytest.raises(ValueError, match=r"shard-000002.jsonl is broken .* pack the shards anew"):
        open_corpus(packed)
    index.unlink()
    assert rows and len(open_corpus(packed)) == 12 - len(rows)  # not finished: left out
