"""The service: answers, batches, limits and their status codes, what no client can make it open."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from emotion2vec import Recognizer
from emotion2vec.audio import load_audio

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from serving_clients import Client, client_of, wav  # noqa: E402

from emotion2vec.serving.app import create_app  # noqa: E402
from emotion2vec.serving.batcher import Batcher  # noqa: E402
from emotion2vec.serving.limits import Limits  # noqa: E402

CLIP = ROOT / "data" / "moods" / "clips" / "f1-sad-01.ogg"


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_pretrained(device="cpu")


@pytest.fixture
def client(recognizer: Recognizer) -> Client:
    return client_of(recognizer)


def test_a_form_and_json_answer_as_the_recognizer(client: Client, recognizer: Recognizer) -> None:
    expected = recognizer(CLIP)
    sound = CLIP.read_bytes()
    form = client.post("recognize", files={"file": ("a.ogg", sound)})
    coded = client.post("recognize", json={"audio": base64.b64encode(sound).decode()})
    clip = load_audio(CLIP)
    samples = client.post("recognize", json={"samples": clip.tolist(), "sampling_rate": 16_000})
    for answer in (form, coded, samples):
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["label"] == expected.label and found["model"] == "mini"
        assert found["scores"] == pytest.approx(expected.scores, abs=1e-5)
        assert found["duration"] == pytest.approx(expected.duration)


def test_labels_and_abstaining_by_request(client: Client) -> None:
    fields = {"labels": "Sad, happy", "abstain": "0.5"}
    found = client.post("recognize", files={"file": CLIP.read_bytes()}, data=fields).json()
    assert set(found["scores"]) == {"sad", "happy"}
    assert sum(found["scores"].values()) == pytest.approx(1)
    fields["abstain"] = "1"
    found = client.post("recognize", files={"file": CLIP.read_bytes()}, data=fields).json()
    assert found["label"] == "unknown" and found["policy"].endswith("; unknown below 1")
    answer = client.post("recognize", files={"file": CLIP.read_bytes()}, data={"labels": "grim"})
    assert answer.status_code == 422 and "does not know; it knows" in answer.json()["error"]


def test_features_are_the_encoders(client: Client, recognizer: Recognizer) -> None:
    from emotion2vec.encoding import encode_clips

    frames = encode_clips(recognizer.classifier.model.encoder, [load_audio(CLIP)])[0].frames  # type: ignore[attr-defined]
    found = client.post("embed", files={"file": CLIP.read_bytes()}).json()
    np.testing.assert_allclose(found["embedding"], frames.mean(axis=0), atol=1e-4)
    form = {"files": {"file": CLIP.read_bytes()}, "data": {"level": "frame"}}
    found = client.post("embed", **form).json()
    assert np.shape(found["embedding"]) == frames.shape == (found["num_frames"], found["width"])


def test_a_timeline_is_the_librarys(client: Client, recognizer: Recognizer) -> None:
    pytest.importorskip("silero_vad")
    from emotion2vec.timeline import timeline_of

    expected = timeline_of(CLIP, recognizer).to_dict()["segments"]
    found = client.post("timeline", files={"file": CLIP.read_bytes()}).json()
    assert [(s["start"], s["end"], s["label"]) for s in found["segments"]] == [
        (s["start"], s["end"], s["label"]) for s in expected
    ]
    turns = [{"start": 0.1, "end": 1.2, "speaker": "anna"}]
    sound = base64.b64encode(CLIP.read_bytes()).decode()
    found = client.post("timeline", json={"audio": sound, "turns": turns}).json()
    assert {s["speaker"] for s in found["segments"]} == {"anna"}


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "'text/plain'"),
        ({"content": b"x"}, 415, "'of no type'"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no JSON"),
        ({"json": []}, 422, "the body: "),
        ({"json": {}}, 422, "either audio (base64) or samples"),
        ({"json": {"audio": "?"}}, 422, "no base64"),
        ({"json": {"audio": "", "samples": [0.0]}}, 422, "either audio"),
        ({"json": {"samples": []}}, 422, "the model needs at least 0.025 s"),
        ({"json": {"samples": [0.0] * 800}}, 422, "is silent"),
        ({"json": {"samples": [0.1], "sampling_rate": 0}}, 422, "sampling_rate: "),
        ({"json": {"path": "/etc/hostname"}}, 422, "path is no field; there are audio, samples"),
        ({"json": {"samples": [0.1], "abstain": 2}}, 422, "abstain: "),
        ({"files": {"file": b""}}, 422, "is empty"),
        ({"files": {"file": b"no sound"}}, 422, "cannot be decoded as audio"),
        ({"files": {"other": b"x"}}, 422, 'no file in a field "file"'),
        ({"data": {"file": "a.wav"}, "files": {"x": b""}}, 422, 'no file in a field "file"'),
        ({"files": {"file": b"x"}, "data": {"samples": "[1]"}}, 422, "samples is for JSON"),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "the form is broken",
        ),
        ({"files": [("file", b"a"), ("file", b"b")]}, 400, "the form is broken"),
    ],
)
def test_what_is_wrong_is_told(
    client: Client, options: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("recognize", **options)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["error"]


def test_paths_and_methods_that_are_not_there(client: Client) -> None:
    assert client.send("GET", "/nothing").status_code == 404
    answer = client.send("GET", "/v1/recognize")
    assert answer.status_code == 405 and answer.json()["error"]


def test_limits_have_their_status_codes(recognizer: Recognizer) -> None:
    client = client_of(recognizer, limits={"megabytes": 0.1, "seconds": 2.0})
    assert client.post("recognize", files={"file": wav(1)}).status_code == 200
    answer = client.post("recognize", files={"file": wav(2.5)})
    assert answer.status_code == 413 and "longer than 2 s" in answer.json()["error"]
    answer = client.post("recognize", files={"file": wav(5)})
    assert answer.status_code == 413 and "larger than 0.1 MB" in answer.json()["error"]
    with pytest.raises(ValueError, match="the limit requests is 0; give a number above 0"):
        Limits(requests=0)


def test_a_small_file_may_not_hold_hours(recognizer: Recognizer) -> None:
    """Hours of near silence fit a few kilobytes of flac; they are not decoded to the end."""
    file = io.BytesIO()
    soundfile.write(file, np.full(2 * 3600 * 8000, 1e-4), 8000, format="FLAC")
    assert len(file.getvalue()) < 500_000
    answer = client_of(recognizer).post("recognize", files={"file": file.getvalue()})
    assert answer.status_code == 413


def test_too_many_at_once_and_too_slow(recognizer: Recognizer) -> None:
    app = create_app(recognizer, limits=Limits(requests=2, timeout_seconds=1.0))
    service, held = app.state.service, threading.Event()

    def slow(kind: str, clips: list[Any]) -> Any:
        held.wait(3)
        return recognizer.answers(clips)

    service.batcher._compute = slow

    async def ask() -> list[Any]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test"
        ) as client:
            first = [
                asyncio.create_task(client.post("/v1/recognize", files={"file": wav(1)}))
                for _ in range(2)
            ]
            await asyncio.sleep(0.3)
            third = await client.post("/v1/recognize", files={"file": wav(1)})
            answers = [third, *await asyncio.gather(*first)]
            held.set()
            return answers

    third, *others = asyncio.run(ask())
    assert third.status_code == 503 and third.headers["retry-after"] == "1"
    assert [answer.status_code for answer in others] == [504, 504]
    assert service.in_flight == 0 and not service.batcher._waiting


def test_a_token_opens_the_door(recognizer: Recognizer) -> None:
    client = client_of(recognizer, token="secret")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        answer = client.post("recognize", files={"file": wav(1)}, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert client.send("GET", "/metrics", headers=headers).status_code == 401
    right = {"Authorization": "Bearer secret"}
    assert client.post("recognize", files={"file": wav(1)}, headers=right).status_code == 200
    assert client.send("GET", "/healthz").status_code == 200


def test_metrics_count(client: Client) -> None:
    client.post("recognize", files={"file": wav(1)})
    client.post("recognize", content=b"")
    client.send("GET", "/made/up")
    text = client.send("GET", "/metrics").text
    assert 'emotion2vec_requests_total{path="/v1/recognize",status="200"} 1.0' in text
    assert 'emotion2vec_requests_total{path="/v1/recognize",status="415"} 1.0' in text
    assert 'emotion2vec_requests_total{path="other",status="404"} 1.0' in text
    assert "emotion2vec_in_flight 0.0" in text and "emotion2vec_sound_seconds_total 1.0" in text


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address that notes whoever asks it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


def test_no_path_or_address_of_a_client_is_opened(
    client: Client, listener: tuple[str, list[str]], tmp_path: Path
) -> None:
    """Neither by name nor by a playlist, which FFmpeg would follow."""
    address, asked = listener
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(1))
    lists = [
        f"#EXTM3U\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n" for target in (f"{address}/a.ts", secret)
    ]
    lists += [f"ffconcat version 1.0\nfile '{secret}'\n", f"{address}/b.wav", str(secret)]
    lists += [f"v=0\nc=IN IP4 127.0.0.1\nm=audio 5000 RTP/AVP 0\na=control:{address}/c\n"]
    for text in lists:
        answer = client.post("recognize", files={"file": (str(secret), text.encode())})
        assert answer.status_code == 422, answer.text
        for field in ("audio", "path", "url", "file"):
            assert client.post("recognize", json={field: text}).status_code == 422
    assert asked == []


def test_health_says_when_it_drains(recognizer: Recognizer) -> None:
    app = create_app(recognizer)
    app.state.service.draining = True
    answer = Client(app).send("GET", "/healthz")
    assert answer.status_code == 503 and answer.json()["status"] == "draining"


def test_what_fails_inside_is_a_500_without_details(recognizer: Recognizer) -> None:
    app = create_app(recognizer)

    def broken(kind: str, clips: list[Any]) -> Any:
        raise RuntimeError("secrets of the house")

    app.state.service.batcher._compute = broken
    answer = Client(app).post("recognize", files={"file": wav(1)})
    assert answer.status_code == 500 and "secrets" not in answer.text
    assert app.state.service.in_flight == 0


def test_the_document_names_every_path(client: Client) -> None:
    document = client.send("GET", "/openapi.json").json()
    assert set(document["paths"]) >= {"/v1/recognize", "/v1/embed", "/v1/timeline", "/healthz"}
    body = document["paths"]["/v1/recognize"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert "http" not in json.dumps(document["paths"])  # nothing is fetched from elsewhere


def test_batches_are_of_like_length_and_nobody_waits_for_ever() -> None:
    sizes: list[list[int]] = []

    def compute(kind: str, clips: list[Any]) -> list[int]:
        sizes.append([len(clip) for clip in clips])
        if kind == "bad" and any(len(clip) == 13 for clip in clips):
            raise RuntimeError("thirteen")
        return [len(clip) for clip in clips]

    async def ask() -> list[Any]:
        batcher = Batcher(compute, batch_seconds=100 / 16_000, wait_seconds=0.05)
        lengths = [10, 90, 12, 11, 80, 9]
        jobs = [batcher.submit("good", np.zeros(n, np.float32)) for n in lengths]
        jobs += [batcher.submit("bad", np.zeros(n, np.float32)) for n in (13, 14)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        await batcher.close()
        return found

    found = asyncio.run(ask())
    assert found[:6] == [10, 90, 12, 11, 80, 9]
    assert str(found[6]) == "thirteen" and found[7] == 14  # one does not spoil the other's answer
    assert sorted(sizes[0]) == [9, 10, 11, 12] and all(max(s) * len(s) <= 100 for s in sizes)


def test_bfloat16_answers_nearly_the_same(recognizer: Recognizer) -> None:
    exact = client_of(recognizer).post("recognize", files={"file": CLIP.read_bytes()}).json()
    fast = client_of(recognizer, bfloat16=True)
    found = fast.post("recognize", files={"file": CLIP.read_bytes()}).json()
    assert found["label"] == exact["label"]
    assert found["scores"] == pytest.approx(exact["scores"], abs=0.02)
    assert found["scores"] != exact["scores"]  # it did compute in it
