"""The service as an ASGI application: its paths."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer

from emotion2vec import __version__
from emotion2vec.recognize import Recognizer
from emotion2vec.serving.answers import (
    REFUSALS,
    EmbedAnswer,
    Health,
    RecognizeAnswer,
    TimelineAnswer,
)
from emotion2vec.serving.door import Door, add_errors
from emotion2vec.serving.limits import Limits
from emotion2vec.serving.requests import (
    EmbedRequest,
    RecognizeRequest,
    TimelineRequest,
    schema_of,
)
from emotion2vec.serving.service import Answerer, Service


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
        # The door looks at it; this is for the document.
        dependencies=[] if token is None else [Security(HTTPBearer(auto_error=False))],
    )
    app.state.service = service
    _add_work(app, service)
    _add_watching(app, service)
    add_errors(app)
    paths = set(app.openapi()["paths"])
    app.add_middleware(Door, service=service, token=token, paths=paths)
    return app


def _add_work(app: FastAPI, service: Service) -> None:
    """Add the paths that take sound."""
    short, long = service.limits.timeout_seconds, service.limits.timeline_timeout_seconds
    work: list[tuple[str, Answerer, float, Any, Any, str]] = [
        (
            "recognize",
            service.recognize,
            short,
            RecognizeRequest,
            RecognizeAnswer,
            "Label and scores.",
        ),
        ("timeline", service.timeline, long, TimelineRequest, TimelineAnswer, "Segments in time."),
    ]
    if service.model.features is not None:
        work.append(("embed", service.embed, short, EmbedRequest, EmbedAnswer, "Features."))
    for path, answerer, seconds, asked, answered, summary in work:
        app.add_api_route(
            f"/v1/{path}",
            _endpoint(service, answerer, seconds),
            methods=["POST"],
            response_model=answered,
            summary=summary,
            operation_id=path,
            openapi_extra=schema_of(asked),
            responses=REFUSALS,
        )


def _endpoint(
    service: Service, answerer: Answerer, seconds: float
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        answer = await service.answer(request, answerer, seconds)
        # In a thread, as two minutes of frames are 80 MB.
        content = await asyncio.to_thread(_json_of, answer)
        return Response(content, media_type="application/json")

    return endpoint


def _json_of(answer: dict[str, Any]) -> bytes:
    """Return JSON, made piece by piece where it is long, so that other threads get their turn."""
    rows = answer.get("embedding", [])
    if not rows or not isinstance(rows[0], list):
        return json.dumps(answer, allow_nan=False).encode()
    rest = json.dumps(answer | {"embedding": None}, allow_nan=False)
    text = ",".join(json.dumps(row, allow_nan=False) for row in rows)
    return rest.replace('"embedding": null', f'"embedding": [{text}]', 1).encode()


def _add_watching(app: FastAPI, service: Service) -> None:
    """Add what operators look at."""
    draining: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "It ends."}}

    @app.get(
        "/healthz",
        response_model=Health,
        responses=draining,
        summary="Is it alive, and what is it?",
    )
    async def healthz() -> JSONResponse:
        facts = {
            "status": "draining" if service.draining else "ok",
            "model": service.model.name,
            "labels": list(service.model.recognizer.labels),
            "version": __version__,
            "in_flight": service.in_flight,
        }
        return JSONResponse(facts, 503 if service.draining else 200)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={401: REFUSALS[401]},
        summary="Counters, for Prometheus.",
    )
    async def metrics() -> Response:
        return Response(service.gauges.text(), media_type="text/plain; version=0.0.4")
