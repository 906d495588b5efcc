"""What the service withstands: requests made to hold it up, clients that go, slow models."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from emotion2vec import Recognizer

pytest.importorskip("fastapi")
pytest.importorskip("silero_vad")
httpx = pytest.importorskip("httpx")
from serving_clients import client_of, wav  # noqa: E402

from emotion2vec.serving.app import create_app  # noqa: E402
from emotion2vec.serving.limits import Limits, RefusedError  # noqa: E402

CLIP = ROOT / "data" / "moods" / "clips" / "f1-sad-01.ogg"


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.from_pretrained(device="cpu")


def test_a_charset_of_the_clients_choice_is_not_used(recognizer: Recognizer) -> None:
    """Some codecs take time that grows with the square of what they decode."""
    field = b"a" * 900_000
    body = (
        b'--x\r\nContent-Disposition: form-data; name="labels"\r\n\r\n' + field + b"\r\n"
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nno\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x; charset=punycode"}
    start = time.monotonic()
    answer = client_of(recognizer).post("recognize", content=body, headers=headers)
    assert answer.status_code == 422
    assert time.monotonic() - start < 20


def test_what_is_announced_as_too_large_is_not_awaited(recognizer: Recognizer) -> None:
    headers = {"content-type": "application/json", "content-length": "99000000000"}
    answer = client_of(recognizer).post("recognize", content=b"{}", headers=headers)
    assert answer.status_code == 413


def test_samples_over_the_limit_are_not_resampled(recognizer: Recognizer) -> None:
    client = client_of(recognizer, limits={"seconds": 10.0})
    answer = client.post("recognize", json={"samples": [0.1] * 20_000, "sampling_rate": 1000})
    assert answer.status_code == 413 and "longer than 10 s" in answer.json()["error"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_sound(recognizer: Recognizer, value: float) -> None:
    sound = np.sin(np.arange(32_000) / 9).astype(np.float32)
    sound[20_000] = value
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, "FLOAT", format="WAV")
    for path, fields in (("timeline", {"whole": "true"}), ("timeline", {}), ("recognize", {})):
        form = {"files": {"file": file.getvalue()}, "data": fields}
        answer = client_of(recognizer).post(path, **form)
        assert answer.status_code == 422 and "NaN or infinite" in answer.json()["error"]


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([{"start": 2.0, "end": 1.0}], "end lies before start"),
        ([{"start": 0.0, "end": 100.0}] * 9, "turns add up to 900 s"),
    ],
)
def test_turns_that_cannot_be(recognizer: Recognizer, turns: list[Any], said: str) -> None:
    sound = base64.b64encode(wav(1)).decode()
    client = client_of(recognizer, limits={"timeline_seconds": 60.0})
    answer = client.post("timeline", json={"audio": sound, "turns": turns})
    assert answer.status_code == 422 and said in answer.json()["error"]


def test_what_fails_inside_is_counted_as_500(recognizer: Recognizer) -> None:
    client = client_of(recognizer)

    def broken(kind: str, clips: list[Any]) -> Any:
        raise RuntimeError("no memory")

    client.app.state.service.batcher._compute = broken
    assert client.post("recognize", files={"file": wav(1)}).status_code == 500
    text = client.send("GET", "/metrics").text
    assert 'emotion2vec_requests_total{path="/v1/recognize",status="500"} 1.0' in text


def test_a_timeline_nobody_waits_for_ends_and_so_does_the_service(recognizer: Recognizer) -> None:
    """Its thread waits for the loop, which is not to wait for the thread."""
    limits = Limits(timeout_seconds=1.0, timeline_timeout_seconds=1.0)
    app = create_app(recognizer, limits=limits)
    service = app.state.service

    def slow(kind: str, clips: list[Any]) -> Any:
        time.sleep(1.5)
        return recognizer.answers(clips)

    service.batcher._compute = slow

    async def ask() -> float:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            form = {"files": {"file": wav(60)}, "data": {"whole": "true"}}
            answers = [client.post("/v1/timeline", **form) for _ in range(3)]
            codes = [answer.status_code for answer in await asyncio.gather(*answers)]
        assert codes == [504] * 3
        start = time.monotonic()
        await asyncio.wait_for(service.close(), 30)
        return time.monotonic() - start

    assert asyncio.run(ask()) < 20


def test_many_turns_that_never_come_cost_nothing(recognizer: Recognizer) -> None:
    turns = [{"start": 3000.0, "end": 3000.2}] * 10_000
    sound = base64.b64encode(CLIP.read_bytes()).decode()
    start = time.monotonic()
    answer = client_of(recognizer).post("timeline", json={"audio": sound, "turns": turns})
    assert answer.status_code == 200 and answer.json()["segments"] == []
    assert time.monotonic() - start < 20


class GoneRequest:
    """A request whose client went away."""

    async def is_disconnected(self) -> bool:
        return True


def test_work_for_a_client_that_went_away_is_given_up(recognizer: Recognizer) -> None:
    service = create_app(recognizer).state.service
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def ask() -> None:
        with pytest.raises(RefusedError, match="gone"):
            await service._while_connected(GoneRequest(), work())
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert ended == ["cancelled"]


def test_the_document_refers_to_nothing_that_is_not_in_it(recognizer: Recognizer) -> None:
    document = create_app(recognizer, token="secret").openapi()
    schemas = document["components"]["schemas"]

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [r for part in value.values() for r in references(part)]
        return [r for part in value for r in references(part)] if isinstance(value, list) else []

    found = references(document)
    assert found and all(r.removeprefix("#/components/schemas/") in schemas for r in found)
    assert "HTTPBearer" in document["components"]["securitySchemes"]
    assert "503" in document["paths"]["/healthz"]["get"]["responses"]


def test_the_tokens_scheme_may_be_written_any_way(recognizer: Recognizer) -> None:
    client = client_of(recognizer, token="secret")
    for header, status in (("bearer secret", 200), ("Basic secret", 401), ("Bearer sécret", 401)):
        headers = {"Authorization": header.encode()}
        assert client.send("GET", "/metrics", headers=headers).status_code == status
