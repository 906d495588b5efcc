"""Whatever sound comes as, as something to read: paths, records, bytes, open files, arrays.

S samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from io import TextIOBase
from pathlib import Path
from typing import Any

import numpy as np

from emotion2vec.audio import Waveform, load_audio
from emotion2vec.batching import Loadable
from emotion2vec.manifest import Record


class _InMemory:
    """Sound that is no file: bytes, a file object, an array; read once."""

    def __init__(self, source: Any, sampling_rate: Any) -> None:
        self._source, self._sampling_rate = source, sampling_rate

    def num_samples(self) -> int:
        return len(self._waveform)

    def load(self) -> Waveform:
        return self._waveform

    @cached_property
    def _waveform(self) -> Waveform:
        source, rate = self._source, self._sampling_rate
        if hasattr(source, "is_floating_point"):  # a tensor, of which torch need not be here
            source = source.detach().cpu()
            source = (source.float() if source.is_floating_point() else source).numpy()
        binary = hasattr(source, "read") and not isinstance(source, TextIOBase)
        if not binary and not isinstance(source, bytes | np.ndarray):
            raise ValueError(
                f"an input is {type(source).__name__}; give a path, bytes, an open binary file, an "
                "array with its sampling rate, or a list of these."
            )
        if isinstance(rate, str):
            raise ValueError(f"a sampling rate is {rate!r}; give a number in Hz.")
        return load_audio(source, sampling_rate=rate)


def loadable(source: Any, sampling_rate: Any) -> Loadable:
    """Something to read for any kind of input; what is wrong with it shows on reading.

    Args:
        source: path, `Record`, bytes, open binary file, array (samples,) or (samples, channels),
            pair of array and sampling rate, mapping with "array" and "sampling_rate"
        sampling_rate: of an array that comes alone, in Hz

    >>> loadable((np.ones(8000) * np.arange(8000), 8000), None).num_samples()
    16000
    """
    if isinstance(source, Record):
        return source
    if isinstance(source, str | Path):
        return Record(key=str(source), path=str(source))
    if isinstance(source, Mapping):
        return _InMemory(source.get("array"), source.get("sampling_rate"))
    if isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str | Path):
        return _InMemory(*source)
    return _InMemory(source, sampling_rate)
