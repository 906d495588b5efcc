"""The page of `emotion2vec demo` in a real browser, without a screen, sound or network."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, TINY

from emotion2vec import Emotion2vecConfig, Recognizer
from emotion2vec.audio import load_audio
from emotion2vec.model import Emotion2vecClassifier
from emotion2vec.segment_files import SEGMENT_FILES
from emotion2vec.timeline import timeline_of

pytest.importorskip("gradio")
pytest.importorskip("silero_vad")
playwright = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")

CLIP = ROOT / "data" / "moods" / "clips" / "f1-sad-01.ogg"
WAIT = 30_000
"""Milliseconds; machines are shared."""

# Tells where the server is, and every address that it looks up or calls beside its own.
SERVER = """
import logging, sys
LOCAL = (None, "", "127.0.0.1", "localhost", "::1", "0.0.0.0", b"127.0.0.1", b"localhost")
def hook(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in LOCAL:
        print("OUTSIDE", event, host, file=sys.stderr, flush=True)
sys.addaudithook(hook)
logging.basicConfig(level=logging.WARNING, format="%(message)s")
logging.getLogger("emotion2vec").setLevel(logging.INFO)
from emotion2vec.commands.demo import demo
sys.exit(demo(model=sys.argv[1:], port=0, no_browser=True))
"""


class Server:
    """The page in a process of its own; it gets a temporary folder that is looked at afterwards."""

    def __init__(self, models: list[str], folder: Path) -> None:
        folder.mkdir()
        self.log, self.folder = folder.with_suffix(".log"), folder
        environment = os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
        environment.pop("GRADIO_ANALYTICS_ENABLED", None)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *models], cwd=ROOT, stderr=log, env=environment
            )
        for _ in range(600):
            said = re.search(r"the page is at (http://\S+/) ", self.log.read_text())
            if said:
                self.address = said[1]
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second classifier, with random weights."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = Emotion2vecConfig(**TINY, labels=("angry", "happy", "neutral", "sad"))
    Emotion2vecClassifier(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with pauses; the first segment is short enough to wait for."""
    pause = np.zeros(12_000, np.float32)
    clips = [load_audio(CLIP), load_audio(CLIP.with_name("m1-angry-01.ogg"))]
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    soundfile.write(path, np.concatenate([pause, clips[0], pause, clips[1], pause]), 16_000)
    return path


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(["mini", str(tiny)], tmp_path_factory.mktemp("served") / "tmp")
    yield served
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    log = served.log.read_text()
    assert "OUTSIDE" not in log and "Traceback" not in log, log
    assert not list(served.folder.glob("emotion2vec-demo-*"))  # uploads are gone


@pytest.fixture(scope="module")
def browser(talk: Path) -> Iterator[Any]:
    flags = ["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
    flags += ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={talk}"]
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


@pytest.fixture(params=[(1280, 900)], ids=["desk"])
def page(request: pytest.FixtureRequest, browser: Any, server: Server) -> Iterator[Any]:
    """The page, fresh; nothing may be asked of another host, and nothing be complained of."""
    width, height = request.param
    context = browser.new_context(
        viewport={"width": width, "height": height}, permissions=["microphone"]
    )
    opened = context.new_page()
    opened.set_default_timeout(WAIT)
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))

    def only_here(route: Any) -> None:
        if urlsplit(route.request.url).netloc == urlsplit(server.address).netloc:
            route.continue_()
        else:
            wrong.append(route.request.url)
            route.abort()

    opened.route(re.compile("^(http|ws)"), only_here)
    opened.goto(server.address)
    opened.wait_for_selector("#recording input[type=file]", state="attached")
    yield opened
    context.close()
    assert wrong == []


PHONE = pytest.mark.parametrize("page", [(390, 844)], indirect=True, ids=["phone"])


def upload(page: Any, path: Path, until: str = ".e2v-downloads a") -> None:
    page.set_input_files("#recording input[type=file]", path)
    page.wait_for_selector(until)


