"""What every request passes, and how errors are answered."""

from __future__ import annotations

import hmac
import logging
import time
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from emotion2vec.serving.limits import RefusedError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

    from emotion2vec.serving.service import Service

logger = logging.getLogger(__name__)


def add_errors(app: FastAPI) -> None:
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


class Door:
    """What every request passes: the token, the counters."""

    def __init__(self, app: Any, service: Service, token: str | None, paths: set[str]) -> None:
        self.app, self.service, self.token, self.paths = app, service, token, paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as ASGI has it; a request without the right token is not let in."""
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
        except Exception:  # answered outside of this door
            status = status or 500
            raise
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.service.gauges.requests.labels(path, str(status or "gone")).inc()
            self.service.gauges.seconds.labels(path).observe(time.perf_counter() - start)

    def _may_pass(self, scope: Any) -> bool:
        if self.token is None or scope["path"] == "/healthz":
            return True
        sent = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = sent.partition(b" ")
        # In a time that does not tell how much of it is right.
        right = hmac.compare_digest(token.strip(), self.token.encode())
        return right and scheme.lower() == b"bearer"
