"""Streams and timelines: any chunking is one answer, in bounded memory; segments as files."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from emotion2vec import Recognizer
from emotion2vec.audio import Resampler, load_audio, read_blocks
from emotion2vec.segments import Segment, Turn, diarization_errors
from emotion2vec.smoothing import FixedLagSmoother
from emotion2vec.speech import FRAME_SAMPLES, SpeechDetector
from emotion2vec.stream import Stream, StreamSettings
from emotion2vec.timeline import timeline_of

pytest.importorskip("silero_vad")

CLIPS = ROOT / "data" / "moods" / "clips"
NAMES = ("f1-sad-01", "m1-angry-01", "f2-happy-02", "m2-neutral-01")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Four clips with pauses of 0.7 s, a long one at the end."""
    pause = np.zeros(11_200, np.float32)
    parts = [part for name in NAMES for part in (load_audio(CLIPS / f"{name}.ogg"), pause)]
    return np.concatenate([*parts, np.zeros(16_000, np.float32)])


def in_chunks(stream: Stream, sound: np.ndarray, sizes: list[int]) -> list[Segment]:
    found, first, number = [], 0, 0
    while first < len(sound):
        size = sizes[number % len(sizes)]
        found += stream.push(sound[first : first + size])
        first, number = first + size, number + 1
    return found + stream.finish()


@pytest.mark.parametrize("sizes", [[160], [1, 511, 4001], [16_000], [10**7]])
def test_any_chunking_gives_the_same_segments(
    recognizer: Recognizer, talk: np.ndarray, sizes: list[int]
) -> None:
    whole = in_chunks(Stream(recognizer), talk, [1024])
    found = in_chunks(Stream(recognizer), talk, sizes)
    assert found == whole and len(found) >= 4  # to the last bit of the scores
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_chunks_at_other_rates_and_of_other_kinds(recognizer: Recognizer, talk: np.ndarray) -> None:
    louder = np.int16(np.clip(talk, -1, 1) * 32767)
    stereo = np.stack([louder, louder], axis=1).repeat(3, axis=0)  # 48 kHz, crudely
    found = in_chunks(Stream(recognizer, sampling_rate=48_000), stereo, [480])
    assert found == in_chunks(Stream(recognizer, sampling_rate=48_000), stereo, [7777])
    expected = in_chunks(Stream(recognizer), talk, [160])
    # It sounds a little different: where speech is stays.
    assert found[0].start == pytest.approx(expected[0].start, abs=0.1)


