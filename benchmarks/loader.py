"""Whether loading keeps up with training: hours of audio a second of both; and long lists.

python benchmarks/loader.py

`--lines 2000000` is the list of the page docs/data.md, three minutes more; `--lines 0` leaves lists
out. Each row about lists is a process of its own, on Linux.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from accelerate import Accelerator

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.corpus import open_corpus
from emotion2vec.manifest import read_manifest
from emotion2vec.pack import pack
from emotion2vec.pretraining.config import PretrainConfig, read_config
from emotion2vec.pretraining.data import Batch, Batches, batch_loader, scan
from emotion2vec.pretraining.loop import new_state
from emotion2vec.pretraining.order import plan_epoch
from emotion2vec.pretraining.step import update

ROOT = Path(__file__).parent.parent
CLIPS, JOINED = 120, 4  # recordings, each of so many clips of the demo: some six seconds


def write_corpora(folder: Path) -> dict[str, Path]:
    """The same speech as wav files, flac files and shards."""
    clips = [record.load() for record in read_manifest(ROOT / "data" / "moods" / "manifest.jsonl")]
    for i in range(CLIPS):
        sound = np.concatenate(clips[i * JOINED : (i + 1) * JOINED])
        for kind in ("wav", "flac"):
            (folder / kind).mkdir(exist_ok=True)
            soundfile.write(folder / kind / f"{i}.{kind}", sound, SAMPLE_RATE, "PCM_16")
    pack(folder / "wav", folder / "shards", shard_mb=5)
    return {kind: folder / kind for kind in ("wav", "flac", "shards")}


def seconds_of(batch: Batch) -> float:
    """Audio in a batch."""
    return batch.waveform.numel() / SAMPLE_RATE


def loading(data: Path, config: PretrainConfig, workers: int, duration: float) -> float:
    """Seconds of audio that the loader delivers in a second."""
    batches = Batches(scan(data, config, progress=False), config)
    loader = batch_loader(batches, first=0, rank=0, world=1, workers=workers)
    for _ in range(1 + 8 * workers):  # what workers have made ahead does not count
        next(loader)
    start, audio = time.perf_counter(), 0.0
    while time.perf_counter() - start < duration:
        audio += seconds_of(next(loader))
    return audio / (time.perf_counter() - start)


def training(config: PretrainConfig, batches: Iterator[Batch], updates: int) -> float:
    """Seconds of audio that the step consumes in a second, the first update not counted."""
    accelerator = Accelerator()
    state, audio, start = new_state(config, accelerator.device), 0.0, 0.0
    for number in range(updates + 1):
        batch = next(batches)
        metrics = update(state, state.student, [batch], config, accelerator)
        metrics["loss"].item()  # waits for the device
        audio += seconds_of(batch) if number else 0.0
        start = start or time.perf_counter()
    return audio / (time.perf_counter() - start)


def peak() -> float:
    """This process's memory at its highest, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def write_list(path: Path, lines: int) -> None:
    """A list of recordings that need not exist."""
    seconds = np.random.default_rng(0).uniform(1, 20, lines).round(3).tolist()
    with path.open("w") as file:
        for i, duration in enumerate(seconds):
            row = {"key": f"s{i % 5000}/clip-{i}", "path": f"audio/s{i % 5000}/clip-{i}.flac"}
            file.write(json.dumps(row | {"duration": duration, "speaker": f"s{i % 5000}"}) + "\n")


def as_records(path: Path) -> tuple[float, float]:
    """Seconds to read a list into memory, and MiB."""
    before, start = peak(), time.perf_counter()
    records = read_manifest(path)
    assert records
    return time.perf_counter() - start, peak() - before


def as_index(path: Path) -> tuple[float, float, float, float]:
    """Seconds to index a list, MiB, seconds to read a saved index, and to plan an epoch."""
    before, start = peak(), time.perf_counter()
    corpus = open_corpus(path)
    times = [time.perf_counter() - start]
    memory = peak() - before
    corpus.save(path.with_suffix(".safetensors"))
    for make in (
        lambda: open_corpus(path, saved=path.with_suffix(".safetensors")),
        lambda: plan_epoch(
            corpus.lengths,
            max_batch_samples=1_000_000,
            max_clip_samples=320_000,
            generator=np.random.default_rng(0),
        ),
    ):
        start = time.perf_counter()
        assert len(make())
        times.append(time.perf_counter() - start)
    return times[0], memory, times[1], times[2]


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each row about loading")
    parser.add_argument("--updates", type=int, default=1, help="of each row about training")
    parser.add_argument("--lines", type=int, default=100_000)
    chosen = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}\n")
    configs = {n: read_config(ROOT / "configs" / f"pretrain_{n}.toml") for n in ("base", "tiny")}
    needs = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpora = write_corpora(folder)
        print("| training | hours of audio a second |\n|---|---|")
        for size, config in configs.items():
            small = replace(config, max_batch_seconds=2.0, max_clip_seconds=2.0, accumulate=1)
            batches = Batches(scan(corpora["wav"], small, progress=False), small)
            loader = batch_loader(batches, first=0, rank=0, world=1, workers=0)
            needs[size] = training(small, loader, chosen.updates)
            print(f"| {size} | {needs[size] / 3600:.5f} |", flush=True)
        print("\n| loading | workers | hours of audio a second | faster than "
              f"{' | than '.join(needs)} |\n|---|---|---|{'---|' * len(needs)}")  # fmt: skip
        for kind, data in corpora.items():
            for workers in (0, 1, 2):
                rate = loading(data, configs["base"], workers, chosen.seconds)
                ratios = " | ".join(f"{rate / need:.0f} x" for need in needs.values())
                print(f"| {kind} | {workers} | {rate / 3600:.3f} | {ratios} |", flush=True)
        if chosen.lines:
            write_list(folder / "list.jsonl", chosen.lines)
            print(f"\n| {chosen.lines} lines | seconds | MiB | seconds from a saved index | "
                  "to plan an epoch |\n|---|---|---|---|---|")  # fmt: skip
            seconds, memory = alone(as_records, folder / "list.jsonl")
            print(f"| records in memory | {seconds:.1f} | {memory:.0f} | | |", flush=True)
            seconds, memory, again, plan = alone(as_index, folder / "list.jsonl")
            print(f"| index | {seconds:.1f} | {memory:.0f} | {again:.2f} | {plan:.2f} |")


if __name__ == "__main__":
    main()
