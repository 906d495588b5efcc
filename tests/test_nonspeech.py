"""Sound that is no speech: whole, finite, repeatable, and of many kinds."""

from __future__ import annotations

import numpy as np
import pytest

from emotion2vec.nonspeech import NONSPEECH, make_nonspeech


@pytest.mark.parametrize("kind", sorted(NONSPEECH))
@pytest.mark.parametrize("count", [1600, 16_000, 50_000])
def test_every_kind_at_every_length(kind: str, count: int) -> None:
    sound = make_nonspeech(count, np.random.default_rng(1), kind)
    assert sound.shape == (count,) and sound.dtype == np.float32
    assert np.isfinite(sound).all() and sound.std() > 0 and np.abs(sound).max() <= 1
    assert (sound == make_nonspeech(count, np.random.default_rng(1), kind)).all()
    assert (sound != make_nonspeech(count, np.random.default_rng(2), kind)).any()


def test_kinds_are_drawn_and_differ_in_what_they_are() -> None:
    random = np.random.default_rng(0)
    drawn = {make_nonspeech(8000, random).tobytes() for _ in range(30)}
    assert len(drawn) == 30

    def flatness(kind: str) -> float:
        sound = make_nonspeech(32_000, np.random.default_rng(3), kind)
        spectrum = np.abs(np.fft.rfft(sound)) ** 2 + 1e-12
        return float(np.exp(np.log(spectrum).mean()) / spectrum.mean())

    assert flatness("tones") < flatness("noise")
    assert flatness("hum") < flatness("noise")
    quiet = make_nonspeech(32_000, np.random.default_rng(3), "silence")
    assert np.median(np.abs(quiet)) < 1e-3
