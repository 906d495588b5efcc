"""Which frames the student does not see, drawn from a generator that the caller seeded.

R rows, T frames. True means hidden. Every row of a mask hides equally many frames, so that the
visible ones of a batch stack into one tensor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def block_mask(
    num_rows: int,
    num_frames: int,
    *,
    share: float,
    span: int,
    adjust: float = 0.0,
    generator: np.random.Generator,
) -> Mask:
    """Spans around random centres, then repaired to exactly int(T * share) hidden frames: (R, T).

    Args:
        num_rows: R
        num_frames: T
        share: part of the frames to hide
        span: frames a span covers
        adjust: how much more than `share` is asked for when centres are drawn, so that fewer
            single frames are needed to make up for overlaps
        generator: source of all randomness

    Source: the masks that data2vec 2.0's audio dataset precomputes (`compute_block_mask_1d`).

    >>> mask = block_mask(2, 50, share=0.5, span=5, adjust=0.05,
    ...                   generator=np.random.default_rng(0))
    >>> mask.sum(axis=1).tolist()
    [25, 25]
    """
    num_centres = int(num_frames * (share + adjust) / span)
    centres = generator.integers(0, num_frames, (num_rows, num_centres))
    frames = centres[:, :, None] + np.arange(span) - span // 2
    mask = np.zeros((num_rows, num_frames), dtype=bool)
    rows = np.arange(num_rows)[:, None, None]
    mask[rows, frames.clip(0, num_frames - 1)] = True
    wanted = int(num_frames * share)
    for row in mask:
        surplus = int(row.sum()) - wanted
        candidates = np.flatnonzero(row if surplus > 0 else ~row)
        row[generator.choice(candidates, abs(surplus), replace=False)] = surplus <= 0
    return mask


def span_mask(
    num_rows: int,
    num_frames: int,
    *,
    share: float,
    span: int,
    adjust: float = 0.0,
    generator: np.random.Generator,
) -> Mask:
    """Spans from random starts, every row then thinned to the sparsest row's count: (R, T).

    Overlaps are not made up for, so that a share of 0.5 hides 28 to 42 % of the frames, and the
    last frame never. Arguments as in `block_mask`; `adjust` has no effect.

    Raises:
        ValueError: if T does not exceed the span: nothing would stay visible

    Source: wav2vec 2.0's masks, which data2vec 2.0 falls back to (`compute_mask_indices`).

    >>> mask = span_mask(2, 50, share=0.5, span=5, generator=np.random.default_rng(0))
    >>> len(set(mask.sum(axis=1).tolist()))
    1
    """
    if num_frames <= span:
        raise ValueError(
            f"a clip has {num_frames} frames and spans are {span}: all would be hidden; "
            "raise min_clip_seconds or take block masks."
        )
    mask = np.zeros((num_rows, num_frames), dtype=bool)
    for row in mask:
        num_spans = max(1, int(share * num_frames / span + generator.random()))
        # As the reference: fewer spans where they would not find different starts.
        num_spans = min(num_spans, num_frames - span)
        starts = generator.choice(num_frames - span, num_spans, replace=False)
        row[starts[:, None] + np.arange(span)] = True
    fewest = int(mask.sum(axis=1).min())
    for row in mask:
        hidden = np.flatnonzero(row)
        row[generator.choice(hidden, len(hidden) - fewest, replace=False)] = False
    return mask


MASKERS = {"block": block_mask, "span": span_mask}


def visible_indices(mask: Mask) -> NDArray[np.int64]:
    """Time indices of the visible frames of each row, increasing: (R, T) -> (R, V).

    >>> visible_indices(np.array([[True, False, False], [False, True, False]])).tolist()
    [[1, 2], [0, 2]]
    """
    return np.nonzero(~mask)[1].reshape(len(mask), -1)
