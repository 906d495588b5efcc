"""Shards: what is in them, and packing that is killed."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import call, write_tone

from emotion2vec.corpus import open_corpus
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import find_recordings
from emotion2vec.pack import pack, stem_of
from emotion2vec.shards import find_shards

SMALL = 0.08  # MB: the tones make 5 shards


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION2VEC_CACHE", str(tmp_path / "cache"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is in them.


@pytest.mark.parametrize("to", ["flac", "wav"])
def test_a_shard_is_what_webdataset_reads(to: str, tones: Path, tmp_path: Path) -> None:
    write_tone(tones / "s1" / "a.b.wav", 0.5, rate=8000)
    records = [replace(r, speaker="x", labels={"emotion": "sad"}) for r in find_recordings(tones)]
    summary = pack(records, tmp_path / "out", shard_mb=SMALL, to=to)
    samples: dict[str, dict[str, bytes]] = defaultdict(dict)
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                # webdataset.tariterators.base_plus_ext
                found = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", member.name)
                file = tar.extractfile(member)
                assert found and file and not (member.mtime or member.uid)
                samples[found[1]][found[2]] = file.read()
    assert len(samples) == summary.recordings == 13 and summary.shards > 3
    for sample in samples.values():
        assert sample.keys() == {to, "json"}
        fields = json.loads(sample["json"])
        assert fields["speaker"] == "x" and fields["labels"] == {"emotion": "sad"}
        assert "path" not in fields
    assert samples[stem_of("s1/a.b")] and samples["clip03"]
    data, rate = soundfile.read(tones / "clip03.wav", dtype="int16")
    (tmp_path / f"again.{to}").write_bytes(samples["clip03"][to])
    again, again_rate = soundfile.read(tmp_path / f"again.{to}", dtype="int16")
    assert rate == again_rate == 16000 and (data == again).all()  # nothing is lost


def test_the_list_leads_to_every_recording(tones: Path, tmp_path: Path) -> None:
    plain = open_corpus(tones)
    pack(tones, tmp_path / "out", shard_mb=SMALL)
    packed = open_corpus(tmp_path / "out")
    assert len(packed) == len(plain) == 12 and len(packed.sources) > 3
    sounds = {plain.name(i)[0]: plain.load(i) for i in range(12)}
    order = [packed.name(i)[0] for i in range(12)]
    assert sorted(order) == sorted(sounds) and order != sorted(sounds)  # mixed
    for number, key in enumerate(order):
        assert packed.lengths[number] == len(sounds[key])
        assert (packed.load(number) == sounds[key]).all()


@pytest.mark.parametrize(
    "key", ["a.b", "a/b.c", "../a", "/a//b", "a b", "é", "\udcff", "a/./b", "." * 9, "x" * 300]
)
def test_stems_are_names_that_tar_files_take(key: str) -> None:
    stem = stem_of(key)
    assert "." not in stem and not stem.startswith("/") and "//" not in stem
    stem.encode()
    assert stem_of(stem) == stem and stem_of(key + "_") != stem


# Packing.


def test_a_killed_pack_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    for i in range(60):
        write_tone(tmp_path / "clips" / f"{i}.wav", 1.0, pitch=100 + i)
    (tmp_path / "clips" / "bad.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "clips" / "silent.wav", np.zeros(16000), 16000)
    words = [sys.executable, "-m", "emotion2vec", "pack", "--data", str(tmp_path / "clips"),
             "--shard-mb", "0.3", "--workers", "2", "--quiet", "--out"]  # fmt: skip
    out = tmp_path / "broken"
    process = subprocess.Popen([*words, str(out)], start_new_session=True)
    while not (out / "shard-000001.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)  # the parent alone: its pool must not outlive it
    process.wait()
    deadline = time.monotonic() + 30
    while subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (out / "shard-000006.jsonl").exists()
    before = (out / "shard-000001.tar").stat().st_mtime_ns
    assert subprocess.run([*words, str(out)]).returncode == 3
    assert (out / "shard-000001.tar").stat().st_mtime_ns == before  # not made again
    summary = pack(tmp_path / "clips", tmp_path / "whole", shard_mb=0.3)
    assert summary.recordings == 60 and summary.failed == 2
    assert summary.seconds == pytest.approx(60)
    errors = [read_jsonl(tmp_path / name / "errors.jsonl") for name in ("whole", "broken")]
    assert {row["key"] for row in errors[0]} == {"bad", "silent"}
    assert sorted(errors[0], key=str) == sorted(errors[1], key=str)
    whole, broken = contents(tmp_path / "whole"), contents(out)
    assert whole.keys() == broken.keys()
    for name in whole.keys() - {"errors.jsonl"}:
        assert whole[name] == broken[name], name


def test_what_pack_refuses(tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call("pack", "--data", tones, "--out", out, "--workers", "1", "--quiet") == 0
    assert "12 recordings, 0.00 h, in 1 shards" in capsys.readouterr().out
    with pytest.raises(ValueError, match="shards cannot be packed again"):
        pack(out, tmp_path / "twice")
    with pytest.raises(ValueError, match="other recordings or made with other settings"):
        pack(tones, out, to="wav")
    write_tone(tones / "new.wav")
    with pytest.raises(ValueError, match="other recordings or made with other settings"):
        pack(tones, out)
    with pytest.raises(ValueError, match="choose one of flac, wav"):
        pack(tones, tmp_path / "mp3", to="mp3")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="no recording can be packed: .* is empty"):
        pack(tmp_path / "bad", tmp_path / "none")
    assert not (tmp_path / "none").exists() and not (tmp_path / "mp3").exists()


def test_addresses(tones: Path) -> None:
    address = f"memory://{tones}"
    pack(tones, address, shard_mb=SMALL)
    assert pack(tones, address, shard_mb=SMALL).recordings == 12
    shards = find_shards(address)
    assert len(shards) > 3 and not any(shard.local for shard in shards)
    pack(tones, tones.parent / "here")
    (here,) = find_shards(f"file://{tones.parent}/here")
    assert here.local and find_shards(tones) == []
    corpus = open_corpus(address)
    assert len(corpus.load(5)) == corpus.lengths[5]
    with pytest.raises(FileNotFoundError, match="memory://no/where holds no shards"):
        open_corpus("memory://no/where")
