"""A thousand malformed requests, drawn from the service's own OpenAPI document."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from emotion2vec import Recognizer

pytest.importorskip("fastapi")
schemathesis = pytest.importorskip("schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from emotion2vec.serving.app import create_app  # noqa: E402
from emotion2vec.serving.limits import Limits  # noqa: E402

REQUESTS = 1000


def memory() -> int:
    """Bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_malformed_requests() -> None:
    limits = Limits(seconds=5.0, timeline_seconds=5.0)
    app = create_app(Recognizer.from_pretrained(device="cpu"), limits=limits)
    document = schemathesis.openapi.from_asgi("/openapi.json", app)
    # Half of them break the document's rules, half keep them and hold what is no sound.
    modes = [schemathesis.GenerationMode.NEGATIVE, schemathesis.GenerationMode.POSITIVE]
    operations = [result.ok() for result in document.get_all_operations()]
    work = [operation for operation in operations if operation.path.startswith("/v1")]
    assert len(work) == 3
    cases = st.one_of([o.as_strategy(generation_mode=mode) for o in work for mode in modes])
    statuses: dict[int, int] = {}
    watched: list[tuple[int, int]] = []

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def send(case: Any) -> None:
        answer = case.call()
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, answer.text
        if answer.status_code != 200:
            assert answer.json()["error"]
        if sum(statuses.values()) % 100 == 0:
            gc.collect()
            watched.append((memory(), len(os.listdir("/proc/self/fd"))))

    send()
    service = app.state.service
    assert sum(statuses.values()) >= REQUESTS
    assert set(statuses) >= {400, 422} or set(statuses) >= {415, 422}, statuses
    assert service.in_flight == 0 and not service.batcher._waiting
    (early, files_early), (late, files_late) = watched[3], watched[-1]
    assert late - early < 64 * 2**20, watched  # nothing is kept of what was refused
    assert files_late <= files_early + 2, watched
