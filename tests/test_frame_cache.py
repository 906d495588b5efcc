"""Frames kept by content: hit, missed, shared, killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_tone

from emotion2vec.audio import Waveform
from emotion2vec.backbones import Backbone, load_backbone
from emotion2vec.encoding import Encoded
from emotion2vec.frame_cache import cached_frames
from emotion2vec.frame_store import FrameStore
from emotion2vec.manifest import Record, find_recordings

NOTHING = np.zeros((0, 2), np.float32)


class Counting:
    """A backbone that counts the clips it sees; a frame is a clip's length and sum."""

    def __init__(self, fingerprint: str = "f") -> None:
        self.clips = 0
        self.backbone = Backbone("counting", 2, fingerprint, self.encode)

    def encode(self, clips: Sequence[Waveform]) -> list[Encoded]:
        self.clips += len(clips)
        rows = [np.array([[len(clip), clip.sum()]], np.float32) for clip in clips]
        return [Encoded(row, NOTHING) for row in rows]


def test_frames_are_those_of_the_backbone_and_come_from_the_disk(
    tones: Path, tmp_path: Path
) -> None:
    records, backbone = find_recordings(tones), load_backbone("logmel")
    for _ in range(2):
        frames, errors = cached_frames(records, backbone, folder=tmp_path / "kept")
        assert errors == {} and frames.keys() == {r.key for r in records}
        for record in records:
            (expected,) = backbone.encode([record.load()])
            assert np.array_equal(frames[record.key], expected.frames)
            assert isinstance(frames[record.key], np.memmap)
            assert not frames[record.key].flags.writeable


def test_the_same_sound_is_encoded_once_wherever_it_lies(tones: Path, tmp_path: Path) -> None:
    counting, kept = Counting(), tmp_path / "kept"
    records = find_recordings(tones)
    cached_frames(records, counting.backbone, folder=kept)
    assert counting.clips == 12
    moved = tones.rename(tmp_path / "elsewhere")
    again = [replace(r, key=f"new/{r.key}") for r in find_recordings(moved)]
    frames, _ = cached_frames(again + again[:1], counting.backbone, folder=kept)
    assert counting.clips == 12 and frames.keys() == {f"new/{r.key}" for r in records}
    (moved / "copy.wav").write_bytes((moved / "clip00.wav").read_bytes())
    twins = [
        Record("a", str(moved / "clip00.wav"), end=0.3),
        Record("b", str(moved / "copy.wav"), end=0.3),
    ]
    frames, _ = cached_frames(twins, counting.backbone, folder=kept)
    assert counting.clips == 13 and frames["a"][0, 0] == frames["b"][0, 0] == 4800
    cached_frames([replace(twins[0], start=0.1)], counting.backbone, folder=kept)
    assert counting.clips == 14


def test_a_changed_file_and_another_backbone_are_encoded_anew(tones: Path, tmp_path: Path) -> None:
    counting, other, kept = Counting(), Counting("g"), tmp_path / "kept"
    (record,) = find_recordings(tones / "clip00.wav")
    before, _ = cached_frames([record], counting.backbone, folder=kept)
    write_tone(tones / "clip00.wav", 0.5)
    after, _ = cached_frames([record], counting.backbone, folder=kept)
    assert (before["clip00"][0, 0], after["clip00"][0, 0]) == (9600, 8000)
    cached_frames([record], other.backbone, folder=kept)
    assert counting.clips == 2 and other.clips == 1


def test_conditions_are_kept_apart_and_draw_by_the_sound(tones: Path, tmp_path: Path) -> None:
    counting, kept, names = Counting(), tmp_path / "kept", []

    def quiet(samples: Waveform, name: str) -> Waveform:
        names.append(name)
        return samples / 2

    (record,) = find_recordings(tones / "clip03.wav")
    clean, _ = cached_frames([record], counting.backbone, folder=kept)
    for key in ("a", "b"):
        changed, _ = cached_frames(
            [replace(record, key=key)],
            counting.backbone,
            folder=kept,
            condition="half",
            transform=quiet,
        )
        assert changed[key][0, 1] == pytest.approx(clean["clip03"][0, 1] / 2, rel=1e-3)
    assert counting.clips == 2 and len(names) == 1
    cached_frames(
        [record], counting.backbone, folder=tmp_path / "2", condition="half", transform=quiet
    )
    assert names[0] == names[1] and "clip03" not in names[0]
    with pytest.raises(ValueError, match="give both or neither"):
        cached_frames([record], counting.backbone, folder=kept, transform=quiet)


def test_what_cannot_be_read_is_an_error_by_key(tones: Path, tmp_path: Path) -> None:
    (tones / "broken.wav").write_bytes(b"no sound")
    records = [*find_recordings(tones), Record("gone", str(tones / "gone.wav"))]
    arguments: dict[str, Any] = {"folder": tmp_path, "condition": "cut"}
    _, errors = cached_frames(
        records, Counting().backbone, transform=lambda samples, name: samples[:100], **arguments
    )
    assert len(errors) == 14
    assert "gone.wav cannot be read (No such file" in errors["gone"]
    assert "cannot be decoded" in errors["broken"]
    (tones / "again.wav").write_bytes(b"no sound")
    _, errors = cached_frames(find_recordings(tones), Counting().backbone, folder=tmp_path)
    assert "again.wav" in errors["again"] and "broken.wav" in errors["broken"]
    assert "again" not in errors["broken"]