def sound(page: Any) -> dict[str, Any]:
    return page.evaluate(
        "(({currentTime, paused, duration}) => ({currentTime, paused, duration}))"
        "(document.querySelector('#report audio'))"
    )


def width(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth")


def test_a_clip_has_the_label_of_the_recognizer(page: Any) -> None:
    upload(page, CLIP)
    mini = Recognizer.from_pretrained()
    recognition = mini(CLIP)
    assert page.inner_text(".e2v-label") == recognition.label
    assert page.inner_text(".e2v-score") == f"{100 * recognition.score:.0f} %"
    assert page.inner_text(".e2v-head h2") == CLIP.name
    with page.expect_download() as waiting:
        page.get_by_role("link", name="SRT").click()
    assert waiting.value.suggested_filename == "f1-sad-01.srt"
    text = Path(waiting.value.path()).read_text()
    assert text == SEGMENT_FILES["srt"](timeline_of(CLIP, mini))
    with page.expect_download() as waiting:
        page.get_by_role("link", name="PNG").click()
    assert Path(waiting.value.path()).read_bytes().startswith(b"\x89PNG")


def plays(page: Any, part: Any) -> None:
    """A segment begins at its start and stops at its end."""
    start, end = (float(part.get_attribute(f"data-{name}")) for name in ("start", "end"))
    page.wait_for_function("!document.querySelector('#report audio').paused")
    assert start - 0.01 <= sound(page)["currentTime"] <= end
    page.wait_for_function("document.querySelector('#report audio').paused")
    assert sound(page)["currentTime"] == pytest.approx(end, abs=0.02)


def test_segments_play_by_click_key_and_row(page: Any, talk: Path) -> None:
    upload(page, talk)
    segments, rows = page.locator(".e2v-segment"), page.locator(".e2v-rows tbody tr")
    assert segments.count() == rows.count() >= 2
    assert sound(page)["duration"] == pytest.approx(soundfile.info(talk).duration, abs=0.01)
    segments.nth(1).click()
    plays(page, segments.nth(1))
    segments.nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    plays(page, segments.nth(1))
    rows.nth(1).locator("td").nth(3).click()
    plays(page, rows.nth(1))
    page.get_by_role("button", name="Play", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).click()
    assert sound(page)["paused"]


@PHONE
def test_two_models_on_a_phone(page: Any, talk: Path, tiny: Path) -> None:
    assert width(page) <= 390
    upload(page, talk)
    assert width(page) <= 390
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name=str(tiny)).click()
    page.wait_for_selector(".e2v-agreement")
    page.wait_for_function("document.querySelectorAll('.e2v-links').length === 2")
    assert width(page) <= 390
    assert "same label for" in page.inner_text(".e2v-agreement")
    other = Recognizer.from_pretrained(tiny)(talk)
    assert page.locator(".e2v-label").all_inner_texts()[1] == other.label
    assert page.locator(".e2v-lane").count() == 2 and page.locator(".e2v-axis").count() == 1
    if page.locator(".e2v-zoom").count():
        page.get_by_role("button", name="look closer").click()
        assert page.locator(".e2v-inner").bounding_box()["width"] > 390 >= width(page)


@PHONE
def test_the_microphone_is_heard(page: Any) -> None:
    page.get_by_role("button", name="Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop").first.click()
    page.wait_for_selector(".e2v-label")
    assert page.inner_text(".e2v-label") in Recognizer.from_pretrained().labels


def test_names_are_text_and_errors_a_sentence(page: Any, talk: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "<img src=x onerror=alert(1)>${alert(2)}{{3}}.wav"
    shutil.copy(talk, hostile)
    upload(page, hostile)
    assert page.inner_text(".e2v-head h2").endswith(".wav")
    assert page.locator("#report img").count() == 0
    page.get_by_role("button", name="Clear").first.click()
    page.wait_for_selector(".e2v-empty")
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    upload(page, tmp_path / "broken.wav", ".e2v-error")
    said = page.inner_text(".e2v-error")
    assert said.startswith("That did not work: broken.wav cannot be decoded as audio")
    assert "/" not in said and "Traceback" not in page.inner_text("body")
