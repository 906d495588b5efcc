"""Recognition by torch, by ONNX in float32 and in int8, side by side: pace, size, memory, labels.

python benchmarks/runtime.py --data CORPORA/ravdess/manifest.jsonl CORPORA/emodb/manifest.jsonl

The three take turns on one core; ratios are medians of a turn's. The base model has random weights:
they cost what trained ones do. --data counts the labels of mini that are torch's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read by both runtimes, when they are imported

import numpy as np
import torch

from emotion2vec import Emotion2vecClassifier, Emotion2vecConfig, Recognizer
from emotion2vec.export import export_onnx, labels_agree
from emotion2vec.manifest import find_recordings

CASES = {
    **{f"{seconds} s": [float(seconds)] for seconds in (1, 3, 10, 30)},
    "8 of 2 to 4 s": [2.0, 3.0, 4.0, 2.5] * 2,
}
"""Seconds of the clips of a batch."""


def sound(seconds: float) -> np.ndarray:
    """Noise of a length, (S,)."""
    return np.random.default_rng(0).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)


def models(name: str, folder: Path) -> dict[str, Path]:
    """The model as each runtime wants it."""
    torch.manual_seed(0)
    if name == "mini":
        model = Emotion2vecClassifier.from_pretrained("mini")
    else:
        model = Emotion2vecClassifier(replace(Emotion2vecConfig(), labels=tuple("abcdefghi")))
    model.save_pretrained(folder / name)
    files = {"ONNX float32": folder / f"{name}.onnx", "ONNX int8": folder / f"{name}-int8.onnx"}
    for kind, path in files.items():
        made = export_onnx(model, path, int8="int8" in kind, name=name)
        print(f"{name}, {kind}: {made.bytes / 1e6:.2f} MB")
    small, large = (path.stat().st_size for path in reversed(files.values()))
    print(f"{name}, size of int8 over float32: {small / large:.3f}")
    return {"torch": folder / name, **files}


def paces(recognizers: dict[str, Recognizer], repeats: int) -> None:
    """Print a line a case: milliseconds of each, and how many times as fast as torch."""
    for case, lengths in CASES.items():
        clips = [sound(seconds) for seconds in lengths]
        turns: dict[str, list[float]] = {name: [] for name in recognizers}
        for turn in range(repeats + 1):
            for name, recognizer in recognizers.items():
                start = time.perf_counter()
                recognizer.scores(clips)
                if turn:  # the first warms up
                    turns[name].append(time.perf_counter() - start)
        line = f"  {case:<14}"
        for name, seconds in turns.items():
            ratio = statistics.median(a / b for a, b in zip(turns["torch"], seconds, strict=True))
            line += f"  {name} {1000 * statistics.median(seconds):8.1f} ms ({ratio:4.2f})"
        print(line, flush=True)


PEAK = """
import re, sys, time
start = time.perf_counter()
import numpy as np
from emotion2vec import Recognizer
recognizer = Recognizer.from_pretrained(sys.argv[1], device="cpu")
recognizer.scores([np.random.default_rng(0).normal(0, 0.1, 160000).astype(np.float32)])
# Not getrusage: after exec it still has the peak of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
seconds = time.perf_counter() - start
print(f"{int(peak[1]) / 1000:.0f} MB at most, {seconds:.2f} s from start to answer")
"""


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["mini", "base"])
    parser.add_argument("--data", nargs="*", default=[], help="recordings to compare labels on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            paths = models(name, Path(folder))
            recognizers = {k: Recognizer.from_pretrained(p, device="cpu") for k, p in paths.items()}
            print(f"{name}, milliseconds (times as fast as torch)")
            paces(recognizers, options.repeats)
            for kind, path in paths.items():
                words = [sys.executable, "-c", PEAK, str(path)]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                print(f"{name}, {kind}, one clip of 10 s: {done.stdout.strip()}")
            for source in options.data if name == "mini" else []:
                records = find_recordings(source)
                found = {kind: each(list(records)) for kind, each in recognizers.items()}
                for kind in ("ONNX float32", "ONNX int8"):
                    same = labels_agree(found["torch"], found[kind])
                    print(f"{kind}, {len(records)} of {source}: {100 * same:.2f} % as torch")


if __name__ == "__main__":
    main()