def test_too_short_a_sound_is_an_error(tones: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"folder": tmp_path, "condition": "cut"}
    _, errors = cached_frames(
        find_recordings(tones),
        Counting().backbone,
        transform=lambda samples, name: samples[:100],
        **arguments,
    )
    assert "clip00.wav, changed, is 0.006 s long; the model needs" in errors["clip00"]


def test_the_folder_is_where_the_environment_says(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMOTION2VEC_CACHE", str(tmp_path / "cache"))
    cached_frames(find_recordings(tones), Counting("abc").backbone)
    assert (tmp_path / "cache" / "frames" / "abc" / "frames.bin").is_file()


def arrays(count: int, seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Arrays of several shapes, each filled with its number."""
    rng = np.random.default_rng(seed)
    return {
        f"{seed}-{i}": np.full((*rng.integers(1, 9, 1 + i % 3), 3), i, np.float32)
        for i in range(count)
    }


def check(store: FrameStore, expected: dict[str, Any]) -> None:
    found = store.read(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_an_index_that_was_cut_anywhere_is_good_up_to_there(tmp_path: Path) -> None:
    FrameStore(tmp_path).append(arrays(4))
    data, index = (tmp_path / name for name in ("frames.bin", "index.jsonl"))
    whole, lines = data.read_bytes(), index.read_bytes()
    for cut in range(0, len(lines), 7):
        data.write_bytes(whole + b"left by a kill")
        index.write_bytes(lines[:cut])
        store = FrameStore(tmp_path)
        there = {n: a for n, a in arrays(4).items() if n in store}
        assert len(there) == lines[:cut].count(b"\n")
        more = arrays(2, seed=1)
        store.append(more)
        for again in (store, FrameStore(tmp_path)):
            check(again, there | more)
        assert all(json.loads(line) for line in index.read_text().splitlines())


def test_data_that_is_shorter_than_the_index_says(tmp_path: Path) -> None:
    FrameStore(tmp_path).append(arrays(5))
    os.truncate(tmp_path / "frames.bin", (tmp_path / "frames.bin").stat().st_size - 1)
    store = FrameStore(tmp_path)
    assert "0-3" in store and "0-4" not in store
    store.append({"long": np.ones((1000, 3), np.float32)})  # over where the last one was
    assert "0-4" not in FrameStore(tmp_path)
    check(FrameStore(tmp_path), {n: a for n, a in arrays(5).items() if n != "0-4"})


def test_a_folder_that_is_removed_meanwhile(tmp_path: Path) -> None:
    store = FrameStore(tmp_path / "a")
    store.append(arrays(5))
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    store.append(arrays(1, seed=1))
    assert "0-0" not in store
    check(store, arrays(1, seed=1))


WRITER = """
import sys, numpy as np
from emotion2vec.frame_store import FrameStore
store, seed, count = FrameStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
for i in range(count):
    rows = [np.full((100 + i, 50), i * 7 + k, np.float32) for k in range(5)]
    store.append({f"{seed}-{i}-{k}": row for k, row in enumerate(rows)})
"""


def start(folder: Path, seed: int, count: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, str(folder), str(seed), str(count)]
    writer = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    return writer


def rows_of(store: FrameStore, seed: int) -> int:
    """How many rows a writer left; each must be whole and right, and none in between missing."""
    count = 0
    while (name := f"{seed}-{count // 5}-{count % 5}") in store:
        (row,) = store.read([name]).values()
        assert row.shape == (100 + count // 5, 50)
        assert (row == count // 5 * 7 + count % 5).all()
        count += 1
    return count


def test_a_writer_that_is_killed_leaves_whole_rows_only(tmp_path: Path) -> None:
    for seed in range(4):
        writer = start(tmp_path, seed, 100_000)
        while f"{seed}-0-0" not in FrameStore(tmp_path):
            time.sleep(0.01)
        time.sleep(0.037 * seed)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        store = FrameStore(tmp_path)
        assert all(rows_of(store, earlier) > 0 for earlier in range(seed + 1))
        store.append({f"after-{seed}": np.ones((2, 2), np.float32)})
    lines = (tmp_path / "index.jsonl").read_text().splitlines()
    names = [json.loads(line)["content"] for line in lines]
    assert len(set(names)) == len(names) == 4 + sum(rows_of(store, s) for s in range(4))


def test_two_writers_at_once(tmp_path: Path) -> None:
    writers = [start(tmp_path, seed, 40) for seed in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert [rows_of(FrameStore(tmp_path), seed) for seed in range(2)] == [200, 200]
