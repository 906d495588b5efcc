"""One model, its queue and its counters: what the service does for each kind of request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.requests import Request

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.recognize import Recognizer
from emotion2vec.segments import Turn
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
)
from emotion2vec.stream import StreamSettings
from emotion2vec.timeline import timeline_of

RETRY_SECONDS = 1
CONNECTED_SECONDS = 0.5
"""How often a client that waits is looked after."""

MOST_OVERLAP = 4
"""So many may speak at a time, all the time."""

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
        self.model = ServedModel(recognizer, name, bfloat16=bfloat16)
        self.limits = _within(limits, recognizer)
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
        # In a thread: what is shut down may still ask the loop for scores.
        for pool in (self._timelines, self._decoders):
            await asyncio.to_thread(pool.shutdown)
        await self.batcher.close()

    async def recognize(self, request: Request) -> dict[str, Any]:
        """The answer of `POST /v1/recognize`."""
        asked, sound = await read_request(request, RecognizeRequest, self.limits)
        clip = await self._load(sound)
        answer = await self._while_connected(request, self.batcher.submit("recognize", clip))
        found = recognition(
            answer, self.model.recognizer, labels=asked.labels, abstain=asked.abstain
        )
        return found | {"duration": len(clip) / SAMPLE_RATE, "model": self.model.name}

    async def embed(self, request: Request) -> dict[str, Any]:
        """The answer of `POST /v1/embed`."""
        asked, sound = await read_request(request, EmbedRequest, self.limits)
        clip = await self._load(sound)
        frames = await self._while_connected(request, self.batcher.submit("embed", clip))
        values = frames if asked.level == "frame" else frames.mean(axis=0, dtype=np.float64)
        return {
            "level": asked.level,
            "width": int(frames.shape[1]),
            "num_frames": len(frames),
            "embedding": values.astype(float).round(6).tolist(),
            "duration": len(clip) / SAMPLE_RATE,
            "model": self.model.name,
        }

    async def timeline(self, request: Request) -> dict[str, Any]:
        """The answer of `POST /v1/timeline`."""
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
            spoken = sum(turn.end - turn.start for turn in turns)
            if spoken > MOST_OVERLAP * self.limits.timeline_seconds:
                raise RefusedError(
                    422, f"turns add up to {spoken:g} s, more than a recording can hold."
                )
        loop = asyncio.get_running_loop()
        scores = BatchedScores(self.model.recognizer, self.batcher, loop)

        def make() -> dict[str, Any]:
            blocks = scores.until_stopped(sound.blocks(self.limits.timeline_seconds))
            try:
                found = timeline_of(blocks, scores, settings, turns=turns, key="sound")  # type: ignore[arg-type]
            except (ValueError, OSError) as error:
                raise RefusedError(422, str(error)) from None
            self.gauges.sound.inc(found.duration)
            return found.to_dict() | {"model": self.model.name}

        try:
            return await self._while_connected(request, loop.run_in_executor(self._timelines, make))
        finally:
            scores.stopped.set()

    async def _while_connected(self, request: Request, work: Awaitable[Any]) -> Any:
        """The result, unless the client goes away: then the work is given up, too."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([task], timeout=CONNECTED_SECONDS))[0]:
                if await request.is_disconnected():
                    raise RefusedError(499, "the client is gone.")
            return task.result()
        finally:
            task.cancel()

    async def _load(self, sound: Sound) -> Waveform:
        loop = asyncio.get_running_loop()
        clip = await loop.run_in_executor(self._decoders, sound.load, self.limits.seconds)
        self.gauges.sound.inc(len(clip) / SAMPLE_RATE)
        return clip

    async def answer(self, request: Request, answerer: Answerer, seconds: float) -> Any:
        """Accept a request for work, if there is room, and answer it within so many seconds."""
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
            return await asyncio.wait_for(answerer(request), seconds)
        except TimeoutError:
            raise RefusedError(
                504,
                f"the answer took longer than {seconds:g} s; send less sound.",
            ) from None
        finally:
            self.in_flight -= 1


def _within(limits: Limits, recognizer: Recognizer) -> Limits:
    """Return limits no wider than what the model answers for at once, as exported ones tell."""
    longest = getattr(recognizer.classifier, "longest_seconds", limits.seconds)
    return replace(limits, seconds=min(limits.seconds, longest))
