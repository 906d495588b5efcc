"""Memory and time of extraction: of 10,000 recordings, and of recordings up to an hour.

python benchmarks/memory.py

`--size base --minutes 10 60` runs the long ones through an encoder of base size, at about half the
time that they last; `--files 1000` is a shorter first half. Each row is a process of its own, on
Linux.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from emotion2vec import Emotion2vecConfig
from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.backbones import Backbone, encoder_backbone, random_encoder
from emotion2vec.encoding import Encoded
from emotion2vec.extract import extract_to_folder
from emotion2vec.manifest import Record, read_manifest

MOODS = Path(__file__).parent.parent / "data" / "moods" / "manifest.jsonl"
MINUTES = (10, 30, 60)
CONFIGS = {
    "tiny": Emotion2vecConfig(
        conv_channels=(32,) * 7, embed_dim=48, num_heads=4, prenet_depth=1, depth=2
    ),
    "small": Emotion2vecConfig(
        conv_channels=(32,) * 7, embed_dim=192, num_heads=12, prenet_depth=1, depth=3
    ),
    "base": Emotion2vecConfig(),
}


def mebibytes(name: str) -> float:
    """This process's resident memory, "VmRSS" now or "VmHWM" at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def parts_of_the_demo(count: int) -> list[Record]:
    """Whole clips of the demo and parts of them, of mixed lengths."""
    generator = np.random.default_rng(0)
    clips = read_manifest(MOODS)
    records = []
    for i in range(count):
        clip = clips[i % len(clips)]
        start = 0.0 if i < len(clips) else float(generator.uniform(0, 0.5))
        end = None if i < len(clips) else start + float(generator.uniform(0.3, 2.0))
        records.append(replace(clip, key=f"{i:06d}", start=start, end=end))
    return records


def watched(backbone: Backbone, log: list[tuple[int, float]]) -> Backbone:
    """The same backbone; notes the memory behind each batch, with the clips done so far."""

    def encode(clips: Sequence[Waveform]) -> list[Encoded]:
        done = log[-1][0] if log else 0
        encoded = backbone.encode(clips)
        log.append((done + len(clips), mebibytes("VmRSS")))
        return encoded

    return replace(backbone, encode=encode)


def many(count: int) -> tuple[float, float, float, float, float]:
    """Memory behind the batch of the hundredth recording, of the last, and at the end; peak; time.

    Time is seconds a recording.
    """
    log: list[tuple[int, float]] = []
    backbone = watched(encoder_backbone(random_encoder(CONFIGS["tiny"]), "tiny"), log)
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        summary = extract_to_folder(parts_of_the_demo(count), backbone, out)
        seconds = time.perf_counter() - start
    assert summary.written == count, summary
    hundredth = next(memory for done, memory in log if done >= 100)
    return hundredth, log[-1][1], mebibytes("VmRSS"), mebibytes("VmHWM"), seconds / count


def write_noise(path: Path, seconds: int) -> None:
    """A flac of noise, loud and soft by turns."""
    generator = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for _ in range(seconds // 10):
            file.write(generator.normal(0, generator.uniform(0.01, 0.1), 10 * SAMPLE_RATE))


def one(minutes: int, size: str) -> tuple[float, float, float]:
    """Memory before a long recording, its peak meanwhile, seconds."""
    backbone = encoder_backbone(random_encoder(CONFIGS[size]), size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        write_noise(path, 10)
        extract_to_folder([Record("first", str(path))], backbone, folder)  # loads all libraries
        write_noise(path, 60 * minutes)
        before, start = mebibytes("VmRSS"), time.perf_counter()
        summary = extract_to_folder([Record("long", str(path))], backbone, folder)
        assert summary.written == 1
        return before, mebibytes("VmHWM"), time.perf_counter() - start


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=CONFIGS, default="small")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, nargs="*", default=MINUTES)
    chosen = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}; "
          "memory in MiB\n")  # fmt: skip
    print("| recordings | after the 100th | after the last | ratio | at the end | peak | "
          "ms a recording |\n|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    for count in (max(100, chosen.files // 100), chosen.files):
        first, last, end, peak, seconds = alone(many, count)
        print(f"| {count} | {first:.0f} | {last:.0f} | {last / first:.3f} | {end:.0f} | "
              f"{peak:.0f} | {1000 * seconds:.1f} |", flush=True)  # fmt: skip
    config = CONFIGS[chosen.size]
    print(f"\n| minutes ({chosen.size}) | before | peak | above | scores of all pairs, a block | "
          "seconds |\n|---|---|---|---|---|---|", flush=True)  # fmt: skip
    for minutes in chosen.minutes:
        before, peak, seconds = alone(one, minutes, chosen.size)
        frames = config.num_frames(minutes * 60 * SAMPLE_RATE)
        pairs = 4 * config.num_heads * frames**2 / 2**20
        print(f"| {minutes} | {before:.0f} | {peak:.0f} | {peak - before:.0f} | {pairs:.0f} | "
              f"{seconds:.0f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
