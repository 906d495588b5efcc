"""What the service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable


class ServiceGauges:
    """Counters of one service, in a registry of their own.

    Args:
        waiting: how many clips wait for a batch
        in_flight: how many requests are accepted and not answered
    """

    def __init__(self, waiting: Callable[[], int], in_flight: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self.requests = Counter(
            "emotion2vec_requests",
            "Requests answered, by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.accepted = Counter(
            "emotion2vec_accepted",
            "Requests for sound that were accepted for work.",
            registry=self.registry,
        )
        self.seconds = Histogram(
            "emotion2vec_request_seconds",
            "Time from a request's first byte to its answer.",
            ["path"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.sound = Counter(
            "emotion2vec_sound_seconds", "Sound decoded, in seconds.", registry=self.registry
        )
        self.batches = Histogram(
            "emotion2vec_batch_clips",
            "Clips computed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        for name, text, count in (
            ("emotion2vec_waiting_clips", "Clips that wait for a batch.", waiting),
            ("emotion2vec_in_flight", "Requests accepted and not answered.", in_flight),
        ):
            Gauge(name, text, registry=self.registry).set_function(count)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)
