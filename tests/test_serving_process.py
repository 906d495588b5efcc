"""The service as a process: told to end under load, it answers what it accepted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

CLIP = ROOT / "data" / "moods" / "clips" / "f1-sad-01.ogg"


class Process:
    """`emotion2vec serve` on a port of its own."""

    def __init__(self, *options: str, **environment: str) -> None:
        words = [sys.executable, "-m", "emotion2vec", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(
            words, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.said: list[str] = []
        self.address = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"serves at (\S+)", line):
                self.address = found[1]
                break

    def end(self, sig: int = signal.SIGTERM) -> int:
        """Tell it to end; return its exit code."""
        self.process.send_signal(sig)
        return self.process.wait(60)

    def rest(self) -> str:
        """What it said since it started."""
        assert self.process.stderr is not None
        return "".join(self.said) + self.process.stderr.read()


@pytest.fixture
def process() -> Iterator[Process]:
    started = Process()
    yield started
    started.process.kill()


def test_it_loses_nothing_that_it_accepted(process: Process) -> None:
    outcomes: list[str] = []
    body = CLIP.read_bytes()

    def ask_on_and_on() -> None:
        while True:
            try:
                # A connection a request: one that is idle may be closed at any time.
                answer = httpx.post(
                    f"{process.address}/v1/recognize", files={"file": body}, timeout=60
                )
            except httpx.ConnectError:
                return
            except httpx.HTTPError as error:
                outcomes.append(type(error).__name__)
                return
            outcomes.append(str(answer.status_code))

    threads = [threading.Thread(target=ask_on_and_on) for _ in range(8)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(outcomes) < 24 and time.monotonic() < deadline:  # in full swing
        time.sleep(0.05)
    assert process.end() == 0
    for thread in threads:
        thread.join(60)
    said = process.rest()
    told = re.search(r"ended: (\d+) requests were accepted, (\d+) not answered", said)
    assert told, said
    # Whoever was accepted has an answer; who came too late was never heard.
    assert outcomes.count("200") == int(told[1]) and told[2] == "0"
    assert set(outcomes) <= {"200", "ReadError", "RemoteProtocolError"}, set(outcomes)


def test_it_ends_at_once_when_idle_and_at_ctrl_c(process: Process) -> None:
    assert httpx.get(f"{process.address}/healthz").json()["status"] == "ok"
    assert process.end(signal.SIGINT) == 0
    assert "0 requests were accepted" in process.rest()


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    for process, token in (
        (Process("--token-file", str(tmp_path / "token")), "from-file"),
        (Process(EMOTION2VEC_TOKEN="from-environment"), "from-environment"),
    ):
        address = f"{process.address}/metrics"
        assert httpx.get(address).status_code == 401
        right = {"Authorization": f"Bearer {token}"}
        assert httpx.get(address, headers=right).status_code == 200
        assert process.end() == 0


def test_an_address_that_is_taken_is_told(process: Process) -> None:
    port = process.address.rsplit(":", 1)[1]
    words = [sys.executable, "-m", "emotion2vec", "serve", "--port", port]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1 and f"127.0.0.1:{port} cannot be listened at" in done.stderr
