"""Streams at their edges: odd speech, long silence, many turns, interruptions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from emotion2vec.resampling import average
from emotion2vec.segments import Turn
from emotion2vec.speech import FRAME_SAMPLES, SpeechDetector
from emotion2vec.stream import Stream, StreamSettings
from emotion2vec.timeline import timeline_of

pytest.importorskip("silero_vad")


class FakeRecognizer:
    """One label for everything; counts what it is asked at once."""

    labels = ("a", "b")
    abstain = 0.0
    policy = ""
    batch_seconds = 20.0

    def __init__(self) -> None:
        self.interrupts = 0

    def scores(self, clips: list[np.ndarray]) -> np.ndarray:
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return np.tile(np.float32([0.9, 0.1]), (len(clips), 1))


def scripted(stream: Stream, probabilities: list[float]) -> Stream:
    """A stream whose detector says what it is told, frame by frame, then silence."""
    told: Iterator[float] = iter(probabilities)
    assert stream._detector is not None
    stream._detector._probability = lambda frame: next(told, 0.0)
    return stream


def silence(frames: int) -> np.ndarray:
    return np.zeros(frames * FRAME_SAMPLES, np.float32)


@pytest.mark.parametrize(
    "probabilities",
    [
        [0.9] * 62 + [0.2] + [0.42] * 250 + [0.1] * 50,  # a pause between the two thresholds
        [0.9] * 20 + [0.42] * 300 + [0.9] * 20 + [0.1] * 50,
        ([0.9] * 40 + [0.1] * 5) * 6 + [0.1] * 50,
        [0.9] * 3,
    ],
)
@pytest.mark.parametrize("pause", [0.1, 0.13, 0.3, 2.0])
def test_segments_follow_each_other(probabilities: list[float], pause: float) -> None:
    settings = StreamSettings(pause_seconds=pause)
    stream = scripted(Stream(FakeRecognizer(), settings), probabilities)  # type: ignore[arg-type]
    found = stream.push(silence(len(probabilities) + 100)) + stream.finish()
    assert all(segment.start < segment.end for segment in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_a_detectors_ends_are_no_further_back_than_it_promises() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        detector = SpeechDetector(pause_seconds=float(draw.uniform(0.1, 1)))
        probabilities = iter(draw.choice([0.1, 0.42, 0.9], 2000, p=[0.3, 0.4, 0.3]))
        detector._probability = lambda frame, told=probabilities: float(next(told))
        last = 0
        for _ in range(2000):
            before = detector.position
            edge = detector.push(silence(1))
            if edge is not None:
                assert last <= edge.sample <= detector.position
                assert edge.begins or edge.sample >= before - detector.hindsight_samples
                last = edge.sample


def test_long_silence_after_speech_is_not_kept() -> None:
    stream = scripted(Stream(FakeRecognizer(), batch=10), [0.9] * 30)  # type: ignore[arg-type]
    largest = 0
    for _ in range(120):
        stream.push(silence(100))
        largest = max(largest, len(stream._sound))
    assert largest < 16_000 * 10
    assert len(stream.finish()) == 1


def test_many_turns_at_once_are_scored_as_they_come() -> None:
    turns = [Turn(0.1, 5.0, str(n)) for n in range(300)]
    stream = Stream(FakeRecognizer(), turns=turns, batch=10)  # type: ignore[arg-type]
    found = stream.push(silence(200))
    assert len(stream._queue) < 10
    assert len(found + stream.finish()) == 300


def test_turns_may_come_in_any_order_and_be_empty() -> None:
    turns = [Turn(4.0, 5.0, "c"), Turn(0.5, 0.5, "a"), Turn(1.0, 2.0, "b"), Turn(90.0, 99.0, "d")]
    found = timeline_of([silence(200)], FakeRecognizer(), turns=turns)  # type: ignore[arg-type]
    assert [(s.speaker, s.start, s.end) for s in found.segments] == [
        ("b", 1.0, 2.0),
        ("c", 4.0, 5.0),
    ]


def test_an_interruption_loses_no_window() -> None:
    recognizer = FakeRecognizer()
    stream = Stream(recognizer, StreamSettings(detect_speech=False))  # type: ignore[arg-type]
    stream.push(silence(200))
    recognizer.interrupts = 1
    with pytest.raises(KeyboardInterrupt):
        stream.push(silence(200))
    [segment] = stream.finish()
    assert segment.start == 0 and segment.end > 6


def test_channels_are_averaged_alike_however_they_come() -> None:
    sound = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32)
    pieces = [average(sound[a:b]) for a, b in pairwise([0, 1, 8, 777, 5000])]
    np.testing.assert_array_equal(np.concatenate(pieces), average(sound))
    np.testing.assert_allclose(average(sound), sound.mean(axis=1), atol=1e-6)


def test_detecting_speech_leaves_torchs_threads_alone() -> None:
    script = (
        "import torch; torch.set_num_threads(2)\n"
        "from emotion2vec.speech import SpeechDetector\n"
        "SpeechDetector(); print(torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["2"], done.stderr


def test_a_hop_over_the_window_is_told_as_such() -> None:
    with pytest.raises(ValueError, match=r"hop_seconds is 0.5, more than the window of 0.3 s"):
        StreamSettings(window_seconds=0.3)
