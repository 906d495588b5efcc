"""Padding never changes an answer, and waveforms that have none are refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, load_golden, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model import TOLERANCE, VARIANTS, load_variant
from torch import Tensor

from emotion2vec import Emotion2vec, Emotion2vecConfig

# Padding. One model for all examples: what is drawn are the clips.

_PADDED = Emotion2vec(Emotion2vecConfig(**{**TINY, "depth": 3})).eval()
with torch.no_grad():
    for _parameter in _PADDED.parameters():  # so that every bias and norm matters
        _parameter.add_(0.1 * torch.randn(_parameter.shape, generator=torch.manual_seed(1)))


def encode_alone_and_together(
    model: Emotion2vec, lengths: list[int], extra: int, junk: float
) -> None:
    """Assert that every clip's answers in a padded batch are those of the clip alone."""
    generator = torch.Generator().manual_seed(sum(lengths) + extra)
    clips = [torch.randn(n, generator=generator) for n in lengths]
    width = max(lengths) + extra
    batch = torch.full((len(clips), width), junk)
    mask = torch.zeros(len(clips), width, dtype=torch.bool)
    for row, clip in enumerate(clips):
        batch[row, : len(clip)] = clip
        mask[row, : len(clip)] = True
    with torch.no_grad():
        together = model(batch, mask, output_hidden_states=True)
        for row, clip in enumerate(clips):
            alone = model(clip.unsqueeze(0), output_hidden_states=True)
            frames = alone.last_hidden_state.shape[1]
            assert together.keep is not None and int(together.keep[row].sum()) == frames
            pairs = [
                (together.last_hidden_state[row, :frames], alone.last_hidden_state[0]),
                (together.utterance_tokens[row], alone.utterance_tokens[0]),
                (together.pooled[row], alone.pooled[0]),
                *(
                    (ours[row, :frames], theirs[0])
                    for ours, theirs in zip(
                        together.hidden_states, alone.hidden_states, strict=True
                    )
                ),
            ]
            for ours, theirs in pairs:
                if not theirs.numel():  # a variant without utterance tokens
                    continue
                assert relative_error(ours, theirs) <= TOLERANCE
            assert together.last_hidden_state[row, frames:].eq(0).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(400, 24000), min_size=1, max_size=5),
    extra=st.integers(0, 30000),
    junk=st.sampled_from([0.0, 3.0, float("nan")]),
)
def test_padding_never_changes_an_answer(lengths: list[int], extra: int, junk: float) -> None:
    encode_alone_and_together(_PADDED, lengths, extra, junk)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_never_changes_an_answer_of_any_variant(variant: str) -> None:
    model = load_variant(load_golden(f"inference/{variant}"))
    encode_alone_and_together(model, [16000, 5000, 400, 401, 720], 7777, 0.0)


def test_the_mask_matters() -> None:
    # The same batch without a mask answers differently: the property above is no accident.
    batch = F.pad(torch.randn(1, 5000), (0, 11000))
    mask = F.pad(torch.ones(1, 5000, dtype=torch.bool), (0, 11000))
    with torch.no_grad():
        with_mask = _PADDED(batch, mask).last_hidden_state[:, :15]
        without = _PADDED(batch).last_hidden_state[:, :15]
    assert relative_error(with_mask, without) > 0.05


@pytest.mark.parametrize(
    "shape, mask, message",
    [
        ((1, 399), None, "at least 400 samples"),
        ((400,), None, "needs .clips, samples."),
        ((2, 800), torch.ones(2, 700), "give one value a sample"),
        ((1, 800), F.pad(torch.ones(1, 700), (100, 0)), "pad clips on the right only"),
        ((2, 800), torch.stack([torch.ones(800), F.pad(torch.ones(399), (0, 401))]), "399 samples"),
    ],
)
def test_waveforms_that_cannot_be_answered(
    shape: tuple[int, ...], mask: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _PADDED(torch.randn(*shape), mask)
