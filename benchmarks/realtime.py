"""How much faster than the sound itself recognition is, on one core: mini beside the base size.

python benchmarks/realtime.py

Seconds of sound in a second of computing, one clip at a time, the two models in turns. The base
model has random weights: they cost what trained ones do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig, Recognizer


def pace(recognizer: Recognizer, clip: np.ndarray) -> float:
    """Seconds of sound a second, of one call."""
    start = time.perf_counter()
    recognizer((clip, 16_000))
    return len(clip) / 16_000 / (time.perf_counter() - start)


def main() -> None:
    """Print a line a length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    mini = Recognizer.from_pretrained("mini", device="cpu")
    config = replace(Emotion2vecConfig(), labels=tuple("abcdefghi"))
    base = Recognizer(Emotion2vecClassifier(config), device="cpu")
    print(f"{'seconds':>8} {'mini, x real time':>18} {'base size':>10} {'ratio':>6}")
    for seconds in (1, 3, 10, 30):
        clip = np.random.default_rng(0).normal(0, 0.1, seconds * 16_000).astype(np.float32)
        pace(mini, clip), pace(base, clip)
        turns = [(pace(mini, clip), pace(base, clip)) for _ in range(repeats)]
        one, other = (statistics.median(column) for column in zip(*turns, strict=True))
        print(f"{seconds:>8} {one:>18.0f} {other:>10.0f} {one / other:>6.1f}")


if __name__ == "__main__":
    main()
