"""How often sound that is no speech is called "unknown", and speech is not.

python benchmarks/unknown.py --model mini --music FOLDER --speech labelled.jsonl

Of the kinds that fine-tuning makes for the class "unknown" with other draws; of kinds that it never
made; of recorded music; and of speech. AUROC: how well the score of "unknown" ranks each kind over
the speech, 0.5 for chance. `top` is the mean highest score of an emotion.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.metrics import roc_auc_score

from emotion2vec.audio import SAMPLE_RATE, Waveform, load_audio, num_samples
from emotion2vec.manifest import find_recordings
from emotion2vec.nonspeech import NONSPEECH, make_nonspeech
from emotion2vec.recognize import UNKNOWN, Recognizer

Generator = np.random.Generator


def sweep(count: int, random: Generator) -> np.ndarray:
    """A sine that rises and falls."""
    turns = random.uniform(0.2, 3) * np.arange(count) / SAMPLE_RATE
    hertz = 200 * 2 ** (2.5 + 2 * np.sin(2 * np.pi * turns))
    return np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE)


def drums(count: int, random: Generator) -> np.ndarray:
    """Beats alone, a low and a high one."""
    sound, step = np.zeros(count), int(random.uniform(0.15, 0.4) * SAMPLE_RATE)
    times = np.arange(SAMPLE_RATE // 5) / SAMPLE_RATE
    low = np.sin(2 * np.pi * 80 * times) * np.exp(-times * 25)
    for number, first in enumerate(range(0, count, step)):
        high = random.standard_normal(len(times)) * np.exp(-times * 60)
        part = (low if number % 2 == 0 else 0.5 * high)[: count - first]
        sound[first : first + len(part)] += part
    return sound


def rain(count: int, random: Generator) -> np.ndarray:
    """Many soft clicks over steady noise."""
    sound = 0.02 * random.standard_normal(count)
    drops = (random.random(count) < 0.01) * random.standard_normal(count)
    return sound + np.convolve(drops, np.exp(-np.arange(40) / 8))[:count]


def gated(count: int, random: Generator) -> np.ndarray:
    """Noise that goes on and off at the pace of syllables."""
    times = np.arange(count) / SAMPLE_RATE
    gate = np.sin(2 * np.pi * random.uniform(3, 8) * times) > random.uniform(-0.5, 0.5)
    return random.standard_normal(count) * gate + 1e-3 * random.standard_normal(count)


HELD_OUT: dict[str, Callable[[int, Generator], np.ndarray]] = {
    "sweeps": sweep,
    "drums": drums,
    "rain": rain,
    "gated noise": gated,
}


def made(kind: str, count: int, seed: int) -> list[Waveform]:
    """Some sounds of a kind, 2 to 4 s each."""
    random = np.random.default_rng(seed)
    sounds = []
    for _ in range(count):
        length = int(random.uniform(2, 4) * SAMPLE_RATE)
        if kind in NONSPEECH:
            sounds.append(make_nonspeech(length, random, kind))
        else:
            sounds.append(HELD_OUT[kind](length, random).astype(np.float32))
    return sounds


def pieces(folder: str, count: int) -> Iterator[Waveform]:
    """Three seconds out of the middle of each recording that is that long."""
    for record in find_recordings(folder)[: 4 * count]:
        seconds = num_samples(record.path) / SAMPLE_RATE
        if seconds > 5 and count:
            count -= 1
            yield load_audio(record.path, start=seconds / 2, end=seconds / 2 + 3, check=False)


def main() -> None:
    """Print a line a kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--count", type=int, default=100, help="sounds of each kind")
    parser.add_argument("--music", help="folder of recorded music")
    parser.add_argument("--speech", default="data/moods/manifest.jsonl", nargs="+")
    options = parser.parse_args()
    recognizer = Recognizer.from_pretrained(options.model, device="cpu")

    def answers(clips: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = recognizer(
            [c if not isinstance(c, np.ndarray) else (c, SAMPLE_RATE) for c in clips]
        )
        found = [answer for answer in found if not answer.error]
        unknown = np.array([answer.scores.get(UNKNOWN, 0.0) for answer in found])
        top = [max(v for k, v in a.scores.items() if k != UNKNOWN) for a in found]
        return np.array([a.label == UNKNOWN for a in found]), unknown, np.array(top)

    spoken = find_recordings(options.speech)
    spoken = spoken[:: max(1, len(spoken) // (4 * options.count))]
    called, speech, top = answers(spoken)
    print(f"{'kind':<24} {'clips':>5} {'unknown':>8} {'top':>5} {'AUROC':>6}")
    print(f"{'speech':<24} {len(called):>5} {called.mean():>8.1%} {top.mean():>5.2f}")
    kinds = {f"{kind}, new draws": made(kind, options.count, 12345) for kind in NONSPEECH}
    kinds |= {f"{kind}, never made": made(kind, options.count, 1) for kind in HELD_OUT}
    if options.music:
        kinds["music, recorded"] = list(pieces(options.music, options.count))
    for name, clips in kinds.items():
        called, unknown, top = answers(clips)
        truth = np.r_[np.zeros(len(speech)), np.ones(len(unknown))]
        area = roc_auc_score(truth, np.r_[speech, unknown])
        print(f"{name:<24} {len(called):>5} {called.mean():>8.1%} {top.mean():>5.2f} {area:>6.3f}")


if __name__ == "__main__":
    main()
