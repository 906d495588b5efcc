"""How much faster a service is that computes clips of several requests together.

python benchmarks/serve.py

Three services of the same model in turns: dynamic batching asked by `--clients` at once, the same
clients without batching, and one client that sends one request after the other. Requests a second,
and how long the half and the slowest hundredth of them took. The base size has random weights: they
cost what trained ones do.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import soundfile

from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig


def clips(count: int, low: float, high: float) -> list[bytes]:
    """Noise as wav files, of so many seconds."""
    draw, found = random.Random(0), []
    for seed in range(count):
        sound = np.random.default_rng(seed).normal(0, 0.1, round(16_000 * draw.uniform(low, high)))
        file = io.BytesIO()
        soundfile.write(file, sound, 16_000, format="WAV")
        found.append(file.getvalue())
    return found


class Served:
    """A service in a process of its own."""

    def __init__(self, model: str, *options: str) -> None:
        words = [sys.executable, "-m", "emotion2vec", "serve", "--port", "0", "--model", model]
        self.process = subprocess.Popen([*words, *options], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"serves at (\S+)", line):
                self.address = f"{found[1]}/v1/recognize"
                return
        raise SystemExit("the service did not start.")

    def ask(self, bodies: list[bytes], clients: int) -> tuple[float, list[float]]:
        """Requests a second, and the seconds that each took."""
        waiting, took = list(bodies), []

        def work() -> None:
            with httpx.Client(timeout=120) as client:
                while waiting:
                    try:
                        body = waiting.pop()
                    except IndexError:
                        return
                    start = time.perf_counter()
                    answer = client.post(self.address, files={"file": body})
                    took.append(time.perf_counter() - start)
                    answer.raise_for_status()

        threads = [threading.Thread(target=work) for _ in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(bodies) / (time.perf_counter() - start), took


def main() -> None:
    """Print a line a service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("base", "mini"), default="base")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seconds", type=float, nargs=2, default=(1.0, 3.0))
    args = parser.parse_args()
    bodies = clips(args.requests, *args.seconds)
    with tempfile.TemporaryDirectory() as folder:
        model = "mini"
        if args.size == "base":
            model = str(Path(folder) / "base")
            config = replace(Emotion2vecConfig(), labels=tuple("abcdefghi"))
            Emotion2vecClassifier(config).save_pretrained(model)
        options = ("--precision", args.precision)
        together, alone = Served(model, *options), Served(model, "--no-batching", *options)
        ways = {
            f"batched, {args.clients} clients": (together, args.clients),
            f"one by one, {args.clients} clients": (alone, args.clients),
            "one by one, 1 client": (alone, 1),
        }
        pace: dict[str, list[float]] = {name: [] for name in ways}
        took: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(args.rounds + 1):
            for name, (service, clients) in ways.items():
                rate, times = service.ask(bodies if round_number else bodies[:16], clients)
                if round_number:  # the first warms up
                    pace[name].append(rate)
                    took[name] += times
        for service in (together, alone):
            service.process.terminate()
    first = pace[next(iter(ways))]
    print(f"{args.size}, {args.precision}, {os.cpu_count()} cores, clips of {args.seconds} s")
    print(f"{'':<26} {'requests/s':>10} {'p50, s':>7} {'p99, s':>7} {'first is':>9}")
    for name in ways:
        ratio = statistics.median(a / b for a, b in zip(first, pace[name], strict=True))
        half, slow = np.percentile(took[name], [50, 99])
        rate = statistics.median(pace[name])
        print(f"{name:<26} {rate:>10.1f} {half:>7.2f} {slow:>7.2f} {ratio:>7.2f} x")


if __name__ == "__main__":
    main()
