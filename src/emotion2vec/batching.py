"""Which clips go into a batch together: of like length, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batch_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions in `lengths`, cut into batches whose padded size stays within the budget.

    Longest first: what a machine has no memory for shows at once, and memory does not grow over a
    run. A clip over the budget is a batch of its own.

    Args:
        lengths: of the clips, in samples
        budget: samples in a batch, padding counted

    >>> list(batch_by_length([3, 10, 4, 25], 12))
    [[3], [1], [2, 0]]
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
