"""The index of recordings: what it holds, when it is made anew, wrong lengths; order of epochs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tone
from test_pretraining_loop import CONFIG

from emotion2vec.corpus import Corpus, open_corpus
from emotion2vec.manifest import Record, find_recordings
from emotion2vec.pretraining.data import Batches, batch_loader, scan
from emotion2vec.pretraining.order import draw_groups, plan_epoch


def write_list(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def keys(corpus: Corpus) -> list[str]:
    return [corpus.record(i).key for i in range(len(corpus))]


def test_lists_folders_and_records_are_one_index(tones: Path, tmp_path: Path) -> None:
    csv = tmp_path / "b.csv"
    csv.write_text("key,path,start,end\nb1,tones/clip05.wav,0.1,0.6\n")
    listing = write_list(
        tmp_path / "a.jsonl",
        {"key": "ä1", "path": "tones/clip00.wav"},
        {"key": "a2", "path": "tones/clip01.wav", "duration": 0.5, "emotion": "sad"},
        {"key": "a3", "path": "tones/clip02.wav", "start": 0.1},
    )
    listing.write_bytes(b"\xef\xbb\xbf\r\n" + listing.read_bytes())
    record = Record("r", str(tones / "clip03.wav"), speaker="s", labels={"mood": "calm"})
    corpus = open_corpus([csv, tones, listing, record], min_seconds=0.25)
    assert keys(corpus) == ["ä1", "a2", "a3", "b1", *(f"clip{i:02d}" for i in range(12)), "r"]
    assert corpus.record(1).emotion == "sad"
    assert corpus.record(16).speaker == "s" and corpus.record(16).labels == {"mood": "calm"}
    told = corpus.lengths[1] == 8000
    assert told and corpus.lengths[2] == 16000 * 0.6 and corpus.lengths[3] == 8000
    for number in (0, 2, 3, 4, 16):
        assert len(corpus.load(number)) == corpus.lengths[number]
    assert corpus.source.itemsize + corpus.offset.itemsize == 12
    assert corpus.size.itemsize + corpus.lengths.itemsize == 8


def test_the_index_is_kept_until_a_source_changes(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = write_list(tmp_path / "a.jsonl", {"key": "a", "path": "tones/clip00.wav"})
    saved = tmp_path / "index.safetensors"
    (tones / "empty.wav").write_bytes(b"")
    first = open_corpus([listing, tones])
    first.save(saved)
    with monkeypatch.context() as patch:  # nothing is read again
        patch.setattr("emotion2vec.corpus._index", None)
        again = open_corpus([listing, tones], saved=saved)
    assert keys(again) == keys(first) and again.digest == first.digest
    assert again.skipped == first.skipped and "empty" in again.skipped[0].error
    assert again.load(0).tolist() == first.load(0).tolist()

    assert len(open_corpus([listing, tones], min_seconds=0.7, saved=saved)) < len(first)
    write_tone(tones / "clip03.wav", 2.0)
    assert open_corpus([listing, tones], saved=saved).lengths[4] == 32000
    write_list(listing, {"key": "b", "path": "tones/clip00.wav"})
    assert keys(open_corpus([listing, tones], saved=saved))[0] == "b"
    saved.write_bytes(saved.read_bytes()[:100])
    assert len(open_corpus([listing, tones], saved=saved)) == 13


def test_the_digest_tells_corpora_apart(tmp_path: Path) -> None:
    row = {"key": "a", "path": "a.wav", "duration": 1}
    listing = tmp_path / "a.jsonl"
    digests = set()
    for rows in ([row], [row | {"key": "b"}], [row | {"duration": 2}], [row, row | {"key": "b"}]):
        digests.add(open_corpus(write_list(listing, *rows)).digest)
    rows = [row | {"key": "b"}, row]
    digests.add(open_corpus(write_list(listing, *rows)).digest)
    assert len(digests) == 5
    write_list(listing, row | {"path": "moved/a.wav", "speaker": "s"})
    assert open_corpus(listing).digest in digests


def test_keys_that_come_twice(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"path": "a.wav", "duration": 1}
    rows = [row | {"key": key} for key in ("x", "clip03", "x")]
    with pytest.raises(ValueError, match="1 keys come twice, such as 'x'"):
        open_corpus(write_list(tmp_path / "a.jsonl", *rows))
    with pytest.raises(ValueError, match="1 keys come twice, such as 'clip03'"):
        open_corpus([write_list(tmp_path / "a.jsonl", *rows[:2]), tones])

    class Colliding:  # equal hashes of keys that differ are no error
        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr("hashlib.blake2b", lambda *_, **__: Colliding())
    assert len(open_corpus(write_list(tmp_path / "a.jsonl", *rows[:2]))) == 2


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"key": "a"}\n', r"1 broken line \(line 1: key and path must be strings\)"),
        ("{\n\n[]\n", r"2 broken lines \(line 1: Expecting"),
        ("\n \n", "a.jsonl lists no recordings"),
    ],
)
def test_broken_lists(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path / "a.jsonl")


def test_a_list_that_changes_while_it_is_used(tones: Path, tmp_path: Path) -> None:
    rows = [{"key": f"{i}", "path": f"tones/clip{i:02d}.wav"} for i in range(3)]
    corpus = open_corpus(write_list(tmp_path / "a.jsonl", *rows))
    (tmp_path / "a.jsonl").write_text("{}\n")
    batch = Batches(corpus, CONFIG)[0]
    assert not len(batch.waveform)
    assert "no record at byte 0 any more" in " ".join(s.error for s in batch.skipped)


def test_wrong_lengths_in_a_list_cost_neither_memory_nor_the_run(tmp_path: Path) -> None:
    for name, seconds in (("long", 3.0), ("short", 0.5), ("right", 1.0), ("tiny", 0.1)):
        write_tone(tmp_path / f"{name}.wav", seconds)
    names = ("long", "short", "right", "tiny")
    rows = [{"key": name, "path": f"{name}.wav", "duration": 1.0} for name in names]
    config = replace(CONFIG, max_batch_seconds=4.0)
    corpus = scan(write_list(tmp_path / "a.jsonl", *rows), config, progress=False)
    batch = Batches(corpus, config)[0]
    assert batch.waveform.shape == (3, 8000)  # the shortest
    assert [s.key for s in batch.skipped] == ["tiny"]
    assert "0.100 s, under min_clip_seconds" in batch.skipped[0].error
    (tmp_path / "short.wav").unlink()
    (tmp_path / "right.wav").unlink()
    assert Batches(corpus, config)[0].waveform.shape == (1, 16000)  # the long one, as was planned


def test_millions_are_planned_at_once() -> None:
    # As an own loop over batches would, in little time and memory.
    lengths = np.random.default_rng(0).integers(16000, 320000, 300_000).astype(np.int32)
    plan = plan_epoch(
        lengths,
        max_batch_samples=1_000_000,
        max_clip_samples=160_000,
        generator=np.random.default_rng(1),
    )
    sizes = np.minimum(lengths, 160_000)
    ordered, begin, count = sizes[plan.clips], 0, 0
    while begin < len(ordered):
        assert plan.starts[count] == begin
        begin += 1_000_000 // int(ordered[begin])
        count += 1
    assert count == len(plan) and sorted(plan.turns) == list(range(count))
    assert plan.clips.nbytes + plan.starts.nbytes + plan.turns.nbytes < 8 * len(lengths)


def test_groups_come_one_after_the_other() -> None:
    source = np.repeat(np.arange(7, dtype=np.int32), 30)  # the last one is local
    groups = draw_groups(source, range(6), 2, np.random.default_rng(0))
    assert sorted(np.concatenate(groups.sources)) == list(range(6))
    assert all(len(set(groups.of_clip[source == number])) == 1 for number in range(6))
    assert set(groups.of_clip[source == 6]) == {0, 1, 2}
    lengths = np.random.default_rng(1).integers(4000, 64000, len(source))
    counts = set()
    for seed, order in enumerate(([0, 1, 2], [2, 0, 1])):
        plan = plan_epoch(
            lengths,
            max_batch_samples=150_000,
            max_clip_samples=64_000,
            generator=np.random.default_rng(seed),
            groups=groups.of_clip,
            group_order=order,
        )
        assert sorted(np.concatenate(plan)) == list(range(len(source)))
        met = [set(groups.of_clip[batch]) for batch in plan]
        assert all(len(group) == 1 for group in met)
        assert list(dict.fromkeys(min(group) for group in met)) == order
        assert all(len(batch) * lengths[batch].max() <= 150_000 for batch in plan)
        counts.add(len(plan))
    assert len(counts) == 1  # epochs are of one size


@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_meet_each_clip_once_an_epoch(workers: int, tmp_path: Path) -> None:
    for i in range(9):
        write_tone(tmp_path / f"{i}.wav", 0.5, pitch=100 + i)
    corpus = scan(find_recordings(tmp_path), CONFIG, progress=False)
    batches = Batches(corpus, replace(CONFIG, max_batch_seconds=2.0, num_masks=1))
    assert batches.batches_per_epoch == 3
    loaders = [
        batch_loader(batches, first=0, rank=rank, world=2, workers=workers) for rank in (0, 1)
    ]
    met = []
    for _ in range(3):  # two epochs, in turns
        met += [row.tobytes() for loader in loaders for row in next(loader).waveform.numpy()]
    for epoch in (met[:9], met[9:]):
        assert len(set(epoch)) == 9
    assert met[:9] != met[9:]


def test_an_index_does_not_depend_on_the_working_directory(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_corpus("tones").save("index.safetensors")
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    corpus = open_corpus("../tones", saved=Path("../index.safetensors"))
    assert len(corpus.load(0)) == corpus.lengths[0]
