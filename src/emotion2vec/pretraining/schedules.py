"""Learning rate and EMA decay as functions of the number of finished updates."""

from __future__ import annotations

import math


def learning_rate(
    updates: int,
    *,
    peak: float,
    warmup_updates: int,
    max_updates: int,
    floor: float = 0.0,
    start: float | None = None,
) -> float:
    """Linear warm-up, then a cosine down to `floor`.

    Args:
        updates: finished updates; the first update is made with `updates` 0
        peak: rate at the end of the warm-up
        warmup_updates: length of the warm-up
        max_updates: where the cosine ends; behind it, it starts again at a tenth of the rate
        floor: rate at the end of the cosine
        start: rate at the beginning of the warm-up; `floor` if None

    Source: fairseq's cosine schedule, the published configuration's choice.

    >>> [learning_rate(n, peak=1.0, warmup_updates=2, max_updates=6) for n in (0, 1, 2, 4)]
    [0.0, 0.5, 1.0, 0.5]
    """
    start = floor if start is None else start
    if updates < warmup_updates:
        return start + (peak - start) * updates / warmup_updates
    period = max(max_updates - warmup_updates, 1)
    cycle, position = divmod(updates - warmup_updates, period)
    shrink = 0.1**cycle
    low, high = floor * shrink, peak * shrink
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * position / period))


def ema_decay(updates: int, *, start: float, end: float, anneal_updates: int) -> float:
    """Part of the teacher that stays when it follows update number `updates` (from 1).

    Linear from `start` to `end`. Source: paper section 4.1 (0.999 to 0.99999), data2vec 2.0.

    >>> round(ema_decay(10, start=0.999, end=0.99999, anneal_updates=20000), 9)
    0.999000495
    """
    if updates >= anneal_updates:
        return end
    return end - (end - start) * (1 - updates / anneal_updates)
