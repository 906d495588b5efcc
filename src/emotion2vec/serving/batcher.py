"""Dynamic batching: clips of many requests through the model together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from emotion2vec.audio import SAMPLE_RATE, Waveform

Compute = Callable[[str, list[Waveform]], Sequence[Any]]
"""(kind, clips) -> one answer a clip"""


@dataclass(eq=False)
class _Job:
    kind: str
    clip: Waveform
    future: asyncio.Future[Any]


class Batcher:
    """Clips of requests that come at the same time, computed in one batch.

    While a batch is computed others wait; then the oldest goes, and with it those of the same kind
    whose lengths are nearest, within the budget. So a lone request does not wait for company, and
    nobody waits for ever. One thread computes.

    Args:
        compute: the model; called in a thread of the batcher's own
        batch_seconds: audio in a batch, padding counted; a longer clip is a batch of its own
        wait_seconds: how long a batch that is not full waits for more; 0 takes what is there
        observe: told the size of each batch

    >>> async def ask() -> list[int]:
    ...     import numpy as np
    ...     batcher = Batcher(lambda kind, clips: [len(clip) for clip in clips])
    ...     clips = [np.zeros(3, np.float32), np.zeros(5, np.float32)]
    ...     found = await asyncio.gather(*(batcher.submit("length", clip) for clip in clips))
    ...     await batcher.close()
    ...     return found
    >>> asyncio.run(ask())
    [3, 5]
    """

    def __init__(
        self,
        compute: Compute,
        *,
        batch_seconds: float = 20.0,
        wait_seconds: float = 0.0,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute, self._observe = compute, observe
        self._budget = batch_seconds * SAMPLE_RATE
        self._wait = wait_seconds
        self._waiting: list[_Job] = []
        self._thread = ThreadPoolExecutor(1, "batcher")
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> Counter[str]:
        """Clips that wait for a batch, by kind."""
        return Counter(job.kind for job in self._waiting)

    async def submit(self, kind: str, clip: Waveform) -> Any:
        """What `compute` makes of the clip; its error, if it fails on this clip alone.

        A caller that is cancelled takes its clip back, unless it is being computed.
        """
        job = _Job(kind, clip, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await job.future
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    async def close(self) -> None:
        """Compute what waits, then stop."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self) -> None:
        """Compute until nothing waits."""
        while self._waiting:
            if self._wait and not self._is_full():
                await asyncio.sleep(self._wait)
            batch = self._take()
            if batch:
                self._observe(len(batch))
                await self._run(batch)

    def _is_full(self) -> bool:
        longest = max(len(job.clip) for job in self._waiting)
        return longest * (len(self._waiting) + 1) > self._budget

    def _take(self) -> list[_Job]:
        """Remove the oldest from those that wait, and what goes with it."""
        if not self._waiting:  # whoever it was has gone
            return []
        oldest = self._waiting[0]
        others = [job for job in self._waiting[1:] if job.kind == oldest.kind]
        others.sort(key=lambda job: abs(len(job.clip) - len(oldest.clip)))
        batch, longest = [oldest], len(oldest.clip)
        for job in others:
            longest = max(longest, len(job.clip))
            if longest * (len(batch) + 1) > self._budget:
                break
            batch.append(job)
        taken = set(map(id, batch))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return batch

    async def _run(self, batch: list[_Job]) -> None:
        loop = asyncio.get_running_loop()
        clips = [job.clip for job in batch]
        try:
            answers = await loop.run_in_executor(self._thread, self._compute, batch[0].kind, clips)
        except Exception as error:  # of any kind: it belongs to whoever asked
            if len(batch) > 1:  # one may have failed for all: too long for the memory, say
                for job in batch:
                    await self._run([job])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for job, answer in zip(batch, answers, strict=True):
            if not job.future.done():  # nobody waits any more where it is
                job.future.set_result(answer)
