"""Conditions under which a model hears a clip, by name: "white:10", "reverb:0.5", "mp3:32".

S samples at 16 kHz.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform, load_audio
from emotion2vec.coding import through_amr, through_codec
from emotion2vec.degradations import (
    add_noise,
    change_gain,
    clip_share,
    decaying_response,
    low_pass,
    pink_noise,
    power,
    resample_through,
    reverberate,
    shorten,
    speech_noise,
    white_noise,
)
from emotion2vec.manifest import Record, find_recordings

Change = Callable[[Waveform, Any, np.random.Generator], Waveform]
"""(clip (S,), level, what its randomness comes from) -> clip"""


_DEFINITIONS = 2
"""To be counted up when a condition is made to sound different under the same name."""


@dataclass(frozen=True)
class Family:
    """One kind of change, at any level."""

    change: Change
    title: str
    unit: str = ""
    """of the level; empty where there is none"""
    low: float = 0.0
    """smallest level"""
    high: float = 0.0
    """greatest level"""
    source: str = ""
    """which recordings of the user it draws from: changes with their names and sizes"""


def _with_noise(make: Callable[[int, np.random.Generator], NDArray[Any]]) -> Change:
    return lambda clip, snr, random: add_noise(clip, make(len(clip), random), snr)


def _with_codec(name: str) -> Change:
    return lambda clip, level, _: through_codec(clip, name, level)


_SNR = ("dB SNR", -30.0, 60.0)

CONDITIONS = {
    "clean": Family(lambda clip, *_: clip, "the recording as it is"),
    "white": Family(_with_noise(white_noise), "white noise", *_SNR),
    "pink": Family(_with_noise(pink_noise), "pink noise", *_SNR),
    "speech": Family(_with_noise(speech_noise), "steady noise with the spectrum of speech", *_SNR),
    "reverb": Family(
        lambda clip, rt60, random: reverberate(clip, decaying_response(rt60, random)),
        "reverberation, made",
        *("s RT60", 0.05, 10.0),
    ),
    "mulaw": Family(_with_codec("mulaw"), "telephone, G.711 mu-law"),
    "alaw": Family(_with_codec("alaw"), "telephone, G.711 A-law"),
    "gsm": Family(_with_codec("gsm"), "mobile telephone, GSM full rate"),
    "amr": Family(
        lambda clip, kbps, _: through_amr(clip, kbps),
        "mobile telephone, AMR",
        *("kb/s", 4.75, 12.2),
    ),
    "mp3": Family(_with_codec("mp3"), "MP3", "kb/s", 16, 160),
    "opus": Family(_with_codec("opus"), "Opus", "kb/s", 6, 256),
    "vorbis": Family(_with_codec("vorbis"), "Vorbis", "quality", 0, 10),
    "clip": Family(
        lambda clip, percent, _: clip_share(clip, percent), "clipping", "% of speech", 0, 100
    ),
    "lowpass": Family(lambda clip, hertz, _: low_pass(clip, hertz), "low-pass", "Hz", 100, 7600),
    "resample": Family(
        lambda clip, rate, _: resample_through(clip, rate),
        "lower sampling rate",
        *("Hz", 1000, SAMPLE_RATE),
    ),
    "shorten": Family(
        lambda clip, seconds, _: shorten(clip, seconds),
        "the middle only",
        *("s", 0.1, 3600.0),
    ),
    "gain": Family(lambda clip, db, _: change_gain(clip, db), "louder or softer", "dB", -60, 60),
}
"""The families that need nothing but the clip."""

STANDARD = (
    *("white:20", "white:10", "white:0", "pink:20", "pink:10", "pink:0"),
    *("speech:20", "speech:10", "speech:0", "reverb:0.3", "reverb:0.6", "reverb:1.2"),
    *("mulaw", "gsm", "mp3:32", "mp3:16", "opus:16", "opus:8", "clip:1", "clip:10", "clip:30"),
    *("lowpass:4000", "lowpass:2000", "lowpass:1000", "resample:8000"),
    *("shorten:2", "shorten:1", "shorten:0.5", "gain:-20", "gain:20"),
)
"""What is tested where nothing else is asked for; with the user's noise and rooms, those, too."""


def families(
    noise: str | Path | None = None, impulse_responses: str | Path | None = None
) -> dict[str, Family]:
    """`CONDITIONS`, with "noise" and "room" where the user has recordings for them.

    Args:
        noise: folder, list or glob of noise; each clip gets a random part of a random recording
        impulse_responses: likewise of rooms; each clip gets a random one

    Raises:
        FileNotFoundError: if they name nothing
        ValueError: if a list is broken
    """
    found = dict(CONDITIONS)
    if noise is not None:
        records = find_recordings(noise)
        found["noise"] = Family(
            _with_noise(partial(_part_of_one, records)),
            f"recorded noise ({len(records)} recordings)",
            *_SNR,
            source=_digest(records),
        )
    if impulse_responses is not None:
        rooms = find_recordings(impulse_responses)
        found["room"] = Family(
            lambda clip, _, random: reverberate(
                clip, read_response(rooms[int(random.integers(len(rooms)))].path)
            ),
            f"recorded rooms ({len(rooms)} impulse responses)",
            source=_digest(rooms),
        )
    return found


