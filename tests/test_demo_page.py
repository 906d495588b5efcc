"""The page of `emotion2vec demo` without a browser: what is computed, drawn, written, refused."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, TINY, write_tone

from emotion2vec import Emotion2vecConfig, Recognizer
from emotion2vec.demo.drawings import clock, color_of, colors_of, ink_on, marks, waveform_svg
from emotion2vec.demo.findings import (
    Finding,
    Heard,
    agreement_of,
    hear,
    read_recording,
    write_files,
    write_sound,
)
from emotion2vec.demo.looks import SCRIPT, STYLE
from emotion2vec.demo.page import create_page, run_page
from emotion2vec.demo.panels import (
    KINDS,
    address,
    downloads_html,
    error_html,
    report_html,
    sentence,
)
from emotion2vec.model import Emotion2vecClassifier
from emotion2vec.plots import NO_LABEL
from emotion2vec.recognize import Recognition
from emotion2vec.segment_files import SEGMENT_FILES
from emotion2vec.segments import Segment
from emotion2vec.timeline import Timeline

CLIP = ROOT / "data" / "moods" / "clips" / "f1-sad-01.ogg"
HOSTILE = "<img src=x onerror=alert(1)>"


class Told(list[float]):
    """A progress that is false while it is empty, as gradio's is."""

    def __call__(self, done: float, doing: str) -> None:
        self.append(done)


