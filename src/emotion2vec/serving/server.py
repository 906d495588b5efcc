"""The service as a process: uvicorn, which ends when it has answered what it accepted."""

from __future__ import annotations

import logging
import signal
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger(__name__)


def run_server(app: FastAPI, *, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was accepted, and return.

    Args:
        app: of `create_app`
        host: address to listen at
        port: 0 takes a free one, which is told on standard error

    Raises:
        OSError: if the address cannot be taken
    """
    import uvicorn

    listener = _listen(host, port)
    service = app.state.service
    settings = uvicorn.Config(
        app,
        log_level="warning",
        # Not longer than an answer may take: what hangs then will not come.
        timeout_graceful_shutdown=round(service.limits.timeline_timeout_seconds) + 5,
        # The door has a line for those who are too many; uvicorn's would be without a reason.
        backlog=2048,
        server_header=False,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            # Unlike uvicorn's own, the signal is not raised again at the end: to be told to end is
            # no failure. A second Ctrl-C does not wait.
            self.force_exit = service.draining and sig == signal.SIGINT
            self.should_exit = True
            service.draining = True  # health checks see it, while accepted requests go on
            logger.info("told to end: %d requests are being answered.", service.in_flight)

    logger.info("emotion2vec serves at http://%s:%d (Ctrl-C ends it).", *_name(listener))
    Server(settings).run(sockets=[listener])
    logger.info(
        "ended: %d requests were accepted, %d not answered.", service.accepted, service.in_flight
    )


def _listen(host: str, port: int) -> socket.socket:
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or error
        raise OSError(f"{host}:{port} cannot be listened at ({reason}); choose another.") from error
    listener.set_inheritable(True)
    return listener


def _name(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return f"[{host}]" if ":" in host else host, port