def test_a_timeline_is_what_a_stream_gives(
    recognizer: Recognizer, talk: np.ndarray, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "talk.wav", talk, 16_000, "FLOAT")
    timeline = timeline_of(tmp_path / "talk.wav", recognizer)
    streamed = in_chunks(Stream(recognizer), talk, [1600])
    assert [(s.start, s.end, s.label) for s in timeline.segments] == [
        (s.start, s.end, s.label) for s in streamed
    ]
    for one, other in zip(timeline.segments, streamed, strict=True):  # windows came in batches
        assert one.scores == pytest.approx(other.scores, abs=1e-5)
    assert timeline.duration == pytest.approx(len(talk) / 16_000)
    assert len(timeline.outline) == -(-len(talk) // 800)
    assert timeline.outline.max() == pytest.approx(np.abs(talk).max())


def test_speech_is_where_it_is(recognizer: Recognizer, talk: np.ndarray) -> None:
    segments = in_chunks(Stream(recognizer), talk, [1600])
    voiced = np.zeros(len(talk), bool)
    for s in segments:
        voiced[round(s.start * 16_000) : round(s.end * 16_000)] = True
    loud = np.abs(talk) > 0.05
    assert (voiced & loud).sum() > 0.98 * loud.sum()
    assert not voiced[-16_000:].any()  # the silence at the end


class FakeRecognizer:
    """Labels by the mean of the sound: what each window holds is known."""

    labels = ("low", "high")
    abstain = 0.0
    policy = "by the mean"
    batch_seconds = 20.0

    def scores(self, clips: list[np.ndarray]) -> np.ndarray:
        shares = np.array([float((clip > 0).mean()) for clip in clips])
        return np.stack([1 - shares, shares], axis=1).astype(np.float32)


def steps(*seconds: float) -> np.ndarray:
    """Stretches of -1 and 1 by turns."""
    values = [(-1.0) ** (n + 1) for n in range(len(seconds))]
    return np.concatenate(
        [np.full(round(16_000 * s), v, np.float32) for s, v in zip(seconds, values, strict=True)]
    )


WHOLE = StreamSettings(detect_speech=False)


def test_a_change_is_found_where_it_is() -> None:
    timeline = timeline_of([steps(10, 8, 12)], FakeRecognizer(), WHOLE)  # type: ignore[arg-type]
    assert [s.label for s in timeline.segments] == ["low", "high", "low"]
    assert [s.start for s in timeline.segments] == pytest.approx([0, 10, 18], abs=0.5)
    assert timeline.segments[-1].end == 30
    assert all(s.score > 0.85 for s in timeline.segments)


def test_a_blip_is_smoothed_away() -> None:
    rough = StreamSettings(detect_speech=False, switch=0.5, lag_seconds=0.0)
    blip = steps(10, 1.2, 10)
    assert len(timeline_of([blip], FakeRecognizer(), rough).segments) == 3  # type: ignore[arg-type]
    smooth = StreamSettings(detect_speech=False, switch=0.001, lag_seconds=2.0)
    assert len(timeline_of([blip], FakeRecognizer(), smooth).segments) == 1  # type: ignore[arg-type]


def test_memory_is_bounded_without_any_pause() -> None:
    stream = Stream(FakeRecognizer(), WHOLE)  # type: ignore[arg-type]
    largest = 0
    for _ in range(600):
        stream.push(np.ones(16_000, np.float32))
        largest = max(largest, len(stream._sound))
    assert largest < 20 * 16_000
    assert stream.finish()[0].end == 600


def test_turns_are_labelled_each_on_its_own() -> None:
    turns = [Turn(0.5, 4.0, "anna"), Turn(3.0, 6.0, "ben"), Turn(90.0, 95.0, "nobody")]
    timeline = timeline_of([steps(3.5, 3)], FakeRecognizer(), turns=turns)  # type: ignore[arg-type]
    assert (timeline.segments[0].speaker, timeline.segments[0].start) == ("anna", 0.5)
    assert timeline.segments[-1].speaker == "ben" and timeline.segments[-1].end == 6.0
    assert {s.speaker for s in timeline.segments} == {"anna", "ben"}


@pytest.mark.parametrize("length", [0, 1, 399, 5000])
def test_short_and_silent_recordings_have_no_segments(recognizer: Recognizer, length: int) -> None:
    stream = Stream(recognizer)
    assert stream.push(np.zeros(length, np.float32)) == []
    assert stream.finish() == [] and stream.finish() == []
    with pytest.raises(ValueError, match="finished; begin a new one"):
        stream.push(np.zeros(10))


def test_settings_out_of_range_are_refused() -> None:
    for name, value in (("window_seconds", 70.0), ("hop_seconds", 0.0), ("switch", 1.0)):
        with pytest.raises(ValueError, match=f"{name} is {value}; give a number from"):
            StreamSettings(**{name: value})  # type: ignore[arg-type]


def test_abstaining_makes_segments_unknown(talk: np.ndarray) -> None:
    sure = Recognizer.from_pretrained(device="cpu", abstain=1.0)
    segments = in_chunks(Stream(sure), talk, [1600])
    assert {s.label for s in segments} == {"unknown"}


def test_the_detector_keeps_its_promise(talk: np.ndarray) -> None:
    """No edge is ever told that lies further back than it says."""
    detector = SpeechDetector()
    for first in range(0, len(talk) - FRAME_SAMPLES, FRAME_SAMPLES):
        before = detector.position
        edge = detector.push(talk[first : first + FRAME_SAMPLES])
        assert edge is None or edge.begins or edge.sample >= before - detector.hindsight_samples


def test_the_smoother_is_forward_backward() -> None:
    """Against the posterior summed over all paths."""
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=6)
    switch = 0.2
    step = np.full((3, 3), switch / 2)
    np.fill_diagonal(step, 1 - switch)
    posterior = np.zeros((6, 3))
    for path in np.ndindex(*(3,) * 6):
        weight = np.prod([rows[t, c] for t, c in enumerate(path)])
        weight *= np.prod([step[a, b] for a, b in pairwise(path)])
        for t, c in enumerate(path):
            posterior[t, c] += weight
    smoother = FixedLagSmoother(switch=switch, lag=10)
    assert [smoother.push(row) for row in rows] == [None] * 6
    assert smoother.finish() == posterior.argmax(axis=1).tolist()


def test_the_error_rate_counts_time() -> None:
    """Against a count of milliseconds."""
    draw = np.random.default_rng(1)

    def random_segments() -> list[tuple[float, float, str]]:
        edges = np.sort(draw.choice(5000, 12, replace=False)) / 1000
        return [(a, b, str(draw.choice(["x", "y", "n"]))) for a, b in edges.reshape(-1, 2)]

    for _ in range(20):
        truth, answer = random_segments(), random_segments()
        lines = np.full((2, 5000), "", dtype="<U1")
        for line, segments in zip(lines, (truth, answer), strict=True):
            for start, end, label in segments:
                line[round(1000 * start) : round(1000 * end)] = "" if label == "n" else label
        errors = diarization_errors(truth, answer, 5.0, none=["n"])
        assert errors.rate == pytest.approx((lines[0] != lines[1]).mean(), abs=1e-9)
        assert errors.missed == pytest.approx(((lines[0] != "") & (lines[1] == "")).sum() / 1000)
    with pytest.raises(ValueError, match="overlap"):
        diarization_errors([(0, 2, "x"), (1, 3, "y")], [], 5.0)


def test_blocks_are_what_the_whole_is(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, (44_100 * 130, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 44_100)
    blocks = list(read_blocks(tmp_path / "a.wav"))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(tmp_path / "a.wav"))
    with pytest.raises(ValueError, match="cannot be decoded"):
        list(read_blocks(io.BytesIO(b"nothing of the kind")))
    with pytest.raises(ValueError, match="sampling_rate=0"):
        Resampler(0)


def test_everything_of_a_segment_is_json() -> None:
    segment = Segment(0.0, 1.0, "sad", 0.5, {"sad": 0.5}, "anna", np.ones((2, 1), np.float32))
    assert json.loads(json.dumps(segment.to_dict()))["speaker"] == "anna"
