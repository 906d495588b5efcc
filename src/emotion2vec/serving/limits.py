"""What the service takes from a client, and with which status it refuses the rest."""

from __future__ import annotations

from dataclasses import dataclass

from emotion2vec.audio import MIN_SAMPLES, SAMPLE_RATE


@dataclass(frozen=True)
class Limits:
    """Bounds of one service; each has a status code of its own.

    Raises:
        ValueError: if one of them is not above 0
    """

    megabytes: float = 25.0
    """of a request's body: 413"""
    seconds: float = 120.0
    """of sound, for recognition and features: 413"""
    timeline_seconds: float = 3600.0
    """of sound, for timelines: 413"""
    requests: int = 64
    """accepted and not answered: 503 with Retry-After"""
    timeout_seconds: float = 60.0
    """from a request's acceptance to its answer: 504; half of it for its body: 408"""

    timeline_timeout_seconds: float = 600.0
    """the same of timelines"""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"the limit {name} is {value}; give a number above 0.")
        if self.seconds < MIN_SAMPLES / SAMPLE_RATE:
            raise ValueError(f"the limit seconds is {self.seconds}; no clip is that short.")

    @property
    def body_bytes(self) -> int:
        """Bytes of a body."""
        return round(self.megabytes * 2**20)

    @property
    def body_seconds(self) -> float:
        """Time for a body to come."""
        return self.timeout_seconds / 2


class RefusedError(Exception):
    """A request that is not answered, and why.

    Args:
        status: of HTTP
        reason: one sentence for the client
        retry_seconds: when to come again
    """

    def __init__(self, status: int, reason: str, *, retry_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.retry_seconds = status, reason, retry_seconds
