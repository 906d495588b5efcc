"""Sound through a codec and back: telephones, radio links, compressed files. S samples."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from emotion2vec.audio import SAMPLE_RATE, Waveform, load_audio
from emotion2vec.degradations import active_speech, fit_length, power
from emotion2vec.resampling import RESAMPLING

SPEECH_DBOV = -26.0
"""Power of active speech that a codec is given, in dB of full scale: corpora differ by 50 dB, and
what is very soft is silence to a codec. Source: ITU-T P.830, nominal input level."""

_MP3_DELAY = 576 + 529
"""Samples that LAME's encoder and any decoder put before the sound. Where frames are too small for
LAME's tag, which says so (16 kHz: under 64 kb/s), the decoder leaves them there."""

_AMR_DELAY = 40
"""At 8 kHz: the 5 ms by which the encoder looks ahead."""


class Codec(NamedTuple):
    """How libsndfile writes it."""

    sampling_rate: int
    format: str
    subtype: str
    compression: Callable[[float], float] | None = None
    """from a level to libsndfile's 0 (best) to 1 (smallest); None where there is one level only"""


CODECS = {
    "mulaw": Codec(8000, "WAV", "ULAW"),  # ITU-T G.711, telephones in America and Japan
    "alaw": Codec(8000, "WAV", "ALAW"),  # ITU-T G.711, telephones elsewhere
    "gsm": Codec(8000, "WAV", "GSM610"),  # GSM full rate, 13 kb/s
    # libsndfile's own scales: 160 to 8 and 256 to 6 kb/s for one channel at 16 kHz.
    "mp3": Codec(SAMPLE_RATE, "MP3", "MPEG_LAYER_III", lambda kbps: (160 - kbps) / 152),
    "opus": Codec(SAMPLE_RATE, "OGG", "OPUS", lambda kbps: (256 - kbps) / 250),
    "vorbis": Codec(SAMPLE_RATE, "OGG", "VORBIS", lambda quality: 1 - quality / 10),
}


def through_codec(samples: Waveform, name: str, level: float | None = None) -> Waveform:
    """The clip encoded and decoded in memory, (S,), without the codec's delay, at its own level.

    The codec is given it at `SPEECH_DBOV`, cut at full scale.

    Args:
        samples: the clip
        name: of `CODECS`
        level: kb/s of mp3 and opus, quality from 0 to 10 of vorbis; None for the others

    Raises:
        ValueError: if this machine's libsndfile cannot write it
    """
    import soundfile
    import soxr

    codec = CODECS[name]
    if not soundfile.check_format(codec.format, codec.subtype):
        raise ValueError(
            f"this machine's libsndfile {soundfile.__libsndfile_version__} cannot write {name}; "
            "leave the condition out, or install the soundfile wheel from PyPI."
        )
    options: dict[str, Any] = {}
    if codec.compression is not None and level is not None:
        options["compression_level"] = codec.compression(level)
    if codec.format == "MP3":
        options["bitrate_mode"] = "CONSTANT"
    rate, scale = codec.sampling_rate, _nominal(samples)
    sent = soxr.resample(scale * samples, SAMPLE_RATE, rate, quality=RESAMPLING).clip(-1, 1)
    file = io.BytesIO()
    soundfile.write(file, sent, rate, format=codec.format, subtype=codec.subtype, **options)
    file.seek(0)
    received, _ = soundfile.read(file, dtype="float32")
    if codec.format == "MP3" and len(received) > len(sent):
        received = received[_MP3_DELAY:]
    back = soxr.resample(received, rate, SAMPLE_RATE, quality=RESAMPLING)
    return fit_length(back, len(samples)) / scale


def _nominal(samples: Waveform) -> np.float32:
    """Return the factor that brings active speech to `SPEECH_DBOV`; 1 for silence."""
    strength = power(active_speech(samples))
    return np.float32(math.sqrt(10 ** (SPEECH_DBOV / 10) / strength) if strength else 1)


def through_amr(samples: Waveform, kbps: float) -> Waveform:
    """The clip through AMR narrow band, what mobile telephones use, (S,); as `through_codec`.

    Args:
        samples: the clip
        kbps: 4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2 or 12.2

    Raises:
        ValueError: if PyAV (the extra `media`) is missing or cannot write AMR
    """
    import soxr

    try:
        import av

        av.Codec("libopencore_amrnb", "w")
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"amr cannot be written here ({error}); pip install 'emotion2vec[media]', or leave the "
            "condition out."
        ) from error
    scale = _nominal(samples)
    sent = soxr.resample(scale * samples, SAMPLE_RATE, 8000, quality=RESAMPLING).clip(-1, 1)
    whole = np.round(sent * 32767).astype(np.int16)[None]
    file = io.BytesIO()
    with av.open(file, "w", format="amr") as container:
        stream = container.add_stream("libopencore_amrnb", rate=8000, layout="mono")
        stream.bit_rate = round(kbps * 1000)
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.sample_rate = 8000
        for part in (frame, None):
            container.mux(stream.encode(part))
    delay = _AMR_DELAY * SAMPLE_RATE // 8000
    return fit_length(load_audio(file.getvalue(), check=False)[delay:], len(samples)) / scale
