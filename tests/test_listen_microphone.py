"""`emotion2vec listen` on a microphone, which a test replaces by sound that is known."""

from __future__ import annotations

import json
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from emotion2vec import Recognizer, Stream
from emotion2vec.audio import load_audio
from emotion2vec.cli import main

pytest.importorskip("silero_vad")

CLIPS = ROOT / "data" / "moods" / "clips"


def talk() -> np.ndarray:
    pause = np.zeros(16_000, np.float32)
    names = ("f1-sad-01", "m1-angry-01")
    return np.concatenate([p for n in names for p in (load_audio(CLIPS / f"{n}.ogg"), pause)])


class FakeMicrophone:
    """sounddevice's InputStream: calls back from a thread of its own, block by block."""

    opened: list[dict[str, Any]] = []  # noqa: RUF012 (looked at by the test)

    def __init__(self, *, callback: Any, **settings: Any) -> None:
        self.opened.append(settings)
        sound, size = talk(), settings["blocksize"]
        blocks = [sound[i : i + size, None] for i in range(0, len(sound), size)]
        self._thread = threading.Thread(
            target=lambda: [callback(block, len(block), None, None) for block in blocks]
        )

    def __enter__(self) -> FakeMicrophone:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def test_a_microphone_gives_what_its_sound_gives(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake = types.SimpleNamespace(InputStream=FakeMicrophone, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    seconds = len(talk()) // 1600 / 10
    with pytest.raises(SystemExit) as ended:
        main(["listen", "2", "--seconds", str(seconds), "--format", "json", "--quiet"])
    assert not ended.value.code
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    stream = Stream(Recognizer.from_pretrained())
    expected = stream.push(talk()[: round(seconds * 16_000)]) + stream.finish()
    assert [(s["start"], s["end"], s["label"]) for s in found] == [
        (round(s.start, 3), round(s.end, 3), s.label) for s in expected
    ]
    assert len(found) >= 2
    [settings] = FakeMicrophone.opened
    assert settings["device"] == 2 and settings["channels"] == 1
    assert settings["samplerate"] == 16_000