class Tags(HTMLParser):
    """Counts elements, and what of them is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.open: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.attributes += [name for name, _ in attrs]
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def found(
    label: str = "sad", model: str = "mini", *, labels: tuple[str, ...] = ("sad", "happy")
) -> Finding:
    scores = dict(zip(labels, (0.75, 0.25), strict=True))
    track = np.array([[0.75, 0.25]], np.float32)
    segments = (
        Segment(0.5, 3.25, label, 0.75, scores, track=track),
        Segment(4.0, 9.5, labels[1], 0.25, scores, track=track),
    )
    timeline = Timeline("a talk", 10.0, segments, labels, 0.5, "", np.ones(200, np.float32))
    return Finding(model, Recognition("input", label, 0.75, scores), timeline=timeline)


def heard(*findings: Finding, name: str = "a talk.wav") -> Heard:
    return Heard(name, 10.0, np.linspace(0, 1, 900, dtype=np.float32), findings or (found(),))


def test_a_report_says_label_scores_segments_and_where_the_sound_is() -> None:
    text = report_html(heard(), Path("/tmp/a b/sound.wav"))
    tags = Tags(text)
    assert not tags.open
    assert '<span class="e2v-label">sad</span><span class="e2v-score">75 %</span>' in text
    assert text.count('class="e2v-segment"') == 2 and text.count("<tr data-start") == 2
    assert 'aria-label="0:00.5 to 0:03.2: sad, 75 %; play"' in text
    assert 'data-start="4.000" data-end="9.500"' in text and "left:40.000%;width:55.000%" in text
    assert 'src="gradio_api/file=/tmp/a%20b/sound.wav"' in text
    assert "Of 8.2 s of speech: happy 67&nbsp;%, sad 33&nbsp;%." in text
    assert not any(name.startswith("on") for name in tags.attributes)  # the script listens


def test_one_segment_of_a_track_is_reached_by_the_tab_key() -> None:
    text = report_html(heard(), Path("/a.wav"))
    assert text.count('tabindex="0"') == 1 and text.count('tabindex="-1"') == 1


def test_names_from_outside_are_text() -> None:
    hostile = found(HOSTILE, HOSTILE, labels=(HOSTILE, '" onclick="x'))
    hostile = replace(hostile, abstains=True)
    text = report_html(heard(hostile, found(model="b"), name=f"{HOSTILE}.wav"), Path(f"/{HOSTILE}"))
    text += error_html(HOSTILE) + downloads_html(
        [(HOSTILE, [Path(f"/a/{HOSTILE}.srt")]), ("b", [])]
    )
    tags = Tags(text)
    assert not tags.open and "img" not in tags.count
    assert not {"onerror", "onclick"} & set(tags.attributes)
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 8


def test_the_page_asks_nobody_else() -> None:
    text = STYLE + SCRIPT + report_html(heard(), Path("/a.wav"))
    assert "http" not in text and "url(" not in text and "@import" not in text


def test_abstaining_is_told() -> None:
    unsure = found("unknown")
    unsure = replace(unsure, abstains=True, abstain=0.9)
    text = report_html(heard(unsure), Path("/a.wav"))
    assert '<span class="e2v-label">unknown</span>' in text
    assert "No score reaches 90 %; the highest is that of sad." in text
    assert f'<i style="background:{NO_LABEL}"></i><span class="e2v-label">' in text


def test_two_models_are_compared_in_a_sentence() -> None:
    other = found("happy", "other", labels=("Happy", "calm"))
    two = heard(found(), other)
    assert agreement_of(two.findings[0].timeline, other.timeline) == (0.0, 8.25)  # type: ignore[arg-type]
    assert sentence(two) == (
        "The two give the same label for 0 % of the speech (0.0 of 8.2 s); as a whole, mini hears "
        "sad and other happy."
    )
    same = heard(found(), found("Sad", "other", labels=("Sad", "Happy")))
    assert sentence(same).startswith("The two give the same label for 100 % of the speech")
    assert sentence(same).endswith("as a whole, both hear sad.")
    text = report_html(two, Path("/a.wav"))
    assert text.count('class="e2v-lane"') == 2 and text.count('class="e2v-axis"') == 1
    assert sentence(heard()) == ""


def test_no_speech_is_told_and_agrees_in_nothing() -> None:
    silent = found()
    assert silent.timeline is not None
    silent = replace(silent, timeline=replace(silent.timeline, segments=()))
    assert "No speech was found" in report_html(heard(silent), Path("/a.wav"))
    assert sentence(heard(silent, silent)).startswith("Neither found speech in time")


def test_what_models_share_has_one_colour_and_a_readable_ink() -> None:
    colors = colors_of([("sad", "happy"), ("Happy", "calm")])
    assert color_of("HAPPY", colors) == colors["happy"] != color_of("calm", colors)
    assert color_of("unknown", colors) == NO_LABEL
    assert [ink_on(color) for color in ("#ffffff", "#000000", "#E69F00", "#555555")] == [
        *("#000", "#fff", "#000", "#fff")
    ]


@pytest.mark.parametrize("duration", [0.03, 0.9, 5.9, 59.0, 61.0, 1800.0])
def test_an_axis_has_few_round_marks(duration: float) -> None:
    found = marks(duration, 6)
    assert found[0] == 0 and found[-1] <= duration and 1 <= len(found) <= 7


def test_times_are_read_as_a_clock_shows_them() -> None:
    assert [clock(x) for x in (0, 0.96, 59.96, 3599.0)] == ["0:00.0", "0:01.0", "1:00.0", "59:59.0"]


@pytest.mark.parametrize("outline", [[0.0], [0.0] * 900, [1.0] * 7])
def test_any_waveform_can_be_drawn(outline: list[float]) -> None:
    timeline = found().timeline
    assert timeline is not None
    text = waveform_svg(np.array(outline, np.float32), timeline, {})
    assert "nan" not in text.lower() and not Tags(text).open


def test_what_is_heard_is_what_the_recognizer_says(tmp_path: Path) -> None:
    mini = Recognizer.from_pretrained()
    told = Told()
    samples = read_recording(CLIP)
    result = hear(CLIP.name, samples, {"mini": mini}, progress=told)
    recognition = mini(CLIP)
    [finding] = result.findings
    assert finding.recognition.label == recognition.label
    assert finding.recognition.scores == pytest.approx(recognition.scores, abs=1e-5)
    assert result.duration == pytest.approx(recognition.duration) and not finding.abstains
    assert len(result.outline) == 900 and result.outline.max() == np.abs(samples).max()
    assert told == sorted(told) and 0 <= told[0] <= told[-1] <= 1
    written = write_files(result, finding, tmp_path)
    assert [file.suffix[1:] for file in written] == list(KINDS)
    assert {file.stem for file in written} == {"f1-sad-01"}
    assert finding.timeline is not None
    for file in written[:-1]:
        assert file.read_text() == SEGMENT_FILES[file.suffix[1:]](finding.timeline)
    assert written[-1].read_bytes().startswith(b"\x89PNG")


def test_a_second_model_has_files_of_its_own_name(tmp_path: Path) -> None:
    other = found(model="runs/a b/final")
    names = [file.name for file in write_files(heard(found(), other), other, tmp_path)]
    assert names[0] == "a talk.runs_a_b_final.json"


def test_values_have_no_timeline(tmp_path: Path) -> None:
    config = Emotion2vecConfig(**TINY, dimensions=("arousal", "valence"))
    recognizer = Recognizer(Emotion2vecClassifier(config))
    result = hear("a.wav", read_recording(write_tone(tmp_path / "a.wav")), {"vad": recognizer})
    text = report_html(result, tmp_path / "a.wav")
    assert "arousal" in text and "values, not labels: no timeline" in text
    assert "e2v-lane" not in text and "e2v-answer" not in text
    [file] = write_files(result, result.findings[0], tmp_path / "out")
    assert set(json.loads(file.read_text())["dimensions"]) == {"arousal", "valence"}


def test_what_is_played_is_what_was_heard(tmp_path: Path) -> None:
    samples = read_recording(CLIP)
    played, rate = soundfile.read(write_sound(samples, tmp_path / "a" / "sound.wav"))
    assert rate == 16_000 and np.abs(played - samples).max() < 1e-4
    assert address(tmp_path).startswith("gradio_api/file=/")


def damaged(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.wav"
    if kind == "broken":
        path.write_bytes(b"RIFF nothing")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "silent":
        soundfile.write(path, np.zeros(16_000), 16_000)
    elif kind == "short":
        write_tone(path, 0.01)
    elif kind == "long":
        write_tone(path, 2.5)
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("broken", "broken.wav cannot be decoded as audio"),
        ("empty", "empty.wav is empty (0 bytes)"),
        ("silent", "silent.wav is silent"),
        ("short", "short.wav is 0.010 s long; the model needs at least"),
        ("long", "long.wav is longer than 0.0333333 min; give a shorter one"),
        ("missing", "missing.wav is not a file"),
    ],
)
def test_what_cannot_be_heard_is_told_without_its_place(
    tmp_path: Path, kind: str, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}") as raised:
        read_recording(damaged(tmp_path, kind), max_seconds=2)
    assert str(tmp_path) not in str(raised.value)


def test_a_page_is_put_together_and_its_actions_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio")
    pytest.importorskip("silero_vad")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="the page has no model"):
        create_page({})
    page = create_page({"mini": Recognizer.from_pretrained()}, examples=[CLIP])
    functions = {function.name: function.fn for function in page.fns.values()}
    show, collect = functions["show"], functions["collect"]
    report, served, _ = show(str(CLIP), "mini", "none", lambda done, doing: None)
    assert 'class="e2v-label"' in report
    links = collect(served)
    assert links.count("<a href") == len(KINDS) and 'download="f1-sad-01.srt"' in links
    report, served, _ = show(str(damaged(tmp_path, "broken")), "mini", "none", lambda *_: None)
    assert 'role="alert"' in report and str(tmp_path) not in report and served is None
    assert collect(None) == ""
    assert "Record something" in show(None, "mini", "none", lambda *_: None)[0]
    assert page.analytics_enabled is False


def test_a_port_in_use_is_told() -> None:
    gr = pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be listened at"):
            run_page(gr.Blocks(analytics_enabled=False), host="127.0.0.1", port=port)
