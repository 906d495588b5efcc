"""Masks and schedules against the reference's statistics and values."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from conftest import PARITY

from emotion2vec.pretraining.masking import block_mask, span_mask
from emotion2vec.pretraining.schedules import ema_decay, learning_rate

# Masks, over as many draws as it takes for the tolerance.


def run_lengths(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    lengths = []
    for row in mask:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
    return lengths


MASKS = json.loads((PARITY / "masks" / "masks.json").read_text())


@pytest.mark.parametrize("frames", [50, 200, 499, 1500])
@pytest.mark.parametrize(
    "entry, masker, rows, adjust",
    [
        ("B_compute_block_mask_1d_clone8_adjust.05", block_mask, 8, 0.05),
        ("B_same_with_adjust_0_500calls", block_mask, 8, 0.0),
        ("A_compute_mask_indices_B16", span_mask, 16, 0.0),
        ("A_compute_mask_indices_B16_clone8_rows128_200calls", span_mask, 128, 0.0),
        ("A_single_row_ie_before_equalisation", span_mask, 1, 0.0),
    ],
)
def test_masks_are_distributed_as_the_references(
    entry: str, masker: Any, rows: int, adjust: float, frames: int
) -> None:
    facts = MASKS[entry][str(frames)]
    calls = max(30, 2400 // rows)
    generator = np.random.default_rng(7)
    drawn = [
        masker(rows, frames, share=0.5, span=5, adjust=adjust, generator=generator)
        for _ in range(calls)
    ]
    assert all(len(set(mask.sum(axis=1))) == 1 for mask in drawn)
    shares = [mask.mean() for mask in drawn]
    standard_error = facts["std_of_call_fraction"] / math.sqrt(calls)
    assert np.mean(shares) == pytest.approx(
        facts["mean_masked_fraction"], abs=4 * standard_error + 1e-9
    )
    lengths = [length for mask in drawn for length in run_lengths(mask)]
    assert np.mean(lengths) == pytest.approx(facts["mean_span_length"], rel=0.05)
    for length in ("1", "5"):
        share = np.mean(np.array(lengths) == int(length))
        assert share == pytest.approx(
            facts["span_length_distribution"].get(length, 0), abs=0.025
        ), length
    last = np.mean([mask[:, -1].mean() for mask in drawn])
    assert (last == 0) == (masker is span_mask)


@pytest.mark.parametrize("frames", [3, 4, 5, 6, 7, 8, 10, 12, 15])
def test_masks_of_short_clips(frames: int) -> None:
    facts = MASKS["short_sequences"][str(frames)]
    generator = np.random.default_rng(0)
    options: dict[str, Any] = {"share": 0.5, "span": 5, "generator": generator}
    block = block_mask(4, frames, adjust=0.05, **options)
    assert block.mean() == pytest.approx(facts["B_mean_fraction"], abs=1e-6)
    if facts["A_ok"]:
        rows = span_mask(16, frames, **options)  # as many as the reference drew at once
        assert rows.mean() == pytest.approx(facts["A_mean_fraction"])
    else:
        with pytest.raises(ValueError, match="all would be hidden"):
            span_mask(1, frames, **options)


def test_masks_follow_their_seed_alone() -> None:
    def draw(seed: int) -> Any:
        generator = np.random.default_rng(seed)
        return block_mask(4, 99, share=0.5, span=5, adjust=0.05, generator=generator)

    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    first = draw(1)
    np.random.seed(1)  # noqa: NPY002
    assert (first == draw(1)).all() and (first != draw(2)).any()


# Schedules.

SCHEDULES = json.loads((PARITY / "schedules" / "schedules.json").read_text())


def test_the_learning_rate_is_the_references() -> None:
    for entry in ("lr_cosine", "lr_cosine_with_min_lr"):
        config = SCHEDULES[entry]["config"]
        start = config["warmup_init_lr"]
        for updates, expected in SCHEDULES[entry]["lr_at_n"].items():
            ours = learning_rate(
                int(updates),
                peak=config["lr"],
                warmup_updates=config["warmup_updates"],
                max_updates=config["max_update"],
                floor=config["min_lr"],
                start=start if isinstance(start, float) else None,
            )
            assert ours == pytest.approx(expected, rel=1e-9, abs=1e-18), (entry, updates)


def test_the_ema_decay_is_the_references() -> None:
    for entry in ("ema_decay", "ema_decay_plus_large_yaml"):
        facts = SCHEDULES[entry]
        config = facts.get("config", facts)
        for updates, expected in facts["decay_at_n"].items():
            ours = ema_decay(
                int(updates),
                start=config["ema_decay"],
                end=config["ema_end_decay"],
                anneal_updates=config["ema_anneal_end_step"],
            )
            assert ours == pytest.approx(expected, rel=1e-12), (entry, updates)
