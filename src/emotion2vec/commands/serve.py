"""`emotion2vec serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from emotion2vec.commands.recognizers import open_recognizer

TOKEN = "EMOTION2VEC_TOKEN"


def serve(
    *,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    max_megabytes: float = 25.0,
    max_seconds: float = 120.0,
    max_timeline_seconds: float = 3600.0,
    max_requests: int = 64,
    timeout: float = 60.0,
    timeline_timeout: float = 600.0,
    wait: float = 0.0,
    no_batching: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    labels: str | None = None,
    abstain: float = 0.0,
    language: Literal["en", "zh", "both"] = "en",
    device: str | None = None,
    batch_seconds: float = 20.0,
) -> int:
    """Answer over HTTP: POST /v1/recognize, /v1/embed, /v1/timeline; /healthz, /metrics.

    emotion2vec serve --port 8000

    curl -F file=@call.wav http://127.0.0.1:8000/v1/recognize

    Clips of requests that come together are computed together. On SIGTERM it takes no more, answers
    what it accepted, and ends. /openapi.json describes everything.

    Parameters
    ----------
    model
        As in emotion2vec recognize.
    host
        Address to listen at; 0.0.0.0 for all of the machine's.
    port
        0 takes a free one.
    token_file
        File with the token that clients must send as Authorization: Bearer TOKEN; without, the
        environment variable EMOTION2VEC_TOKEN, and without that, anybody may ask.
    max_megabytes
        Of a body; more is 413.
    max_seconds
        Of sound, for recognition and features; more is 413.
    max_timeline_seconds
        Of sound, for timelines; more is 413.
    max_requests
        Accepted and not answered; more are 503, with Retry-After.
    timeout
        Seconds for an answer, then 504; half of it for the body, then 408.
    timeline_timeout
        Seconds for a timeline, then 504.
    wait
        Seconds that a batch which is not full waits for more; 0 takes what is there.
    no_batching
        Compute each clip by itself.
    precision
        bfloat16 is several times as fast where the processor has instructions for it (AMX, GPUs);
        scores differ in the third digit.
    labels
        Only these, with commas between.
    abstain
        Answer "unknown" where the best score is lower; clients may ask for more.
    language
        Of the labels.
    device
        Where to compute.
    batch_seconds
        Audio in a batch.
    """
    import logging

    from emotion2vec.serving.app import create_app
    from emotion2vec.serving.limits import Limits
    from emotion2vec.serving.server import run_server

    if not 0 <= port <= 65_535:
        raise ValueError(f"--port is {port}; give a number from 0 to 65535.")
    limits = Limits(
        max_megabytes, max_seconds, max_timeline_seconds, max_requests, timeout, timeline_timeout
    )
    token = _token(token_file)
    recognizer = open_recognizer(
        model,
        labels=labels,
        abstain=abstain,
        language=language,
        device=device,
        batch_seconds=batch_seconds,
    )
    name = "mini" if model is None else Path(model).name
    app = create_app(
        recognizer,
        name=name,
        limits=limits,
        token=token,
        wait_seconds=wait,
        batching=not no_batching,
        bfloat16=precision == "bfloat16",
    )
    if token is None and host not in ("127.0.0.1", "localhost", "::1"):
        logging.getLogger("emotion2vec").warning(
            "no token is set: anybody who reaches %s may ask; see --token-file.", host
        )
    run_server(app, host=host, port=port)
    return 0


def _token(file: Path | None) -> str | None:
    """Return the token; from a file or the environment, as arguments are seen by all users."""
    if file is None:
        return os.environ.get(TOKEN, "").strip() or None
    token = file.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"{file} is empty; write the token into it.")
    return token
