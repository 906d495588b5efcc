"""How late a stream's segments are, how fast it is, and what memory a long recording takes.

python benchmarks/stream.py

Latency is sound's time: from the end of a segment to the moment in the recording when it is told.
The real-time factor is computing over sound, on one core; the longest push is what one chunk may
have to wait. Memory is the peak of a process that makes the timeline of a recording, 10 minutes
beside two hours; `--minutes 10 30` asks for others.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from emotion2vec import Recognizer
from emotion2vec.audio import SAMPLE_RATE, load_audio
from emotion2vec.stream import Stream

CLIPS = Path(__file__).parent.parent / "data" / "moods" / "clips"


def talk(seconds: float) -> np.ndarray:
    """Clips one after the other, pauses of up to a second between them."""
    draw, files = random.Random(0), sorted(CLIPS.glob("*.ogg"))
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        parts += [load_audio(draw.choice(files)), np.zeros(draw.randint(0, SAMPLE_RATE), "f4")]
    return np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]


def run(recognizer: Recognizer, sound: np.ndarray, chunk: int) -> tuple[float, ...]:
    """Median and largest latency, real-time factor, longest push (s), segments."""
    stream, late, pushes, count = Stream(recognizer), [], [], 0
    for first in range(0, len(sound), chunk):
        start = time.perf_counter()
        found = stream.push(sound[first : first + chunk])
        pushes.append(time.perf_counter() - start)
        heard = min(first + chunk, len(sound)) / SAMPLE_RATE
        late += [heard - segment.end for segment in found]
        count += len(found)
    count += len(stream.finish())
    factor = sum(pushes) / (len(sound) / SAMPLE_RATE)
    return float(np.median(late)), max(late), factor, max(pushes), count


PEAK = """
import re, sys
from pathlib import Path
from emotion2vec import Recognizer
from emotion2vec.timeline import timeline_of
timeline = timeline_of(sys.argv[1], Recognizer.from_pretrained(device="cpu"))
# Not getrusage's, which remembers the process that this one was forked from.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(f"{timeline.duration / 60:>8.0f} {peak:>9.0f} {len(timeline.segments):>9}")
"""


def main() -> None:
    """Print a line a chunk size, then a line a length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--minutes", type=float, nargs="*", default=[10, 120])
    args = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = Recognizer.from_pretrained(device="cpu")
    sound = talk(args.seconds)
    print(f"{'chunk':>8} {'latency':>8} {'longest':>8} {'factor':>7} {'push':>7} {'segments':>9}")
    for milliseconds in (20, 100, 1000):
        chunk = SAMPLE_RATE * milliseconds // 1000
        median, longest, factor, push, count = run(recognizer, sound, chunk)
        print(
            f"{milliseconds:>5} ms {median:>6.2f} s {longest:>6.2f} s {factor:>7.3f} "
            f"{push:>5.2f} s {count:>9}"
        )
    print(f"\n{'minutes':>8} {'peak, MB':>9} {'segments':>9}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for minutes in args.minutes:
            file = Path(folder) / f"{minutes}.flac"
            soundfile.write(file, talk(60 * minutes), SAMPLE_RATE)
            subprocess.run([sys.executable, "-c", PEAK, str(file)], check=True)


if __name__ == "__main__":
    main()
