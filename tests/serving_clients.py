"""Clients of the service in this process, shared by its tests."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import httpx
import numpy as np
import soundfile

from emotion2vec import Recognizer
from emotion2vec.serving.app import create_app
from emotion2vec.serving.limits import Limits


class Client:
    """Requests to an application in this process."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def send(self, method: str, path: str, **options: Any) -> Any:
        async def ask() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def post(self, path: str, **options: Any) -> Any:
        return self.send("POST", f"/v1/{path}", **options)


def client_of(recognizer: Recognizer, **options: Any) -> Client:
    limits = Limits(**options.pop("limits", {}))
    return Client(create_app(recognizer, limits=limits, **options))


def wav(seconds: float, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    tone = 0.1 * np.sin(np.arange(round(seconds * rate)) / 9)
    soundfile.write(file, tone, rate, format="WAV")
    return file.getvalue()