def _digest(records: Sequence[Record]) -> str:
    """Return what changes when recordings come, go or change their length."""
    lines = "\n".join(f"{r.key} {r.start} {r.end} {Path(r.path).stat().st_size}" for r in records)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _part_of_one(records: Sequence[Record], count: int, random: np.random.Generator) -> Waveform:
    """Return a random part (count,) of a random recording; a shorter one goes round and round."""
    for _ in range(20):  # a recording of noise can have silent stretches
        record = records[int(random.integers(len(records)))]
        length = record.num_samples()
        if length <= count:
            part = np.roll(record.load(), random.integers(length))
        else:
            start = record.start + int(random.integers(length - count + 1)) / SAMPLE_RATE
            end = start + count / SAMPLE_RATE
            part = load_audio(record.path, start=start, end=end, check=False)
        if power(part) > 0:
            return np.resize(part, count)  # rounding at other rates can cost a sample
    raise ValueError(
        f"of the noise, 20 random parts of {count / SAMPLE_RATE:.1f} s were silent, the last of "
        f"{record.path}; leave silent recordings out."
    )


@lru_cache(maxsize=64)
def read_response(path: str) -> NDArray[np.float32]:
    """A room's impulse response from its direct path (its greatest sample) on, (R,) at 16 kHz.

    Of several channels the first: microphones averaged would be another room.

    Raises:
        ValueError: if the file cannot be decoded, is silent or not finite
    """
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{path} cannot be decoded as an impulse response ({error}); convert it to wav."
        ) from error
    response = load_audio(samples[:, 0], sampling_rate=rate, check=False)
    if not 0 < power(response) < np.inf:
        raise ValueError(f"the impulse response {path} is silent or not finite; leave it out.")
    return response[np.abs(response).argmax() :]


@dataclass(frozen=True)
class Condition:
    """A family at a level."""

    name: str
    """such as "white:10" """
    family: str
    level: float | None
    unit: str
    change: Change
    source: str = ""

    def apply(self, samples: Waveform, key: str, *, seed: int = 0) -> Waveform:
        """The clip under the condition; what is random follows from seed, family and key alone.

        So every backbone hears the same, and a clip the same noise at every level.

        Args:
            samples: the clip, (S,)
            key: its name
            seed: of all that is random
        """
        return self.change(samples, self.level, keyed_generator(seed, self.family, key))

    def identity(self, seed: int) -> str:
        """A text that differs wherever clips sound different, to keep what is made of them by."""
        drawn = f" of {self.source}" if self.source else ""
        return f"{self.name} seed {seed}{drawn} definitions {_DEFINITIONS}"


def keyed_generator(*key: object) -> np.random.Generator:
    """The randomness of a key, of a seed, a family and a clip, say: it depends on nothing else.

    >>> int(keyed_generator(0, "white", "a").integers(1000))
    752
    """
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def parse_conditions(
    names: Sequence[str], known: Mapping[str, Family] = CONDITIONS
) -> list[Condition]:
    """The conditions called so, each once, in their order.

    Args:
        names: such as "white:10" or "mulaw"; "standard" for `STANDARD`, and what `known` has of the
            user's: noise at 20, 10 and 0 dB, rooms
        known: what `families` gave

    Raises:
        ValueError: if a family is not known, or a level missing, out of its range or unasked for

    >>> [(c.family, c.level, c.unit) for c in parse_conditions(["white:10", "mulaw"])]
    [('white', 10.0, 'dB SNR'), ('mulaw', None, '')]
    """
    users = (*(f"noise:{snr}" for snr in (20, 10, 0) if "noise" in known), *{"room"} & set(known))
    wanted = [n for name in names for n in ((*STANDARD, *users) if name == "standard" else [name])]
    found = [parse_condition(name, known) for name in wanted]
    return list({condition.name: condition for condition in found}.values())


def parse_condition(name: str, known: Mapping[str, Family] = CONDITIONS) -> Condition:
    """The condition called `name`; arguments and errors as in `parse_conditions`."""
    kind, colon, text = name.partition(":")
    if kind not in known:
        needs = {"noise": "--noise", "room": "--impulse-responses"}.get(kind)
        cure = f"it needs {needs} FOLDER" if needs else f"choose of {', '.join(known)}"
        raise ValueError(f"there is no condition {name!r}; {cure}.")
    family = known[kind]
    if not family.unit:
        if colon:
            raise ValueError(f"the condition {name!r} has a level; {kind} has none, write {kind}.")
        return Condition(kind, kind, None, "", family.change, family.source)
    try:
        level = float(text)
    except ValueError:
        level = np.nan
    if not family.low <= level <= family.high:
        raise ValueError(
            f"the condition {name!r} has no level that {kind} takes; write {kind}:NUMBER from "
            f"{family.low:g} to {family.high:g} ({family.unit})."
        )
    name = f"{kind}:{level:g}"
    return Condition(name, kind, level, family.unit, family.change, family.source)
