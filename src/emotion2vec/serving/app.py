"""The service as an ASGI application: its paths, its door, its errors."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from emotion2vec import __version__
from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.recognize import Recognizer
from emotion2vec.serving.answers import (
    REFUSALS,
    EmbedAnswer,
    Health,
    RecognizeAnswer,
    TimelineAnswer,
)
from emotion2vec.serving.batcher import Batcher
from emotion2vec.serving.gauges import ServiceGauges
from emotion2vec.serving.limits import Limits, RefusedError
from emotion2vec.serving.model import BatchedScores, ServedModel, recognition
from emotion2vec.serving.requests import (
    EmbedRequest,
    RecognizeRequest,
    Sound,
    TimelineRequest,
    read_request,
    schema_of,
)

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1
DECODERS = 2
"""Threads that decode sound, and threads that make timelines."""

Answerer = Callable[[Request], Awaitable[Any]]


class Service:
    """One model, its queue and its counters.

    Args:
        recognizer: what answers
        name: of the model, as clients see it
        limits: what is taken from a client
        wait_seconds: how long a batch that is not full waits for more
        batching: whether clips of several requests are computed together
        bfloat16: as in `ServedModel`
    """

    def __init__(
        self,
        recognizer: Recognizer,
        name: str,
        limits: Limits,
        *,
        wait_seconds: float = 0.0,
        batching: bool = True,
        bfloat16: bool = False,
    ) -> None:
        self.model, self.limits = ServedModel(recognizer, name, bfloat16=bfloat16), limits
        self.accepted = self.in_flight = 0
        self.draining = False
        self.gauges = ServiceGauges(
            lambda: sum(self.batcher.waiting.values()), lambda: self.in_flight
        )
        self.batcher = Batcher(
            self.model.compute,
            batch_seconds=recognizer.batch_seconds if batching else 0.0,
            wait_seconds=wait_seconds,
            observe=self.gauges.batches.observe,
        )
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self._timelines = ThreadPoolExecutor(DECODERS, "timeline")

    async def close(self) -> None:
        """Finish what was accepted."""
        await self.batcher.close()
        self._decoders.shutdown()
        self._timelines.shutdown()

    async def recognize(self, request: Request) -> dict[str, Any]:
        """The answer of `POST /v1/recognize`."""
        asked, sound = await read_request(request, RecognizeRequest, self.limits)
        clip = await self._load(sound)
        answer = await self.batcher.submit("recognize", clip)
        found = recognition(
            answer, self.model.recognizer, labels=asked.labels, abstain=asked.abstain
        )
        return found | {"duration": len(clip) / SAMPLE_RATE, "model": self.model.name}

    async def embed(self, request: Request) -> dict[str, Any]:
        """The answer of `POST /v1/embed`."""
        asked, sound = await read_request(request, EmbedRequest, self.limits)
        clip = await self._load(sound)
        frames = await self.batcher.submit("embed", clip)
        values = frames if asked.level == "frame" else frames.mean(axis=0, dtype=np.float64)
        return {
            "level": asked.level,
            "width": int(frames.shape[1]),
            "num_frames": len(frames),
            "embedding": values.astype(float).tolist(),
            "duration": len(clip) / SAMPLE_RATE,
            "model": self.model.name,
        }

    async def timeline(self, request: Request) -> dict[str, Any]:
        """The answer of `POST /v1/timeline`."""
        from emotion2vec.segments import Turn
        from emotion2vec.stream import StreamSettings
        from emotion2vec.timeline import timeline_of

        asked, sound = await read_request(request, TimelineRequest, self.limits)
        given = {
            name: value
            for name in ("window_seconds", "hop_seconds")
            if (value := getattr(asked, name)) is not None
        }
        try:
            settings = StreamSettings(**given, detect_speech=not asked.whole)
        except ValueError as error:
            raise RefusedError(422, str(error)) from None
        turns = None
        if asked.turns is not None:
            turns = [Turn(turn.start, turn.end, turn.speaker) for turn in asked.turns]
        loop = asyncio.get_running_loop()
        scores = BatchedScores(self.model.recognizer, self.batcher, loop)

        def make() -> dict[str, Any]:
            blocks = sound.blocks(self.limits.timeline_seconds)
            try:
                found = timeline_of(blocks, scores, settings, turns=turns, key="sound")  # type: ignore[arg-type]
            except (ValueError, OSError) as error:
                raise RefusedError(422, str(error)) from None
            self.gauges.sound.inc(found.duration)
            return found.to_dict() | {"model": self.model.name}

        try:
            return await loop.run_in_executor(self._timelines, make)
        finally:
            scores.stopped.set()

    async def _load(self, sound: Sound) -> Waveform:
        loop = asyncio.get_running_loop()
        clip = await loop.run_in_executor(self._decoders, sound.load, self.limits.seconds)
        self.gauges.sound.inc(len(clip) / SAMPLE_RATE)
        return clip

    async def answer(self, request: Request, answerer: Answerer) -> Any:
        """Accept a request for work, if there is room, and answer it in time."""
        if self.in_flight >= self.limits.requests:
            raise RefusedError(
                503,
                f"{self.in_flight} requests are being answered, which is the limit; come again.",
                retry_seconds=RETRY_SECONDS,
            )
        self.gauges.accepted.inc()
        self.accepted += 1
        self.in_flight += 1
        try:
            return await asyncio.wait_for(answerer(request), self.limits.timeout_seconds)
        except TimeoutError:
            raise RefusedError(
                504,
                f"the answer took longer than {self.limits.timeout_seconds:g} s; send less sound.",
            ) from None
        finally:
            self.in_flight -= 1


def create_app(
    recognizer: Recognizer,
    *,
    name: str = "mini",
    limits: Limits | None = None,
    token: str | None = None,
    wait_seconds: float = 0.0,
    batching: bool = True,
    bfloat16: bool = False,
) -> FastAPI:
    """The ASGI application; `app.state.service` is its `Service`.

    Args:
        recognizer: what answers
        name: of the model, as clients see it
        limits: what is taken from a client; the defaults, if None
        token: what clients must send as `Authorization: Bearer TOKEN`; anybody may ask, if None
        wait_seconds: how long a batch that is not full waits for more
        batching: whether clips of several requests are computed together
        bfloat16: as in `ServedModel`

    >>> app = create_app(Recognizer.from_pretrained())
    >>> sorted(path for path in app.openapi()["paths"] if path.startswith("/v1"))
    ['/v1/embed', '/v1/recognize', '/v1/timeline']
    """
    service = Service(
        recognizer,
        name,
        limits or Limits(),
        wait_seconds=wait_seconds,
        batching=batching,
        bfloat16=bfloat16,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.draining = True
        await service.close()

    # Without the pages for people, which fetch scripts from elsewhere.
    app = FastAPI(
        title="emotion2vec",
        version=__version__,
        description="Emotion in speech.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    _add_work(app, service)
    _add_watching(app, service)
    _add_errors(app)
    _add_door(app, service, token)
    return app


def _add_work(app: FastAPI, service: Service) -> None:
    """Add the paths that take sound."""
    work: list[tuple[str, Answerer, Any, Any, str]] = [
        ("recognize", service.recognize, RecognizeRequest, RecognizeAnswer, "Label and scores."),
        ("timeline", service.timeline, TimelineRequest, TimelineAnswer, "Segments in time."),
    ]
    if service.model.features is not None:
        work.append(("embed", service.embed, EmbedRequest, EmbedAnswer, "Features."))
    for path, answerer, asked, answered, summary in work:
        app.add_api_route(
            f"/v1/{path}",
            _endpoint(service, answerer),
            methods=["POST"],
            response_model=answered,
            summary=summary,
            operation_id=path,
            openapi_extra=schema_of(asked),
            responses=REFUSALS,
        )


def _endpoint(service: Service, answerer: Answerer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return JSONResponse(await service.answer(request, answerer))

    return endpoint


def _add_watching(app: FastAPI, service: Service) -> None:
    """Add what operators look at."""

    @app.get("/healthz", response_model=Health, summary="Is it alive, and what is it?")
    async def healthz() -> JSONResponse:
        facts = {
            "status": "draining" if service.draining else "ok",
            "model": service.model.name,
            "labels": list(service.model.recognizer.labels),
            "version": __version__,
            "in_flight": service.in_flight,
        }
        return JSONResponse(facts, 503 if service.draining else 200)

    @app.get("/metrics", response_class=Response, summary="Counters, for Prometheus.")
    async def metrics() -> Response:
        return Response(service.gauges.text(), media_type="text/plain; version=0.0.4")


def _add_errors(app: FastAPI) -> None:
    """Answer every error as {"error": "one sentence"}."""

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        headers = {} if error.retry_seconds is None else {"Retry-After": str(error.retry_seconds)}
        return JSONResponse({"error": error.reason}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def known(request: Request, error: HTTPException) -> JSONResponse:
        reason = f"{request.method} {request.url.path}: {error.detail}."
        return JSONResponse({"error": reason}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s: %r", request.method, request.url.path, error)
        return JSONResponse({"error": "the service failed; its log says why."}, 500)


def _add_door(app: FastAPI, service: Service, token: str | None) -> None:
    app.add_middleware(_Door, service=service, token=token, paths=set(app.openapi()["paths"]))


class _Door:
    """What every request passes: the token, the counters."""

    def __init__(self, app: Any, service: Service, token: str | None, paths: set[str]) -> None:
        self.app, self.service, self.token, self.paths = app, service, token, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def counted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._may_pass(scope):
                await self.app(scope, receive, counted)
            else:
                refusal = JSONResponse(
                    {"error": "the token is missing or wrong; send Authorization: Bearer TOKEN."},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.service.gauges.requests.labels(path, str(status or "gone")).inc()
            self.service.gauges.seconds.labels(path).observe(time.perf_counter() - start)

    def _may_pass(self, scope: Any) -> bool:
        if self.token is None or scope["path"] == "/healthz":
            return True
        sent = dict(scope["headers"]).get(b"authorization", b"")
        # In a time that does not tell how much of it is right.
        return hmac.compare_digest(sent, b"Bearer " + self.token.encode())
