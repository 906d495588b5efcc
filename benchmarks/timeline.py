"""Emotion diarization error of timelines, beside fixed windows, on real clips one after another.

python benchmarks/timeline.py clips.jsonl --model MODEL

Recordings are made of clips of one speaker whose emotions are known, so that every boundary is
known, too: each clip cut where it rises over -35 dB of its loudest 20 ms, pauses between them drawn
from the seed, from none to `--pause` seconds of faint noise. The error is (missed + false alarm +
confusion) / duration of the recording, over all recordings (arXiv 2306.12991; here every emotion
counts, neutral, too); `segments` are those answered for a true one. The rows take one thing after
the other away.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from emotion2vec import Recognizer
from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.manifest import Record, read_manifest
from emotion2vec.segments import DiarizationErrors, diarization_errors
from emotion2vec.stream import StreamSettings
from emotion2vec.timeline import timeline_of

OURS = StreamSettings()
WAYS = {
    "timeline": OURS,
    "without smoothing": replace(OURS, switch=0.5, lag_seconds=0.0),
    "without overlap": replace(OURS, hop_seconds=OURS.window_seconds),
    "fixed windows on speech": replace(
        OURS, hop_seconds=OURS.window_seconds, switch=0.5, lag_seconds=0.0
    ),
    "fixed windows": replace(
        OURS,
        hop_seconds=OURS.window_seconds,
        switch=0.5,
        lag_seconds=0.0,
        detect_speech=False,
    ),
}


def trimmed(sound: Waveform, level: float = -35.0) -> Waveform:
    """The clip from where it is first louder than `level` dB of its loudest 20 ms, to the last."""
    size = SAMPLE_RATE // 50
    frames = sound[: len(sound) // size * size].reshape(-1, size)
    energy = 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)
    loud = np.flatnonzero(energy > energy.max() + level)
    return sound[loud[0] * size : (loud[-1] + 1) * size]


def joined(
    records: list[Record], *, clips: int, count: int, pause: float, seed: int
) -> list[tuple[Waveform, list[tuple[float, float, str]]]]:
    """`count` recordings of so many clips, and where which emotion is in each."""
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    by_speaker = defaultdict(list)
    for record in records:
        by_speaker[record.speaker].append(record)
    speakers = sorted(by_speaker, key=str)
    found = []
    for number in range(count):
        parts, truth, at = [], [], 0
        own = by_speaker[speakers[number % len(speakers)]]
        for record in draw.sample(own, min(clips, len(own))):
            gap = noise.normal(0, 1e-4, round(draw.uniform(0, pause) * SAMPLE_RATE))
            clip = trimmed(record.load())
            start = at + len(gap)
            parts += [gap.astype(np.float32), clip]
            at = start + len(clip)
            truth.append((start / SAMPLE_RATE, at / SAMPLE_RATE, str(record.emotion)))
        found.append((np.concatenate(parts), truth))
    return found


def errors_of(
    recordings: list[tuple[Waveform, list[tuple[float, float, str]]]],
    recognizer: Recognizer,
    settings: StreamSettings,
    title: str = "",
) -> tuple[DiarizationErrors, float]:
    """The errors over all recordings, and how many segments were answered for a true one."""
    total, answered = np.zeros(4), 0
    for sound, truth in tqdm(recordings, desc=title, delay=1):
        timeline = timeline_of([sound], recognizer, settings)
        answer = [(s.start, s.end, s.label) for s in timeline.segments]
        total += diarization_errors(truth, answer, timeline.duration)
        answered += len(answer)
    return DiarizationErrors(*total.tolist()), answered / sum(len(truth) for _, truth in recordings)


def main() -> None:
    """Print a line a way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--recordings", type=int, default=24)
    parser.add_argument("--pause", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    records = [r for r in read_manifest(args.manifest) if r.emotion]
    emotions = sorted({str(r.emotion) for r in records})
    recognizer = Recognizer.from_pretrained(args.model, device="cpu")
    recognizer = Recognizer(
        recognizer.classifier,
        labels=[label for label in emotions if label in recognizer.labels],
        device="cpu",
    )
    recordings = joined(
        records, clips=args.clips, count=args.recordings, pause=args.pause, seed=args.seed
    )
    minutes = sum(len(sound) for sound, _ in recordings) / SAMPLE_RATE / 60
    print(f"{len(recordings)} recordings, {minutes:.0f} minutes, {', '.join(recognizer.labels)}")
    print(
        f"{'':<24} {'EDER':>6} {'missed':>7} {'false alarm':>12} {'confusion':>10} {'segments':>9}"
    )
    for name, settings in WAYS.items():
        e, segments = errors_of(recordings, recognizer, settings, name)
        missed, alarm, confusion = (100 * part / e.duration for part in e[:3])
        print(
            f"{name:<24} {100 * e.rate:>6.1f} {missed:>7.1f} {alarm:>12.1f} {confusion:>10.1f} "
            f"{segments:>9.2f}"
        )


if __name__ == "__main__":
    main()
