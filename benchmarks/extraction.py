"""Features of many recordings: hours of sound a core-hour, and a pool of actors beside one process.

OMP_NUM_THREADS=1 python benchmarks/extraction.py

The local engine on one thread writes the utterance features of clips of 1 to 12 s; so does Ray with
two actors, on a cluster that is there already. They take turns, round after round, and the ratio of
times is the median over rounds: with the start of Ray's actors, and without (for it stands the time
of a run on a single clip). On a machine that others use, the processor's time says what a core-hour
gives, and the ratio little. --actors 0 leaves Ray out. A million hours are then priced at --price
dollars a core-hour. The base size takes --clips clips, mini ten times as many.
"""

import argparse
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

import emotion2vec
from emotion2vec import Emotion2vecConfig
from emotion2vec.backbones import Backbone, load_backbone, random_encoder
from emotion2vec.extract import extract_to_folder
from emotion2vec.manifest import Record
from emotion2vec.ray_extract import extract_with_ray

RATE, SHORTEST, LONGEST = 16_000, 1.0, 12.0
HOURS = 1e6


def write_clips(folder: Path, count: int) -> list[Record]:
    """Write noise of many lengths as wav, 16 bits, 16 kHz; what is in it does not matter."""
    random = np.random.default_rng(0)
    records = []
    for number, seconds in enumerate(random.uniform(SHORTEST, LONGEST, count)):
        path = folder / f"{number:05d}.wav"
        soundfile.write(path, random.normal(0, 0.1, int(seconds * RATE)), RATE)
        records.append(Record(path.stem, str(path), duration=seconds))
    return records


def timed(work: Callable[[str], Any]) -> tuple[float, float]:
    """Seconds that a run into an empty folder takes, and those of this process's processor."""
    with tempfile.TemporaryDirectory() as out:
        start, used = time.perf_counter(), time.process_time()
        assert work(out).failed == 0
        return time.perf_counter() - start, time.process_time() - used


def measure(name: str, model: str, records: list[Record], arguments: argparse.Namespace) -> None:
    """Print the rows of a model."""
    backbone: Backbone = load_backbone(model, device="cpu")
    hours = sum(record.duration or 0 for record in records) / 3600
    options: dict[str, Any] = {"level": "utterance"}

    def local(out: str) -> Any:
        return extract_to_folder(records, backbone, out, file_format="parquet", **options)

    def cluster(out: str, some: list[Record] = records) -> Any:
        return extract_with_ray(
            some, model, out, device="cpu", gpus=0, actors=arguments.actors, **options
        )

    extract_to_folder(records[:2], backbone, tempfile.mkdtemp(), **options)  # warms up
    wall, used, ratios, bare = [], [], [], []
    for _ in range(arguments.rounds):
        seconds, processor = timed(local)
        wall.append(seconds)
        used.append(processor)
        if arguments.actors:
            start = timed(lambda out: cluster(out, records[:1]))[0]
            far = timed(cluster)[0]
            ratios.append(seconds / far)
            bare.append(seconds / (far - start))
    pace = hours / (statistics.median(used) / 3600)
    cells = [name, f"{hours / (statistics.median(wall) / 3600):.0f}", f"{pace:.0f}"]
    cells += [f"{HOURS / pace:,.0f}", f"{HOURS / pace * arguments.price:,.0f}"]
    cells += [f"{statistics.median(kept):.2f}" if kept else "" for kept in (ratios, bare)]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--price", type=float, default=0.04)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.actors:
        import ray

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray.init(
            "local",
            num_cpus=arguments.actors,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    mini = str(Path(emotion2vec.__file__).parent / "mini")
    with tempfile.TemporaryDirectory() as folder:
        base = f"{folder}/base"
        random_encoder(Emotion2vecConfig()).save_pretrained(base)
        records = write_clips(Path(folder), 10 * arguments.clips)
        print(f"{arguments.clips} clips of {SHORTEST:g} to {LONGEST:g} s, one thread, "
              f"{platform.machine()}, torch {torch.__version__}, {os.cpu_count()} processors, "
              f"load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
        print("| size | hours an hour | hours a core-hour | core-hours for 1,000,000 h | dollars "
              f"| {arguments.actors} actors, times as fast | without their start |")  # fmt: skip
        print("|---" * 7 + "|")
        for name, model, some in (
            ("mini", mini, records),
            ("base", base, records[: arguments.clips]),
        ):
            measure(name, model, some, arguments)


if __name__ == "__main__":
    main()
